"""Scenes with known peaks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionkit import FitConfig, detect
from lesionkit.simulate import crowded_field, gallery, pair


@given(st.floats(0, 5), st.floats(0.2, 1), st.integers(0, 2**32 - 1))
def test_a_pair_is_as_far_apart_as_asked(separation, ratio, seed):
    scene = pair(separation, ratio, sigma=1.2, rng=np.random.default_rng(seed))
    assert np.linalg.norm(scene.points[0] - scene.points[1]) == pytest.approx(1.2 * separation)
    assert scene.heatmap.sum() == pytest.approx(1 + ratio, rel=1e-4)
    assert scene.alpha.tolist() == [1.0, ratio]


def test_a_crowd_keeps_its_distance_and_is_found(rng):
    scene = crowded_field(30, (40, 60, 60), sigma=1.3, closest=2.0, rng=rng)
    gaps = np.linalg.norm(scene.points[:, None] - scene.points, axis=2) + 1e9 * np.eye(30)
    assert gaps.min() >= 2 * 1.3 - 1e-9
    assert np.median(gaps.min(axis=1)) < 6 * 1.3
    found = detect(scene.heatmap, FitConfig(sigma=1.3))
    nearest = np.linalg.norm(found.mu[:, None] - scene.points, axis=2).min(axis=0)
    assert (nearest < 0.5).mean() > 0.9


def test_no_room_is_said(rng):
    with pytest.raises(ValueError, match=r"only .* peaks"):
        crowded_field(50, (6, 6), closest=3.0, rng=rng)


def test_the_gallery_is_the_same_every_time():
    one, two = gallery(), gallery()
    assert list(one) == list(two)
    assert all((one[name].heatmap == two[name].heatmap).all() for name in one)
    assert {"pair_1.5_1", "triple", "beside_giant", "border", "plateau", "hot_voxel"} <= set(one)
    assert all(len(scene.points) == len(scene.alpha) for scene in one.values())


def test_wrong_arguments_are_named(rng):
    with pytest.raises(ValueError, match="separation"):
        pair(-1, rng=rng)
    with pytest.raises(ValueError, match="sigma"):
        pair(1, sigma=0, rng=rng)
