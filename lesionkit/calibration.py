"""Are existence probabilities true to their word? Reliability, calibration errors, recalibration (paper, section 4.2).

In: candidates with alpha and whether each is a lesion (:func:`outcomes`). Out: reliability curves before and after the
fit, binned and binning-free calibration errors with confidence bands, and recalibrations fitted on validation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from lesionkit.matching import Gate, match_points
from lesionkit.metrics import CasePoints, check_validation

Which = Literal["fitted", "unfitted"]

_GRID = 257
"""Points of the probability axis at which smooth curves are evaluated."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """Candidates of a cohort, with what was predicted of each and what it is."""

    probability: Float[np.ndarray, " n"]
    """Predicted probability of being a lesion, in [0, 1]."""
    hit: Bool[np.ndarray, " n"]
    """Whether it is matched with a true lesion."""
    patient: Int[np.ndarray, " n"]
    """Number of its patient; candidates of one patient are not independent, so patients are what is resampled."""

    def __post_init__(self) -> None:
        """Refuse probabilities that are none."""
        p = self.probability
        if not (len(p) == len(self.hit) == len(self.patient)):
            raise ValueError(
                f"probability, hit and patient: got {len(p)}, {len(self.hit)} and {len(self.patient)} entries, "
                "wanted the same number"
            )
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError("probability: got values outside [0, 1], wanted probabilities")

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.probability)

    def replaced(self, probability: Float[np.ndarray, " n"]) -> Outcomes:
        """Return the same candidates with other probabilities."""
        return Outcomes(probability=probability, hit=self.hit, patient=self.patient)


def outcomes(
    cases: Sequence[CasePoints], *, which: Which = "fitted", max_distance: float = 6.0, gate: Gate = "before"
) -> Outcomes:
    """Pair the probability of every candidate with whether it is matched to a true lesion.

    Parameters
    ----------
    cases
        One entry a patient; all candidates, no threshold.
    which
        ``"fitted"``: alpha; ``"unfitted"``: the window sum before the fit (paper, section 3.2, step 2).
    max_distance, gate
        As in :func:`~lesionkit.matching.match_points`, in mm.

    Returns
    -------
    Outcomes
        Probabilities above 1 or below 0 count as 1 and 0.

    Raises
    ------
    ValueError
        If `which` is neither, or the unfitted probabilities are asked for and a case has none.
    """
    if which not in ("fitted", "unfitted"):
        raise ValueError(f"which: got {which!r}, wanted 'fitted' or 'unfitted'")
    probability, hit, patient = [np.empty(0)], [np.empty(0, dtype=bool)], [np.empty(0, dtype=np.intp)]
    for number, case in enumerate(cases):
        values = case.score if which == "fitted" else case.unfitted
        if values is None:
            raise ValueError(f"cases: got {case.subject or 'a case'} without unfitted alphas, wanted window sums")
        matching = match_points(case.predicted, case.true, max_distance=max_distance, gate=gate)
        probability.append(np.clip(values.astype(np.float64), 0.0, 1.0))
        hit.append(matching.matched_predicted)
        patient.append(np.full(len(values), number))
    return Outcomes(probability=np.concatenate(probability), hit=np.concatenate(hit), patient=np.concatenate(patient))


@dataclass(frozen=True, kw_only=True, eq=False)
class Reliability:
    """Predicted probability against the share of true lesions, bin by bin (paper, figure 2a)."""

    edges: Float[np.ndarray, " b+1"]
    """Ends of the bins."""
    count: Int[np.ndarray, " b"]
    """Candidates in each bin."""
    confidence: Float[np.ndarray, " b"]
    """Mean predicted probability in each bin; NaN where it is empty."""
    accuracy: Float[np.ndarray, " b"]
    """Share of true lesions in each bin; NaN where it is empty."""
    low: Float[np.ndarray, " b"]
    """Lower end of the accuracy's confidence interval (Wilson)."""
    high: Float[np.ndarray, " b"]
    """Upper end."""

    @property
    def ece(self) -> float:
        """Expected calibration error: mean gap between confidence and accuracy, weighted by the bins' counts."""
        filled = self.count > 0
        gap = np.abs(self.confidence - self.accuracy)[filled]
        return float(gap @ self.count[filled] / self.count.sum()) if filled.any() else math.nan

    @property
    def mce(self) -> float:
        """Maximum calibration error: the largest gap of a bin that is not empty."""
        filled = self.count > 0
        return float(np.abs(self.confidence - self.accuracy)[filled].max()) if filled.any() else math.nan


