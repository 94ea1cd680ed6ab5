"""Many trainings described by one table, done in parallel, each in a folder of its own, and never done twice.

In: a table with one row a run (:func:`grid`), a cohort, settings. Out: for each run a folder with its config, weights,
predictions and metrics; the metrics of all as a table.

A run is finished once its `metrics.json` is there. A run that was interrupted, also by the death of its machine, goes
on from its last completed validation.
"""

from __future__ import annotations

import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from lesionkit.checkpoints import Checkpoint, load_checkpoint
from lesionkit.components import ComponentConfig, detect_components
from lesionkit.detection import FitConfig, detect, fit_config
from lesionkit.detection.parallel import load_distributed
from lesionkit.inference import predict_array
from lesionkit.io import Case, Cohort, DataError, atomic_path
from lesionkit.mc_dropout import McConfig, lesions_of_samples, sample_maps
from lesionkit.metrics import CasePoints, froc, froc_score, score_points
from lesionkit.training import LoadedCase, TrainConfig, load_case, train
from lesionkit.training.decoding import TAUS, alpha_threshold, best_tau, case_points
from lesionkit.transfer import fine_tune, mask_subset, score_segmentation

COLUMNS = ("name", "label", "sigma", "jitter_mm", "seed", "fraction", "subset", "start")
"""Of a table of runs; `start` names the run whose network is fine-tuned to segment, or is empty."""

FITS = ("fit", "all", "paper")
"""Ways in which lesions are taken from a predicted heatmap by fitting: see :func:`read_predictions`."""


def grid(**axes: Sequence[Any]) -> pd.DataFrame:
    """Describe runs: one row for every combination of values.

    Parameters
    ----------
    **axes
        Values of `label`, `sigma`, `jitter_mm` (error of the training clicks), `seed`, `fraction` (share of the
        training masks), `subset` (which share) and `start` (the run whose network is fine-tuned); what is left out has
        one default.

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`. Concatenate tables for grids that are no full product.

    Raises
    ------
    ValueError
        If an axis is unknown.

    Examples
    --------
    >>> grid(label=["heatmap", "segmentation"], seed=[0, 1])["name"].tolist()
    ['heatmap_s1.25_0', 'heatmap_s1.25_1', 'segmentation_0', 'segmentation_1']
    """
    defaults: dict[str, Sequence[Any]] = {
        "label": ["heatmap"], "sigma": [1.25], "jitter_mm": [0.0], "seed": [0], "fraction": [1.0], "subset": [0],
        "start": [""],
    }  # fmt: skip
    unknown = set(axes) - set(defaults)
    if unknown:
        raise ValueError(f"axes: got {sorted(unknown)}, wanted some of {sorted(defaults)}")
    values = defaults | axes
    rows = [dict(zip(values, combination, strict=True)) for combination in product(*values.values())]
    return pd.DataFrame([{"name": _name(row), **row} for row in rows], columns=list(COLUMNS))


