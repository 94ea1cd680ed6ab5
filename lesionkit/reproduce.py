"""The paper's tables and figures on a cohort of one's choice, with the paper's own numbers beside.

In: a preset and a folder (and a cohort, else one is simulated). Out: all runs, and `report.html` and `report.md`.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from lesionkit.experiments import RunSettings, grid, read_metrics, read_predictions, run_grid
from lesionkit.figures import (
    count_figure,
    froc_figure,
    rates_figure,
    reliability_figure,
    retention_figure,
    risk_figure,
)
from lesionkit.io import Cohort, atomic_path
from lesionkit.mc_dropout import McConfig
from lesionkit.metrics import CasePoints, activity, froc, froc_score, lesion_counts, score_points
from lesionkit.model import ModelConfig
from lesionkit.paper import DETECTION, TRANSFER
from lesionkit.simulate import SimulationConfig, simulate_cohort
from lesionkit.training import TrainConfig
from lesionkit.uncertainty import RetentionCurve, judged, retention

Preset = Literal["quick", "cpu"]
SIGMAS = (1.0, 1.25, 1.5)
MAIN_SIGMA = 1.25
JITTERS_MM = (1.0, 2.0, 3.0)
FRACTIONS = (0.01, 0.05, 0.1)
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

    @classmethod
    def preset(cls, name: Preset) -> ReproduceConfig:
        """Return named settings.

        `quick` fills every table with small networks on 4 mm voxels, in minutes; its numbers mean little. `cpu` takes
        about four hours on two cores, at 2 mm, with the networks of the `cpu` training preset.
        """
        if name == "quick":
            small = ModelConfig(levels=3, filters=8, max_filters=32, dropout=0.1)
            train = TrainConfig(
                model=small, patch=(24, 24, 24), window=24, batch_size=4, steps=200, validate_every=100,
                learning_rate=5e-3, validation_cases=4, threshold_cases=10, workers=0, max_distance_mm=8.0,
            )  # fmt: skip
            settings = RunSettings(
                train=train, tune=replace(train, steps=60, validate_every=30, learning_rate=3e-3),
                max_distance_mm=8.0, mc=McConfig(samples=10, batch=5),
            )  # fmt: skip
            simulation = SimulationConfig(
                kind="gad", spacing=4.0, max_size=200, lesions=(5.0, 0.5), contrast=(12.0, 30.0), lookalikes=0.4
            )
            return cls(simulation=simulation, n=50, settings=settings, seeds=(0, 1), splits=300)
        if name == "cpu":
            train = replace(TrainConfig.preset("cpu"), steps=1000, validate_every=1000, validation_cases=8, workers=0)
            tune = replace(train, steps=300, validate_every=300)
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
    progress: Callable[[int, int], None] | None = None,
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
        Called with the number of runs done and of all.

    Returns
    -------
    html, markdown
        Paths of the report.

    Raises
    ------
    DataError
        If a report is wanted before the first detector and the first segmentation are finished, or a folder holds runs
        of other settings.
    """
    folder = Path(folder)
    if cohort is None:
        cohort = simulate_cohort(config.simulation, config.n, folder / "cohort", seed=config.cohort_seed, jobs=n_jobs)
    runs = folder / "runs"
    if only_report:
        table = read_metrics(config.runs(), runs)
    else:
        table = run_grid(
            config.runs(), cohort, runs, config.settings, n_jobs=n_jobs, scheduler=scheduler, progress=progress
        )
    with atomic_path(folder / "runs.tsv") as temporary:
        table.to_csv(temporary, sep="\t", index=False, float_format="%.5g")
    sections = report_sections(table, cohort, runs, config)
    about = _about(cohort, config, table)
    paths = folder / "report.html", folder / "report.md"
    for path, text in zip(paths, (_html(about, sections), _markdown(about, sections)), strict=True):
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def report_sections(table: pd.DataFrame, cohort: Cohort, runs: Path, config: ReproduceConfig) -> list[Section]:
    """Turn the metrics and predictions of all runs into the parts of the report, the claims first."""
    gate = config.settings.max_distance_mm
    detection, detection_rows = _detection(table)
    transfer, transfer_rows = _transfer(table)
    finished = set(table.loc[table["seconds"].notna(), "name"]) if "seconds" in table else set()
    names = [f"heatmap_s{MAIN_SIGMA:g}_{seed}" for seed in config.seeds]
    found = [read_predictions(runs, name, cohort) for name in names if name == names[0] or name in finished]
    thresholds = table.set_index("name")["threshold"]
    threshold = float(thresholds[f"heatmap_s{MAIN_SIGMA:g}_{config.seeds[0]}"])
    calibration, errors = _calibration(found, gate)
    segmented = read_predictions(runs, f"segmentation_{config.seeds[0]}", cohort)
    uncertainty, curves = _uncertainty(found[0]["fit", "test"], threshold, segmented["mc", "test"], config)
    return [
        _claims(table, errors, curves),
        Section(
            title="Tables 1 and 3: detection by label and method",
            table=detection,
            lines=(_order(detection_rows), _largest_gap(detection_rows), *_REASONS),
            figures=(
                rates_figure([r for r in detection_rows if r[1] in _RATES], title="percent"),
                rates_figure([r for r in detection_rows if r[1] in _SIZES], title="recall by size, percent"),
            ),
        ),
        Section(
            title="Tables 2 and 4: segmentation from few masks",
            table=transfer,
            lines=(
                _largest_gap(transfer_rows),
                f"A share of {100 * FRACTIONS[0]:g} % of the masks is {_masks(table)} here; the paper has 6 to 7 in "
                "its 1 % of 640 training patients, and names 17 samples.",
                *_REASONS,
            ),
            figures=(rates_figure([r for r in transfer_rows if r[1] in ("dice", "f1")], title="percent"),),
        ),
        _sigmas(table),
        _clicks(table),
        calibration,
        uncertainty,
        _patients(found[0], threshold, gate),
        _risk(found[0], config, gate),
    ]