def reliability(
    found: Outcomes, *, bins: int = 10, spacing: Literal["width", "count"] = "width", z: float = 1.96
) -> Reliability:
    """Bin candidates by probability and compare with the share of true lesions.

    Parameters
    ----------
    found
        Candidates.
    bins
        Number of bins.
    spacing
        Bins of equal ``"width"``, or of (nearly) equal ``"count"``.
    z
        Half-width of the confidence intervals, in standard errors (1.96: 95 %).

    Returns
    -------
    Reliability
        A probability on the edge between two bins belongs to the lower one.

    Raises
    ------
    ValueError
        If `bins` is below 1, or `spacing` is neither.

    References
    ----------
    Paper, section 4.2 (1) and figure 2a; C. Guo et al., On calibration of modern neural networks, ICML 2017.
    """
    if bins < 1:
        raise ValueError(f"bins: got {bins}, wanted 1 or more")
    if spacing not in ("width", "count"):
        raise ValueError(f"spacing: got {spacing!r}, wanted 'width' or 'count'")
    edges = np.linspace(0.0, 1.0, bins + 1)
    if spacing == "count" and len(found):
        edges = np.unique(np.concatenate([[0.0], np.quantile(found.probability, edges[1:-1]), [1.0]]))
    place = np.clip(np.searchsorted(edges, found.probability, side="left") - 1, 0, len(edges) - 2)
    n_bins = len(edges) - 1
    count = np.bincount(place, minlength=n_bins)
    with np.errstate(invalid="ignore", divide="ignore"):
        confidence = np.bincount(place, found.probability, minlength=n_bins) / count
        accuracy = np.bincount(place, found.hit, minlength=n_bins) / count
        middle = (accuracy + z**2 / (2 * count)) / (1 + z**2 / count)
        half = z / (1 + z**2 / count) * np.sqrt(accuracy * (1 - accuracy) / count + z**2 / (4 * count**2))
    return Reliability(
        edges=edges, count=count, confidence=confidence, accuracy=accuracy, low=middle - half, high=middle + half
    )


def brier_score(found: Outcomes) -> float:
    """Compute the mean squared difference between probability and outcome; NaN without candidates."""
    return float(np.mean((found.probability - found.hit) ** 2)) if len(found) else math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class SmoothReliability:
    """Reliability without bins: a kernel regression of the outcome on the probability."""

    error: float
    """The smooth calibration error; it lies near the ECE, but no choice of bins can move it."""
    bandwidth: float
    """Standard deviation of the kernel, found from the data (the error itself)."""
    grid: Float[np.ndarray, " g"]
    """Probabilities."""
    accuracy: Float[np.ndarray, " g"]
    """Smoothed share of true lesions at each; NaN where there are no candidates nearby."""
    density: Float[np.ndarray, " g"]
    """Smoothed density of the candidates' probabilities."""
    low: Float[np.ndarray, " g"]
    """Lower end of the confidence band; NaN without one."""
    high: Float[np.ndarray, " g"]
    """Upper end."""


