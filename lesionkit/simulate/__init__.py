"""Data with an exact truth: whole cases on real brains, cohorts of them on disk, and bare heatmap scenes."""

from __future__ import annotations

from lesionkit.simulate.cases import SimulatedCase, simulate_case
from lesionkit.simulate.cohorts import SPLIT_SHARES, draw_splits, simulate_cohort
from lesionkit.simulate.config import CHANNELS, Kind, SimulationConfig
from lesionkit.simulate.lesions import SIZE_QUANTILES
from lesionkit.simulate.scenes import Scene, crowded_field, gallery, pair

__all__ = [
    "CHANNELS",
    "SIZE_QUANTILES",
    "SPLIT_SHARES",
    "Kind",
    "Scene",
    "SimulatedCase",
    "SimulationConfig",
    "crowded_field",
    "draw_splits",
    "gallery",
    "pair",
    "simulate_case",
    "simulate_cohort",
]
