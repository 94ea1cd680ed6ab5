"""What fit-and-subtract leaves behind: one record a step, and the detections.

Points are float voxel indices in the map's axis order, sigma is a standard deviation in voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from lesionkit.detection.config import FitConfig

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Bool, Float, Num

Status = Literal["kept", "weak", "escaped", "merged", "not_converged"]
Box = tuple[slice, ...]

REACH = 6.0
"""Half-width, in sigma, of the box in which a Gaussian is subtracted; beyond it the density is below 2e-8 of its
peak."""


class Refit(NamedTuple):
    """A lesion as a joint refit left it."""

    step: int
    """The step that found it."""
    mu: Float[np.ndarray, " ndim"]
    alpha: float
    width: float = 1.0


class FitStep(NamedTuple):
    """One turn of the loop: locate the maximum, fit, subtract (paper, section 3.2, steps 1 to 3)."""

    number: int
    """0, 1, 2, ... in the order of the search; lesions are named by the step that found them."""
    voxel: tuple[int, ...]
    """Index of the residual's maximum."""
    value: float
    """Its height."""
    window: Box
    """The part of the map that the fit looked at."""
    alpha_window: float
    """The unfitted estimate of alpha: the sum over the window (the paper's initial estimate)."""
    mu: Float[np.ndarray, " ndim"]
    """Fitted centre, float voxel index; as first fitted, see `refits`."""
    alpha: float
    """Fitted existence probability; as first fitted, see `refits`."""
    residual_energy: float
    """Sum of squares left in the window by the fit."""
    energy: float
    """Sum of squares in the window before it."""
    iterations: int
    """Iterations of the fit."""
    status: Status
    """``kept``; ``weak``: alpha too low; ``escaped``: the centre left the window's middle; ``merged``: a joint refit
    gave it to its neighbours; ``not_converged``: no Gaussian of this sigma describes the window."""
    flags: tuple[str, ...] = ()
    """``border``: the window is trimmed; ``hot``: the maximum towers over its fit; ``saturated``: many voxels share the
    maximum; ``plateau``: a constant describes the window better than a Gaussian;
    ``misfit``: the fit explains little of the window, and what it leaves is no noise."""
    refits: tuple[Refit, ...] = ()
    """Lesions changed by the joint refit, this one included, with their new values."""
    drops: tuple[int, ...] = ()
    """Earlier lesions removed by the joint refit."""
    width: float = 1.0
    """Fitted standard deviation over sigma; as first fitted, see `refits`."""

    @property
    def explained(self) -> float:
        """Share of the window's energy that the fit explains, 0 to 1."""
        return 1.0 - self.residual_energy / self.energy if self.energy > 0 else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """The state after one step."""

    step: FitStep
    residual: Float[np.ndarray, " ..."]
    """The map (or the region asked for) less the lesions of this moment."""
    mu: Float[np.ndarray, "n ndim"]
    alpha: Float[np.ndarray, " n"]
    found: tuple[int, ...]
    """For each lesion, the step that found it."""
    width: Float[np.ndarray, " n"]
    """Standard deviations over sigma."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """The lesions found in one map, in the order in which they were found."""

    mu: Float[np.ndarray, "n ndim"]
    """Centres, float voxel index in the map's axis order."""
    alpha: Float[np.ndarray, " n"]
    """Fitted existence probabilities (not clipped to 1)."""
    width: Float[np.ndarray, " n"]
    """Fitted standard deviations over sigma: 1 where widths are fixed."""
    alpha_window: Float[np.ndarray, " n"]
    """The unfitted estimates: window sums at the step that found the lesion."""
    covariance: Float[np.ndarray, "n ndim ndim"]
    """Covariance of the centres, in voxels squared, from the fit and the residual it leaves."""
    alpha_se: Float[np.ndarray, " n"]
    """Standard errors of alpha."""
    explained: Float[np.ndarray, " n"]
    """Share of the energy around each lesion that its fit explains, 0 to 1."""
    lesion_flags: tuple[tuple[str, ...], ...]
    """Flags of each lesion: see :class:`FitStep`."""
    found: tuple[int, ...]
    """For each lesion, the number of the step that found it."""
    steps: tuple[FitStep, ...]
    """Every step, kept or not."""
    stopped: str
    """Why the search ended: ``floor`` (no voxel is high enough), ``max_lesions``, ``plateau``, ``misfit`` (``joint``
    mode: the map holds no Gaussians of this sigma, but shells, ridges or much wider lesions), ``max_steps``, or the
    status of the step at which patience ran out."""
    flags: tuple[str, ...]
    """What is odd about the whole map: ``plateau``, ``saturated``, ``misfit`` where the search ended for that, or
    ``peak_scaled?`` where alphas near 1 / N(0) suggest that the map is scaled to peak 1."""
    sigma: tuple[float, ...]
    """Standard deviation used, one per axis, in voxels."""
    config: FitConfig
    heatmap: Num[np.ndarray, " ..."] | Callable[[], Num[np.ndarray, " ..."]] = field(repr=False)
    """The map (not a copy), or a function that loads it."""

    def __len__(self) -> int:
        return len(self.alpha)

    @property
    def mu_se(self) -> Float[np.ndarray, "n ndim"]:
        """Standard errors of the centres along each axis, in voxels."""
        return np.asarray(np.sqrt(np.diagonal(self.covariance, axis1=1, axis2=2)))

    def filter(self, threshold: float) -> Detections:
        """Return the lesions with ``alpha >= threshold`` (paper, section 3.2, step 5); the steps stay."""
        return self._chosen(self.alpha >= threshold)

    def _chosen(self, which: Bool[np.ndarray, " n"]) -> Detections:
        rows = np.flatnonzero(which).tolist()
        return replace(
            self,
            mu=self.mu[rows],
            alpha=self.alpha[rows],
            width=self.width[rows],
            alpha_window=self.alpha_window[rows],
            covariance=self.covariance[rows],
            alpha_se=self.alpha_se[rows],
            explained=self.explained[rows],
            lesion_flags=tuple(self.lesion_flags[i] for i in rows),
            found=tuple(self.found[i] for i in rows),
        )

    def covariance_mm(self, affine: Float[np.ndarray, "m m"]) -> Float[np.ndarray, "n ndim ndim"]:
        """Covariance of the centres in mm squared, along the world axes of `affine` (``(ndim + 1, ndim + 1)``)."""
        linear = self._affine(affine)[:-1, :-1]
        return np.asarray(linear @ self.covariance @ linear.T)

    def ellipsoids_mm(
        self, affine: Float[np.ndarray, "m m"], *, level: float = 0.95
    ) -> tuple[Float[np.ndarray, "n ndim"], Float[np.ndarray, "n ndim ndim"]]:
        """Confidence ellipsoids of the centres.

        Parameters
        ----------
        affine : (ndim + 1, ndim + 1) float
            Voxel index to mm.
        level : float
            Probability that the ellipsoid covers the true centre, if the noise is white.

        Returns
        -------
        semi_axes : (n, ndim) float
            Half-lengths in mm, ascending.
        directions : (n, ndim, ndim) float
            Unit vectors in world axes; column ``[:, :, i]`` belongs to half-length ``i``.
        """
        if not 0.0 < level < 1.0:
            raise ValueError(f"level must lie between 0 and 1, got {level!r}")
        from scipy.special import chdtri

        values, directions = np.linalg.eigh(self.covariance_mm(affine))
        squared_radius = chdtri(self.mu.shape[1], 1.0 - level)  # of the ball that holds `level` of a standard normal
        return np.sqrt(np.maximum(values, 0.0) * squared_radius), directions

    def _affine(self, affine: Float[np.ndarray, "m m"]) -> Float[np.ndarray, "m m"]:
        matrix = np.asarray(affine, dtype=float)
        size = self.mu.shape[1] + 1
        if matrix.shape != (size, size):
            raise ValueError(f"affine must have shape ({size}, {size}) for a {size - 1}-D map, got {matrix.shape}")
        return matrix

    def to_frame(self, affine: Float[np.ndarray, "m m"] | None = None) -> pd.DataFrame:
        """One row a lesion.

        Parameters
        ----------
        affine : (ndim + 1, ndim + 1) float, optional
            Voxel index to mm; adds the columns ``x y z`` (mm) and ``x_se y_se z_se`` (standard errors in mm).

        Returns
        -------
        pandas.DataFrame
            ``i j k`` (voxel index), ``alpha``, ``alpha_se``, ``alpha_window``, ``i_se j_se k_se`` (voxels),
            ``width``, ``explained``, ``step``, ``flags`` (comma-separated).
        """
        import pandas as pd

        columns: dict[str, Any] = {}
        if affine is not None:
            matrix = self._affine(affine)
            world = self.mu @ matrix[:-1, :-1].T + matrix[:-1, -1]
            columns |= dict(zip("xyz", world.T, strict=False))
        columns |= dict(zip("ijk", self.mu.T, strict=False))
        columns |= {"alpha": self.alpha, "alpha_se": self.alpha_se, "alpha_window": self.alpha_window}
        columns |= {f"{name}_se": values for name, values in zip("ijk", self.mu_se.T, strict=False)}
        if affine is not None:
            errors = np.sqrt(np.diagonal(self.covariance_mm(affine), axis1=1, axis2=2))
            columns |= {f"{name}_se": values for name, values in zip("xyz", errors.T, strict=False)}
        columns |= {"width": self.width, "explained": self.explained, "step": np.array(self.found, dtype=int)}
        columns["flags"] = np.array([",".join(flags) for flags in self.lesion_flags], dtype=object)
        return pd.DataFrame(columns)

    def replay(self, i: int, *, region: Box | None = None) -> Replay:
        """Return residual and lesions as they stood after step `i`.

        The lesions follow from the records; the residual is the map less those lesions, so that the cost is that of the
        region shown, whatever came before.

        Parameters
        ----------
        i : int
            Number of the step; -1 is the last.
        region : tuple of slice, optional
            Part of the map to return (one slice an axis, step 1); None for all of it.

        Raises
        ------
        IndexError
            If there is no such step.
        """
        if not -len(self.steps) <= i < len(self.steps):
            raise IndexError(f"step {i} does not exist: there are {len(self.steps)} steps")
        step = self.steps[i]
        lesions = lesions_after(self.steps[: step.number + 1])
        ndim = self.mu.shape[1]
        mu = np.array([one.mu for one in lesions.values()]).reshape(-1, ndim)
        alpha, width = (np.array([getattr(one, name) for one in lesions.values()]) for name in ("alpha", "width"))
        residual = subtract(self._data(), mu, alpha, self.sigma, width=width, scale=self.config.scale, region=region)
        return Replay(step=step, residual=residual, mu=mu, alpha=alpha, found=tuple(lesions), width=width)

    def residual(self, *, region: Box | None = None) -> Float[np.ndarray, " ..."]:
        """Return the map less these lesions (after :meth:`filter`: less those that are left)."""
        return subtract(
            self._data(), self.mu, self.alpha, self.sigma, width=self.width, scale=self.config.scale, region=region
        )

    def _data(self) -> Num[np.ndarray, " ..."]:
        return self.heatmap() if callable(self.heatmap) else self.heatmap


