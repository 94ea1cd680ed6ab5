"""The paper's tables and figures on a cohort of one's choice, with the paper's own numbers beside.

In: a preset and a folder (and a cohort, else one is simulated). Out: all runs, and `report.html` and `report.md`.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from lesionkit.calibration import (
    Outcomes,
    Reliability,
    SmoothReliability,
    bootstrap,
    brier_score,
    fit_isotonic,
    fit_temperature,
    outcomes,
    reliability,
    smooth_reliability,
)
from lesionkit.conformal import check_risk, control_risk
from lesionkit.experiments import RunSettings, check_runs, grid, read_metrics, read_predictions, run_grid
from lesionkit.figures import (
    count_figure,
    froc_figure,
    rates_figure,
    reliability_figure,
    retention_figure,
    risk_figure,
)
from lesionkit.io import SPLITS, Cohort, DataError, atomic_path
from lesionkit.matching import Gate, distances_mm
from lesionkit.mc_dropout import McConfig
from lesionkit.metrics import SIZE_CLASSES, CasePoints, activity, froc, froc_score, lesion_counts, score_points
from lesionkit.model import ModelConfig
from lesionkit.paper import DETECTION, TRANSFER
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import TrainConfig
from lesionkit.training.decoding import alpha_threshold
from lesionkit.transfer import INSIDE
from lesionkit.uncertainty import RetentionCurve, judged, retention

Preset = Literal["quick", "cpu"]
SIGMAS = (1.0, 1.25, 1.5)
MAIN_SIGMA = 1.25
JITTERS_MM = (1.0, 2.0, 3.0)
FRACTIONS = (0.01, 0.05, 0.1)
GATES: tuple[Gate, Gate] = ("before", "after")
_RATES = ("f1", "precision", "recall")
_SIZES = ("small", "medium", "large")


@dataclass(frozen=True, kw_only=True)
class ReproduceConfig:
    """Settings of a reproduction."""

    simulation: SimulationConfig
    """Of the cohort, where none is given."""
    n: int
    """Patients of that cohort, 60/20/20."""
    cohort_seed: int = 0
    """Of that cohort."""
    settings: RunSettings
    """Of the runs."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A training each (paper: 3)."""
    subsets: tuple[int, ...] = (0, 1, 2)
    """Random shares of the masks (paper: 3)."""
    fractions: tuple[float, ...] = FRACTIONS
    """Shares of the masks; the first is the one that the claims are about."""
    missed: float = 0.25
    """Share of missed lesions that conformal risk control is to keep."""
    false_positives: float = 1.0
    """False positives a patient that it is to keep."""
    splits: int = 1000
    """Splits over which it is checked."""

    def __post_init__(self) -> None:
        """Refuse seeds and shares for which the report has no place."""
        if self.seeds[:1] != (0,):  # detectors of seed 0 are fine-tuned, and sampled for MC dropout
            raise ValueError(f"seeds: got {self.seeds}, wanted 0 and then any others")
        if not self.fractions or not set(self.fractions) <= set(FRACTIONS):
            raise ValueError(f"fractions: got {self.fractions}, wanted some of {FRACTIONS}, as in the paper")

    @classmethod
    def preset(cls, name: Preset) -> ReproduceConfig:
        """Return named settings.

        `quick` fills every table with small networks on 4 mm voxels, in minutes; its numbers mean little. `cpu` takes
        four to six hours on two cores, at 2 mm, with the networks of the `cpu` training preset.
        """
        if name == "quick":
            small = ModelConfig(levels=3, filters=8, max_filters=32, dropout=0.1)
            train = TrainConfig(
                model=small, patch=(24, 24, 24), window=24, batch_size=4, steps=100, validate_every=50,
                learning_rate=5e-3, validation_cases=4, threshold_cases=10, workers=0, max_distance_mm=8.0,
            )  # fmt: skip
            settings = RunSettings(
                train=train, tune=replace(train, steps=40, validate_every=20, learning_rate=3e-3, frozen="encoder"),
                max_distance_mm=8.0, mc=McConfig(samples=10, batch=5),
            )  # fmt: skip
            simulation = SimulationConfig(
                kind="gad", spacing=4.0, max_size=200, lesions=(5.0, 0.5), contrast=(12.0, 30.0), lookalikes=0.4
            )
            return cls(simulation=simulation, n=40, settings=settings, seeds=(0, 1), subsets=(0, 1), splits=300)
        if name == "cpu":
            train = replace(TrainConfig.preset("cpu"), steps=1000, validate_every=1000, validation_cases=8, workers=0)
            # Decoder and head alone, as in the paper's code: with 4 masks Dice on 40 validation patients was 0.68 and
            # 0.56 (two subsets), and 0.64 and 0.52 where everything learned.
            tune = replace(train, steps=300, validate_every=300, frozen="encoder")
            settings = RunSettings(train=train, tune=tune, mc=McConfig(samples=10))
            # The cohort of the shipped `gad` network, whose scores in the README are thus of the same test patients.
            return cls(simulation=SimulationConfig.preset("gad"), n=600, cohort_seed=2, settings=settings)
        raise ValueError(f"preset must be 'quick' or 'cpu', got {name!r}")

    def runs(self) -> pd.DataFrame:
        """Return the table of all runs, in the order in which they tell most: what the claims are about comes first."""
        labels = ["heatmap", "segmentation", "euclidean", "geodesic"]
        others = [s for s in SIGMAS if s != MAIN_SIGMA]
        starts = [f"heatmap_s{MAIN_SIGMA:g}_0", "", *(f"heatmap_s{s:g}_0" for s in others), "euclidean_0", "geodesic_0"]
        detectors = [
            part for seed in self.seeds for part in (grid(label=labels, seed=[seed]), grid(sigma=others, seed=[seed]))
        ]
        clicks = grid(jitter_mm=JITTERS_MM, seed=self.seeds)
        tuned = grid(label=["segmentation"], fraction=self.fractions, start=starts, subset=self.subsets)
        return pd.concat([*detectors, clicks, tuned], ignore_index=True)


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the report."""

    title: str
    table: pd.DataFrame
    """As it is to be printed."""
    lines: tuple[str, ...]
    """What is to be said about it."""
    figures: tuple[go.Figure, ...] = ()


def reproduce(
    folder: str | Path,
    config: ReproduceConfig,
    *,
    cohort: Cohort | None = None,
    n_jobs: int = -1,
    scheduler: str | None = None,
    only_report: bool = False,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Path, Path]:
    """Do all runs that are not yet done, and write the report.

    Parameters
    ----------
    folder : path
        Receives `cohort/` (if one is simulated), `runs/`, `runs.tsv`, `report.html` and `report.md`.
    config : ReproduceConfig
        Sizes of everything.
    cohort : Cohort, optional
        With masks, points and all three splits; None: one is simulated.
    n_jobs, scheduler
        As in :func:`lesionkit.experiments.run_grid`.
    only_report : bool
        Write the report of the runs that are there, such as those of another process so far; do none.
    progress : callable, optional
        Called with what is being done (``"patients"`` that are simulated, then ``"runs"``), how many are done, and of
        how many.

    Returns
    -------
    html, markdown
        Paths of the report.

    Raises
    ------
    DataError
        If a report is wanted before the first detector and the first segmentation are finished, a folder holds runs
        of other settings or of another cohort, or the cohort lacks a split or a mask.
    """
    folder = Path(folder)
    tell = progress or (lambda *_: None)
    runs = folder / "runs"
    if only_report and not runs.is_dir():
        raise DataError(f"{runs}: no such folder; finished runs are wanted for a report, so do some first")
    if cohort is None:
        cohort = simulate_cohort(
            config.simulation, config.n, folder / "cohort", seed=config.cohort_seed, jobs=n_jobs,
            progress=lambda done: tell("patients", done, config.n),
        )  # fmt: skip
    _check_cohort(cohort)
    if only_report:
        check_runs(config.runs(), cohort, runs, config.settings)
        table = read_metrics(config.runs(), runs)
    else:
        table = run_grid(
            config.runs(), cohort, runs, config.settings, n_jobs=n_jobs, scheduler=scheduler,
            progress=lambda done, total: tell("runs", done, total),
        )  # fmt: skip
    with atomic_path(folder / "runs.tsv") as temporary:
        table.to_csv(temporary, sep="\t", index=False, float_format="%.5g")
    sections = report_sections(table, cohort, runs, config)
    about = _about(cohort, config, table)
    paths = folder / "report.html", folder / "report.md"
    for path, text in zip(paths, (_html(about, sections), _markdown(about, sections)), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def _check_cohort(cohort: Cohort) -> None:
    """Refuse a cohort that would fail a run only after others have taken hours."""
    for split in SPLITS:
        cases = cohort.split(split)
        if not cases:
            raise DataError(f"{cohort.folder}: the {split} split has no case; all of {', '.join(SPLITS)} are wanted")
        without = [case.subject for case in cases if case.mask is None]
        if without:
            raise DataError(
                f"{cohort.folder}: {len(without)} case(s) of the {split} split have no lesion mask ({without[0]}...); "
                "a mask for every case is wanted, as networks are compared that learn from masks"
            )


def report_sections(table: pd.DataFrame, cohort: Cohort, runs: Path, config: ReproduceConfig) -> list[Section]:
    """Turn the metrics and predictions of all runs into the parts of the report, the claims first."""
    gate = config.settings.max_distance_mm
    detection, detection_rows = _detection(table)
    transfer, transfer_rows = _transfer(table)
    finished = set(table.loc[table["seconds"].notna(), "name"]) if "seconds" in table else set()
    names = [f"heatmap_s{MAIN_SIGMA:g}_{seed}" for seed in config.seeds]
    names = [name for name in names if name == names[0] or name in finished]
    found = [read_predictions(runs, name, cohort) for name in names]
    rates = table.set_index("name").loc[names]
    thresholds = rates["threshold"].tolist()
    calibration, errors = _calibration(found, gate)
    segmented = read_predictions(runs, f"segmentation_{config.seeds[0]}", cohort)
    curves = [
        retention(*judged(one["fit", "test"], threshold, max_distance=gate))
        for one, threshold in zip(found, thresholds, strict=True)
    ]
    reasons = _reasons(cohort, config)
    return [
        _claims(table, cohort, errors, curves, config),
        Section(
            title="Tables 1 and 3: detection by label and method",
            table=detection,
            lines=(
                _order(detection_rows), _large_misses(found, thresholds, gate),
                _by_window_sum(found, rates["f1"], gate), _by_gate(found, thresholds, gate),
                _largest_gap(detection_rows), reasons,
            ),
            figures=(
                rates_figure([r for r in detection_rows if r[1] in _RATES], title="percent"),
                rates_figure([r for r in detection_rows if r[1] in _SIZES], title="recall by size, percent"),
            ),
        ),
        Section(
            title="Tables 2 and 4: segmentation from few masks",
            table=transfer,
            lines=(
                _largest_gap(transfer_rows), _scratch_ahead(table, config),
                f"A share of {100 * config.fractions[0]:g} % of the masks is {_masks(table, config)} here; the paper "
                "has 6 to 7 in its 1 % of 640 training patients, and names 17 samples.",
                f"Steps: {config.settings.train.steps} for a detector, and with all masks; "
                f"{config.settings.tune.steps} more for fine-tuning; from scratch on few masks both together.",
                reasons,
            ),
            figures=(rates_figure([r for r in transfer_rows if r[1] in ("dice", "f1")], title="percent"),),
        ),
        _sigmas(table),
        _clicks(table),
        calibration,
        _uncertainty(curves, segmented.get(("mc", "test")), config),
        _patients(found[0], thresholds[0], gate),
        _risk(found[0], config, gate),
    ]  # fmt: skip


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def _reasons(cohort: Cohort, config: ReproduceConfig) -> str:
    """Name what sets these numbers apart from the paper's, as far as it does."""
    train, n = config.settings.train, len(cohort.split("train"))
    why = ["another cohort: size, contrast and look-alikes of its lesions decide how hard it is"]
    if n < _PAPER_PATIENTS:
        why.append(f"{n} patients for training (the paper has {_PAPER_PATIENTS})")
    if train.model.filters < _PAPER_FILTERS:
        why.append(
            f"networks of {train.model.filters} filters (the paper's have {_PAPER_FILTERS}) that saw {train.steps} "
            f"times {train.batch_size} patches of {' x '.join(map(str, train.patch))} voxels"
        )
    return f"Why: {'; '.join(why)}."


