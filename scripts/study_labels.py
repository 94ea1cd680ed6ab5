"""The paper's table 1 and its future work on one simulated cohort: label x sigma x decoder, and careless clicks.

    lesionkit simulate --kind gad --n 200 --seed 0 -o cohort
    python scripts/study_labels.py cohort study [--seeds 0 1 2] [--steps N] [--only heatmap]

Each training has a folder of its own and each result a file, so that the study goes on where it was stopped: start it
again with the same arguments. It writes `study.tsv` (a row for each training and decoder) and prints both tables as
mean and standard deviation over the seeds.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lesionkit.checkpoints import load_checkpoint
from lesionkit.evaluation import METHODS, evaluate_cohort
from lesionkit.io import Cohort, atomic_path, read_cohort
from lesionkit.metrics import score_points
from lesionkit.training import TrainConfig, train

SIGMAS = (1.0, 1.25, 1.5)
"""Of the paper's heatmaps, voxels."""
JITTERS_MM = (0.0, 1.0, 2.0, 3.0)
"""Standard deviations of the clicks' errors."""
MEASURES = ("f1", "precision", "recall", "small")


def variants(config: TrainConfig) -> dict[str, TrainConfig]:
    """Return the trainings of the study by name; a jitter of 0 is the heatmap of sigma 1.25 itself."""
    found = {f"heatmap_{sigma:g}": replace(config, sigma=sigma) for sigma in SIGMAS}
    for label in ("euclidean", "geodesic", "segmentation"):
        found[label] = replace(config, label=label)
    for jitter in JITTERS_MM[1:]:
        found[f"jitter_{jitter:g}"] = replace(config, sigma=1.25, jitter_mm=jitter)
    return found


def run(name: str, config: TrainConfig, cohort: Cohort, output: Path) -> list[dict[str, Any]]:
    """Train and score one variant, unless that has been done; return a row a decoder."""
    folder = output / f"{name}_seed{config.seed}"
    kept = folder / "scores.json"
    if kept.is_file():
        return list(json.loads(kept.read_text(encoding="utf-8")))
    if not (folder / "model.safetensors").is_file():
        train(cohort, folder, config, resume=True, progress=False)
    network = load_checkpoint(folder / "model.safetensors")
    rows: list[dict[str, Any]] = []
    for method, (cases, threshold) in evaluate_cohort(network, cohort).items():
        if method == "log":
            continue
        table = score_points(cases, threshold, max_distance=config.max_distance_mm)
        pooled, small = table.pooled, table.by_size["small"]
        rates = {"f1": pooled.f1, "precision": pooled.precision, "recall": pooled.recall, "small": small.recall}
        rates = {key: float(np.nan_to_num(value)) for key, value in rates.items()}
        rows.append({"variant": name, "decoder": METHODS[method], "seed": config.seed, "threshold": threshold, **rates})
    with atomic_path(kept) as temporary:
        temporary.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return rows


def tables(rows: pd.DataFrame) -> str:
    """Return the study as two Markdown tables: mean and standard deviation over the seeds, in percent."""
    lines: list[str] = []
    grouped = rows.groupby(["variant", "decoder"], sort=False)[list(MEASURES)]
    mean, spread, count = 100 * grouped.mean(), 100 * grouped.std().fillna(0), grouped.size()
    for title, clicks in (("label", False), ("clicks", True)):
        lines += [
            "",
            f"| {title} | decoder | F1 | precision | recall | small-lesion recall | seeds |",
            "|---" * 7 + "|",
        ]
        for (name, decoder), values in mean.iterrows():
            of_clicks = str(name).startswith("jitter") or name == "heatmap_1.25"
            if (clicks and not of_clicks) or (not clicks and str(name).startswith("jitter")):
                continue
            shown = "jitter_0" if clicks and name == "heatmap_1.25" else name
            cells = [f"{values[m]:.1f} ± {spread.loc[(name, decoder), m]:.1f}" for m in MEASURES]
            text, _, number = str(shown).partition("_")
            unit = " mm" if clicks else ", sigma" * bool(number)
            label = f"{text} {number}{unit}" if clicks else f"{text}{unit} {number}".strip()
            lines.append(f"| {label} | {decoder} | {' | '.join(cells)} | {count.loc[(name, decoder)]} |")
    return "\n".join(lines[1:])


def main() -> None:
    """Run what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path, help="BIDS cohort with points and masks")
    parser.add_argument("output", type=Path, help="folder of the study")
    parser.add_argument("--preset", default="gad", help="recipe of all trainings (default: gad)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="optimiser steps, instead of the preset's")
    parser.add_argument("--only", nargs="+", default=[], help="beginnings of the names of the variants to run")
    parser.add_argument("--tables", action="store_true", help="run nothing; print what is there")
    arguments = parser.parse_args()
    cohort = read_cohort(arguments.cohort)
    config = TrainConfig.preset(arguments.preset)
    if arguments.steps:
        config = replace(config, steps=arguments.steps)
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        for name, variant in variants(replace(config, seed=seed)).items():
            if arguments.only and not name.startswith(tuple(arguments.only)):
                continue
            if arguments.tables and not (arguments.output / f"{name}_seed{seed}" / "scores.json").is_file():
                continue
            rows += run(name, variant, cohort, arguments.output)
            frame = pd.DataFrame(rows)
            with atomic_path(arguments.output / "study.tsv") as temporary:
                frame.to_csv(temporary, sep="\t", index=False, float_format="%.4f")
    print(tables(pd.DataFrame(rows)) if rows else "nothing has been scored yet")


if __name__ == "__main__":
    main()
