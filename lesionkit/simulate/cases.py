"""Whole simulated cases on real brains, with lesions whose place, size and shape are known exactly.

In: a `SimulationConfig` and a random generator. Out: a `SimulatedCase`: images, the instance mask of the lesions, and
the table of points that an expert would have clicked. Two kinds: `gad` (lesions that enhance on post-contrast T1,
beside the pre-contrast T1: the paper's task) and `flair` (lesions bright on FLAIR).

Every case draws its own anatomy (affine and smooth deformation of a brain), contrasts, texture, bias field and Rician
noise; if wanted, the head around the brain and thick slices. What makes the task a task are the look-alikes: vessels,
choroid plexus and dura that enhance too, blobs bright before contrast, misregistration; on FLAIR, cortex, bright
ventricle walls, septa, vessels, and diffuse white matter.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float

from lesionkit.labels import points_from_mask
from lesionkit.simulate.anatomy import Slices, biased, draw_anatomy, measured
from lesionkit.simulate.config import SimulationConfig
from lesionkit.simulate.lesions import draw_lesions
from lesionkit.simulate.render import render_flair, render_gad
from lesionkit.simulate.template import load_template
from lesionkit.volume import Volume


@dataclass(frozen=True, eq=False)
class SimulatedCase:
    """One simulated case and its exact truth."""

    images: tuple[Volume, ...]
    """One volume a channel, all on one grid; arbitrary units; 0 outside the brain, unless there is a head."""
    brain: Volume
    """Mask of the brain with its fluid."""
    labels: Volume
    """Instance mask: voxels of lesion 1 to n; 0 elsewhere."""
    lesions: pd.DataFrame = field(repr=False)
    """One row a lesion: `i j k` (centre of mass, voxels), `x y z` (mm, RAS+), `size_vox`, `cnr`."""

    @property
    def points(self) -> Float[np.ndarray, "n 3"]:
        """Centres of mass, voxel indices."""
        return self.lesions[["i", "j", "k"]].to_numpy(dtype=float)


def simulate_case(config: SimulationConfig | None = None, *, rng: np.random.Generator) -> SimulatedCase:
    """Draw one case.

    Parameters
    ----------
    config : SimulationConfig, optional
        Default: the `gad` preset.
    rng : numpy.random.Generator
        The same state gives the same case, bit for bit.

    Returns
    -------
    SimulatedCase
        With as many lesions as are visible: in thick slices, those that fill their slices by a third or more.

    Raises
    ------
    DataError
        If an anatomy cannot be used.
    """
    config = config or SimulationConfig()
    template = load_template(
        config.anatomies[rng.integers(len(config.anatomies))], 0.35 * config.spacing if config.spacing > 1.2 else 0.0
    )
    anatomy = draw_anatomy(template, config.spacing, rng, head=rng.random() < config.heads)
    mask, cnr = draw_lesions(anatomy, config, rng)
    found = points_from_mask(mask, min_size=config.min_size)
    mask = found.labels > 0
    cnr *= mask
    noise = float(rng.uniform(*config.noise))
    render = render_gad if config.kind == "gad" else render_flair
    ideal = [biased(image, config.spacing, rng) for image in render(anatomy, mask, cnr, noise, config, rng)]
    # A stripped brain keeps some of the fluid around it, or next to none.
    fluid = (anatomy.depth < rng.uniform(0, 3)) & (anatomy.csf > 0.6)
    shown, brain, affine = anatomy.brain & ~fluid | mask, anatomy.brain | mask, anatomy.affine
    slices = None
    if rng.random() < config.thick:
        thickness = np.exp(rng.uniform(*np.log(config.thickness))) / config.spacing
        slices = Slices.draw(mask.shape, int(rng.choice(3, p=(0.15, 0.15, 0.7))), float(thickness), rng)
        ideal = [slices.average(image) for image in ideal]
        share, cnr = slices.average(mask), slices.average(cnr)
        cnr /= np.maximum(share, 1e-6)
        mask = share > 1 / 3
        shown, brain = ((slices.average(a) > 0.5) | mask for a in (shown, brain))
    correlated = rng.uniform(0.0, 0.7) / config.spacing if config.kind == "flair" else 0.0
    images = []
    silent = rng.random() < 0.5  # some scanners give air as 0
    for signal in ideal:
        image = measured(signal, noise, rng, correlated=correlated)
        if anatomy.head is not None:
            image[silent & (signal < 0.5 * noise)] = 0
        images.append(image)
    if slices is not None and config.thick_voxels:
        affine = slices.affine(affine)
    elif slices is not None:
        images = [slices.spread(image) for image in images]
        mask, shown, brain, cnr = (slices.spread(a, nearest=True) for a in (mask, shown, brain, cnr))
    found = points_from_mask(mask, min_size=config.min_size)
    # as scanners store it
    images = [np.clip(np.rint(image * rng.uniform(400, 2000)), 0, 32767).astype(np.int16) for image in images]
    if anatomy.head is None:
        images = [np.where(shown, np.maximum(image, 1), 0).astype(np.int16) for image in images]
    labels = Volume(found.labels.astype(np.uint16), affine)
    level = np.bincount(found.labels.ravel(), weights=cnr.ravel(), minlength=len(found.sizes) + 1)[1:]
    lesions = pd.DataFrame(found.points, columns=["i", "j", "k"])
    lesions[["x", "y", "z"]] = labels.to_mm(found.points)
    lesions["size_vox"] = found.sizes
    lesions["cnr"] = (level / np.maximum(found.sizes, 1)).round(2)
    return SimulatedCase(
        tuple(Volume(image, affine) for image in images), Volume(brain.astype(np.uint8), affine), labels, lesions
    )