def _name(row: Mapping[str, Any]) -> str:
    parts = [str(row["label"])]
    if row["start"]:
        parts = ["tuned", str(row["start"])]
    elif row["label"] == "heatmap":
        parts.append(f"s{row['sigma']:g}")
    if row["jitter_mm"]:
        parts.append(f"jitter{row['jitter_mm']:g}")
    if row["fraction"] < 1:
        parts.append(f"{100 * row['fraction']:g}pc_{row['subset']}")
    return "_".join([*parts, str(row["seed"])])


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What all runs of a grid share."""

    train: TrainConfig
    """Of the detectors, and of segmentation on all masks; label, sigma and seed come from the table."""
    tune: TrainConfig
    """Of the detectors that learn to segment from a share of the masks (paper: fine-tuning)."""
    max_distance_mm: float = 6.0
    """Gate of the matching, mm."""
    mc: McConfig | None = None
    """MC dropout of the segmentation network on all masks that has seed 0, as it costs many passes; None: none."""

    def config(self, run: Mapping[str, Any]) -> TrainConfig:
        """Return the settings of one run's training.

        On a share of the masks from scratch it takes the steps of a detector and of its fine-tuning together: what it
        is compared with has learned as long.
        """
        config = self.tune if run["start"] else self.train
        if run["fraction"] < 1 and not run["start"]:
            config = replace(config, steps=self.train.steps + self.tune.steps)
        return replace(
            config, label=run["label"], sigma=float(run["sigma"]), jitter_mm=float(run["jitter_mm"]),
            seed=int(run["seed"]),
        )  # fmt: skip

    def sampled(self, run: Mapping[str, Any]) -> McConfig | None:
        """Return the settings of MC dropout of one run, if it is to have any."""
        whole = not run["start"] and run["fraction"] == 1
        return self.mc if run["label"] == "segmentation" and whole and not run["seed"] else None


def run_grid(
    table: pd.DataFrame,
    cohort: Cohort,
    folder: str | Path,
    settings: RunSettings,
    *,
    n_jobs: int = 1,
    scheduler: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Do the runs of a table that are not yet done.

    Parameters
    ----------
    table
        One row a run: :func:`grid`.
    cohort
        On a file system that all workers see.
    folder
        Receives a folder a run: ``run.json`` (the run and its settings), ``train.txt`` (what the training says),
        ``model.safetensors``, ``predictions.tsv`` (every candidate), ``metrics.json``, and ``attempts.txt`` (each time
        it was begun: when, and by which process of which machine).
    settings
        What all runs share.
    n_jobs
        Processes on this machine (joblib's meaning: -1 is one a core, 1 stays in this process).
    scheduler
        Address of a Dask scheduler whose workers have one thread each: the work is done there, and `n_jobs` has no
        meaning. A run whose worker dies is given to another one.
    progress
        Called with the number of runs done and of all.

    Returns
    -------
    pandas.DataFrame
        The table, and a column for each metric: f1, precision, recall, small, medium, large, froc, threshold (each of
        the fit for heatmaps, of components otherwise; with the prefix ``cc_`` for components of heatmaps), dice,
        n_masks, seconds (of the attempt that finished).

    Raises
    ------
    ValueError
        If two runs have one name, a run starts from one that is not in the table, `n_jobs` is 0, or a worker of the
        scheduler has several threads.
    DataError
        If a folder holds a run of other settings or of another cohort.
    """
    folder, cohort = Path(folder).absolute(), cohort.absolute()  # workers may have started elsewhere
    names = table["name"].tolist()
    if len(set(names)) != len(names):
        raise ValueError(f"table: got {len(names)} runs of {len(set(names))} names, wanted a name each")
    missing = set(table["start"]) - set(names) - {""}
    if missing:
        raise ValueError(f"table: got runs that start from {sorted(missing)}, which are not in it")
    if n_jobs == 0:
        raise ValueError("n_jobs must be a number of processes, or -1 for one a core, got 0")
    runs = _rows(table)
    done = 0
    for wave in ([r for r in runs if not r["start"]], [r for r in runs if r["start"]]):  # detectors, then what is tuned
        for _ in _parallel(wave, cohort, folder, settings, n_jobs, scheduler):
            done += 1
            if progress is not None:
                progress(done, len(runs))
    return read_metrics(table, folder)


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def read_metrics(table: pd.DataFrame, folder: str | Path) -> pd.DataFrame:
    """Return the table of runs with a column for each metric; NaN where a run is not finished or has none of it."""
    rows = []
    for run in table.to_dict("records"):
        path = Path(folder) / str(run["name"]) / "metrics.json"
        rows.append(run | (_read_json(path) if path.is_file() else {}))
    return pd.DataFrame(rows)


