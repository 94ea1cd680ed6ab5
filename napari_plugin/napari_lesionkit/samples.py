"""Sample data in napari's menu: the cases that come with the kit, and the gallery of overlapping peaks."""

from __future__ import annotations

from lesionkit.checkpoints import read_card
from lesionkit.io import DataError, read_points
from lesionkit.samples import sample, samples_folder
from napari_lesionkit.reader import Layer, nifti_layer

GALLERY_SIGMA = 1.5
"""Width of the peaks of the gallery, in voxels (data_samples/README.md)."""


def gad() -> list[Layer]:
    """Return enhancing lesions on post-contrast T1, the pre-contrast image, and the predicted heatmap."""
    return case("gad")


def flair() -> list[Layer]:
    """Return bright lesions on FLAIR, and the predicted heatmap."""
    return case("flair")


def case(kind: str) -> list[Layer]:
    """Return the images of a sample case, the first on top, and its heatmap with the truth in its metadata."""
    cohort, found = sample(kind)
    folder = cohort.folder / "derivatives" / "lesionkit"
    heatmaps = sorted(folder.glob("sub-*/anat/*_heatmap.nii.gz"))
    if not heatmaps:
        raise DataError(f"{folder}: holds no heatmap; install lesionkit again")
    card = read_card(kind)
    truth = None if found.points is None else read_points(found.points)[["x", "y", "z"]].to_numpy(dtype=float)
    images = [nifti_layer(path) for path in reversed(found.images)]
    for _, options, _ in images[:-1]:
        options["visible"] = False
    return [*images, nifti_layer(heatmaps[0], sigma=card.sigma, threshold=card.threshold, truth_mm=truth)]


def gallery(scene: str = "pair_2_0.5") -> list[Layer]:
    """Return a bare heatmap of overlapping peaks, by default of two that paper and joint mode see differently."""
    folder = samples_folder() / "gallery"
    truth = read_points(folder / f"{scene}_points.tsv")[["x", "y", "z"]].to_numpy(dtype=float)
    known = {"sigma": GALLERY_SIGMA, "threshold": 0.2, "truth_mm": truth, "exact": True}
    return [nifti_layer(folder / f"{scene}_heatmap.nii.gz", **known)]


def triangle() -> list[Layer]:
    """Return three peaks in a triangle, closer together than any of them is wide."""
    return gallery("triangle")


def beside_giant() -> list[Layer]:
    """Return a faint peak beside a bright one."""
    return gallery("beside_giant")


def hot_voxel() -> list[Layer]:
    """Return a peak and a single hot voxel, which is no peak."""
    return gallery("hot_voxel")
