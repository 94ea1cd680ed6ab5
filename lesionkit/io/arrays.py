"""Arrays that stay on disk, of which parts are read: what a cohort larger than the memory is trained from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from lesionkit.io.files import atomic_path, reading


class ArrayFile:
    """An array in a file of its own; indexing reads the part asked for, and nothing stays in memory.

    Parameters
    ----------
    path : path
        Is written, atomically: the values alone, as the shape and type stay with this object.
    array : array
        What to keep.

    Raises
    ------
    DataError
        If the file cannot be written, or later not be read.
    """

    def __init__(self, path: str | os.PathLike[str], array: np.ndarray) -> None:
        self.path, self.shape, self.dtype, self.nbytes = Path(path), array.shape, array.dtype, array.nbytes
        with atomic_path(self.path) as temporary:
            array.tofile(temporary)

    def __getitem__(self, part: Any) -> np.ndarray:
        """Return a copy of a part."""
        with reading(self.path):
            return np.array(np.memmap(self.path, self.dtype, mode="r", shape=self.shape)[part])