_PAPER_PATIENTS, _PAPER_FILTERS = 640, 32
_PAPER_DICE = TRANSFER[1.0, "none"]["dice"][0] / 100


def _percent(values: pd.Series, paper: tuple[float, float] | None = None) -> tuple[str, float, float]:
    """Mean and standard deviation over runs in percent, as text with the paper's beside, and as numbers."""
    known = 100 * values.dropna().astype(float)
    mean = float(known.mean()) if len(known) else float("nan")
    sd = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    text = "-" if np.isnan(mean) else f"{mean:.1f}" + ("" if np.isnan(sd) else f" ± {sd:.1f}")
    return text + (f" ({paper[0]:.1f} ± {paper[1]:g})" if paper else ""), mean, sd


Row = tuple[str, str, float, float, float]


def _detection(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Row]]:
    whole = _detectors(table)
    whole = whole[(whole["sigma"] == MAIN_SIGMA) & (whole["jitter_mm"] == 0)]
    rows, flat = [], []
    for (label, method), theirs in DETECTION.items():
        prefix = "cc_" if (label, method) == ("heatmap", "CC") else ""
        runs = whole[whole["label"] == label]
        row: dict[str, str] = {"label": label, "method": method}
        for rate, paper in theirs.items():
            values = runs[prefix + rate] if prefix + rate in runs else pd.Series(dtype=float)
            row[rate], mean, sd = _percent(values, paper)
            flat.append((f"{label}, {method}", rate, mean, sd, paper[0]))
        rows.append(row | {"runs": str(runs["f1"].notna().sum() if "f1" in runs else 0)})
    return pd.DataFrame(rows), flat


