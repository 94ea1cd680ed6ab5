"""Settings of a simulation, and which images a kind has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lesionkit.simulate.template import SHIPPED

Kind = Literal["gad", "flair"]

CHANNELS: dict[str, tuple[str, ...]] = {"gad": ("ce-gad_T1w", "T1w"), "flair": ("FLAIR",)}
"""BIDS suffixes of a kind's images, in the order of the network's input channels."""


@dataclass(frozen=True, kw_only=True)
class SimulationConfig:
    """Settings of a simulated cohort."""

    kind: Kind = "gad"
    """`gad` (post- and pre-contrast T1) or `flair`."""
    spacing: float = 2.0
    """Voxel edge, mm; sizes of lesions are drawn in voxels, so that the paper's size classes keep their shares."""
    min_size: int = 3
    """Lesions of fewer voxels are no lesions (paper: small ones have 3 to 10)."""
    max_size: int = 600
    """Largest single blob, voxels; blobs that touch make larger lesions."""
    lesions: tuple[float, float] | None = (3.0, 0.6)
    """Median number of lesions a case, and the standard deviation of its logarithm; None: as many as real patients; a
    median of 0: no lesions at all."""
    clustered: float = 0.25
    """Share of lesions placed close to another one, as the nearest neighbours of real ones are."""
    reach: tuple[float, float] = (6.0, 14.0)
    """Range of the distance of such a lesion's centre from the other's, voxels."""
    gap: int = 2
    """Voxels, at least, between two lesions, so that a component is a lesion."""
    confluent: float = 0.1
    """Share of lesions that grow out of another one, so that both become one component."""
    confluences: float = 0.0
    """Mean number of confluent lesions along the ventricles in a case (Poisson), each of 1500 voxels and more."""
    contrast: tuple[float, float] = (8.0, 20.0)
    """Range of a lesion's contrast over the noise's standard deviation (CNR), log-uniform."""
    noise: tuple[float, float] = (0.02, 0.045)
    """Range of the noise's standard deviation, as a fraction of white matter's intensity."""
    lookalikes: float = 1.0
    """Multiplies the number of structures that resemble lesions; 0 for none."""
    anatomies: tuple[str, ...] = SHIPPED
    """Brains to deform, each case one of them: names of shipped ones, or files of a T1 (see `load_template`)."""
    heads: float = 0.0
    """Share of cases with the head around the brain; the others are stripped: 0 outside the brain."""
    thick: float = 0.0
    """Share of cases acquired in thick slices, mostly axial ones."""
    thickness: tuple[float, float] = (2.0, 8.0)
    """Range of the distance from slice to slice, mm; thick slices are resampled to `spacing`, truth and all."""
    thick_voxels: bool = False
    """Leave thick slices as they are, in thick voxels."""

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.kind not in CHANNELS:
            raise ValueError(f"kind must be one of {sorted(CHANNELS)}, got {self.kind!r}")
        if not 0.5 <= self.spacing <= 8:
            raise ValueError(f"spacing must be between 0.5 and 8 mm, got {self.spacing}")
        if not 1 <= self.min_size <= self.max_size:
            raise ValueError(f"min_size and max_size must be 1 <= min <= max, got {self.min_size} and {self.max_size}")
        if self.gap < 1:
            raise ValueError(f"gap must be at least 1 voxel, got {self.gap}")
        if not self.anatomies:
            raise ValueError(f"anatomies must name one brain at least, such as {SHIPPED[0]}")
        for name in ("heads", "thick"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be a share between 0 and 1, got {getattr(self, name)}")
        if self.thick and self.thickness[0] < self.spacing:
            raise ValueError(f"thickness must be at least spacing, {self.spacing:g} mm, got {self.thickness}")
        for name in ("contrast", "noise", "reach", "thickness"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a range 0 < low <= high, got {(low, high)}")

    @classmethod
    def preset(cls, kind: Kind) -> SimulationConfig:
        """Return the shipped settings of a kind: `gad` at 2 mm, `flair` at 1 mm with many more lesions."""
        if kind == "flair":
            return cls(
                kind="flair", spacing=1.0, max_size=1500, lesions=None, clustered=0.45, reach=(4.0, 12.0), gap=1,
                confluent=0.06, confluences=1.0, contrast=(6.5, 20.0), noise=(0.03, 0.06),
            )  # fmt: skip
        return cls(kind=kind)
