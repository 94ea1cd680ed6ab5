"""Random but plausible headers: an image is read where nibabel places it, or refused in one line; nothing else.

python tests/fuzz/headers.py 5000
"""

from __future__ import annotations

import collections
import logging
import sys
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))


def header(rng: np.random.Generator) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Return a header with forms, signs, codes and scalings at random, and data of its shape."""
    made = nib.Nifti1Header()
    shape = tuple(int(n) for n in rng.integers(2, 6, 3))
    made.set_data_shape(shape + ((1,) * int(rng.integers(0, 3)) if rng.random() < 0.3 else ()))
    data = rng.integers(0, 100, shape).astype(np.int16)
    made.set_data_dtype(np.int16)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * rng.uniform(0.4, 7, 3)
    affine[:3, 3] = rng.uniform(-200, 200, 3)
    made.set_qform(affine, int(rng.integers(0, 5)))
    if rng.random() < 0.5:
        affine[:3, 3] += rng.uniform(-5, 5, 3)
    made.set_sform(affine, int(rng.integers(0, 5)))
    if rng.random() < 0.3:
        made["sform_code"] = 0
    if rng.random() < 0.3:
        made["qform_code"] = 0
    if rng.random() < 0.3:
        made["pixdim"][0] = rng.choice([0, 1, -1, 2, np.nan])
    if rng.random() < 0.2:
        made["pixdim"][1 + rng.integers(0, 3)] *= -1
    if rng.random() < 0.1:
        made["pixdim"][1 + rng.integers(0, 3)] = rng.choice([0, np.nan, np.inf])
    if rng.random() < 0.1:
        made["dim"][0] = rng.integers(0, 8)
    if rng.random() < 0.1:
        made["dim"][1 + rng.integers(0, 7)] = rng.integers(-1, 4)
    if rng.random() < 0.3:
        made["scl_slope"], made["scl_inter"] = rng.choice([0, 1, 0.5, 1.00000006, np.nan]), rng.choice([0, -3, np.nan])
    made["xyzt_units"] = rng.choice([0, 2, 2, 10, 10, 3])
    made["vox_offset"] = 352
    made["magic"] = b"n+1"
    return made, data


def displaced(rng: np.random.Generator, path: Path) -> str:
    """Write an image with a random header and read it; return `read`, `refused`, or what is wrong."""
    from lesionkit.io import DataError, read_volume

    made, data = header(rng)
    path.write_bytes(made.binaryblock + bytes(4) + data.tobytes(order="F"))
    try:
        volume = read_volume(path)
    except DataError as error:
        return "refused" if len(str(error).splitlines()) == 1 and str(path) in str(error) else f"two lines: {error}"
    expected = nib.as_closest_canonical(nib.load(path))
    values = expected.get_fdata().reshape(volume.shape)
    if not np.allclose(volume.affine, expected.affine, atol=1e-3):
        return f"elsewhere by {np.abs(volume.affine - expected.affine).max()} with {made}"
    return "read" if np.allclose(volume.data, values, atol=1e-3) else f"other voxels with {made}"


if __name__ == "__main__":
    logging.disable()
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = [displaced(np.random.default_rng(n), Path(scratch) / "x.nii") for n in range(int(sys.argv[1]))]
    counts = collections.Counter(what.partition(" with ")[0] for what in outcomes)
    print(counts.most_common(12))
    sys.exit(bool(set(outcomes) - {"read", "refused"}))
