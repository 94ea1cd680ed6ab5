"""True points that a person sets, moves and removes, with undo.

Every change gives a new :class:`Annotation`; the old one is part of it, so that undoing is going back to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionkit.labels import as_points

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Annotation:
    """Points, and how they came about."""

    points: Float[np.ndarray, "n ndim"]
    """Float voxel index, one row a lesion; read-only."""
    earlier: Annotation | None = field(default=None, repr=False)
    """What undo goes back to."""
    later: Annotation | None = field(default=None, repr=False)
    """What redo goes on to."""
    known: bool = True
    """Whether these points are the truth; False before anybody has said a word about it."""

    def __post_init__(self) -> None:
        self.points.setflags(write=False)

    @classmethod
    def of(cls, points: Any, ndim: int) -> Annotation:
        """Start with a copy of some points.

        Raises
        ------
        ValueError
            If they are not finite or not of shape (n, ndim).
        """
        return cls(as_points(points, ndim, "truth").copy())

    def __len__(self) -> int:
        return len(self.points)

    def with_points(self, points: Any) -> Annotation:
        """All points anew, as one change."""
        return Annotation(as_points(points, self.points.shape[1], "truth").copy(), earlier=self)

    def add(self, point: Any) -> Annotation:
        """One more point, the last."""
        return Annotation(np.concatenate([self.points, self._point(point)]), earlier=self)

    def move(self, index: int, point: Any, *, amend: bool = False) -> Annotation:
        """One point elsewhere; these if it is there already. `amend`: as part of the last change, as in a drag."""
        points = self.points.copy()
        points[self._row(index)] = self._point(point)[0]
        if np.array_equal(points, self.points):
            return self
        return Annotation(points, earlier=self.earlier if amend and self.earlier is not None else self)

    def remove(self, index: int) -> Annotation:
        """Return all points but one."""
        return Annotation(np.delete(self.points, self._row(index), axis=0), earlier=self)

    def undo(self) -> Annotation:
        """Return the points before the last change; these if there is none."""
        return self if self.earlier is None else replace(self.earlier, later=self)

    def redo(self) -> Annotation:
        """Return the points before the last undo; these if there is none."""
        return self if self.later is None else self.later

    def _row(self, index: int) -> int:
        """Check an index (negative ones count from the end)."""
        row = int(index)
        if not -len(self) <= row < len(self):
            raise IndexError(f"true point {index} does not exist: there are {len(self)}")
        return row

    def _point(self, point: Any) -> Float[np.ndarray, "1 ndim"]:
        return as_points(np.asarray(point, dtype=float).reshape(1, -1), self.points.shape[1], "point")