def smooth_reliability(
    found: Outcomes, *, level: float = 0.95, resamples: int = 200, rng: np.random.Generator | None = None
) -> SmoothReliability:
    """Smooth the reliability curve with a Gaussian kernel of the one width that explains itself.

    The error at bandwidth s is the mean absolute value of the smoothed residual `outcome - probability`. It falls as s
    grows; the result is taken where it equals s (at the least, at one step of the grid): a finer kernel would measure
    noise, a coarser one hide the error.

    Parameters
    ----------
    found
        Candidates.
    level
        Confidence of the band.
    resamples
        Resampled cohorts behind the band (patients are drawn with replacement).
    rng
        Source of the draws; None: no band.

    Returns
    -------
    SmoothReliability
        Error, bandwidth and curve.

    Raises
    ------
    ValueError
        If there is no candidate.

    References
    ----------
    J. Blasiok, P. Nakkiran: Smooth ECE: principled reliability diagrams via kernel smoothing, ICLR 2024.
    """
    if not len(found):
        raise ValueError("found: got no candidate, wanted at least one")
    grid = np.linspace(0.0, 1.0, _GRID)
    residual = _on_grid(found.probability, found.hit - found.probability)[0] / len(found)
    low, high = grid[1], 1.0  # the error falls and the bandwidth grows: one crossing
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if _smoothed_error(residual, middle) > middle else (low, middle)
    bandwidth = (low + high) / 2
    kernel = _reflected_kernel(bandwidth)
    _, row = np.unique(found.patient, return_inverse=True)
    mass, hits = (_on_grid(found.probability, w, row) @ kernel for w in (np.ones(len(found)), found.hit))
    density = mass.sum(axis=0) / len(found)
    thin = density < 1e-3 * density.max()
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = np.where(thin, np.nan, hits.sum(axis=0) / mass.sum(axis=0))
    ends = np.full((2, _GRID), np.nan)
    if rng is not None:
        drawn = rng.multinomial(len(mass), np.full(len(mass), 1 / len(mass)), size=resamples)
        with np.errstate(invalid="ignore", divide="ignore"):
            curves = (drawn @ hits) / (drawn @ mass)
        seen = np.isfinite(curves).all(axis=0) & ~thin
        ends[:, seen] = np.quantile(curves[:, seen], ((1 - level) / 2, (1 + level) / 2), axis=0)
    return SmoothReliability(
        error=_smoothed_error(residual, bandwidth), bandwidth=float(bandwidth), grid=grid, accuracy=accuracy,
        density=density, low=ends[0], high=ends[1],
    )  # fmt: skip


def bootstrap(
    found: Outcomes,
    statistic: Callable[[Outcomes], float],
    *,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = 500,
) -> tuple[float, float]:
    """Compute an interval of any statistic, drawing patients with replacement; NaN without candidates.

    The basic interval: twice the statistic less the percentiles of its draws. An ECE is too large in few candidates,
    and in draws of them too large once more; the percentiles themselves would leave out even the statistic. Near an
    ECE of 0 it still holds the true one less often than `level`.
    """
    if not len(found):
        return math.nan, math.nan
    members = [np.flatnonzero(found.patient == number) for number in np.unique(found.patient)]
    values = []
    for _ in range(resamples):
        rows = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        values.append(
            statistic(Outcomes(probability=found.probability[rows], hit=found.hit[rows], patient=found.patient[rows]))
        )
    low, high = 2 * statistic(found) - np.nanquantile(values, ((1 + level) / 2, (1 - level) / 2))
    return float(low), float(high)