def _detectors(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["fraction"] == 1) & (table["start"] == "")]


def _by_decoder(runs: pd.DataFrame) -> list[dict[str, str]]:
    """Rates of heatmaps by fit and by components."""
    rows = []
    for decoder, prefix in (("CC", "cc_"), ("Gaussian", "")):
        names = {rate: prefix + rate for rate in (*_RATES, "small")}
        known = {rate: _percent(runs.get(name, pd.Series(dtype=float)))[0] for rate, name in names.items()}
        count = int(runs["f1"].notna().sum()) if "f1" in runs else 0
        rows.append({"decoder": decoder} | known | {"runs": str(count)})
    return rows


def _sigmas(table: pd.DataFrame) -> Section:
    """Table 1 for each sigma."""
    heatmaps = _detectors(table)
    heatmaps = heatmaps[(heatmaps["label"] == "heatmap") & (heatmaps["jitter_mm"] == 0)]
    rows = [{"sigma": f"{s:g}"} | row for s in SIGMAS for row in _by_decoder(heatmaps[heatmaps["sigma"] == s])]
    lines = ("The paper gives its heatmaps' rates for one sigma only. Standard deviations of labels are in voxels.",)
    return Section(title="Sigma and decoder", table=pd.DataFrame(rows), lines=lines)


def _clicks(table: pd.DataFrame) -> Section:
    """Tell how robust training is to where the expert clicks, which the paper leaves to future work."""
    heatmaps = _detectors(table)
    heatmaps = heatmaps[(heatmaps["label"] == "heatmap") & (heatmaps["sigma"] == MAIN_SIGMA)]
    rows = [
        {"error of a click": f"{jitter:g} mm"} | row
        for jitter in (0.0, *JITTERS_MM)
        for row in _by_decoder(heatmaps[heatmaps["jitter_mm"] == jitter])
    ]
    lines = (
        "Standard deviation along each axis of an error that every training point gets once; validation and test "
        "points stay where they are. The paper names it as future work.",
    )
    return Section(title="Careless clicks", table=pd.DataFrame(rows), lines=lines)


