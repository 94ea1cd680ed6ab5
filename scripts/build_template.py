"""Pack the brain template that the simulator deforms: ICBM152 2009a maps, cropped, with the distance to the ventricles.

Run once, with nilearn installed (it ships the maps): `python scripts/build_template.py`. The result is
`lesionkit/data/icbm152.npz`; `lesionkit/data/README.md` has the notice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nilearn import datasets
from scipy import ndimage

CROP = (slice(26, 170), slice(30, 206), slice(8, 152))
"""144 x 176 x 144 mm that hold the brain."""


def main() -> None:
    """Write uint8 maps `t1`, `gm`, `wm` (255 = 1, in steps of 5), `ventricle_mm` (clipped at 255) and the affine."""
    t1, gm, wm = (
        load(resolution=1)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
        )
    )
    affine = np.array(t1.affine)
    affine[:3, 3] += affine[:3, :3] @ [axis.start for axis in CROP]
    maps = [np.asarray(image.get_fdata())[CROP] for image in (t1, gm, wm)]
    maps = [np.clip(a / a.max(), 0, 1) for a in maps]
    brain = ndimage.binary_fill_holes(ndimage.binary_opening(maps[1] + maps[2] > 0.15, iterations=1))
    brain = ndimage.binary_closing(brain, iterations=3)
    brain &= maps[0] > 0.02
    fluid = brain & (maps[1] + maps[2] < 0.5)
    deep = ndimage.distance_transform_edt(brain) > 22
    parts, _ = ndimage.label(fluid & deep)
    ventricles = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    distance = ndimage.distance_transform_edt(~ventricles)
    quantised = {
        name: 5 * np.rint(51 * a * brain).astype(np.uint8) for name, a in zip(("t1", "gm", "wm"), maps, strict=True)
    }
    folder = Path(__file__).parents[1] / "lesionkit" / "data"
    np.savez_compressed(
        folder / "icbm152.npz",
        **quantised,
        ventricle_mm=np.minimum(np.rint(distance), 255).astype(np.uint8),
        affine=affine,
    )
    print({"brain_ml": brain.sum() / 1000, "ventricles_ml": ventricles.sum() / 1000, "affine": affine.tolist()})


if __name__ == "__main__":
    main()
