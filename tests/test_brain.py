"""The same brain in every form that people have it in: one mask, one normalised image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lesionkit.brain import brain_note, find_brain
from lesionkit.io import read_volume
from lesionkit.preprocessing import brain_mask, head_mask, prepare
from lesionkit.samples import sample
from lesionkit.volume import Volume, resample


@pytest.fixture(scope="module")
def stripped():
    """The FLAIR sample on 2 mm voxels, whole numbers, 0 outside."""
    image = read_volume(sample("flair")[1].images[0])
    small = resample(image, 2.0)
    labels, _ = ndimage.label(resample(image.with_data((image.data > 0).astype(np.float32)), 2.0).data > 0.5)
    brain = ndimage.binary_fill_holes(labels == np.bincount(labels.ravel())[1:].argmax() + 1)
    return small.with_data(np.where(brain, np.maximum(np.rint(small.data), 1), 0).astype(np.float32))


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def with_background(image, value):
    return image.with_data(np.where(image.data == 0, np.float32(value), image.data))


CONSTANT = {
    "0": lambda image: image,
    "-1024": lambda image: with_background(image, -1024),
    "1e6 is brighter than the brain": lambda image: with_background(image, 1e6),
    "z-scored over the array": lambda image: image.with_data((image.data - image.data.mean()) / image.data.std()),
    "z-scored in the brain, 0 outside": lambda image: image.with_data(
        np.where(image.data > 0, (image.data - image.data[image.data > 0].mean()) / image.data[image.data > 0].std(), 0)
    ),
    "int16": lambda image: image.with_data(image.data.astype(np.int16)),
}


@pytest.mark.parametrize("form", CONSTANT)
def test_any_constant_background_gives_one_mask_and_one_input(stripped, form):
    (wanted,), mask = prepare([stripped])
    assert (mask == (stripped.data > 0)).all()
    (data,), found = prepare([CONSTANT[form](stripped)])
    assert (found == mask).all()
    np.testing.assert_allclose(data, wanted, atol=1e-3)
    assert (head_mask(CONSTANT[form](stripped)) == mask).all()


@pytest.mark.parametrize("level", [0, -1024, 50])
def test_a_noisy_background_is_none_of_the_brain(stripped, rng, level):
    spread = 0.02 * np.median(stripped.data[stripped.data > 0])
    noisy = stripped.with_data((stripped.data + level + rng.normal(0, spread, stripped.shape)).astype(np.float32))
    assert dice(brain_mask(noisy), stripped.data > 0) > 0.99


@pytest.mark.parametrize("order", [1, 3])
def test_the_ring_of_a_resampling_is_taken_off(stripped, order):
    moved = stripped.with_data(ndimage.shift(stripped.data, 0.5, order=order))
    wanted = ndimage.shift((stripped.data > 0).astype(np.float32), 0.5, order=1) > 0.5
    assert dice(brain_mask(moved), wanted) > 0.97


def test_all_of_a_crop_inside_the_brain_is_brain(stripped):
    middle = np.array(stripped.shape) // 2
    box = tuple(slice(m - 10, m + 10) for m in middle)
    (data,), mask = prepare([Volume(stripped.data[box], stripped.affine)])
    assert mask.all()
    assert (data != 0).mean() > 0.95  # a median is 0


def test_a_crop_through_the_border_keeps_the_mask_that_it_had(stripped):
    box = (slice(5, 40), slice(20, 60), slice(10, 50))
    crop = Volume(stripped.data[box], stripped.affine)
    assert dice(brain_mask(crop), stripped.data[box] > 0) > 0.99


def test_a_crumb_is_no_brain_and_a_hole_is(stripped):
    data = stripped.data.copy()
    data[0, 0, 0] = 7
    middle = tuple(n // 2 for n in data.shape)
    data[middle] = 0
    mask = brain_mask(stripped.with_data(data))
    assert mask[middle]
    assert not mask[0, 0, 0]


def test_a_given_mask_normalises_and_does_not_blank(stripped):
    brain = ndimage.binary_erosion(stripped.data > 0, iterations=3)
    (data,), mask = prepare([stripped], brain)
    assert (mask == brain).all()
    assert np.median(data[brain]) == pytest.approx(0, abs=0.02)
    assert (data[(stripped.data > 0) & ~brain] != 0).mean() > 0.99
    with pytest.raises(ValueError, match=r"mask has shape \(2, 2, 2\)"):
        prepare([stripped], np.ones((2, 2, 2), bool))


def test_what_no_whole_brain_has_is_said(stripped):
    brain, _ = find_brain(stripped)
    assert brain_note(brain, stripped) == f"brain of {brain.sum() * 8 / 1e6:.2f} litres"
    small = ndimage.binary_erosion(brain, iterations=15)
    assert "outside 0.8-2: if it is a whole brain, give its mask" in brain_note(small, stripped)