def _transfer(table: pd.DataFrame) -> tuple[pd.DataFrame, list[Row]]:
    rows, flat = [], []
    for (fraction, start), theirs in TRANSFER.items():
        runs = _tuned(table, fraction, start)
        row = {"masks": f"{100 * fraction:g} %", "detector": _detector_name(start)}
        for rate, paper in theirs.items():
            row[rate], mean, sd = _percent(runs[rate] if rate in runs else pd.Series(dtype=float), paper)
            flat.append((f"{100 * fraction:g} %, {_detector_name(start)}", rate, mean, sd, paper[0]))
        rows.append(row | {"runs": str(runs["dice"].notna().sum() if "dice" in runs else 0)})
    return pd.DataFrame(rows), flat


def _tuned(table: pd.DataFrame, fraction: float, start: str) -> pd.DataFrame:
    name = "" if start == "none" else f"{start}_0" if start in ("euclidean", "geodesic") else f"heatmap_s{start}_0"
    chosen = (table["label"] == "segmentation") & (table["fraction"] == fraction) & (table["start"] == name)
    return table[chosen]


def _scratch_ahead(table: pd.DataFrame, config: ReproduceConfig) -> str:
    """Say from which shares of the masks on fine-tuning no longer pays."""
    compared, ahead = 0, []
    for fraction in config.fractions:
        tuned, scratch = map(_percent, _paired(table, fraction))
        compared += np.isfinite(scratch[1] - tuned[1])
        if scratch[1] > tuned[1]:
            ahead.append(f"{100 * fraction:g} % ({scratch[0]} against {tuned[0]})")
    if not compared:
        return "Fine-tuning is not yet compared with training from scratch."
    if not ahead:
        return "From scratch is nowhere better, on average, than fine-tuned from the main detector."
    train, tune = config.settings.train, config.settings.tune
    kept = ", on the encoder of a detector" if tune.frozen == "encoder" else ""
    return (
        f"Dice from scratch is, on average, above that of the fine-tuned main detector with {', '.join(ahead)} of the "
        f"masks. Likely why: a fine-tuned network learns to outline for {tune.steps} steps only{kept}; one from "
        f"scratch for {train.steps + tune.steps}."
    )


def _detector_name(start: str) -> str:
    return start if start in ("none", "euclidean", "geodesic") else f"sigma {start}"


def _masks(table: pd.DataFrame, config: ReproduceConfig) -> str:
    few = table.loc[table["fraction"] == config.fractions[0], "n_masks"].dropna()
    return _count(int(few.max()), "mask") if len(few) else "-"


def _ranked(rates: Mapping[tuple[str, str], float]) -> list[str]:
    return sorted((what for what, rate in rates if rate == "f1"), key=lambda what: -rates[what, "f1"])


def _order(rows: Sequence[Row]) -> str:
    """Compare the order of table 1 with the paper's, and say by which sizes of lesions it differs."""
    known = [row for row in rows if np.isfinite(row[2])]
    ours = {(what, rate): value for what, rate, value, _, _ in known}
    ranked = [_ranked(ours), _ranked({(what, rate): value for what, rate, _, _, value in known})]
    text = "Order by F1: " + " > ".join(f"{what} {ours[what, 'f1']:.1f}" for what in ranked[0])
    if ranked[0] == ranked[1]:
        return f"{text}, as in the paper."
    sizes = "; ".join(
        f"{what}: {' / '.join(f'{ours[what, size]:.0f}' for size in _SIZES)}"
        for what in ranked[0]
        if all((what, size) in ours for size in _SIZES)
    )
    lines = [f"{text}. The paper: {' > '.join(ranked[1])}.", f"Recall of small / medium / large lesions: {sizes}."]
    points, masks = "heatmap, Gaussian", "segmentation, CC"
    for size in ("large", "small"):
        differ = ours.get((points, size), np.nan) - ours.get((masks, size), np.nan)
        if np.isfinite(differ):
            better = "points" if differ > 0 else "masks"
            lines.append(f"{size.capitalize()} lesions: {better} do better, by {abs(differ):.0f} points.")
    return " ".join(lines)


def _large_misses(found: Sequence[Found], thresholds: Sequence[float], gate: float) -> str:
    """Tell whether the large lesions that the fit misses were never seen, or seen with too small an alpha."""
    missed, merged, alphas = 0, 0, []
    for one, threshold in zip(found, thresholds, strict=True):
        for case in one["fit", "test"]:
            lost = case.match(threshold, max_distance=gate).unmatched_true
            large = lost[SIZE_CLASSES["large"].contains(case.sizes[lost])]
            near = distances_mm(case.predicted, case.true[large]) <= gate
            missed += len(large)
            for column in near.T:
                fainter = column & (case.score < threshold)
                alphas += [case.score[fainter].max()] if fainter.any() else []
                merged += bool(column.any() and not fainter.any())
    if not missed:
        return "The fit misses no large lesion."
    mean = f" with a mean alpha of {np.mean(alphas):.2f}" if alphas else ""
    chosen = " / ".join(f"{threshold:.2f}" for threshold in thresholds)
    return (
        f"Large lesions: of the {missed} that the fit misses in {_count(len(found), 'run')}, {len(alphas)} have a "
        f"fainter candidate within {gate:g} mm{mean}, against thresholds of {chosen}; {merged} lie beside a "
        f"detection that is matched with another lesion; {missed - len(alphas) - merged} are not seen at all."
    )


def _by_window_sum(found: Sequence[Found], f1: pd.Series, gate: float) -> str:
    """Tell what the fit's alpha is worth as a score: the same candidates by their window sums instead."""
    values = []
    for one in found:
        validation, test = ([_by_sum(case) for case in one["fit", split]] for split in ("validation", "test"))
        values.append(score_points(test, alpha_threshold(validation, gate), max_distance=gate).pooled.f1)
    return (
        "The fit's candidates, kept by their window sums instead of alpha (threshold from validation as well): F1 "
        f"{_percent(pd.Series(values))[0]} against {_percent(f1)[0]}."
    )