class Recalibration(Protocol):
    """A map from predicted to recalibrated probabilities."""

    def __call__(self, probability: Real[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Recalibrate probabilities in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Divide the log odds by a number: one parameter, order kept."""

    temperature: float
    """Above 1 moves probabilities towards 1/2, below 1 away from it."""

    def __call__(self, probability: Real[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Recalibrate probabilities in [0, 1]; 1/2 stays, and 0 and 1 count as 1e-6 and 1 - 1e-6."""
        return _sigmoid(_log_odds(probability) / self.temperature)


@dataclass(frozen=True, kw_only=True, eq=False)
class Isotonic:
    """Rising steps, straight in between: any number of parameters, order kept but for ties."""

    knots: Float[np.ndarray, " k"]
    """Probabilities, rising."""
    values: Float[np.ndarray, " k"]
    """Recalibrated probability at each, not falling."""

    def __call__(self, probability: Real[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Recalibrate probabilities in [0, 1]; beyond the outermost knots it is constant."""
        return np.asarray(np.interp(np.asarray(probability, dtype=np.float64), self.knots, self.values))


def fit_temperature(
    validation: Sequence[CasePoints], *, max_distance: float = 6.0, gate: Gate = "before"
) -> Temperature:
    """Fit a temperature by likelihood.

    Parameters
    ----------
    validation
        Patients of the validation set.
    max_distance, gate
        As in :func:`~lesionkit.matching.match_points`, in mm.

    Returns
    -------
    Temperature
        Between 0.05 and 20.

    Raises
    ------
    ValueError
        If a case is of a split other than validation, or there is no candidate.
    """
    from scipy.optimize import minimize_scalar

    found = _to_fit(validation, max_distance, gate)
    odds = _log_odds(found.probability)

    def loss(log_t: float) -> float:
        scaled = odds / math.exp(log_t)
        return float(np.mean(np.logaddexp(0.0, scaled) - found.hit * scaled))

    best = minimize_scalar(loss, bounds=(math.log(0.05), math.log(20.0)), method="bounded")
    return Temperature(temperature=math.exp(float(best.x)))


def fit_isotonic(validation: Sequence[CasePoints], *, max_distance: float = 6.0, gate: Gate = "before") -> Isotonic:
    """Fit the rising function nearest to the outcomes (least squares).

    Parameters
    ----------
    validation
        Patients of the validation set.
    max_distance, gate
        As in :func:`~lesionkit.matching.match_points`, in mm.

    Returns
    -------
    Isotonic
        One knot at each end of a step.

    Raises
    ------
    ValueError
        If a case is of a split other than validation, or there is no candidate.
    """
    from scipy.optimize import isotonic_regression

    found = _to_fit(validation, max_distance, gate)
    knots, place, count = np.unique(found.probability, return_inverse=True, return_counts=True)
    share = np.bincount(place, found.hit) / count
    values = np.asarray(isotonic_regression(share, weights=count.astype(float)).x)
    inner = np.zeros(len(knots), dtype=bool)
    inner[1:-1] = (values[1:-1] == values[:-2]) & (values[1:-1] == values[2:])
    return Isotonic(knots=knots[~inner], values=values[~inner])


def _to_fit(validation: Sequence[CasePoints], max_distance: float, gate: Gate) -> Outcomes:
    check_validation(validation, what="a recalibration")
    found = outcomes(validation, max_distance=max_distance, gate=gate)
    if not len(found):
        raise ValueError("validation: got no candidate, wanted at least one to fit a recalibration")
    return found


def _log_odds(probability: Real[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    p = np.clip(np.asarray(probability, dtype=np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(p) - np.log1p(-p))


def _sigmoid(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def _on_grid(
    probability: Float[np.ndarray, " n"], weight: Real[np.ndarray, " n"], row: Int[np.ndarray, " n"] | None = None
) -> Float[np.ndarray, "rows g"]:
    """Share each weight between the two grid points around its probability, in the row of its patient."""
    rows = np.zeros(len(probability), dtype=np.intp) if row is None else row
    place = np.minimum((probability * (_GRID - 1)).astype(np.intp), _GRID - 2)
    right = probability * (_GRID - 1) - place
    total = np.zeros((int(rows.max()) + 1, _GRID))
    np.add.at(total, (rows, place), weight * (1 - right))
    np.add.at(total, (rows, place + 1), weight * right)
    return total


def _reflected_kernel(bandwidth: float) -> Float[np.ndarray, "g g"]:
    """Gaussian kernel between grid points, reflected at 0 and 1 as often as it reaches, so that no mass is lost."""
    grid = np.linspace(0.0, 1.0, _GRID)
    total = np.zeros((_GRID, _GRID))
    reach = math.ceil(4 * bandwidth / 2) + 1
    for turn in range(-reach, reach + 1):
        for image in (2 * turn + grid, 2 * turn - grid):
            total += np.exp(-0.5 * (np.subtract.outer(image, grid) / bandwidth) ** 2)
    return total / (math.sqrt(2 * math.pi) * bandwidth)


def _smoothed_error(residual: Float[np.ndarray, " g"], bandwidth: float) -> float:
    """Mean over the probability axis of the absolute smoothed residual (trapezoidal rule)."""
    smoothed = np.abs(residual @ _reflected_kernel(bandwidth))
    return float(np.mean((smoothed[1:] + smoothed[:-1]) / 2))