_REASONS = (
    "Why: another cohort (size, contrast and look-alikes of its lesions decide how hard it is), far fewer patients "
    "(the paper has 640 for training), smaller networks trained for fewer steps, and a gate of its own in the "
    "matching, applied before the assignment.",
)


def _percent(values: pd.Series, paper: tuple[float, float] | None = None) -> tuple[str, float, float]:
    """Mean and standard deviation over runs in percent, as text with the paper's beside, and as numbers."""
    known = 100 * values.dropna().astype(float)
    mean = float(known.mean()) if len(known) else float("nan")
    sd = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    text = "-" if np.isnan(mean) else f"{mean:.1f}" + ("" if np.isnan(sd) else f" ± {sd:.1f}")
    return text + (f" ({paper[0]:.1f} ± {paper[1]:.2g})" if paper else ""), mean, sd


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
        rows.append(row)
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
        rows.append(row)
    return pd.DataFrame(rows), flat


def _tuned(table: pd.DataFrame, fraction: float, start: str) -> pd.DataFrame:
    name = "" if start == "none" else f"{start}_0" if start in ("euclidean", "geodesic") else f"heatmap_s{start}_0"
    chosen = (table["label"] == "segmentation") & (table["fraction"] == fraction) & (table["start"] == name)
    return table[chosen]


def _detector_name(start: str) -> str:
    return start if start in ("none", "euclidean", "geodesic") else f"sigma {start}"


def _masks(table: pd.DataFrame) -> str:
    few = table.loc[table["fraction"] == FRACTIONS[0], "n_masks"].dropna()
    return f"{int(few.max())} mask(s)" if len(few) else "-"


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
    if ours.get((points, "large"), np.nan) < ours.get((masks, "large"), np.nan):
        lines.append(
            "Large lesions: a point stands for the middle, which small patches do not show; a mask says lesion at each "
            "voxel."
        )
    if ours.get((points, "small"), np.nan) > ours.get((masks, "small"), np.nan):
        lines.append("Small lesions: points do better, as in the paper.")
    return " ".join(lines)


def _largest_gap(rows: Sequence[Row]) -> str:
    known = [row for row in rows if np.isfinite(row[2])]
    if not known:
        return "No run is finished."
    what, rate, ours, _, paper = max(known, key=lambda row: abs(row[2] - row[4]))
    mean = np.mean([row[2] - row[4] for row in known])
    return (
        f"Where: on average {mean:+.1f} points from the paper; the largest difference is the {rate} of {what}, "
        f"{ours:.1f} against {paper:.1f} %."
    )