def _by_gate(found: Sequence[Found], thresholds: Sequence[float], gate: float) -> str:
    """Tell what the paper's way of matching, far pairs dropped after the assignment, makes of the same detections."""
    before, after = (
        _percent(
            pd.Series(
                [
                    score_points(one["fit", "test"], threshold, max_distance=gate, gate=when).pooled.f1
                    for one, threshold in zip(found, thresholds, strict=True)
                ]
            )
        )[0]
        for when in GATES
    )
    return (
        f"Matching: pairs farther than {gate:g} mm are ruled out before the assignment. Assigned first and far pairs "
        f"dropped afterwards, as in the paper, F1 of the fit is {after} instead of {before}."
    )


def _rate_name(rate: str) -> str:
    return f"recall of {rate} lesions" if rate in _SIZES else {"f1": "F1", "dice": "Dice"}.get(rate, rate)


def _largest_gap(rows: Sequence[Row]) -> str:
    known = [row for row in rows if np.isfinite(row[2])]
    if not known:
        return "No run is finished."
    what, rate, ours, _, paper = max(known, key=lambda row: abs(row[2] - row[4]))
    mean = np.mean([row[2] - row[4] for row in known])
    return (
        f"Where: on average {mean:+.1f} points from the paper; the largest difference is {_rate_name(rate)} "
        f"({what}), {ours:.1f} against {paper:.1f} %."
    )


Found = Mapping[tuple[str, str], list[CasePoints]]


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How far probabilities are from what they promise, mean over the runs."""

    eces: tuple[float, ...]
    """Of each run."""
    probability: float
    """Mean of the predicted ones."""
    hits: float
    """Share of candidates that are lesions."""

    @property
    def ece(self) -> float:
        """Mean over the runs."""
        return float(np.mean(self.eces))


BEFORE, AFTER = "window sum (before the fit)", "alpha (after the fit)"

_LOOPS = {"paper": "the paper's loop", "all": "joint refit", "fit": "joint refit, alpha from 0.1 on"}
"""Ways from a map to candidates whose alphas are judged: a method of :func:`read_predictions` and its name."""


def _by_sum(case: CasePoints) -> CasePoints:
    assert case.unfitted is not None, "the fit leaves window sums"
    return replace(case, score=case.unfitted)


def _calibration(found: Sequence[Found], gate: float) -> tuple[Section, dict[str, dict[str, Errors]]]:
    """Figure 2a: before and after the fit; recalibrations of the fitted alphas, fitted on validation."""
    title = "Figure 2a: calibration"
    found = [one for one in found if all(_n_candidates(one[m, s]) for m in _LOOPS for s in ("validation", "test"))]
    if not found:
        return Section(title=title, table=pd.DataFrame(), lines=("No run has candidates to be judged.",)), {}
    runs = [_variants(one, gate) for one in found]
    rng = np.random.default_rng(0)
    rows: list[dict[str, str]] = []
    curves: dict[str, dict[str, tuple[Reliability, SmoothReliability]]] = {}
    errors: dict[str, dict[str, Errors]] = {}
    for (loop, name), first in runs[0].items():
        judged_runs = [run[loop, name] for run in runs]
        bins = [reliability(one) for one in judged_runs]
        smooth = [smooth_reliability(one, rng=rng if one is first else None) for one in judged_runs]  # a band is drawn
        low, high = bootstrap(first, lambda sample: reliability(sample).ece, rng=rng, resamples=300)
        mean = Errors(
            eces=tuple(one.ece for one in bins),
            probability=float(np.mean([one.probability.mean() for one in judged_runs])),
            hits=float(np.mean([one.hit.mean() for one in judged_runs])),
        )
        errors.setdefault(loop, {})[name] = mean
        rows.append(
            {
                "loop": loop, "probability": name, "ECE": _spread([one.ece for one in bins]),
                "95 % of the first run": f"{max(low, 0):.3f} to {max(high, 0):.3f}",
                "MCE": _spread([one.mce for one in bins]), "smooth ECE": _spread([one.error for one in smooth]),
                "Brier": _spread([brier_score(one) for one in judged_runs]), "mean": f"{mean.probability:.3f}",
                "share of hits": f"{mean.hits:.3f}", "candidates": f"{np.mean([len(one) for one in judged_runs]):.0f}",
            }
        )  # fmt: skip
        if name in (BEFORE, AFTER):
            curves.setdefault(loop, {})[name.partition(" (")[0]] = (bins[0], smooth[0])
    lines = (
        f"Mean ± standard deviation over {_count(len(found), 'run')} on the test patients; intervals by drawing "
        "patients of the first run. The figures show the first run. The paper shows figure 2a without numbers.",
        "Candidates down to alpha 0.01 count where nothing else is said; true positives are the matched ones; values "
        "outside [0, 1] are moved to its ends. An ECE depends on which candidates are judged: a joint search looks on "
        "after a failed fit and judges many faint ones, of which the paper's loop stops before most.",
        *(f"{loop.capitalize()}: {_bias(some[BEFORE], some[AFTER])}." for loop, some in errors.items()),
    )
    figures = tuple(reliability_figure(curves[_LOOPS[method]], note=_LOOPS[method]) for method in ("paper", "all"))
    return Section(title=title, table=pd.DataFrame(rows), lines=lines, figures=figures), errors


def _n_candidates(cases: Sequence[CasePoints]) -> int:
    return sum(len(case.score) for case in cases)


def _variants(found: Found, gate: float) -> dict[tuple[str, str], Outcomes]:
    """Judge one run's test candidates: each loop before and after the fit, and recalibrated."""
    variants: dict[tuple[str, str], Outcomes] = {}
    for method, loop in _LOOPS.items():
        variants[loop, BEFORE] = outcomes(found[method, "test"], which="unfitted", max_distance=gate)
        variants[loop, AFTER] = outcomes(found[method, "test"], max_distance=gate)
    fitted = variants[_LOOPS["all"], AFTER]
    for name, fit in (("alpha, temperature", fit_temperature), ("alpha, isotonic", fit_isotonic)):
        recalibrate = fit(found["all", "validation"], max_distance=gate)
        variants[_LOOPS["all"], name] = fitted.replaced(recalibrate(fitted.probability))
    return variants


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


