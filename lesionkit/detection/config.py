"""Settings of fit-and-subtract."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float


WIDEST = 3.0
"""Greatest standard deviation of a peak over sigma, where it is free; the least is 1."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """Settings of fit-and-subtract (paper, section 3.2)."""

    sigma: float | tuple[float, ...] | Literal["estimate"] = 1.0
    """Standard deviation of the label Gaussian, in voxels, one number or one per axis (paper: 1.0, 1.25, 1.5);
    ``"estimate"`` finds the one shared width that fits the map's isolated peaks best."""
    mode: Literal["joint", "paper"] = "joint"
    """``"joint"`` refits linked neighbours together after every new peak; ``"paper"`` never looks back."""
    min_alpha: float | None = None
    """Fits below this existence probability are not kept, and end the search. None: 0.01 in ``paper`` mode (section
    3.2, step 4), 0.1 in ``joint`` mode. Measured on crowded maps with noise of 2 and 5 % of a peak: F1 1.00 and 0.98
    at 0.1; 0.82 and 0.66 at 0.03, where noise is kept too. Where candidates are to be filtered by a threshold chosen
    afterwards, ask for 0.01 and enough `max_lesions`."""
    max_lesions: int = 100
    """Stop after this many kept lesions."""
    window: int = 7
    """Edge of the window that each fit looks at, in voxels; odd. A window is trimmed at the map's border."""
    width: Literal["fixed", "free"] = "fixed"
    """``"fixed"``: every peak is as wide as its label, sigma (the paper). ``"free"``: each may be up to `WIDEST` times
    as wide, so that the broad peak of a lesion whose centre is uncertain keeps its mass."""
    scale: Literal["mass", "peak"] = "mass"
    """What alpha 1 means in the map: a Gaussian of sum 1 (paper, equation 2), or one of peak 1 (keypoint style)."""
    patience: int = 1
    """Failed candidates in a row that are survived (a hot voxel, say) before the search ends; ``paper`` mode survives
    none."""
    guard: float = 1.5
    """A fit whose centre leaves its maximum by more than this, in sigma times its width, has escaped."""
    significance: float = 4.0
    """A fit is weak, whatever its alpha, below this many of its own standard errors (``joint`` mode): at a corner of
    the map noise alone can look like the tail of a lesion outside. 0 switches it off."""
    link: float = 5.0
    """Kept lesions closer than this, in sigma times the greater width, are linked and refitted together (``joint``
    mode)."""
    min_separation: float = 1.0
    """In a joint refit, a lesion closer than this to a brighter one, in sigma times the greater width, is merged into
    it; the new candidate always gives up its name to the older one."""
    max_group: int = 8
    """Most lesions in one joint refit; the closest ones are taken."""

    def __post_init__(self) -> None:
        if isinstance(self.sigma, str):
            if self.sigma != "estimate":
                raise ValueError(f'sigma must be a positive number, one per axis, or "estimate", got {self.sigma!r}')
        else:
            widths = np.asarray(self.sigma, dtype=float)
            if widths.ndim > 1 or not widths.size or not (np.isfinite(widths).all() and (widths > 0).all()):
                raise ValueError(f"sigma must be positive and finite, in voxels, got {self.sigma!r}")
            plain = float(widths) if widths.ndim == 0 else tuple(float(w) for w in widths)
            object.__setattr__(self, "sigma", plain)
        for name, allowed in (
            ("mode", ("joint", "paper")), ("width", ("fixed", "free")), ("scale", ("mass", "peak")),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {allowed}, got {getattr(self, name)!r}")
        for name, least in (("window", 3), ("max_lesions", 1), ("patience", 0), ("max_group", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
        if self.window % 2 == 0:
            raise ValueError(f"window must be odd, so that it has a centre voxel, got {self.window}")
        if not (math.isfinite(self.significance) and self.significance >= 0):
            raise ValueError(f"significance must be finite and not negative, got {self.significance!r}")
        for name in ("guard", "link", "min_separation", "min_alpha"):
            value = getattr(self, name)
            if not (value is None and name == "min_alpha") and not (
                isinstance(value, (int, float, np.number)) and math.isfinite(value) and value > 0
            ):
                raise ValueError(f"{name} must be positive and finite, got {value!r}")

    @classmethod
    def for_predictions(
        cls, sigma: float | tuple[float, ...] | Literal["estimate"], *, width: Literal["fixed", "free"] = "fixed"
    ) -> FitConfig:
        """Return the settings for predicted heatmaps: those that training chooses the threshold with."""
        # A network's peaks are not all Gaussians: one that cannot be fitted must not end the search for the fainter
        # ones, and the broad peak of a large lesion, whose centre is uncertain, must not be taken for several.
        apart = 3.0 if width == "fixed" else 2.0
        return cls(sigma=sigma, width=width, min_alpha=0.1, max_lesions=400, patience=20, min_separation=apart)

    @property
    def lowest_alpha(self) -> float:
        """`min_alpha`, or its default for the mode."""
        if self.min_alpha is not None:
            return float(self.min_alpha)
        return 0.01 if self.mode == "paper" else 0.1

    def sigma_per_axis(self, ndim: int) -> Float[np.ndarray, "{ndim}"]:
        """Return sigma as one number an axis.

        Raises
        ------
        ValueError
            If sigma has another number of axes, or is still to be estimated.
        """
        if isinstance(self.sigma, str):
            raise ValueError('sigma="estimate" has no value before a map is seen; detect() and fit_steps() accept it')
        widths = self.sigma if isinstance(self.sigma, tuple) else (self.sigma,) * ndim
        if len(widths) != ndim:
            raise ValueError(f"sigma must be a number or one per axis of the {ndim}-D map, got {self.sigma!r}")
        return np.array(widths)


fit_config = FitConfig.for_predictions