Found = Mapping[tuple[str, str], list[CasePoints]]


_LOOPS = {"paper": "the paper's loop", "all": "joint refit", "fit": "joint refit, alpha from 0.1 on"}
"""Ways from a map to candidates whose alphas are judged: a method of :func:`read_predictions` and its name."""


def _calibration(found: Sequence[Found], gate: float) -> tuple[Section, dict[str, dict[str, float]]]:
    """Figure 2a: before and after the fit; recalibrations of the fitted alphas, fitted on validation."""
    first = found[0]
    variants: dict[tuple[str, str], Outcomes] = {}
    for method, loop in _LOOPS.items():
        for which, name in (("unfitted", "window sum (before the fit)"), ("fitted", "alpha (after the fit)")):
            variants[loop, name] = _outcomes(first, "test", method, which, gate)
    fitted = variants[_LOOPS["all"], "alpha (after the fit)"]
    for name, fit in (("alpha, temperature", fit_temperature), ("alpha, isotonic", fit_isotonic)):
        recalibrate = fit(first["all", "validation"], max_distance=gate)
        variants[_LOOPS["all"], name] = fitted.replaced(recalibrate(fitted.probability))
    rng = np.random.default_rng(0)
    rows: list[dict[str, str]] = []
    curves: dict[str, dict[str, tuple[Reliability, SmoothReliability]]] = {}
    for (loop, name), one in variants.items():
        bins, smooth = reliability(one), smooth_reliability(one, rng=rng)
        low, high = bootstrap(one, lambda sample: reliability(sample).ece, rng=rng, resamples=300)
        rows.append(
            {
                "loop": loop, "probability": name, "ECE": f"{bins.ece:.3f} [{low:.3f}, {high:.3f}]",
                "MCE": f"{bins.mce:.3f}", "smooth ECE": f"{smooth.error:.3f}", "Brier": f"{brier_score(one):.3f}",
                "candidates": str(len(one)),
            }
        )  # fmt: skip
        if "(" in name:
            curves.setdefault(loop, {})[name.partition(" (")[0]] = (bins, smooth)
    errors = {
        loop: {
            which: float(np.mean([reliability(_outcomes(f, "test", method, which, gate)).ece for f in found]))
            for which in ("unfitted", "fitted")
        }
        for method, loop in _LOOPS.items()
    }
    mean = "; ".join(f"{loop} {e['unfitted']:.3f} before, {e['fitted']:.3f} after" for loop, e in errors.items())
    lines = (
        f"ECE over {len(found)} run(s): {mean}. The table and the figures are of the first run, on its test patients, "
        "with 95 % intervals over patients. The paper shows figure 2a without numbers.",
        "Candidates down to alpha 0.01 count where nothing else is said; true positives are the matched ones; values "
        "outside [0, 1] are moved to its ends. An ECE depends on which candidates are judged: a joint search looks on "
        "after a failed fit and judges many faint ones, whose window sums are too large; the fit mends that. The "
        "paper's loop stops before most of them, and where little background is left in the map its window sums are "
        "nearly fits already.",
    )
    figures = tuple(reliability_figure(curves[_LOOPS[method]], note=_LOOPS[method]) for method in ("paper", "all"))
    return Section(title="Figure 2a: calibration", table=pd.DataFrame(rows), lines=lines, figures=figures), errors


def _outcomes(found: Found, split: str, method: str, which: Any, gate: float) -> Outcomes:
    return outcomes(found[method, split], which=which, max_distance=gate)


