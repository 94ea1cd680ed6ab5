from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lesionkit.volume import NativeSpace, Volume, resample, resample_to

coordinates = hnp.arrays(np.float64, st.tuples(st.integers(0, 6), st.just(3)), elements=st.floats(-300, 300))


@st.composite
def affines(draw: st.DrawFn) -> np.ndarray:
    """Oblique, anisotropic, left- and right-handed."""
    angles = draw(hnp.arrays(np.float64, 3, elements=st.floats(-np.pi, np.pi)))
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [other for other in range(3) if other != axis]
        step = np.eye(3)
        step[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turn = turn @ step
    spacing = draw(hnp.arrays(np.float64, 3, elements=st.floats(0.3, 6)))
    signs = draw(hnp.arrays(np.float64, 3, elements=st.sampled_from([-1.0, 1.0])))
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing * signs
    affine[:3, 3] = draw(hnp.arrays(np.float64, 3, elements=st.floats(-200, 200)))
    return affine


@given(affine=affines(), points=coordinates)
def test_voxel_to_mm_and_back_is_the_identity(affine: np.ndarray, points: np.ndarray) -> None:
    volume = Volume(np.zeros((2, 3, 4)), affine)
    np.testing.assert_allclose(volume.to_voxel(volume.to_mm(points)), points, atol=1e-7)


@given(affine=affines())
def test_spacing_is_the_distance_between_neighbours(affine: np.ndarray) -> None:
    volume = Volume(np.zeros((2, 2, 2)), affine)
    corner, *neighbours = volume.to_mm([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(volume.spacing, [np.linalg.norm(place - corner) for place in neighbours])
    assert volume.voxel_mm3 == pytest.approx(np.prod(volume.spacing))


def test_known_point_in_mm() -> None:
    affine = np.array([[2.0, 0, 0, -10], [0, 0, 3, 5], [0, -1, 0, 7], [0, 0, 0, 1]])
    volume = Volume(np.zeros((4, 4, 4)), affine)
    np.testing.assert_allclose(volume.to_mm([[1, 2, 3], [0, 0, 0.5]]), [[-8, 14, 5], [-10, 6.5, 7]])


def test_no_points_stay_no_points() -> None:
    volume = Volume(np.zeros((4, 4, 4)), np.eye(4))
    assert volume.to_mm([]).shape == (0, 3)
    assert volume.to_voxel(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("points", [[1.0, 2.0, 3.0], [[1.0, 2.0]], np.zeros((2, 3, 1))])
def test_points_of_another_shape_are_refused(points: object) -> None:
    with pytest.raises(ValueError, match=r"points has shape .*; \(n, 3\) is wanted"):
        Volume(np.zeros((4, 4, 4)), np.eye(4)).to_mm(points)  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize("shape", [(4,), (4, 4), (4, 4, 4, 1), (0, 4, 4)])
def test_data_that_is_no_volume_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a 3-D array"):
        Volume(np.zeros(shape), np.eye(4))


@pytest.mark.parametrize(
    ("affine", "wrong"),
    [
        (np.eye(3), "shape"),
        (np.diag([1, 1, np.nan, 1]), "NaN"),
        (np.diag([1, 1, 1, 2]), "last row"),
        (np.diag([1, 1, 0, 1]), "inverted"),
        (np.array([[1, 2, 0, 0], [1, 2, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "inverted"),
    ],
)
def test_affine_that_is_no_grid_is_refused(affine: np.ndarray, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Volume(np.zeros((2, 2, 2)), affine)


def test_tiny_voxels_are_no_singular_affine() -> None:
    assert Volume(np.zeros((2, 2, 2)), np.diag([1e-4, 1e-4, 1e-4, 1])).voxel_mm3 == pytest.approx(1e-12)


def test_affine_is_a_copy_that_cannot_change() -> None:
    affine = np.eye(4)
    volume = Volume(np.zeros((2, 2, 2)), affine)
    affine[0, 3] = 9
    assert volume.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        volume.affine[0, 3] = 9


def test_with_data_keeps_grid_and_native_space() -> None:
    native = NativeSpace((2, 3, 4), np.diag([-1.0, 1, 1, 1]))
    volume = Volume(np.zeros((2, 3, 4)), np.eye(4), native)
    other = volume.with_data(np.ones((2, 3, 4)))
    assert other.native is native
    assert other.same_grid(volume)
    with pytest.raises(ValueError, match=r"data has shape \(2, 3, 5\)"):
        volume.with_data(np.ones((2, 3, 5)))


def test_same_grid_needs_shape_and_affine() -> None:
    volume = Volume(np.zeros((2, 3, 4)), np.eye(4))
    shifted = np.eye(4)
    shifted[2, 3] = 0.01
    assert volume.same_grid(Volume(np.ones((2, 3, 4)), np.eye(4) + 1e-5 * np.eye(4, k=1)))
    assert not volume.same_grid(Volume(np.ones((2, 3, 4)), shifted))
    assert volume.same_grid(Volume(np.ones((2, 3, 4)), shifted), atol=0.1)
    assert not volume.same_grid(Volume(np.ones((2, 3, 5)), np.eye(4)))


@given(affine=affines(), spacing=st.floats(0.5, 4))
def test_resampling_keeps_the_centre_of_the_field_of_view(affine: np.ndarray, spacing: float) -> None:
    volume = Volume(np.ones((5, 6, 7), np.float32), affine)
    new = resample(volume, spacing)
    assert new.spacing == pytest.approx((spacing,) * 3)
    centres = [grid.to_mm((np.array(grid.shape)[None] - 1) / 2) for grid in (volume, new)]
    np.testing.assert_allclose(*centres, atol=1e-6)
    np.testing.assert_allclose(new.data, 1, atol=1e-5)  # a constant stays one, up to the border


def test_resampling_to_the_same_spacing_changes_nothing(rng: np.random.Generator) -> None:
    volume = Volume(rng.random((5, 6, 7)).astype(np.float32), np.diag([1.0, 2.0, 3.0, 1.0]))
    new = resample(volume, (1, 2, 3))
    assert new.same_grid(volume)
    np.testing.assert_allclose(new.data, volume.data, atol=1e-6)


def test_resampling_moves_a_ramp_exactly() -> None:
    data = np.broadcast_to(np.arange(12.0)[:, None, None], (12, 4, 4)).astype(np.float32)
    new = resample(Volume(data, np.eye(4)), (0.5, 1, 1))
    assert new.shape == (24, 4, 4)
    inside = slice(1, -1)  # the outermost new centres lie beyond the outermost old ones
    np.testing.assert_allclose(new.data[inside, 0, 0], new.to_mm([[i, 0, 0] for i in range(24)])[inside, 0], atol=1e-5)


def test_coarser_grid_averages_instead_of_skipping() -> None:
    data = np.zeros((24, 24, 24), np.float32)
    data[::2] = 1  # finer than the new grid can show
    coarse = resample(Volume(data, np.eye(4)), 3).data[2:-2, 2:-2, 2:-2]
    np.testing.assert_allclose(coarse, 0.5, atol=0.06)


def test_nearest_neighbour_keeps_labels_and_type() -> None:
    mask = np.zeros((6, 6, 6), bool)
    mask[2:4, 2:4, 2:4] = True
    fine = resample(Volume(mask, np.eye(4)), 0.5, order=0)
    assert fine.data.dtype == bool
    assert fine.data.sum() == 8 * mask.sum()
    labels = Volume(np.arange(27, dtype=np.int16).reshape(3, 3, 3), np.eye(4))
    assert set(np.unique(resample(labels, 0.7, order=0).data)) <= set(range(27))


def test_outside_the_field_of_view_is_zero() -> None:
    volume = Volume(np.ones((4, 4, 4), np.float32), np.eye(4))
    affine = np.eye(4)
    affine[0, 3] = 2
    moved = resample_to(volume, (4, 4, 4), affine)
    np.testing.assert_array_equal(moved.data[:2], 1)
    np.testing.assert_array_equal(moved.data[2:], 0)


def test_resample_to_a_permuted_grid_is_a_transpose(rng: np.random.Generator) -> None:
    volume = Volume(rng.random((4, 5, 6)).astype(np.float32), np.eye(4))
    affine = np.eye(4)[:, [2, 0, 1, 3]]
    np.testing.assert_allclose(resample_to(volume, (6, 4, 5), affine).data, volume.data.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize("spacing", [0, -1, np.nan, (1, 1)])
def test_spacing_that_is_no_length_is_refused(spacing: object) -> None:
    with pytest.raises(ValueError, match="positive numbers"):
        resample(Volume(np.zeros((2, 2, 2)), np.eye(4)), spacing)  # type: ignore[arg-type]  # what is refused


def test_order_beyond_the_splines_is_refused() -> None:
    with pytest.raises(ValueError, match="order is 6"):
        resample(Volume(np.zeros((2, 2, 2)), np.eye(4)), 1, order=6)


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 0)])
def test_shape_that_is_no_grid_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="three positive integers"):
        resample_to(Volume(np.zeros((2, 2, 2)), np.eye(4)), shape, np.eye(4))


def test_repr_names_shape_type_and_spacing() -> None:
    text = repr(Volume(np.zeros((2, 3, 4), np.float32), np.diag([1, 1, 2.5, 1])))
    assert text == "Volume(shape=(2, 3, 4), dtype=float32, spacing=1 x 1 x 2.5 mm)"
