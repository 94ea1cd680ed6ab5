"""Score a checkpoint on real patients, source by source: `python -m benchmarks.real FOLDER [-c CHECKPOINT]`.

FOLDER holds the patients of `scripts/real_patients.tsv`; the table's `split` says which are scored (`--split`). Lesions
are the connected components of 3 mm3 and more in the experts' masks. A lesion is found by its own detection within
6 mm (10 mm) of its centre; a detection is *inside* within 2 mm of a voxel of a lesion. The threshold is the
checkpoint's unless `--threshold` gives another; F1 at the best one in hindsight stands beside it.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from scipy import ndimage

from lesionkit.calibration import Which, outcomes, reliability
from lesionkit.checkpoints import load_checkpoint
from lesionkit.io import read_volume
from lesionkit.labels import points_from_mask
from lesionkit.metrics import CasePoints, precision_recall, score_points
from lesionkit.pipeline import CaseResult, detect_lesions, write_result
from lesionkit.volume import Volume

PATIENTS = Path(__file__).parents[1] / "scripts" / "real_patients.tsv"
SMALLEST, LARGE = 3.0, 100.0
"""Sizes of lesions in mm3: the smallest that count, and those that a user would not forgive to be missed."""
INSIDE = 2.0
"""Largest distance of a detection from a lesion that it is inside of, mm."""


@dataclass(frozen=True, eq=False)
class Scored:
    """One patient."""

    case: CasePoints
    """Candidates and lesions, mm; sizes in mm3."""
    to_lesion: np.ndarray
    """Distance of each candidate to the nearest voxel of a lesion, mm."""
    hit_by: np.ndarray
    """For each lesion, the highest score of a candidate inside of it; 0 where there is none."""
    seconds: float


def truth_of(mask: Volume) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return labels, centres (mm) and sizes (mm3) of the lesions of a mask."""
    found = points_from_mask(mask.data > 0, min_size=max(round(SMALLEST / mask.voxel_mm3), 1))
    return found.labels, mask.to_mm(found.points), found.sizes * mask.voxel_mm3


def scored(result: CaseResult, mask: Volume, subject: str, seconds: float) -> Scored:
    """Put what was found in a patient beside the truth."""
    labels, centres, sizes = truth_of(mask)
    frame = result.candidates()
    points, score = frame[["x", "y", "z"]].to_numpy(float), frame["alpha"].to_numpy(float)
    far, nearest = ndimage.distance_transform_edt(labels == 0, sampling=mask.spacing, return_indices=True)
    voxels = np.clip(np.rint(mask.to_voxel(points)).astype(int), 0, np.array(mask.shape) - 1)
    place = tuple(voxels.T)
    to_lesion = far[place]
    lesion = labels[tuple(nearest[(slice(None), *place)])]
    hit_by = np.zeros(len(sizes))
    close = (to_lesion <= INSIDE) & (lesion > 0)
    np.maximum.at(hit_by, lesion[close] - 1, score[close])
    unfitted = frame["alpha_window"].to_numpy(float) if "alpha_window" in frame else None
    case = CasePoints(predicted=points, score=score, true=centres, sizes=sizes, subject=subject, unfitted=unfitted)
    return Scored(case, to_lesion, hit_by, seconds)


def calibration_error(cases: list[CasePoints], which: Which) -> str:
    """Expected calibration error of alpha as it comes, for the table."""
    if any(case.unfitted is None for case in cases):
        return "-"
    return f"{reliability(outcomes(cases, which=which)).ece:.2f}"


def row(name: str, patients: list[Scored], threshold: float) -> str:
    """One line of the table."""
    cases = [patient.case for patient in patients]
    at6, at10 = (score_points(cases, threshold, max_distance=gate).pooled for gate in (6.0, 10.0))
    best6, best10 = (np.nanmax(precision_recall(cases, max_distance=gate)["f1"]) for gate in (6.0, 10.0))
    kept = np.concatenate([p.to_lesion[p.case.score >= threshold] for p in patients])
    large = np.concatenate([p.hit_by[p.case.sizes >= LARGE] >= threshold for p in patients])
    small = np.concatenate([p.hit_by[p.case.sizes < LARGE] >= threshold for p in patients])
    errors = [calibration_error(cases, which) for which in ("fitted", "unfitted")]
    fields = [
        name, f"{at6.f1:.2f} ({best6:.2f})", f"{at10.f1:.2f} ({best10:.2f})", f"{at6.precision:.2f}",
        f"{at6.recall:.2f}", f"{np.mean(kept <= INSIDE):.2f}" if len(kept) else "-", f"{large.sum()} of {len(large)}",
        f"{small.sum()} of {len(small)}", *errors, f"{np.mean([p.seconds for p in patients]):.1f}",
    ]  # fmt: skip
    return "| " + " | ".join(fields) + " |"


def main() -> None:
    """Detect, score, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("LESIONKIT_DATA"))
    parser.add_argument("-c", "--checkpoint", default="flair")
    parser.add_argument("--split", default="validation,test", help="splits to score, separated by commas")
    parser.add_argument("--threshold", type=float, help="instead of the checkpoint's")
    parser.add_argument("-o", "--output", type=Path, help="write a report for each patient")
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("name the folder of the real patients, or set LESIONKIT_DATA")
    network = load_checkpoint(arguments.checkpoint)
    threshold = network.card.threshold if arguments.threshold is None else arguments.threshold
    table = pd.read_csv(PATIENTS, sep="\t", dtype=str).drop_duplicates("folder")
    chosen = table[table["split"].isin(arguments.split.split(","))]
    print(
        "| patients | F1 at 6 mm (best) | at 10 mm (best) | precision | recall | inside | > 100 mm3 | others "
        "| ECE | ECE unfitted | s |"
    )
    print("|---" * 11 + "|")
    groups: dict[str, list[Scored]] = {}
    for patient in chosen.itertuples():
        folder = arguments.folder / str(patient.folder)
        image, mask = (read_volume(folder / f"{name}.nii.gz") for name in ("FLAIR", "lesions"))
        began = perf_counter()
        result = detect_lesions(network, [image])
        one = scored(result, mask, str(patient.participant_id), perf_counter() - began)
        groups.setdefault(str(patient.dataset), []).append(one)
        print(row(str(patient.participant_id), [one], threshold), flush=True)
        if arguments.output:
            _, centres, sizes = truth_of(mask)
            truth = pd.DataFrame(centres, columns=list("xyz")).assign(size_vox=sizes)
            write_result(result, arguments.output, str(patient.participant_id), truth=truth)
    for name, patients in groups.items():
        print(row(f"all {name}", patients, threshold))


if __name__ == "__main__":
    main()