def _bias(before: Errors, after: Errors) -> str:
    """Say in which way probabilities are wrong, as the most of it is one way or the other."""
    gap = after.probability - after.hits
    way = "over-confident" if gap > 0 else "under-confident"
    cause = "" if gap <= 0 else "; a lesion is in most training patches, but in few places of a brain"
    return (
        f"{way}: window sums promise {before.probability:.3f} lesions a candidate and fitted alphas "
        f"{after.probability:.3f}, where {after.hits:.3f} are{cause}"
    )


_AGGREGATES = {"log_sum": "sum of the log entropies", "mean": "mean entropy"}
_KEPT = (1.0, 0.8, 0.6, 0.4, 0.2)
"""Fractions of the detections at which figure 2b is read."""


def _uncertainty(
    entropies: Sequence[RetentionCurve], samples: list[CasePoints] | None, config: ReproduceConfig
) -> Section:
    """Figure 2b: entropy of alpha against MC dropout of the segmentation network, if there was any."""
    gate, mc = config.settings.max_distance_mm, config.settings.mc or McConfig()
    hits = [case.match(-np.inf, max_distance=gate).matched_predicted for case in samples or ()]
    level = np.concatenate([np.empty(0), *(-case.score for case in samples or ())])
    dropout = retention(level, np.concatenate([np.empty(0, dtype=bool), *hits]))
    ways = {"entropy of alpha": (1, entropies)}
    if len(level):
        ways["MC dropout of the segmentation"] = (mc.samples, [dropout])
    rows = [
        {"uncertainty": name, "area under the curve": _spread([curve.area for curve in curves]),
         "forward passes a window": str(passes)}
        | {f"least uncertain {100 * f:g} %": _percent(pd.Series([c.at(f) for c in curves]))[0] for f in _KEPT}
        | {"detections": f"{np.mean([len(curve.fraction) for curve in curves]):.0f}", "runs": str(len(curves))}
        for name, (passes, curves) in ways.items()
    ]  # fmt: skip
    better = "entropy" if np.mean([curve.area for curve in entropies]) > dropout.area else "MC dropout"
    lines: tuple[str, ...] = (
        "Accuracy (percent of right detections) among the least uncertain ones, on the test patients. MC dropout: "
        f"{mc.samples} samples, uncertainty of a lesion is the {_AGGREGATES[mc.aggregate]} of its voxels; of one run, "
        "as it costs many passes. The figure shows the first runs.",
        "The two start from different detections (fit of the heatmap; components of the segmentation), so that their "
        "accuracies at 100 % differ as the networks do.",
        f"The paper shows figure 2b without numbers; in it both curves rise. Here {_rising('entropy', entropies)}, and "
        f"{_rising('MC dropout', [dropout])}; the larger area is that of {better}.",
    )
    if not len(level):
        lines = (f"MC dropout has no detection to judge. Of figure 2b, {_rising('entropy', entropies)}.",)
    return Section(
        title="Figure 2b: uncertainty", table=pd.DataFrame(rows), lines=lines,
        figures=(retention_figure({name: curves[0] for name, (_, curves) in ways.items()}),),
    )  # fmt: skip


def _rising(name: str, curves: Sequence[RetentionCurve]) -> str:
    rising = sum(curve.rises(_KEPT) for curve in curves)
    return f"the curve of {name} rises at these five fractions in {rising} of {_count(len(curves), 'run')}"


def _patients(found: Found, threshold: float, gate: float) -> Section:
    """Beyond the paper: intervals, FROC, activity, counts."""
    cases = found["fit", "test"]
    scores = score_points(cases, threshold, max_distance=gate)
    known = scores.to_frame().join(scores.intervals(rng=np.random.default_rng(0))).mul(100).to_dict("index")
    curves = {name: froc(found[m, "test"], max_distance=gate) for m, name in (("fit", "Gaussian fit"), ("cc", "CC"))}
    called, counts = activity(cases, threshold), lesion_counts(cases)
    active = f"{called.tp} of {called.tp + called.fn} active, {called.tn} of {called.tn + called.fp} others"
    rates = [("all", rate) for rate in _RATES] + [(size, "recall") for size in _SIZES]
    rows = [
        *(
            {"what": f"{rate} of {size} lesions [95 % over patients]",
             "value": "{:.1f} [{:.1f}, {:.1f}]".format(*(known[size][rate + end] for end in ("", "_low", "_high")))}
            for size, rate in rates
        ),
        {"what": "FROC score, fit", "value": f"{froc_score(curves['Gaussian fit']):.3f}"},
        {"what": "patients rightly classified as active or not", "value": active},
        {"what": "lesions: true / expected (sum of alpha)",
         "value": f"{counts['true'].sum()} / {counts['expected'].sum():.1f}"},
        {"what": "90 % intervals of the count: below the truth / hold it / above it",
         "value": f"{(counts['high'] < counts['true']).mean():.0%} / {counts['covered'].mean():.0%} / "
         f"{(counts['low'] > counts['true']).mean():.0%}"},
    ]  # fmt: skip
    lines = (
        "Of the first run. CC has one threshold on the map and one point a component, so that its FROC ends early. "
        "Alphas from 0.1 on are summed for the count: how it errs is how alpha errs (figure 2a).",
        *(
            ["Every test patient has lesions, so that nothing is learned here of false alarms in healthy ones."]
            if all(len(case.true) for case in cases) else []
        ),
    )  # fmt: skip
    return Section(
        title="Beyond the paper: patients", table=pd.DataFrame(rows), lines=lines,
        figures=(froc_figure(curves), count_figure(counts)),
    )  # fmt: skip