def lesions_after(steps: tuple[FitStep, ...]) -> dict[int, Refit]:
    """Replay the records: the step that found a lesion -> the lesion as it stands after the last record."""
    lesions: dict[int, Refit] = {}
    for step in steps:
        if step.status == "kept":
            lesions[step.number] = Refit(step.number, step.mu, step.alpha, step.width)
        for refit in step.refits:
            lesions[refit.step] = refit
        for dropped in step.drops:
            del lesions[dropped]
    return lesions


def subtract(
    heatmap: Num[np.ndarray, " ..."],
    mu: Float[np.ndarray, "n ndim"],
    alpha: Float[np.ndarray, " n"],
    sigma: tuple[float, ...],
    *,
    width: Float[np.ndarray, " n"] | None = None,
    scale: Literal["mass", "peak"] = "mass",
    region: Box | None = None,
) -> Float[np.ndarray, " ..."]:
    """Return a copy of the map, or of a region, less ``alpha * N(mu, width * sigma)`` of each lesion (equation 3).

    Floating-point maps keep their precision, at least float32; integers become float64.
    """
    shape = heatmap.shape
    where = region or tuple(slice(0, n) for n in shape)
    if len(where) != len(shape) or any(s.step not in (None, 1) for s in where):
        raise ValueError(f"region must hold one slice of step 1 for each of the {len(shape)} axes, got {region!r}")
    bounds = np.array([s.indices(n)[:2] for s, n in zip(where, shape, strict=True)])
    lower, upper = bounds[:, 0], np.maximum(bounds[:, 1], bounds[:, 0])
    kind = heatmap.dtype if heatmap.dtype.kind == "f" and heatmap.dtype.itemsize >= 4 else None
    dtype = kind or (np.dtype(np.float32) if heatmap.dtype == np.float16 else np.dtype(np.float64))
    out: Float[np.ndarray, " ..."] = np.array(heatmap[where], dtype=dtype.newbyteorder("="))
    # an axis of length 1 carries no position: its factor is 1
    sigmas = np.where(np.array(shape) == 1, np.inf, np.asarray(sigma))
    finite = sigmas[np.isfinite(sigmas)]
    unit = 1.0 if scale == "peak" else float(np.prod(1.0 / (np.sqrt(2.0 * np.pi) * finite)))
    for centre, a, wide in zip(mu, alpha, np.ones(len(mu)) if width is None else width, strict=True):
        reach = np.ceil(REACH * wide * np.where(np.isfinite(sigmas), sigmas, 0.0)).astype(int)
        nearest = np.rint(centre).astype(int)
        first = np.maximum(nearest - reach, lower)
        last = np.minimum(nearest + reach + 1, upper)
        if (last <= first).any():
            continue
        patch: Any = a * unit / wide**finite.size
        for axis in range(len(shape)):
            offsets = (np.arange(first[axis], last[axis]) - centre[axis]) / (wide * sigmas[axis])
            patch = np.multiply.outer(patch, np.exp(-0.5 * offsets * offsets))
        out[tuple(slice(f, t) for f, t in zip(first - lower, last - lower, strict=True))] -= patch
    return out
