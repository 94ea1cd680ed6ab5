"""Pack the brains that the simulator deforms: `python scripts/build_template.py`.

nilearn ships the maps of ICBM152 2009a, Debian's package mricron-data Colin27 (`ch2`, `ch2bet`). Both must be
installed. The results are `lesionkit/data/icbm152.npz` and `colin27.npz`; `lesionkit/data/README.md` has the notices.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nilearn import datasets

from lesionkit.simulate.template import load_template

CROP = (slice(26, 170), slice(30, 206), slice(8, 152))
"""144 x 176 x 144 mm that hold the brain."""
COLIN = ",".join(f"/usr/share/mricron/templates/{name}.nii.gz" for name in ("ch2", "ch2bet"))
FOLDER = Path(__file__).parents[1] / "lesionkit" / "data"


def icbm152() -> dict[str, np.ndarray]:
    """Return the maps of the average, in steps of 5 of 255."""
    t1, gm, wm = (
        np.asarray(load(resolution=1).get_fdata())[CROP]
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
        )
    )
    gm, wm = (5 * np.rint(51 * np.clip(a / a.max(), 0, 1)) for a in (gm, wm))
    brain = t1 > 0.05 * t1.max()
    return {"wm": wm * brain, "csf": np.clip(255 - gm - wm, 0, 255) * brain, "brain": brain}


def colin27() -> dict[str, np.ndarray]:
    """Return the maps of one person, in quarters; the head in steps of an eighth of white matter."""
    template = load_template(COLIN)
    wm, csf = (np.rint(4 * a) * 63.75 for a in (template.wm, template.csf))
    return {"wm": wm, "csf": csf, "brain": template.brain, "head": np.rint(8 * template.head) * 12.5}


def main() -> None:
    """Write the maps as bytes, 255 being 1; the head with 100 for the intensity of white matter."""
    for build in (icbm152, colin27):
        maps = {name: a if a.dtype == bool else a.astype(np.uint8) for name, a in build().items()}
        np.savez_compressed(FOLDER / f"{build.__name__}.npz", **maps)
        print(build.__name__, {name: a.shape for name, a in maps.items()}, maps["brain"].sum() / 1e6, "litres")


if __name__ == "__main__":
    main()