def read_predictions(folder: str | Path, name: str, cohort: Cohort) -> dict[tuple[str, str], list[CasePoints]]:
    """Return the candidates that a finished run left, by method and split.

    Of a heatmap ``fit``, ``all`` (down to alpha 0.01) and ``paper`` (the same with the paper's loop), of the first
    ``threshold_cases`` of validation and of test. ``cc``, connected components at the threshold chosen on validation,
    and ``mc``, whose scores are minus the uncertainty, are of the test split.
    """
    path = Path(folder) / name / "predictions.tsv"
    if not path.is_file():
        raise DataError(f"{path}: no such file; a finished run is wanted")
    frame = pd.read_csv(path, sep="\t", dtype={"subject": str})
    described = _read_json(path.with_name("run.json"))
    most = int(described["config"]["threshold_cases"])
    methods = [*(FITS if described["run"]["label"] == "heatmap" else ()), "cc", *(["mc"] if described["mc"] else [])]
    cases = {split: _judged(cohort, split, most) for split in ("validation", "test")}
    truth = {case.subject: load_truth(case) for some in cases.values() for case in some}
    found: dict[tuple[str, str], list[CasePoints]] = {}
    for method in methods:
        rows = frame[frame["method"] == method]
        for split, some in cases.items():
            if method in ("cc", "mc") and split == "validation":
                continue
            for case in some:
                mine = rows[rows["subject"] == case.subject]
                points, sizes = truth[case.subject]
                unfitted = mine["unfitted"].to_numpy(dtype=float)
                found.setdefault((method, split), []).append(
                    CasePoints(
                        predicted=mine[["x", "y", "z"]].to_numpy(dtype=float),
                        score=mine["score"].to_numpy(dtype=float),
                        true=points,
                        sizes=sizes,
                        subject=case.subject,
                        split=split,
                        unfitted=None if np.isnan(unfitted).any() else unfitted,
                    )
                )
    return found


def load_truth(case: Any) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, " n"]]:
    """Return the true lesions of a case: mm, and sizes in voxels."""
    from lesionkit.io import read_points

    if case.points is None:
        loaded = load_case(case)
        return loaded.points_mm, loaded.sizes
    table = read_points(case.points)
    sizes = table["size_vox"].to_numpy(dtype=float) if "size_vox" in table else np.full(len(table), np.nan)
    return table[["x", "y", "z"]].to_numpy(dtype=float), sizes


def do_run(run: Mapping[str, Any], cohort: Cohort, folder: Path, settings: RunSettings) -> str:
    """Do one run, or what is left of it; return its name."""
    place = Path(folder) / str(run["name"])
    described = _described(run, cohort, settings, cohort.digest())
    _check(place, described)
    if not (place / "metrics.json").is_file():
        place.mkdir(parents=True, exist_ok=True)
        _write_json(place / "run.json", described)
        try:
            _work(run, cohort, place, settings)
        except DataError as error:
            raise DataError(f"{place}: {error}") from error
        except FloatingPointError as error:
            raise FloatingPointError(f"{place}: {error}") from error
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from error
    return str(run["name"])


def check_runs(table: pd.DataFrame, cohort: Cohort, folder: str | Path, settings: RunSettings) -> None:
    """Refuse a folder that holds a run of other settings or of another cohort, with a `DataError` that names it."""
    digest = cohort.digest()
    for run in table.to_dict("records"):
        _check(
            Path(folder) / str(run["name"]), _described({str(k): v for k, v in run.items()}, cohort, settings, digest)
        )


def _described(run: Mapping[str, Any], cohort: Cohort, settings: RunSettings, digest: str) -> dict[str, Any]:
    """All that the result of a run depends on, as it is read back from its ``run.json``."""
    mc = settings.sampled(run)
    content = {
        "run": dict(run), "config": asdict(settings.config(run)), "max_distance_mm": settings.max_distance_mm,
        "mc": mc and asdict(mc), "cohort": {**cohort.extra, "digest": digest},
        "detector": asdict(settings.train) if run["start"] else None,
    }  # fmt: skip
    read: dict[str, Any] = json.loads(json.dumps(content, default=float))
    return read


