"""What fit-and-subtract resolves: pairs of lesions by separation, the paper's loop and ours.

`python -m benchmarks resolution -o DIR` writes `resolution.html`, `resolution.md` and, where Chromium and kaleido are
there, `resolution.png`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lesionkit.detection import FitConfig, detect
from lesionkit.simulate import Scene, pair

SEPARATIONS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
RATIOS = (1.0, 0.5)
NOISE = 0.02
"""Of the peak of a lesion of mass 1."""


def cramer_rao(scene: Scene, noise: float = NOISE) -> np.ndarray:
    """Smallest standard deviation of each position (root of the summed variances) that any estimator can reach."""
    unit = np.prod(1 / (np.sqrt(2 * np.pi) * np.array(scene.sigma)))
    reach = 5 * np.array(scene.sigma)  # beyond it a voxel knows nothing
    lower = np.maximum(scene.points.min(0) - reach, 0).astype(int)
    size = np.minimum(scene.points.max(0) + reach, scene.heatmap.shape).astype(int) - lower
    voxels = np.indices(size).reshape(len(size), -1).T + lower
    columns = []
    for mu, alpha in zip(scene.points, scene.alpha, strict=True):
        offset = (voxels - mu) / scene.sigma
        value = unit * np.exp(-0.5 * (offset**2).sum(1))
        columns += [value, *(alpha * value * offset.T / np.array(scene.sigma)[:, None])]
    jacobian = np.stack(columns, 1)
    variance = np.diag(np.linalg.inv(jacobian.T @ jacobian)) * (noise * unit) ** 2
    return np.sqrt(variance.reshape(len(scene.points), -1)[:, 1:].sum(1))


def resolution_study(trials: int = 200, *, modes: Sequence[str] = ("joint", "paper")) -> pd.DataFrame:
    """Detect pairs with 2 % noise, in random directions.

    One row for each mode, ratio and separation (in sigma): `resolved`, the share of pairs in which exactly two lesions
    are found, one near each; of these, `error_over_bound`, the position error over the Cramer-Rao bound, and
    `alpha_bias`, the mean relative error of alpha. `n_found` is the mean number of lesions found.
    """
    rows = []
    for ratio in RATIOS:
        for separation in SEPARATIONS:
            rng = np.random.default_rng(int(1000 * separation))
            scenes = [pair(separation, ratio, noise=NOISE, shape=(25, 25, 25), rng=rng) for _ in range(trials)]
            bounds = [cramer_rao(scene) ** 2 for scene in scenes]
            for mode in modes:
                counts, errors, limits, alphas = [], [], [], []
                for scene, bound in zip(scenes, bounds, strict=True):
                    found = detect(scene.heatmap, FitConfig(mode=mode, min_alpha=0.1))
                    counts.append(len(found))
                    distance = np.linalg.norm(found.mu[:, None] - scene.points, axis=2)
                    if len(found) != 2 or set(distance.argmin(0)) != {0, 1} or distance.min(0).max() > separation / 2:
                        continue
                    errors.append(distance.min(0) ** 2)
                    limits.append(bound)
                    alphas.append(found.alpha[distance.argmin(0)] / scene.alpha - 1.0)
                rows.append(
                    {
                        "mode": mode,
                        "ratio": ratio,
                        "separation": separation,
                        "resolved": len(errors) / trials,
                        "error_over_bound": float(np.sqrt(np.mean(errors) / np.mean(limits))) if errors else np.nan,
                        "alpha_bias": float(np.mean(alphas)) if alphas else np.nan,
                        "n_found": float(np.mean(counts)),
                    }
                )
    return pd.DataFrame(rows)


def as_markdown(table: pd.DataFrame) -> str:
    """One line a ratio and separation, both loops side by side."""

    def cells(row: pd.Series) -> str:
        share = f"{100 * row.resolved:.1f} %"
        if not row.resolved:
            return f"{share} | – | – | {row.n_found:.1f}"
        return f"{share} | {row.error_over_bound:.2f} | {100 * row.alpha_bias:+.1f} % | {row.n_found:.1f}"

    lines = [
        "| pair | apart (sigma) | ours: resolved | error / bound | bias of alpha | found "
        "| paper: resolved | error / bound | bias of alpha | found |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (ratio, separation), group in table.groupby(["ratio", "separation"], sort=False):
        joint, paper = (group[group["mode"] == mode].iloc[0] for mode in ("joint", "paper"))
        lines.append(f"| 1 : {ratio:g} | {separation:g} | {cells(joint)} | {cells(paper)} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Run the study and write figure and table."""
    from lesionkit.figures import resolution_figure

    parser = argparse.ArgumentParser(prog="python -m benchmarks resolution", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where the files go")
    parser.add_argument("--trials", type=int, default=200, help="pairs for each separation and ratio")
    options = parser.parse_args(arguments)
    table = resolution_study(options.trials)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "resolution.md").write_text(as_markdown(table), encoding="utf-8")
    figure = resolution_figure(table)
    figure.write_html(options.output / "resolution.html")
    try:
        figure.write_image(options.output / "resolution.png", width=1100, height=420, scale=1.5)
    except (ImportError, RuntimeError, ValueError) as error:  # no kaleido, or no Chromium for it
        print(f"no resolution.png: {str(error).splitlines()[0]}")
