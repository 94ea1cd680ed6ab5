"""Bad arrays and settings for the public functions, and what each says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lesionkit as lk

GOOD = lk.gaussian_heatmap([[8.0, 8.0, 8.0]], (16, 16, 16), 1.25)
IMAGE = np.random.default_rng(0).random((8, 8, 8)).astype(np.float32)


@dataclass(frozen=True)
class Case:
    """One call."""

    function: str
    what: str
    call: Callable[[], Any]
    gets: str
    """Part of the message; empty: it is fine."""


def _with(value: float) -> np.ndarray:
    spoilt = GOOD.copy()
    spoilt[3, 4, 5] = value
    return spoilt


CASES = [
    *(
        Case(function, what, call, gets)
        for function, run in (("detect", lk.detect), ("fit_steps", lambda h: list(lk.fit_steps(h))))
        for what, call, gets in (
            ("NaN", lambda run=run: run(_with(np.nan)), "heatmap must be finite, but voxel (3, 4, 5) holds nan"),
            ("inf", lambda run=run: run(_with(np.inf)), "heatmap must be finite, but voxel (3, 4, 5) holds inf"),
            ("empty", lambda run=run: run(np.zeros((0, 4, 4))), ""),
            ("all zeros", lambda run=run: run(np.zeros((8, 8, 8))), ""),
            ("constant", lambda run=run: run(np.ones((8, 8, 8))), ""),
            ("2-D", lambda run=run: run(GOOD[8]), ""),
            (
                "complex",
                lambda run=run: run(GOOD.astype(complex)),
                "heatmap must hold real numbers, got dtype complex128",
            ),
            ("text", lambda run=run: run(np.array([["a", "b"]])), "heatmap must hold real numbers, got dtype <U1"),
            (
                "objects",
                lambda run=run: run(np.array([[None, 1]], dtype=object)),
                "heatmap must hold real numbers, got dtype object",
            ),
            ("big-endian", lambda run=run: run(GOOD.astype(">f8")), ""),
            ("integers", lambda run=run: run((GOOD * 1000).astype(np.int16)), ""),
            ("a read-only array", lambda run=run: run(_frozen(GOOD)), ""),
        )
    ),
    Case("FitConfig", "sigma 0", lambda: lk.FitConfig(sigma=0), "sigma must be positive and finite, in voxels, got 0"),
    Case(
        "FitConfig",
        "sigma NaN",
        lambda: lk.FitConfig(sigma=float("nan")),
        "sigma must be positive and finite, in voxels, got nan",
    ),
    Case(
        "FitConfig",
        "an even window",
        lambda: lk.FitConfig(window=6),
        "window must be odd, so that it has a centre voxel, got 6",
    ),
    Case(
        "FitConfig",
        "sigma of two numbers for a 3-D map",
        lambda: lk.detect(GOOD, lk.FitConfig(sigma=(1, 1))),
        "sigma must be a number or one per axis of the 3-D map, got (1.0, 1.0)",
    ),
    Case(
        "gaussian_heatmap",
        "a NaN coordinate",
        lambda: lk.gaussian_heatmap([[np.nan, 1, 1]], (8, 8, 8)),
        "points must be finite, but row 0 is [nan, 1.0, 1.0]",
    ),
    Case(
        "gaussian_heatmap",
        "points of two coordinates",
        lambda: lk.gaussian_heatmap([[1, 1]], (8, 8, 8)),
        "points must have shape (n, 3), one row a lesion, got (1, 2)",
    ),
    Case(
        "gaussian_heatmap",
        "text as points",
        lambda: lk.gaussian_heatmap([["a", "b", "c"]], (8, 8, 8)),
        "points must have shape (n, 3) and hold numbers, one row a lesion",
    ),
    Case("gaussian_heatmap", "no points", lambda: lk.gaussian_heatmap([], (8, 8, 8)), ""),
    Case("gaussian_heatmap", "a point outside", lambda: lk.gaussian_heatmap([[99, 1, 1]], (8, 8, 8)), ""),
    Case("gaussian_heatmap", "the same point twice", lambda: lk.gaussian_heatmap([[4, 4, 4]] * 2, (8, 8, 8)), ""),
    Case(
        "gaussian_heatmap",
        "a shape with 0",
        lambda: lk.gaussian_heatmap([], (8, 0, 8)),
        "shape must hold positive lengths, got (8, 0, 8)",
    ),
    Case(
        "gaussian_heatmap",
        "negative sigma",
        lambda: lk.gaussian_heatmap([], (8, 8, 8), -1),
        "sigma must be positive and finite (standard deviation in voxels), got -1",
    ),
    Case("points_from_mask", "no lesion", lambda: lk.points_from_mask(np.zeros((4, 4, 4))), ""),
    Case(
        "points_from_mask",
        "4-D",
        lambda: lk.points_from_mask(np.zeros((4, 4, 4, 4))),
        "mask must be 2-D or 3-D, got 4-D of shape (4, 4, 4, 4)",
    ),
    Case("points_from_mask", "NaN", lambda: lk.points_from_mask(np.full((4, 4, 4), np.nan)), "mask must not hold NaN"),
    Case(
        "points_from_mask",
        "text",
        lambda: lk.points_from_mask(np.full((4, 4, 4), "a")),
        "mask must hold real numbers, got dtype <U1",
    ),
    Case("match_points", "no points on either side", lambda: lk.match_points([], [], max_distance=6), ""),
    Case(
        "match_points",
        "a NaN coordinate",
        lambda: lk.match_points([[np.nan, 0, 0]], [[0, 0, 0]], max_distance=6),
        "predicted: got NaN or infinite coordinates, wanted finite ones",
    ),
    Case(
        "match_points",
        "2-D against 3-D",
        lambda: lk.match_points([[0, 0]], [[0, 0, 0]], max_distance=6),
        "predicted and true: got 2 and 3 axes, wanted the same number",
    ),
    Case(
        "match_points",
        "a negative distance",
        lambda: lk.match_points([[0, 0, 0]], [[0, 0, 0]], max_distance=-1),
        "max_distance: got -1, wanted 0 mm or more",
    ),
    Case(
        "Volume",
        "2-D",
        lambda: lk.Volume(np.zeros((4, 4)), np.eye(4)),
        "data has shape (4, 4); a 3-D array (i, j, k) with at least one voxel is wanted",
    ),
    Case(
        "Volume",
        "empty",
        lambda: lk.Volume(np.zeros((0, 4, 4)), np.eye(4)),
        "data has shape (0, 4, 4); a 3-D array (i, j, k) with at least one voxel is wanted",
    ),
    Case(
        "Volume",
        "a 3 x 3 affine",
        lambda: lk.Volume(IMAGE, np.eye(3)),
        "affine has shape (3, 3); a 4 x 4 matrix is wanted",
    ),
    Case(
        "Volume",
        "an affine of zeros",
        lambda: lk.Volume(IMAGE, np.zeros((4, 4))),
        "affine has the last row [0.0, 0.0, 0.0, 0.0]; 0 0 0 1 is wanted",
    ),
    Case(
        "Volume",
        "NaN in the affine",
        lambda: lk.Volume(IMAGE, np.diag([1, np.nan, 1, 1])),
        "affine holds NaN or inf; finite numbers are wanted",
    ),
    Case("Volume", "a mirrored affine", lambda: lk.Volume(IMAGE, np.diag([-1.0, 1, 1, 1])), ""),
    Case(
        "load_checkpoint",
        "a name that is none",
        lambda: lk.load_checkpoint("nothing"),
        "nothing: no such checkpoint; a .safetensors file or one of gad, flair is wanted",
    ),
    Case(
        "detect_lesions",
        "one image of two",
        lambda: lk.detect_lesions(lk.load_checkpoint("gad"), [lk.Volume(IMAGE, np.eye(4))]),
        "checkpoint gad wants 2 image(s): ce-gad_T1w, T1w; got 1",
    ),
    Case("explore", "all zeros", lambda: lk.explore(np.zeros((8, 8, 8))), ""),
    Case(
        "read_volume",
        "complex dtype asked for",
        lambda: lk.read_volume("x.nii", complex),
        "dtype is complex128; a float, integer or bool type is wanted",
    ),
    Case(
        "read_volume",
        "a null byte in the name",
        lambda: lk.read_volume("x\0.nii"),
        "does not exist; a NIfTI image (.nii or .nii.gz) is wanted",
    ),
    Case(
        "write_volume",
        "NaN",
        lambda: lk.write_volume(Path("x.nii"), _volume(np.nan)),
        "volume holds nan at voxel (0, 0, 0); finite float32 values are wanted",
    ),
    Case(
        "write_volume",
        "complex",
        lambda: lk.write_volume("x.nii", lk.Volume(IMAGE * 1j, np.eye(4))),
        "volume has type complex64; real numbers are wanted",
    ),
    Case(
        "write_volume",
        "another ending",
        lambda: lk.write_volume("x.png", lk.Volume(IMAGE, np.eye(4))),
        "x.png: is no name of a NIfTI image; an ending .nii or .nii.gz is wanted",
    ),
]


def _frozen(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.setflags(write=False)
    return copy


def _volume(value: float) -> lk.Volume:
    data = IMAGE.copy()
    data[0, 0, 0] = value
    return lk.Volume(data, np.eye(4))
