"""Make `data_samples/`: one simulated case a kind with truth and prediction, and the gallery of peaks.

Run from the repository: `python scripts/build_samples.py`. The same code gives the same files;
the cases are outside every training cohort.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lesionkit.checkpoints import load_checkpoint
from lesionkit.io import (
    case_layout,
    read_volume,
    write_cohort_description,
    write_participants,
    write_points,
    write_volume,
)
from lesionkit.pipeline import detect_lesions
from lesionkit.simulate import CHANNELS, SimulatedCase, SimulationConfig, gallery, simulate_case
from lesionkit.volume import Volume

SEED = 20220918
LESIONS = {"gad": (5, 8), "flair": (25, 50)}
"""How many lesions a sample should have: enough to see something, few enough to look at each."""


def draw(kind: str) -> SimulatedCase:
    """Draw cases until one has a suitable number of lesions."""
    low, high = LESIONS[kind]
    for number in range(100):
        case = simulate_case(SimulationConfig.preset(kind), rng=np.random.default_rng([SEED, number]))
        if low <= len(case.lesions) <= high:
            return case
    raise RuntimeError(f"no case of {low} to {high} lesions")


def main() -> None:
    """Write the samples."""
    root = Path(__file__).parents[1] / "data_samples"
    for name, scene in gallery().items():
        # steps of 1e-5 of the mass: far below the noise, and the files stay small
        volume = Volume(np.round(scene.heatmap, 5).astype(np.float32), np.eye(4))
        write_volume(root / "gallery" / f"{name}_heatmap.nii.gz", volume)
        table = pd.DataFrame(scene.points, columns=["x", "y", "z"]).assign(alpha=scene.alpha)
        write_points(root / "gallery" / f"{name}_points.tsv", table)
    for kind, channels in CHANNELS.items():
        case, folder = draw(kind), root / kind
        paths = case_layout(folder, "sub-01", channels, split="test")
        scale = 400 / np.median(case.images[0].data[case.images[0].data > 0])
        for path, image in zip(paths.images, case.images, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            # fewer grey levels than a scanner's: the noise is still resolved, and the file is a third as large
            data = np.where(image.data > 0, np.maximum(np.rint(image.data * scale), 1), 0).astype(np.int16)
            write_volume(path, image.with_data(data))
        paths.mask.parent.mkdir(parents=True, exist_ok=True)
        write_volume(paths.mask, case.labels)
        write_points(paths.points, case.lesions[["x", "y", "z", "size_vox", "cnr"]])
        write_participants(folder, pd.DataFrame({"participant_id": ["sub-01"], "split": ["test"]}))
        write_cohort_description(folder, kind, channels, seed=SEED)
        result = detect_lesions(load_checkpoint(kind), [read_volume(path) for path in paths.images])
        heatmap = folder / "derivatives" / "lesionkit" / "sub-01" / "anat" / "sub-01_heatmap.nii.gz"
        heatmap.parent.mkdir(parents=True, exist_ok=True)
        values = np.round(result.heatmap_as_given().data, 6)  # a certain lesion peaks above 0.01
        write_volume(heatmap, case.labels.with_data(np.where(values < 1e-5, 0, values).astype(np.float32)))
        print(kind, len(case.lesions), "lesions;", len(result.lesions()), "found")


if __name__ == "__main__":
    main()