def _uncertainty(
    fits: list[CasePoints], threshold: float, samples: list[CasePoints], config: ReproduceConfig
) -> tuple[Section, dict[str, RetentionCurve]]:
    """Figure 2b: entropy of alpha against MC dropout of the segmentation network."""
    gate, mc = config.settings.max_distance_mm, config.settings.mc or McConfig()
    curves = {"entropy of alpha": retention(*judged(fits, threshold, max_distance=gate))}
    hits = [case.match(-np.inf, max_distance=gate).matched_predicted for case in samples]
    level = np.concatenate([np.empty(0), *(-case.score for case in samples)])
    curves["MC dropout of the segmentation"] = retention(level, np.concatenate([np.empty(0, dtype=bool), *hits]))
    passes = dict(zip(curves, (1, mc.samples), strict=True))
    fractions = (1.0, 0.8, 0.6, 0.4, 0.2)
    rows = [
        {"uncertainty": name, "area under the curve": f"{curve.area:.3f}", "forward passes a window": str(passes[name])}
        | {f"least uncertain {100 * f:g} %": f"{100 * curve.at(f):.1f}" for f in fractions}
        | {"detections": str(len(curve.fraction))}
        for name, curve in curves.items()
    ]
    lines = (
        "Accuracy (percent of right detections) among the least uncertain ones, of the first run on its test patients. "
        f"MC dropout: {mc.samples} samples, uncertainty of a lesion is the sum of the log entropies of its voxels.",
        "The two start from different detections (fit of the heatmap; components of the segmentation), so that their "
        "accuracies at 100 % differ as the networks do.",
    )
    section = Section(
        title="Figure 2b: uncertainty", table=pd.DataFrame(rows), lines=lines, figures=(retention_figure(curves),)
    )
    return section, curves


def _patients(found: Found, threshold: float, gate: float) -> Section:
    """Beyond the paper: intervals, FROC, activity, counts."""
    cases = found["fit", "test"]
    scores = score_points(cases, threshold, max_distance=gate)
    ends = scores.intervals(rng=np.random.default_rng(0)).loc["all"]
    curves = {name: froc(found[m, "test"], max_distance=gate) for m, name in (("fit", "Gaussian fit"), ("cc", "CC"))}
    active, counts = activity(cases, threshold), lesion_counts(cases)
    rows = [
        {"what": "pooled F1 [95 % over patients]", "value": f"{100 * scores.pooled.f1:.1f} "
         f"[{100 * ends['f1_low']:.1f}, {100 * ends['f1_high']:.1f}]"},
        {"what": "FROC score, fit", "value": f"{froc_score(curves['Gaussian fit']):.3f}"},
        {"what": "patients rightly called active or not", "value": f"{active.tp + active.tn} of {len(cases)}"},
        {"what": "lesions: true / expected (sum of alpha)",
         "value": f"{counts['true'].sum()} / {counts['expected'].sum():.1f}"},
        {"what": "90 % intervals of the count that hold the truth", "value": f"{100 * counts['covered'].mean():.0f} %"},
    ]  # fmt: skip
    lines = (
        "CC has one threshold on the map and one point a component, so that its FROC ends early; alphas below 0.1 are "
        "not sought, so that the fit's expected count leaves out what is fainter.",
    )
    return Section(
        title="Beyond the paper: patients", table=pd.DataFrame(rows), lines=lines,
        figures=(froc_figure(curves), count_figure(counts)),
    )  # fmt: skip


def _risk(found: Found, config: ReproduceConfig, gate: float) -> Section:
    """Beyond the paper: a promise, checked."""
    validation, test = found["all", "validation"], found["all", "test"]
    rows, figures = [], []
    for risk, target in (("missed", config.missed), ("false_positives", config.false_positives)):
        name: Any = risk
        chosen = control_risk(validation, target, risk=name, max_distance=gate)
        rng = np.random.default_rng(0)
        splits = check_risk([*validation, *test], target, risk=name, rng=rng, splits=config.splits, max_distance=gate)
        table = score_points(test, chosen.threshold, max_distance=gate)
        n_true = table.tp + table.fn
        missed = np.divide(table.fn, n_true, out=np.zeros(len(test)), where=n_true > 0)
        if chosen.threshold == -np.inf:
            missed[:] = 0.0  # a reader looks at the whole image
        on_test = missed.mean() if risk == "missed" else np.minimum(table.fp, chosen.cap).mean()
        what = "share of missed lesions" if risk == "missed" else "false positives a patient"
        rows.append(
            {
                "promise": f"{what} at most {target:g}", "threshold": f"{chosen.threshold:.3g}",
                "validation": f"{chosen.empirical:.3f}", "test": f"{on_test:.3f}",
                f"mean over {config.splits} splits": f"{splits['risk'].mean():.3f}",
                "splits above": f"{100 * (splits['risk'] > target).mean():.0f} %",
            }
        )  # fmt: skip
        figures.append(risk_figure(splits, target=target, title=what))
    lines = (
        "The promise is on the mean over validation sets and patients: single splits may lie above it, their mean must "
        "not. A threshold of minus infinity says that no threshold can keep it, and a reader must look at the whole "
        "image.",
    )
    return Section(
        title="Beyond the paper: thresholds with a promise (conformal risk control)", table=pd.DataFrame(rows),
        lines=lines, figures=tuple(figures),
    )  # fmt: skip


