"""Pictures as PNG files, written without an imaging library."""

from __future__ import annotations

import os
import struct
import zlib

import numpy as np
from jaxtyping import UInt8

from lesionkit.io.files import atomic_path


def write_png(path: str | os.PathLike[str], pixels: UInt8[np.ndarray, "rows columns 3"]) -> None:
    """Write an RGB picture, atomically.

    Parameters
    ----------
    path : path
        Ends with `.png`.
    pixels : (rows, columns, 3) array of uint8
        From the top left.

    Raises
    ------
    ValueError
        If `pixels` is no RGB picture.
    DataError
        If the file cannot be written.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"pixels must be a (rows, columns, 3) array of uint8, got {pixels.shape} of {pixels.dtype}")
    rows, columns, _ = pixels.shape
    lines = np.zeros((rows, 1 + 3 * columns), np.uint8)  # each line starts with its filter, none
    lines[:, 1:] = pixels.reshape(rows, -1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