def _risk(found: Found, config: ReproduceConfig, gate: float) -> Section:
    """Beyond the paper: a guarantee, checked."""
    validation, test = found["all", "validation"], found["all", "test"]
    rows, figures = [], []
    for risk, target in (("missed", config.missed), ("false_positives", config.false_positives)):
        name: Any = risk
        chosen = control_risk(validation, target, risk=name, max_distance=gate)
        rng = np.random.default_rng(0)
        splits = check_risk(test, target, risk=name, rng=rng, splits=config.splits, max_distance=gate)
        table = score_points(test, chosen.threshold, max_distance=gate)
        n_true = table.tp + table.fn
        missed = np.divide(table.fn, n_true, out=np.zeros(len(test)), where=n_true > 0)
        if chosen.threshold == -np.inf:
            missed[:] = 0.0  # a reader looks at the whole image
        on_test = missed.mean() if risk == "missed" else np.minimum(table.fp, chosen.cap).mean()
        what = "share of missed lesions" if risk == "missed" else "false positives a patient"
        rows.append(
            {
                "guarantee": f"{what} at most {target:g}", "threshold": f"{chosen.threshold:.3g}",
                "validation": f"{chosen.empirical:.3f}", "bound": f"{chosen.bound:.3f}", "test": f"{on_test:.3f}",
                f"mean over {config.splits} splits of test": f"{splits['risk'].mean():.3f}",
                "splits above": f"{100 * (splits['risk'] > target).mean():.0f} %",
            }
        )  # fmt: skip
        figures.append(risk_figure(splits, target=target, title=what))
    lines = (
        "Thresholds of the first run, from its validation patients; the bound is what is guaranteed at the threshold, "
        "the mean risk there and a share for the next patient. It is on the mean over validation sets and patients; "
        "for the check the test patients are halved again and again, the threshold chosen on one half and judged on "
        "the other: single splits may lie above the target, their mean must not, but for the chance of the draws. The "
        "same validation patients chose between the best and the last weights, which the guarantee leaves out. False "
        "positives of one patient are counted up to 10. A threshold of minus infinity says that no threshold can keep "
        "to the target, and a reader must look at the whole image.",
    )
    return Section(
        title="Beyond the paper: thresholds with a guarantee (conformal risk control)", table=pd.DataFrame(rows),
        lines=lines, figures=tuple(figures),
    )  # fmt: skip


def _claims(
    table: pd.DataFrame,
    cohort: Cohort,
    errors: Mapping[str, Mapping[str, Errors]],
    curves: Sequence[RetentionCurve],
    config: ReproduceConfig,
) -> Section:
    """Hold what the paper says against the numbers, with a likely reason where it does not hold."""
    main = table[(table["label"] == "heatmap") & (table["sigma"] == MAIN_SIGMA) & (table["jitter_mm"] == 0)]
    fit, cc = (float(main[name].mean()) for name in ("f1", "cc_f1"))
    accuracy = [float(np.mean([curve.at(f) for curve in curves])) for f in _KEPT]
    steps = " / ".join(f"{100 * value:.1f}" for value in accuracy)
    rises = all(later >= earlier - 1e-12 for earlier, later in pairwise(accuracy))  # as RetentionCurve.rises
    few = config.fractions[0]
    full = float(_tuned(table, 1.0, "none")["dice"].mean())
    every = _tuned(table, few, f"{MAIN_SIGMA:g}")["dice"].dropna()
    tuned, scratch = _paired(table, few)
    gains = tuned - scratch
    exact = "simulation" in cohort.extra and full > _PAPER_DICE
    claims = [
        ("F1 of the Gaussian fit is at least that of CC on the same heatmaps",
         _verdict(fit >= cc, (main["f1"] >= main["cc_f1"])[main["f1"].notna()]),
         f"{100 * fit:.1f} against {100 * cc:.1f} %",
         "large lesions give broad peaks, to which a Gaussian of the label's width is no good model, and which CC "
         "takes as one"),
        *(
            (f"ECE of the fitted alpha is at most half that of the window sum ({loop})",
             _halved(some[BEFORE], some[AFTER]),
             f"{some[AFTER].ece:.3f} against {some[BEFORE].ece:.3f}",
             "what is wrong is the map, which the fit only reads; " + _bias(some[BEFORE], some[AFTER]))
            for loop, some in errors.items()
        ),
        ("accuracy rises steadily as uncertain detections are set aside",
         _verdict(rises, [curve.rises(_KEPT) for curve in curves]),
         f"{steps} % at 100 / 80 / 60 / 40 / 20 %; {_rising('entropy', curves)}",
         "some of the most certain detections are false"),
        (f"with {100 * few:g} % of the masks, pre-training on points comes within 5 % of all masks",
         None if np.isnan(every.mean() + full) else _verdict(every.mean() >= 0.95 * full, every >= 0.95 * full),
         f"Dice {_percent(every)[0]} against {100 * full:.1f} %",
         f"{100 * few:g} % of this cohort is {_masks(table, config)}"
         + ("; and all masks reach more where they are exact, as simulated ones are, than where experts drew them "
            f"(paper: Dice {100 * _PAPER_DICE:.1f} %)" if exact else "")),
        ("and it is better than training from scratch on the same masks",
         _verdict(gains.mean() > 0, gains > 0) if len(gains) else None,
         f"Dice {_percent(tuned)[0]} against {_percent(scratch)[0]} %, better in {(gains > 0).sum()} of "
         f"{_count(len(gains), 'subset')}",
         "fine-tuning had too few steps, or the detector had learned too little to help"),
    ]  # fmt: skip
    rows = [
        {"claim": claim, "here": "not run yet", "numbers": "-", "likely why": ""} if here is None else
        {"claim": claim, "here": here, "numbers": numbers, "likely why": why if here == _FAILS else ""}
        for claim, here, numbers, why in claims
    ]  # fmt: skip
    line = (
        "The paper gives no numbers for its calibration and its uncertainty (figure 2): half the ECE, and a steady "
        "rise, are this kit's tests of what it says. On average: over the runs, but not in each of them."
    )
    return Section(title="The paper's claims", table=pd.DataFrame(rows), lines=(line,))


