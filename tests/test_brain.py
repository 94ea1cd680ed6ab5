"""The same brain in every form that people have it in: one mask, one normalised image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from lesionkit.brain import brain_note, find_brain
from lesionkit.cli import main
from lesionkit.io import DataError, read_volume, write_volume
from lesionkit.pipeline import read_brain
from lesionkit.preprocessing import brain_mask, head_mask, prepare
from lesionkit.samples import sample
from lesionkit.volume import Volume, resample, resample_to


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


@pytest.fixture(scope="module")
def head(stripped):
    """A head around the sample's brain: fluid, dark bone, bright scalp, muscle below, air 0; and the brain in it."""
    pad = ((12, 12), (12, 12), (16, 12))
    data = np.pad(stripped.data, pad)
    brain = data > 0
    out = ndimage.distance_transform_edt(~brain, sampling=2.0)
    middle = float(np.median(data[brain]))
    rng = np.random.default_rng(1)
    texture = ndimage.gaussian_filter(rng.normal(0, 1, data.shape), 1.5) * 0.5
    skull = np.select([out <= 3, out <= 9, out <= 16], [0.25, 0.1, 1.1], 0) * middle
    below = (np.arange(data.shape[2]) < 22) & (ndimage.gaussian_filter(brain.astype(float), 10) > 0.08)
    skull = np.where(below & (out > 9), 0.7 * middle, skull)
    skull = np.where(skull > 0, skull * (1 + texture), 0)
    affine = stripped.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [p[0] for p in pad]
    return Volume(np.where(brain, data, skull).astype(np.float32), affine), brain


def noisy_air(image):
    rng = np.random.default_rng(2)
    noise = 0.03 * np.median(image.data[image.data > 0])
    return image.with_data(np.hypot(image.data + rng.normal(0, noise, image.shape), rng.normal(0, noise, image.shape)))


def defaced(image):
    _, j, k = np.ogrid[tuple(slice(n) for n in image.shape)]
    return image.with_data(np.where(j - 80 > 1.5 * (k - 35), 0, image.data).astype(np.float32))


WHOLE = {
    "air 0": lambda image: image,
    "noisy air": noisy_air,
    "air -1024": lambda image: with_background(image, -1024),
    "defaced": defaced,
    "7 mm slices": lambda image: resample(image, (1.8, 1.8, 7.0)),
    "dark white matter": lambda image: image.with_data(np.where(image.data > 0, np.sqrt(image.data), 0)),
}


@pytest.mark.parametrize("form", WHOLE)
def test_the_brain_is_found_in_a_head(head, form):
    image, brain = head
    seen = WHOLE[form](image)
    on_grid = resample_to(image.with_data(brain), seen.shape, seen.affine, order=0).data
    (data,), mask = prepare([seen])
    assert dice(mask, on_grid) > 0.75  # the head as it is: 0.67
    assert (data[ndimage.binary_erosion(mask)] != 0).mean() > 0.98
    heads = head_mask(seen)
    assert (heads | ~mask).all()
    assert heads.sum() > 1.2 * mask.sum()


def written(image, path, mask):
    write_volume(path, image)
    beside = path.with_name(path.name.replace("FLAIR", "desc-brain_mask"))
    write_volume(beside, image.with_data(mask.astype(np.uint8)))
    return beside


def test_a_bids_mask_beside_the_image_is_taken_and_said(stripped, tmp_path):
    path = tmp_path / "sub-01_FLAIR.nii.gz"
    core = ndimage.binary_erosion(stripped.data > 0, iterations=2)
    beside = written(stripped, path, core)
    mask, note = read_brain(path, stripped)
    assert (mask == core).all()
    assert f"(mask {beside})" in note
    beside.unlink()
    mask, note = read_brain(path, stripped)
    assert (mask == (stripped.data > 0)).all()
    assert "found in the image" in note


def test_a_mask_on_another_grid_is_resampled_and_an_empty_one_refused(stripped, tmp_path):
    path, given = tmp_path / "FLAIR.nii.gz", tmp_path / "brain.nii.gz"
    write_volume(given, resample(stripped.with_data((stripped.data > 0).astype(np.uint8)), 3.0, order=0))
    mask, _ = read_brain(path, stripped, given)
    assert dice(mask, stripped.data > 0) > 0.95
    write_volume(given, stripped.with_data(np.zeros(stripped.shape, np.uint8)))
    with pytest.raises(DataError, match=r"brain\.nii\.gz: has no brain in the field of view"):
        read_brain(path, stripped, given)


def test_detections_stay_inside_a_mask_that_is_given(stripped, tmp_path, capsys):
    path, half = tmp_path / "x_FLAIR.nii.gz", tmp_path / "half.nii.gz"
    write_volume(path, stripped)
    left = (stripped.data > 0) & (np.arange(stripped.shape[0]) < stripped.shape[0] // 2)[:, None, None]
    write_volume(half, stripped.with_data(left.astype(np.uint8)))
    assert main(["predict", str(path), "-o", str(tmp_path), "--mask", str(half)]) == 0
    assert "litres, outside 0.8-2" in capsys.readouterr().out.replace("\n", " ")
    heatmap = read_volume(tmp_path / "x_FLAIR_heatmap.nii.gz").data
    assert heatmap[left].sum() > 0
    far = ndimage.distance_transform_edt(~left) > 4  # resampled to the network's grid and, smoothed, back
    assert (heatmap[far] == 0).all()
    assert main(["predict", str(path), str(path), "-o", str(tmp_path), "--mask", str(half)]) == 2
    assert "--mask goes with one case, got 2" in capsys.readouterr().err.replace("\n", " ")
