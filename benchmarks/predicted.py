"""The paper's loop against the joint refit on heatmaps that a trained network predicts.

`python -m benchmarks.predicted COHORT [-c gad]` predicts a cohort's validation and test cases, detects in both modes,
chooses each mode's threshold on the validation cases, and prints a Markdown table of the test cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from lesionkit.detection import detect
from lesionkit.matching import match_points
from lesionkit.metrics import CasePoints, choose_threshold, score_points

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Predict, detect in both modes, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.predicted", description=__doc__)
    parser.add_argument("cohort", help="a BIDS cohort with points and the splits validation and test")
    parser.add_argument("-c", "--checkpoint", default="gad")
    parser.add_argument("-n", "--cases", type=int, default=40, help="most cases of each split")
    options = parser.parse_args(arguments)

    from lesionkit.checkpoints import load_checkpoint
    from lesionkit.inference import fit_config, predict_array
    from lesionkit.io import read_cohort
    from lesionkit.training import load_case

    network, cohort = load_checkpoint(options.checkpoint), read_cohort(options.cohort)
    found: dict[str, dict[str, list[CasePoints]]] = {}
    for split in ("validation", "test"):
        found[split] = {mode: [] for mode in MODES}
        for entry in cohort.split(split)[: options.cases]:
            case = load_case(entry)
            heatmap = predict_array(network.model, case.image, case.mask, window=network.card.window)
            for mode in MODES:
                config = replace(fit_config(network.card.sigma), mode=mode)
                lesions = detect(heatmap * np.float32(network.card.scale), config)
                world = lesions.mu @ case.affine[:3, :3].T + case.affine[:3, 3]
                found[split][mode].append(
                    CasePoints(
                        predicted=world, score=lesions.alpha, true=case.points_mm, sizes=case.sizes,
                        subject=case.subject, split=split,
                    )
                )  # fmt: skip
    print(table(found["validation"], found["test"]))


if __name__ == "__main__":
    main()