_FAILS = "does not hold"


def _verdict(mean: bool, each: Iterable[bool] = ()) -> str:
    """Tell a claim that holds in every run from one that holds for their mean only."""
    if not mean:
        return _FAILS
    return "holds" if all(each) else "holds on average"


def _halved(before: Errors, after: Errors) -> str:
    each = [fitted <= 0.5 * unfitted for unfitted, fitted in zip(before.eces, after.eces, strict=True)]
    return _verdict(after.ece <= 0.5 * before.ece, each)


def _paired(table: pd.DataFrame, fraction: float) -> tuple[pd.Series, pd.Series]:
    """Dice of the pre-trained network and of the one from scratch, on the subsets of the masks that both have seen."""
    both = [
        _tuned(table, fraction, start).set_index("subset").reindex(columns=["dice"])["dice"].astype(float)
        for start in (f"{MAIN_SIGMA:g}", "none")
    ]
    known = pd.concat(both, axis=1, keys=["tuned", "scratch"]).dropna()
    return known["tuned"], known["scratch"]


def _about(cohort: Cohort, config: ReproduceConfig, table: pd.DataFrame) -> tuple[str, ...]:
    sizes = ", ".join(f"{len(cohort.split(name))} {name}" for name in ("train", "validation", "test"))
    train, tune = config.settings.train, config.settings.tune
    hours = float(table["seconds"].sum()) / 3600
    done = int(table["seconds"].notna().sum())
    runs = f"{done} runs" if done == len(table) else f"{done} of {len(table)} runs are finished so far"
    return (
        f"Cohort of kind {cohort.kind}: {sizes} patients. {runs}, {hours:.1f} hours of computing, one core each "
        "(of the attempts that finished).",
        f"Networks of {train.model.levels} levels and {train.model.filters} filters; {train.steps} steps, and "
        f"{tune.steps} of fine-tuning, in which "
        f"{'everything learns' if tune.frozen == 'nothing' else 'decoder and head learn'}. Mean ± standard deviation "
        f"over {len(config.seeds)} runs or {len(config.subsets)} subsets, in percent; the paper's values in brackets. "
        f"A detection within {config.settings.max_distance_mm:g} mm of a lesion counts as a hit, one a lesion. Every "
        f"threshold of a detection was chosen on the first "
        f"{min(train.threshold_cases, len(cohort.split('validation')))} validation patients. Dice is of "
        f"the voxels with a probability of {INSIDE:g} and more.",
    )


_TITLE = "Heatmap regression for lesion detection: the paper's tables and figures on this cohort"


def _markdown(about: Sequence[str], sections: Sequence[Section]) -> str:
    parts = [f"# {_TITLE}", *about]
    for section in sections:
        table = section.table
        head = "| " + " | ".join(table.columns) + " |\n" + "|" + "---|" * len(table.columns)
        body = "\n".join("| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False))
        parts += [f"## {section.title}", f"{head}\n{body}", *section.lines]
    return "\n\n".join(parts) + "\n"


_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.5rem; }
div.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .3rem .7rem; text-align: left; border-bottom: 1px solid #8a94a355; }
p.line { color: light-dark(#4a5568, #a8b3c2); font-size: 14px; }
"""


def _html(about: Sequence[str], sections: Sequence[Section]) -> str:
    parts = [f"<h1>{html.escape(_TITLE)}</h1>", *(f"<p>{html.escape(line)}</p>" for line in about)]
    script: bool | str = True  # plotly's script once, in the page itself
    for section in sections:
        rows = section.table.to_html(index=False, border=0, escape=True)
        parts += [f"<h2>{html.escape(section.title)}</h2>", f'<div class="wide">{rows}</div>']
        parts += [f'<p class="line">{html.escape(line)}</p>' for line in section.lines]
        for figure in section.figures:
            parts.append(figure.to_html(full_html=False, include_plotlyjs=script, config={"displaylogo": False}))
            script = False
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(_TITLE)}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )
