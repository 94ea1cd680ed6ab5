"""The evented state behind every interactive view: one `Explorer`, any number of views (psygnal; no Qt, no notebook).

`state` is what views read and the signals they listen to, `commands` what a person can do. `case` is what is looked at,
`annotation` the true points and their undo, `trajectory` the steps of one search, so that going back is exact. `refit`
is the worker that keeps up with a dragged slider, `readings` what charts show, `sections` the rings that a slice cuts
out of a Gaussian; `signals` decides which signals fire.
"""

from __future__ import annotations

from lesionkit.explorer.annotation import Annotation
from lesionkit.explorer.commands import Explorer
from lesionkit.explorer.readings import Comparison, Curve, Difference, Profile, Spread
from lesionkit.explorer.sections import Sections, ellipsoid_sections
from lesionkit.explorer.state import Lesions, State
from lesionkit.explorer.trajectory import Change, Fit, Moment, Patch, Phase, Trajectory

__all__ = [
    "Annotation",
    "Change",
    "Comparison",
    "Curve",
    "Difference",
    "Explorer",
    "Fit",
    "Lesions",
    "Moment",
    "Patch",
    "Phase",
    "Profile",
    "Sections",
    "Spread",
    "State",
    "Trajectory",
    "ellipsoid_sections",
]
