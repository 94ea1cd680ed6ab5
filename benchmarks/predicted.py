"""The paper's loop against the joint refit on heatmaps that a trained network predicts.

`python -m benchmarks.predicted COHORT [-c gad] [--real FOLDER]` predicts a cohort's validation and test cases, or real
patients in place of the latter, detects in both modes, chooses each mode's threshold on the validation cases, and
prints a Markdown table of the others.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.real import PATIENTS, truth_of
from lesionkit.checkpoints import Checkpoint, load_checkpoint
from lesionkit.detection import detect
from lesionkit.inference import fit_config, predict
from lesionkit.io import Cohort, read_cohort, read_points, read_volume
from lesionkit.matching import match_points
from lesionkit.metrics import CasePoints, choose_threshold, score_points
from lesionkit.volume import Volume

MODES = ("joint", "paper")
GATE = 6.0
"""Largest distance of a hit, mm."""


class Faults(NamedTuple):
    """How the detections of some cases go wrong, and what alpha is worth."""

    split: int
    """Detections within the gate of a lesion that another detection has already found."""
    merged: int
    """Lesions not found, within the gate of a detection that stands for another lesion."""
    brier: float
    """Mean squared difference of alpha (at most 1) and being a hit, over all candidates; 0 is perfect."""


def faults(cases: Iterable[CasePoints], threshold: float) -> Faults:
    """Count splits and merges among the detections, and score alpha over all candidates."""
    split, merged, squares = 0, 0, [np.zeros(0)]
    for case in cases:
        hit = np.zeros(len(case.score), bool)
        hit[match_points(case.predicted, case.true, max_distance=GATE).pairs[:, 0]] = True
        squares.append((np.minimum(case.score, 1.0) - hit) ** 2)
        kept = case.predicted[case.score >= threshold]
        matching = match_points(kept, case.true, max_distance=GATE)
        near = np.linalg.norm(kept[:, None] - case.true, axis=2) <= GATE
        found, used = matching.pairs[:, 1], matching.pairs[:, 0]
        split += int(near[np.setdiff1d(np.arange(len(kept)), used)][:, found].any(1).sum())
        merged += int(near[used][:, np.setdiff1d(np.arange(len(case.true)), found)].any(0).sum())
    return Faults(split, merged, float(np.concatenate(squares).mean()))


def table(validation: dict[str, list[CasePoints]], test: dict[str, list[CasePoints]]) -> str:
    """Markdown: one line a mode."""
    lines = ["| loop | threshold | F1 | precision | recall | split | merged | Brier score of alpha |", "|---" * 8 + "|"]
    for mode in MODES:
        threshold = choose_threshold(validation[mode], max_distance=GATE)
        pooled = score_points(test[mode], threshold, max_distance=GATE).pooled
        wrong = faults(test[mode], threshold)
        rates = " | ".join(f"{value:.3f}" for value in (threshold, pooled.f1, pooled.precision, pooled.recall))
        lines.append(f"| {mode} | {rates} | {wrong.split} | {wrong.merged} | {wrong.brier:.3f} |")
    return "\n".join(lines)


def found_in(heatmap: Volume, sigma: float, truth: CasePoints) -> dict[str, CasePoints]:
    """Detect in both modes; the truth's candidates are replaced."""
    found = {}
    for mode in MODES:
        lesions = detect(heatmap.data, replace(fit_config(sigma), mode=mode))
        found[mode] = replace(truth, predicted=heatmap.to_mm(lesions.mu), score=lesions.alpha)
    return found


def by_mode(cases: Iterable[dict[str, CasePoints]]) -> dict[str, list[CasePoints]]:
    """One list of cases a mode."""
    cases = list(cases)
    return {mode: [case[mode] for case in cases] for mode in MODES}


def cohort_cases(cohort: Cohort, split: str, network: Checkpoint, most: int) -> Iterator[dict[str, CasePoints]]:
    """Predict and detect in the cases of a split."""
    for entry in cohort.split(split)[:most]:
        heatmap = predict(network, [read_volume(path) for path in entry.images])
        table = read_points(entry.points)
        sizes = table["size_vox"].to_numpy(float) if "size_vox" in table else np.full(len(table), np.nan)
        truth = CasePoints(
            predicted=np.zeros((0, 3)), score=np.zeros(0), true=table[["x", "y", "z"]].to_numpy(float), sizes=sizes,
            subject=entry.subject, split=split,
        )  # fmt: skip
        yield found_in(heatmap, network.card.sigma, truth)


def real_cases(folder: Path, network: Checkpoint) -> Iterator[dict[str, CasePoints]]:
    """Predict and detect in the real patients."""
    table = pd.read_csv(PATIENTS, sep="\t", dtype=str)
    for patient in table[table["split"] == "test"]["folder"]:
        heatmap = predict(network, [read_volume(folder / patient / "FLAIR.nii.gz")])
        _, centres, sizes = truth_of(read_volume(folder / patient / "lesions.nii.gz"))
        truth = CasePoints(
            predicted=np.zeros((0, 3)), score=np.zeros(0), true=centres, sizes=sizes, subject=patient
        )  # fmt: skip
        yield found_in(heatmap, network.card.sigma, truth)


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict, detect in both modes, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predicted", description=__doc__)
    parser.add_argument("cohort", type=Path, help="a BIDS cohort with points and the splits validation and test")
    parser.add_argument("-c", "--checkpoint", default="gad")
    parser.add_argument("-n", "--cases", type=int, default=40, help="most cases of each split")
    parser.add_argument("--real", type=Path, help="folder of the real patients, as for `python -m benchmarks.real`")
    options = parser.parse_args(arguments)
    network, cohort = load_checkpoint(options.checkpoint), read_cohort(options.cohort)
    validation = by_mode(cohort_cases(cohort, "validation", network, options.cases))
    if options.real:
        test = by_mode(real_cases(options.real, network))
    else:
        test = by_mode(cohort_cases(cohort, "test", network, options.cases))
    print(table(validation, test))


if __name__ == "__main__":
    main()
