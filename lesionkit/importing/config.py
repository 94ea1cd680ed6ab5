"""Settings of an import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lesionkit.io import case_layout
from lesionkit.io.delimited import Units


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """Settings of an import."""

    channels: tuple[str, ...] = ()
    """BIDS suffixes of the images, in the order in which a network takes them. Empty: the one kind there is."""
    spacing: float | tuple[float, float, float] | None = None
    """Voxel edges of the cohort, mm. None: the median of the patients' first images, axis by axis (RAS+)."""
    kind: str = "lesion"
    """What the points are: goes into the cohort's description."""
    units: Units | None = None
    """What coordinates in tables are, where their columns leave it open."""
    outside: Literal["refuse", "drop"] = "refuse"
    """What becomes of a patient with points outside the brain: refused, or imported without these points."""
    tolerance_mm: float = 3.0
    """Points this far from the brain mask still count as inside: masks are rough, and lesions lie at the cortex."""
    seed: int = 0
    """Of the split, where the folder has no ``participants.tsv`` with one."""

    def __post_init__(self) -> None:
        """Check the settings."""
        case_layout(".", "sub-0", self.channels, split="train")
        if len(set(self.channels)) < len(self.channels):
            raise ValueError(f"channels is {self.channels}; each image once is wanted")
        if self.spacing is not None:
            edges = np.asarray(self.spacing, dtype=float)
            if edges.shape not in ((), (3,)) or not (np.isfinite(edges).all() and (edges > 0.05).all()):
                raise ValueError(f"spacing is {self.spacing!r}; one or three lengths (mm) above 0.05 are wanted")
        if self.outside not in ("refuse", "drop"):
            raise ValueError(f"outside is {self.outside!r}; 'refuse' or 'drop' is wanted")
        if self.units not in (None, "mm", "voxel", "ras-voxel"):
            raise ValueError(f"units is {self.units!r}; 'mm', 'voxel' or 'ras-voxel' is wanted")
        if not self.tolerance_mm >= 0:
            raise ValueError(f"tolerance_mm is {self.tolerance_mm}; 0 or more is wanted")
