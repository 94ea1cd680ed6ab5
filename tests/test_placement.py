"""Where the points of lesions are placed."""

from __future__ import annotations

import numpy as np
import pytest

from lesionkit import points_from_mask
from lesionkit.placement import jitter, random_voxels


def test_a_random_voxel_lies_in_its_own_lesion_and_every_voxel_has_a_chance():
    mask = np.zeros((12, 12, 12), bool)
    mask[1, 1, 1:4] = mask[6:9, 6, 6] = mask[6, 6:9, 6] = True
    lesions = points_from_mask(mask)
    drawn = np.array([random_voxels(lesions, rng=np.random.default_rng(seed)) for seed in range(200)]).astype(int)
    for number in range(len(lesions.sizes)):
        places = drawn[:, number]
        assert (lesions.labels[tuple(places.T)] == number + 1).all()
        assert len(np.unique(places, axis=0)) == lesions.sizes[number]
    assert random_voxels(points_from_mask(np.zeros((4, 4))), rng=np.random.default_rng(0)).shape == (0, 2)


def test_jitter_has_its_size_in_mm_whatever_the_voxels(rng):
    moved = jitter(np.zeros((4000, 3)), 1.5, (1.0, 0.5, 3.0), rng=rng)
    assert (moved * [1.0, 0.5, 3.0]).std(axis=0) == pytest.approx([1.5] * 3, rel=0.05)
    assert (jitter(np.ones((2, 3)), 0.0, (1, 1, 1), rng=rng) == 1).all()
    with pytest.raises(ValueError, match="sd_mm must be 0 or more"):
        jitter(np.zeros((1, 3)), -1, (1, 1, 1), rng=rng)