def _claims(
    table: pd.DataFrame, errors: Mapping[str, Mapping[str, float]], curves: Mapping[str, RetentionCurve]
) -> Section:
    """Hold what the paper says against the numbers, with a likely reason where it does not hold."""
    main = table[(table["label"] == "heatmap") & (table["sigma"] == MAIN_SIGMA) & (table["jitter_mm"] == 0)]
    fit, cc = (float(main[name].mean()) for name in ("f1", "cc_f1"))
    curve = curves["entropy of alpha"]
    steps = " / ".join(f"{100 * curve.at(f):.0f}" for f in (1.0, 0.8, 0.6, 0.4, 0.2))
    full, tuned, scratch = (
        float(_tuned(table, fraction, start)["dice"].mean())
        for fraction, start in ((1.0, "none"), (FRACTIONS[0], f"{MAIN_SIGMA:g}"), (FRACTIONS[0], "none"))
    )
    claims = [
        ("F1 of the Gaussian fit is at least that of CC on the same heatmaps", fit >= cc,
         f"{100 * fit:.1f} against {100 * cc:.1f} %",
         "large lesions give broad peaks, to which a Gaussian of the label's width is no good model, and which CC "
         "takes as one"),
        *(
            (f"ECE of the fitted alpha is at most half that of the window sum ({loop})",
             error["fitted"] <= 0.5 * error["unfitted"], f"{error['fitted']:.3f} against {error['unfitted']:.3f}",
             "these maps have little background, so that window sums are nearly right; of the broad peak of a large "
             "lesion the fit counts only what looks like the label's Gaussian: too little")
            for loop, error in errors.items()
        ),
        ("accuracy rises steadily as uncertain detections are set aside", curve.rises(),
         f"{steps} % at 100 / 80 / 60 / 40 / 20 %",
         "with this many detections one wrong confident one moves the steps; an undertrained network has such"),
        ("with 1 % of the masks, pre-training on points comes within 5 % of all masks", tuned >= 0.95 * full,
         f"Dice {100 * tuned:.1f} against {100 * full:.1f} %",
         "1 % of this cohort is fewer masks than 1 % of the paper's; and all masks reach more where they are exact, as "
         "simulated ones are, than where experts drew them (paper: Dice 70.5 %)"),
        ("and it is better than training from scratch on the same masks", tuned > scratch,
         f"Dice {100 * tuned:.1f} against {100 * scratch:.1f} %",
         "fine-tuning had too few steps, or the detector had learned too little to help"),
    ]  # fmt: skip
    rows = [
        {"claim": claim, "here": "not run yet" if "nan" in numbers else "holds" if holds else "does not hold",
         "numbers": numbers, "likely why": "" if holds or "nan" in numbers else why}
        for claim, holds, numbers, why in claims
    ]  # fmt: skip
    return Section(title="The paper's claims", table=pd.DataFrame(rows), lines=())


def _about(cohort: Cohort, config: ReproduceConfig, table: pd.DataFrame) -> tuple[str, ...]:
    sizes = ", ".join(f"{len(cohort.split(name))} {name}" for name in ("train", "validation", "test"))
    train, tune = config.settings.train, config.settings.tune
    hours = float(table["seconds"].sum()) / 3600
    done = int(table["seconds"].notna().sum())
    runs = f"{done} runs" if done == len(table) else f"{done} of {len(table)} runs are finished so far"
    return (
        f"Cohort of kind {cohort.kind}: {sizes} patients. {runs}, {hours:.1f} hours of computing, one core each.",
        f"Networks of {train.model.levels} levels and {train.model.filters} filters; {train.steps} steps, and "
        f"{tune.steps} on shares of the masks, in which "
        f"{'everything learns' if tune.frozen == 'nothing' else 'decoder and head learn'}. Mean ± standard deviation "
        f"over {len(config.seeds)} runs or {len(config.subsets)} subsets, in percent; the paper's values in brackets. "
        f"Hits lie within {config.settings.max_distance_mm:g} mm. Every threshold was chosen on validation patients.",
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
