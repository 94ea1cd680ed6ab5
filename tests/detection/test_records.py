"""Settings, and what a search leaves behind: steps, replays, tables, ellipsoids."""

from __future__ import annotations

import numpy as np
import pytest
from rendered import crowded

from lesionkit.detection import FitConfig, detect
from lesionkit.detection.records import subtract


def test_replay_shows_every_moment():
    heatmap = crowded()
    found = detect(heatmap)
    assert any(step.refits for step in found.steps)
    for i in range(len(found.steps)):
        moment = found.replay(i)
        expected = subtract(heatmap, moment.mu, moment.alpha, found.sigma)
        np.testing.assert_array_equal(moment.residual, expected)
        part = (slice(3, 20), slice(0, 36), slice(17, 18))
        np.testing.assert_allclose(found.replay(i, region=part).residual, expected[part], atol=1e-12)
        if i + 1 < len(found.steps):  # the next maximum is that of this residual
            step = found.steps[i + 1]
            assert moment.residual[step.voxel] == pytest.approx(step.value, abs=1e-6)
    last = found.replay(-1)
    np.testing.assert_array_equal(last.mu, found.mu)
    np.testing.assert_allclose(last.alpha, found.alpha)
    assert last.found == found.found
    with pytest.raises(IndexError, match="does not exist"):
        found.replay(len(found.steps))


def test_frame_filter_and_ellipsoids():
    affine = np.diag([2.0, 1.0, 0.5, 1.0])
    affine[:3, 3] = (-10.0, 3.0, 1.0)
    found = detect(crowded())
    frame = found.to_frame(affine)
    assert list(frame.columns[:7]) == ["x", "y", "z", "i", "j", "k", "alpha"]
    np.testing.assert_allclose(frame[["x", "y", "z"]], found.mu * [2.0, 1.0, 0.5] + affine[:3, 3])
    np.testing.assert_allclose(frame[["x_se", "y_se", "z_se"]], found.mu_se * [2.0, 1.0, 0.5])
    assert (found.filter(0.5).alpha >= 0.5).all()
    assert len(found.filter(0.5)) == np.count_nonzero(found.alpha >= 0.5)
    axes, directions = found.ellipsoids_mm(affine, level=0.95)
    rebuilt = directions @ (axes[:, :, None] ** 2 / 7.8147 * directions.transpose(0, 2, 1))
    np.testing.assert_allclose(rebuilt, found.covariance_mm(affine), rtol=1e-3, atol=1e-12)
    assert list(detect(np.zeros((5, 6))).to_frame(np.eye(3)).columns[:4]) == ["x", "y", "i", "j"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"sigma": 0}, {"sigma": (1, -1)}, {"sigma": "guess"}, {"sigma": np.nan}, {"window": 4}, {"window": 1},
        {"window": 7.0}, {"min_alpha": 0}, {"max_lesions": 0}, {"mode": "fast"}, {"scale": "max"}, {"patience": -1},
        {"width": "any"}, {"guard": np.inf}, {"link": 0}, {"min_separation": -1}, {"max_group": 0},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FitConfig(**wrong)


def test_sigma_needs_as_many_axes_as_the_map():
    with pytest.raises(ValueError, match="sigma"):
        detect(np.zeros((4, 4)), FitConfig(sigma=(1, 1, 1)))
