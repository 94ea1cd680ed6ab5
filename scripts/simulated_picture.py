"""Draw simulated FLAIR images beside real ones: `python scripts/simulated_picture.py docs/simulated.webp REAL...`.

REAL are FLAIR images, drawn in the first row; the rows below are simulated: thin and stripped, with a head, thick.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy import ndimage

from lesionkit.io import read_volume
from lesionkit.preprocessing import brain_mask
from lesionkit.simulate import SimulationConfig, simulate_case
from lesionkit.volume import Volume

ROWS: dict[str, dict[str, Any]] = {
    "simulated, Colin27": {"anatomies": ("colin27",)},
    "simulated, ICBM152": {"anatomies": ("icbm152",)},
    "simulated, head, 1 mm": {"anatomies": ("colin27",), "heads": 1.0},
    "simulated, head, slices of 6 mm": {
        "anatomies": ("colin27",), "heads": 1.0, "thick": 1.0, "thickness": (6.0, 6.0), "thick_voxels": True,
    },
}  # fmt: skip
SEED = 12


def slices(image: Volume, brain: np.ndarray) -> list[np.ndarray]:
    """Return three axial slices, a coronal and a sagittal one in voxels of 1 mm; 0 is black, 1 white."""
    data = image.data / (2 * np.median(image.data[brain]))
    middle = [float(np.median(np.nonzero(brain)[axis])) for axis in range(3)]
    cuts = [(2, middle[2] + up / image.spacing[2]) for up in (-22, 2, 27)]
    cuts += [(1, middle[1]), (0, middle[0] + 18 / image.spacing[0])]
    planes = []
    for axis, at in cuts:
        steps = [step for other, step in enumerate(image.spacing) if other != axis]
        planes.append(np.rot90(ndimage.zoom(data.take(round(at), axis), steps, order=0)))
    return planes


def main() -> None:
    """Write one picture."""
    target, *real = sys.argv[1:]
    rows = {}
    for path in real:
        image = read_volume(path)
        rows[f"real, {Path(path).parent.name}"] = slices(image, brain_mask(image))
    for number, (title, settings) in enumerate(ROWS.items()):
        config = replace(SimulationConfig.preset("flair"), **settings)
        drawn = (simulate_case(config, rng=np.random.default_rng([SEED, number, trial])) for trial in count())
        case = next(case for case in drawn if case.images[0].spacing[2] == max(case.images[0].spacing))  # axial
        rows[title] = slices(case.images[0], case.brain.data > 0)
    figure, axes = plt.subplots(len(rows), 5, figsize=(10, 2.1 * len(rows)), facecolor="black", squeeze=False)
    for (title, planes), line in zip(rows.items(), axes, strict=True):
        for plane, ax in zip(planes, line, strict=True):
            ax.imshow(plane, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            ax.axis("off")
        line[0].set_title(title, color="white", fontsize=9, loc="left")
    figure.tight_layout(pad=0.3)
    buffer = BytesIO()
    figure.savefig(buffer, dpi=130, facecolor="black")
    Image.open(buffer).convert("L").save(target, quality=80)


if __name__ == "__main__":
    main()