def _check(place: Path, described: Mapping[str, Any]) -> None:
    if not (place / "run.json").is_file():
        return
    there = _read_json(place / "run.json")
    if there != described:
        differ = sorted(key for key in described if there.get(key) != described[key])
        raise DataError(
            f"{place}: holds a run that differs in {', '.join(differ) or 'what it says'}; an empty folder, or the same "
            "cohort and settings are wanted"
        )


def _work(run: Mapping[str, Any], cohort: Cohort, place: Path, settings: RunSettings) -> None:
    """Train what is not trained yet, evaluate, and write the metrics last."""
    import torch

    config = settings.config(run)
    with (place / "attempts.txt").open("a", encoding="utf-8") as log:
        log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {platform.node()} {os.getpid()}\n")
    start = time.monotonic()
    torch.set_num_threads(1)  # runs share a machine by processes
    share = bool(run["start"]) or run["fraction"] < 1
    subset = mask_subset(cohort, float(run["fraction"]), seed=int(run["subset"])) if share else cohort
    path = place / "model.safetensors"
    if not path.is_file():  # written last by a training
        with (place / "train.txt").open("a", encoding="utf-8") as log, redirect_stdout(log):
            if config.label == "segmentation":
                source = place.parent / str(run["start"]) / "model.safetensors"
                detector = load_checkpoint(source) if run["start"] else None
                fine_tune(subset, place, config, detector=detector, resume=True, progress=False)
            else:
                train(subset, place, config, resume=True, progress=False)
    network = load_checkpoint(path)
    metrics, predictions = _evaluate(
        network, cohort, settings.max_distance_mm, config.threshold_cases, mc=settings.sampled(run)
    )
    with atomic_path(place / "predictions.tsv") as temporary:
        predictions.to_csv(temporary, sep="\t", index=False, float_format="%.6g")
    metrics |= {"n_masks": float(len(subset.split("train"))), "seconds": time.monotonic() - start}
    _write_json(place / "metrics.json", metrics)


def _parallel(
    runs: list[dict[str, Any]], cohort: Cohort, folder: Path, settings: RunSettings, n_jobs: int, scheduler: str | None
) -> Iterator[str]:
    if scheduler is not None:
        distributed = load_distributed()
        with distributed.Client(scheduler) as client:
            threads = max(client.nthreads().values(), default=1)
            if threads > 1:  # a training draws the random numbers, and sends the output, of its whole process
                raise ValueError(f"scheduler: got a worker of {threads} threads, wanted one each (--nthreads 1)")
            futures = [client.submit(do_run, run, cohort, folder, settings, pure=False) for run in runs]
            for future in distributed.as_completed(futures):
                yield future.result()
    elif n_jobs == 1:
        for run in runs:
            yield do_run(run, cohort, folder, settings)
    else:
        from joblib import Parallel, delayed

        work = (delayed(do_run)(run, cohort, folder, settings) for run in runs)
        with warnings.catch_warnings():  # joblib replaces a worker whose memory has grown; no run is lost
            warnings.filterwarnings("ignore", message="A worker stopped", category=UserWarning)
            yield from Parallel(n_jobs=n_jobs, return_as="generator_unordered")(work)


def _evaluate(
    network: Checkpoint, cohort: Cohort, gate: float, most: int, *, mc: McConfig | None
) -> tuple[dict[str, float], pd.DataFrame]:
    """Score a network on the test split, every threshold chosen on validation."""
    label, tau = network.card.label, network.card.threshold
    metrics: dict[str, float] = {}
    found: dict[str, list[CasePoints]] = {}
    if label == "heatmap":
        metrics, found = _evaluate_heatmap(network, cohort, gate, most)
    elif label == "segmentation":
        score = score_segmentation(network, cohort)
        metrics = {"dice": score.dice, "patient_dice": score.patient_dice}
        found["cc"] = list(score.detections)
    else:
        tested = map(load_case, cohort.split("test"))
        found["cc"] = [_components(case, _predict(network, case), label, tau) for case in tested]
    if label != "heatmap":
        metrics |= _scores(found["cc"], tau, 0.0, gate, "")
    if mc is not None:
        sampled = replace(mc, threshold=tau)
        found["mc"] = [_mc_points(network, case, sampled) for case in map(load_case, cohort.split("test"))]
    frames = [_frame(case, method) for method, cases in found.items() for case in cases]
    return metrics, pd.concat(frames, ignore_index=True)


