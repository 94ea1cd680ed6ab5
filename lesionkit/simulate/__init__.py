"""Data with an exact truth: whole cases on a real brain template, cohorts of them on disk, and bare heatmap scenes."""

from __future__ import annotations

from lesionkit.simulate.cases import CHANNELS, SIZE_QUANTILES, Kind, SimulatedCase, SimulationConfig, simulate_case
from lesionkit.simulate.cohorts import SPLIT_SHARES, draw_splits, simulate_cohort
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
