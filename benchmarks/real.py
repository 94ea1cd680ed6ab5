"""Score the shipped `flair` checkpoint on real patients: `python -m benchmarks.real [FOLDER] [-o DIR]`.

FOLDER is that of `lesionkit fetch ljubljana` (default: $LESIONKIT_DATA).
Lesions of 3 voxels (3 mm3) and more count; the gate is 6 mm; the threshold is the checkpoint's, chosen on simulated
validation cases.
Prints a Markdown table, and writes a report for each patient with `-o`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from lesionkit.checkpoints import load_checkpoint
from lesionkit.io import read_volume
from lesionkit.metrics import CasePoints, precision_recall, score_points
from lesionkit.pipeline import detect_lesions, write_result

PATIENTS = ("patient07", "patient19")


def truth_of(folder: Path, patient: str) -> pd.DataFrame:
    """Centres of a patient's lesions of 3 voxels and more: `x y z` (mm, RAS+) and `size_vox`."""
    mask = read_volume(folder / "cross" / patient / "lesions.nii.gz")
    labels = mask.data.astype(int)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0  # the background
    large = np.flatnonzero(sizes >= 3)
    centres = mask.to_mm(np.array(ndimage.center_of_mass(labels > 0, labels, large)))
    return pd.DataFrame(centres, columns=["x", "y", "z"]).assign(size_vox=sizes[large])


def row(name: str, cases: list[CasePoints], threshold: float) -> str:
    """One line of the table."""
    scores = score_points(cases, threshold)
    pooled = scores.pooled
    sizes = [f"{s.n_found}/{s.n_true}" for s in scores.by_size.values()]
    rates = [f"{value:.2f}" for value in (pooled.f1, pooled.precision, pooled.recall)]
    return "| " + " | ".join([name, *rates, *sizes, str(pooled.fp)]) + " |"


def main() -> None:
    """Detect, score, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, default=os.environ.get("LESIONKIT_DATA"))
    parser.add_argument("-c", "--checkpoint", default="flair")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("name the folder of the real patients, or set LESIONKIT_DATA")
    folder = Path(arguments.folder)
    network = load_checkpoint(arguments.checkpoint)
    print("| patient | F1 | precision | recall | small | medium | large | false positives |")
    print("|---|---|---|---|---|---|---|---|")
    cases = []
    for patient in PATIENTS:
        truth = truth_of(folder, patient)
        result = detect_lesions(network, [read_volume(folder / "cross" / patient / "FLAIR.nii.gz")])
        cases.append(result.case_points(truth, subject=patient))
        print(row(patient, cases[-1:], result.threshold), flush=True)
        if arguments.output:
            write_result(result, arguments.output, patient, truth=truth)
    print(row("both", cases, network.card.threshold))
    best = precision_recall(cases)
    print(f"\nThreshold {network.card.threshold:.3f}; the best one in hindsight gives F1 {best['f1'].max():.2f}.")


if __name__ == "__main__":
    main()
