"""Score a network on a cohort, beside connected components and a detector that learns nothing.

In: a `Checkpoint` and a cohort with points. Out: for each method the candidates of every case and the threshold
that was chosen on the validation split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from lesionkit.baseline import log_candidates
from lesionkit.checkpoints import Checkpoint
from lesionkit.components import ComponentConfig, detect_components
from lesionkit.detection import detect, fit_config
from lesionkit.inference import predict_array
from lesionkit.io import Case, Cohort, DataError, read_points, read_volume
from lesionkit.labels import points_from_mask
from lesionkit.matching import match_in_mask
from lesionkit.metrics import CasePoints, ScoreTable, choose_threshold, score_cohort
from lesionkit.training import LoadedCase, load_case
from lesionkit.training.decoding import TAUS, best_tau, case_points

METHODS = {"fit": "Gaussian fit", "cc": "CC", "log": "LoG, no learning"}
"""Ways from images to candidates, and how tables call them."""


def evaluate_cohort(
    checkpoint: Checkpoint,
    cohort: Cohort,
    *,
    split: str = "test",
    max_distance: float = 6.0,
    baselines: bool = True,
    threshold: float | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, tuple[list[CasePoints], float]]:
    """Find the candidates of every case of a split, and the threshold of each method.

    Parameters
    ----------
    checkpoint : Checkpoint
        The network; its own threshold, chosen on its validation cases, is used for the Gaussian fit.
    cohort : Cohort
        Of the checkpoint's channels and spacing.
    split : str
        The split that is scored.
    max_distance : float
        Gate of the matching, mm.
    baselines : bool
        Also run connected components and the Laplacian of Gaussian, with thresholds chosen on the cohort's validation
        split. Networks of other labels than heatmaps have connected components only, at their own threshold.
    threshold : float, optional
        Of the network, instead of the checkpoint's.
    device : str
        A torch device.
    progress : callable, optional
        Called with the number of cases done and of all.

    Returns
    -------
    dict
        Method (a key of `METHODS`) -> candidates by case, threshold.

    Raises
    ------
    DataError
        If the split is empty, the baselines have no validation lesion to be tuned on, or the cohort does not fit the
        checkpoint.
    """
    if cohort.channels != checkpoint.card.channels:
        raise DataError(
            f"{cohort.folder}: has channels {', '.join(cohort.channels)}; checkpoint {checkpoint.name} wants "
            f"{', '.join(checkpoint.card.channels)}"
        )
    scored = cohort.split(split)
    if not scored:
        raise DataError(f"{cohort.folder}: the {split} split has no case")
    tuned = cohort.split("validation") if baselines else []
    if baselines and not any(case.points is not None and len(read_points(case.points)) for case in tuned):
        wanted = "leave the baselines out (--no-baselines), or give the network's --threshold"
        raise DataError(f"{cohort.folder}: has no validation case with a lesion to tune the baselines on; {wanted}")
    own = checkpoint.card.threshold if threshold is None else threshold
    total = len(scored) + len(tuned)
    found: dict[str, list[CasePoints]] = {}
    fits = checkpoint.card.label == "heatmap"
    taus = TAUS if fits else (own,)
    components: list[list[CasePoints]] = [[] for _ in taus]
    validation: dict[str, list[CasePoints]] = {"log": []}
    validated: list[list[CasePoints]] = [[] for _ in taus]
    for done, entry in enumerate((*tuned, *scored), start=1):
        case = load_case(entry)
        if not np.allclose(case.spacing, checkpoint.card.spacing, rtol=0.05):
            raise DataError(
                f"{entry.images[0]}: has voxels of {case.spacing} mm; checkpoint {checkpoint.name} was trained at "
                f"{checkpoint.card.spacing} mm. Resample the cohort"
            )
        heatmap = _heatmap(checkpoint, case, device)
        is_tuning = done <= len(tuned)
        if fits and not is_tuning:
            lesions = detect(heatmap * np.float32(checkpoint.card.scale), fit_config(checkpoint.card.sigma))
            found.setdefault("fit", []).append(case_points(case, lesions.mu, lesions.alpha, lesions.alpha_window))
        if baselines or not fits:
            for tau, group in zip(taus, validated if is_tuning else components, strict=True):
                parts = detect_components(heatmap, ComponentConfig.for_label(checkpoint.card.label, tau))
                group.append(case_points(case, parts.points, parts.score))
        if baselines:
            blobs = log_candidates(case.image.float().numpy(), case.mask)
            group = (validation if is_tuning else found).setdefault("log", [])
            group.append(case_points(case, blobs.points, blobs.score))
        if progress is not None:
            progress(done, total)
    results = {"fit": (found["fit"], own)} if fits else {"cc": (components[0], taus[0])}
    if baselines and fits:
        tau = best_tau(validated, max_distance).threshold
        results["cc"] = (components[TAUS.index(tau)], tau)
    if baselines:
        results["log"] = (found["log"], choose_threshold(validation["log"], max_distance=max_distance))
    return results


def score_in_masks(cases: Sequence[CasePoints], entries: Sequence[Case], threshold: float) -> ScoreTable:
    """Score detections by the lesions in whose mask they fall, instead of by distance.

    Parameters
    ----------
    cases
        Candidates of each patient, mm RAS+.
    entries
        The files of the same patients, each with a lesion mask.
    threshold
        Smallest score of a detection, chosen beforehand.

    Returns
    -------
    ScoreTable
        One hit a lesion; further detections in it, and those outside all lesions, are false positives.

    Raises
    ------
    DataError
        If a case has no mask.
    """
    scored = []
    for case, entry in zip(cases, entries, strict=True):
        if entry.mask is None:
            raise DataError(f"{entry.images[0]}: has no lesion mask; hits inside masks want one")
        mask = read_volume(entry.mask)
        lesions = points_from_mask(mask.data)
        kept = np.flatnonzero(case.score >= threshold)
        order = kept[np.argsort(-case.score[kept], kind="stable")]
        scored.append((match_in_mask(mask.to_voxel(case.predicted[order]), lesions.labels).matching, lesions.sizes))
    return score_cohort(scored, subjects=[case.subject for case in cases])


def _heatmap(checkpoint: Checkpoint, case: LoadedCase, device: str) -> np.ndarray:
    """Predict in units of the network's output, where a certain lesion peaks near 1."""
    image: torch.Tensor = case.image
    return predict_array(checkpoint.model, image, case.mask, window=checkpoint.card.window, device=device)
