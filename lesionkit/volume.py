"""A 3-D image and its place in the world: arrays and affines in, arrays and affines out.

`Volume` joins an array in ``(i, j, k)`` order with the affine that maps voxel indices to millimetres (RAS+). Points are
float voxel indices in the same order; world coordinates always go through the affine. No file is opened here (see
`lesionkit.io`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import ArrayLike

_FWHM_PER_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


@dataclass(frozen=True, eq=False)
class NativeSpace:
    """The grid of the file that a volume came from, before it was turned to RAS+."""

    shape: tuple[int, int, int]
    """Number of voxels along each axis of the file."""
    affine: Float[np.ndarray, "4 4"]
    """File voxel index to mm (RAS+)."""
    note: str = ""
    """What the file leaves open about its place, and what is taken."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checked_shape(self.shape, "shape"))
        object.__setattr__(self, "affine", _checked_affine(self.affine, "affine"))


@dataclass(frozen=True, eq=False)
class Volume:
    """An image on a regular grid.

    Parameters
    ----------
    data : array, shape (i, j, k)
        Voxel values; kept as it is, without a copy.
    affine : array, shape (4, 4)
        Voxel index to mm (RAS+), invertible.
    native : NativeSpace, optional
        The grid of the file that the data came from; `lesionkit.io.write_volume` uses it to write results in the
        input's space.

    Raises
    ------
    ValueError
        If `data` is not 3-D or is empty, or `affine` is not a finite, invertible 4 x 4 matrix with last row 0 0 0 1.

    Examples
    --------
    >>> volume = Volume(np.zeros((4, 5, 6)), np.diag([2.0, 2.0, 3.0, 1.0]))
    >>> volume.spacing
    (2.0, 2.0, 3.0)
    >>> volume.to_mm([[1, 1, 1]])
    array([[2., 2., 3.]])
    """

    data: Shaped[np.ndarray, "i j k"]
    affine: Float[np.ndarray, "4 4"]
    native: NativeSpace | None = None

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if data.ndim != 3 or data.size == 0:
            raise ValueError(f"data has shape {data.shape}; a 3-D array (i, j, k) with at least one voxel is wanted")
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "affine", _checked_affine(self.affine, "affine"))

    def __repr__(self) -> str:
        """Shape, type and spacing: enough to tell two volumes apart in a log."""
        spacing = " x ".join(f"{step:g}" for step in self.spacing)
        return f"Volume(shape={self.shape}, dtype={self.data.dtype}, spacing={spacing} mm)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along each axis."""
        i, j, k = self.data.shape
        return i, j, k

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each axis, in mm."""
        i, j, k = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(i), float(j), float(k)

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel, in mm3."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def to_mm(self, points: ArrayLike) -> Float[np.ndarray, "n 3"]:
        """Voxel indices to world coordinates.

        Parameters
        ----------
        points : array, shape (n, 3)
            Float voxel indices (i, j, k).

        Returns
        -------
        array, shape (n, 3)
            Coordinates x, y, z in mm (RAS+).

        Raises
        ------
        ValueError
            If `points` is not of shape (n, 3).
        """
        index = _checked_points(points, "points")
        world: np.ndarray = index @ self.affine[:3, :3].T + self.affine[:3, 3]
        return world

    def to_voxel(self, points_mm: ArrayLike) -> Float[np.ndarray, "n 3"]:
        """World coordinates to voxel indices; the inverse of `to_mm`.

        Parameters
        ----------
        points_mm : array, shape (n, 3)
            Coordinates x, y, z in mm (RAS+).

        Returns
        -------
        array, shape (n, 3)
            Float voxel indices (i, j, k); outside the grid where the point is.

        Raises
        ------
        ValueError
            If `points_mm` is not of shape (n, 3).
        """
        world = _checked_points(points_mm, "points_mm")
        return np.linalg.solve(self.affine[:3, :3], (world - self.affine[:3, 3]).T).T

    def with_data(self, data: Shaped[np.ndarray, "i j k"]) -> Volume:
        """Return another array on the same grid, with the same native space.

        Parameters
        ----------
        data : array, shape (i, j, k)
            The new voxel values.

        Returns
        -------
        Volume
            `data` on this volume's grid.

        Raises
        ------
        ValueError
            If the shape of `data` is not this volume's.
        """
        data = np.asarray(data)
        if data.shape != self.shape:
            raise ValueError(f"data has shape {data.shape}; the shape of the grid, {self.shape}, is wanted")
        return replace(self, data=data)

    def same_grid(self, other: Volume, atol: float = 0.005) -> bool:
        """Whether both volumes have the same shape and their voxels the same places.

        Parameters
        ----------
        other : Volume
            The volume to compare with.
        atol : float
            Largest distance of any two voxels of the same index, mm.

        Returns
        -------
        bool
            True if a voxel index means the same place in both.
        """
        return self.shape == other.shape and self.distance_mm(other) <= atol

    def distance_mm(self, other: Volume) -> float:
        """Return the largest distance, in mm, between voxels of the same index, over the grid of this volume."""
        corners = np.stack(np.meshgrid(*((0, n - 1) for n in self.shape), (1,)), axis=-1).reshape(-1, 4)
        return float(np.linalg.norm(corners @ (self.affine - other.affine).T, axis=1).max())


def resample(volume: Volume, spacing: float | Sequence[float], order: int = 1) -> Volume:
    """Sample a volume on a grid of another spacing that covers the same field of view.

    Parameters
    ----------
    volume : Volume
        The image; its axes keep their directions.
    spacing : float or 3 floats
        Wanted distance between voxel centres, in mm.
    order : int
        Order of the spline: 0 (nearest, for masks; keeps the type), 1 (linear), up to 5.

    Returns
    -------
    Volume
        The new grid shares the centre of the field of view with the old one; `native` is kept.

    Raises
    ------
    ValueError
        If `spacing` is not one or three positive numbers, or `order` is not in 0..5.

    See Also
    --------
    resample_to : onto a given grid; says how aliasing is avoided.
    """
    new = np.asarray(spacing, dtype=np.float64)
    if new.shape not in ((), (3,)) or not np.all(np.isfinite(new)) or np.any(new <= 0):
        raise ValueError(f"spacing is {spacing!r}; one or three positive numbers (mm) are wanted")
    ratio = np.broadcast_to(new, (3,)) / np.asarray(volume.spacing)
    i, j, k = np.maximum(1, np.round(np.asarray(volume.shape) / ratio)).astype(int).tolist()
    affine = volume.affine.copy()
    affine[:3, :3] *= ratio
    old_centre = (np.asarray(volume.shape) - 1) / 2
    new_centre = (np.array([i, j, k]) - 1) / 2
    affine[:3, 3] = volume.to_mm(old_centre[None])[0] - affine[:3, :3] @ new_centre
    return resample_to(volume, (i, j, k), affine, order)


def resample_to(volume: Volume, shape: Sequence[int], affine: ArrayLike, order: int = 1) -> Volume:
    """Sample a volume on another grid.

    Parameters
    ----------
    volume : Volume
        The image.
    shape : 3 ints
        Shape of the new grid.
    affine : array, shape (4, 4)
        Voxel index of the new grid to mm (RAS+).
    order : int
        Order of the spline: 0 (nearest, for masks; keeps the type), 1 (linear), up to 5.

    Returns
    -------
    Volume
        Float32 (float64 if the data is) unless `order` is 0; zero outside the field of view; `native` is kept.

    Raises
    ------
    ValueError
        If `shape`, `affine` or `order` cannot describe a grid or a spline.

    Notes
    -----
    Where the new voxels are larger, the image is first smoothed by the Gaussian whose full width at half maximum turns
    a voxel of the old size into one of the new size, so that small bright lesions are averaged and not hit or missed.
    Order 0 never smooths.
    """
    from scipy import ndimage  # takes ten times as long to load as the rest of this module

    if order not in range(6):
        raise ValueError(f"order is {order!r}; an integer from 0 to 5 is wanted")
    new_shape = _checked_shape(shape, "shape")
    new_affine = _checked_affine(affine, "affine")
    to_source = np.linalg.solve(volume.affine, new_affine)
    matrix, offset = to_source[:3, :3], to_source[:3, 3]
    data = volume.data
    if order > 0:
        data = data.astype(np.float64 if data.dtype == np.float64 else np.float32, copy=False)
        data = _blur_for(data, step=np.sqrt((matrix**2).sum(axis=1)))
    diagonal = np.diag(matrix)
    # A 1-D matrix makes SciPy sample axis by axis, which is several times faster.
    aligned = np.allclose(matrix, np.diag(diagonal), rtol=0.0, atol=1e-9)
    sampled = np.empty(new_shape, dtype=data.dtype)
    spline = cast(Any, order)  # checked above; the stubs want a literal
    ndimage.affine_transform(
        data, diagonal if aligned else matrix, offset, new_shape, output=sampled, order=spline, mode="nearest"
    )
    sampled[_outside(new_shape, matrix, offset, volume.shape)] = 0
    return Volume(sampled, new_affine, volume.native)


def _blur_for(data: Float[np.ndarray, "i j k"], step: Float[np.ndarray, "3"]) -> Float[np.ndarray, "i j k"]:
    """Smooth along the axes where the new grid steps over more than one voxel at a time."""
    from scipy import ndimage

    sigma = np.sqrt(np.maximum(step**2 - 1.0, 0.0)) / _FWHM_PER_SIGMA
    if np.all(sigma < 0.05):
        return data
    smooth: np.ndarray = ndimage.gaussian_filter(data, np.where(sigma < 0.05, 0.0, sigma), mode="nearest")
    return smooth


def _outside(
    shape: tuple[int, int, int],
    matrix: Float[np.ndarray, "3 3"],
    offset: Float[np.ndarray, "3"],
    source_shape: tuple[int, int, int],
) -> Shaped[np.ndarray, "i j k"]:
    """Mark new voxels centred outside the old field of view, which ends half a voxel beyond the outermost centres."""
    grid = np.ogrid[: shape[0], : shape[1], : shape[2]]
    outside = np.zeros(shape, dtype=bool)
    for row, shift, size in zip(matrix, offset, source_shape, strict=True):
        index = sum((weight * axis for weight, axis in zip(row, grid, strict=True)), start=np.float64(shift))
        outside |= (index < -0.5 - 1e-6) | (index > size - 0.5 + 1e-6)
    return outside


def _checked_affine(affine: ArrayLike, name: str) -> Float[np.ndarray, "4 4"]:
    """Return a read-only float64 copy of an affine that can be inverted."""
    matrix = np.array(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise ValueError(f"{name} has shape {matrix.shape}; a 4 x 4 matrix is wanted")
    if not np.all(np.isfinite(matrix)):
        raise ValueError(f"{name} holds NaN or inf; finite numbers are wanted")
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise ValueError(f"{name} has the last row {matrix[3].tolist()}; 0 0 0 1 is wanted")
    lengths = np.sqrt((matrix[:3, :3] ** 2).sum(axis=0))
    # The determinant of the unit axes does not depend on the spacing: 0 means that two axes point the same way.
    if np.any(lengths < 1e-9) or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-6:
        raise ValueError(f"{name} cannot be inverted; three independent axes are wanted")
    matrix.setflags(write=False)
    return matrix


def _checked_shape(shape: Sequence[int], name: str) -> tuple[int, int, int]:
    """Return a shape as three positive integers."""
    sizes = tuple(int(size) for size in shape)
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(f"{name} is {tuple(shape)}; three positive integers are wanted")
    return sizes[0], sizes[1], sizes[2]


def _checked_points(points: ArrayLike, name: str) -> Float[np.ndarray, "n 3"]:
    """Return points as a float64 array of shape (n, 3); an empty list is no point."""
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        return np.zeros((0, 3))
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(f"{name} has shape {array.shape}; (n, 3) is wanted")
    return array