def _evaluate_heatmap(
    network: Checkpoint, cohort: Cohort, gate: float, most: int
) -> tuple[dict[str, float], dict[str, list[CasePoints]]]:
    """Take the lesions from each map by the fit, and by components; candidates for calibration in two ways."""
    kept: FitConfig = fit_config(network.card.sigma)
    # Calibration is judged on candidates down to the paper's floor (section 3.2, step 4), of our loop and the paper's.
    faint = replace(kept, min_alpha=0.01)
    configs = dict(zip(FITS, (kept, faint, replace(faint, mode="paper")), strict=True))
    found: dict[str, list[CasePoints]] = {method: [] for method in configs}
    components: list[list[CasePoints]] = [[] for _ in TAUS]
    for split in ("validation", "test"):
        for case in map(load_case, _judged(cohort, split, most)):
            output = _predict(network, case)
            for tau, group in zip(TAUS, components, strict=True):
                group.append(_components(case, output, "heatmap", tau))
            for method, config in configs.items():
                lesions = detect(output * np.float32(network.card.scale), config)
                found[method].append(case_points(case, lesions.mu, lesions.alpha, lesions.alpha_window))
    tau = best_tau([_of(group, "validation") for group in components], gate).threshold
    found["cc"] = _of(components[TAUS.index(tau)], "test")
    validation = _of(found["fit"], "validation")
    threshold = alpha_threshold(validation, gate)
    metrics = _scores(_of(found["fit"], "test"), threshold, threshold, gate, "")
    return metrics | _scores(found["cc"], tau, 0.0, gate, "cc_"), found


def _judged(cohort: Cohort, split: str, most: int) -> list[Case]:
    """Cases whose candidates are kept: all of test, and of validation as many as thresholds are chosen on."""
    return list(cohort.split(split))[: most if split == "validation" else None]


def _predict(network: Checkpoint, case: LoadedCase) -> Float[np.ndarray, "i j k"]:
    return predict_array(network.model, case.image, case.mask, window=network.card.window)


def _components(case: LoadedCase, output: Float[np.ndarray, "i j k"], label: str, tau: float) -> CasePoints:
    parts = detect_components(output, ComponentConfig.for_label(label, tau))
    return case_points(case, parts.points, parts.score)


def _of(cases: Sequence[CasePoints], split: str) -> list[CasePoints]:
    return [case for case in cases if case.split == split]


def _scores(cases: list[CasePoints], threshold: float, kept_from: float, gate: float, prefix: str) -> dict[str, float]:
    """Rates of the test split; those of a class without lesions are left out."""
    table = score_points(cases, kept_from, max_distance=gate)
    pooled = table.pooled
    values = {"f1": pooled.f1, "precision": pooled.precision, "recall": pooled.recall, "threshold": threshold}
    values |= {name: size.recall for name, size in table.by_size.items()}
    values["froc"] = froc_score(froc(cases, max_distance=gate))
    return {prefix + name: float(value) for name, value in values.items() if np.isfinite(value)}


def _mc_points(network: Checkpoint, case: LoadedCase, config: McConfig) -> CasePoints:
    maps = sample_maps(network.model, case.image, case.mask, config, window=network.card.window)
    lesions = lesions_of_samples(maps, config)
    return case_points(case, lesions.points, -lesions.uncertainty)


def _frame(case: CasePoints, method: str) -> pd.DataFrame:
    frame = pd.DataFrame(case.predicted, columns=["x", "y", "z"])
    unfitted = np.full(len(case.score), np.nan) if case.unfitted is None else case.unfitted
    return frame.assign(method=method, subject=case.subject, split=case.split, score=case.score, unfitted=unfitted)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: is not JSON ({error}); remove it to do the run again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no JSON object; remove it to do the run again")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
