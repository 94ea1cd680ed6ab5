"""What the page, the dashboard and the notebooks show: a map with its image, its truth and the settings that fit it.

In: a sample's name, or the user's files. Out: a :class:`ShownCase`, and from it an explorer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from lesionkit.checkpoints import read_card
from lesionkit.detection import FitConfig, fit_config
from lesionkit.explorer import Explorer
from lesionkit.io import DataError, check_inside, check_same_grid, read_points, read_volume
from lesionkit.labels import points_from_mask
from lesionkit.samples import real_patients, sample, samples_folder
from lesionkit.volume import Volume

if TYPE_CHECKING:
    from lesionkit.checkpoints import Checkpoint

SAMPLES = {"flair": "bright lesions on FLAIR (simulated)", "gad": "enhancing lesions on T1 (simulated)"}
"""Names and titles of the sample cases."""
SCENES = {
    "pair_2_1": "two equal peaks, 2 sigma apart",
    "pair_1.5_0.5": "two peaks 1 : 0.5, 1.5 sigma apart",
    "triple": "three peaks in a row",
    "beside_giant": "a faint peak beside a bright one",
    "plateau": "a plateau, as a saturated network gives",
    "hot_voxel": "a hot voxel beside a lesion",
}
"""Names and titles of the bare heatmaps worth a look."""
SCENE_SIGMA = 1.5
"""Sigma of the scenes, in voxels."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownCase:
    """A map to look into."""

    title: str
    """What it is called on the screen."""
    heatmap: Volume
    """The predicted map, mass a voxel."""
    image: Volume | None = None
    """What it was predicted from, on the same grid."""
    truth: Float[np.ndarray, "n 3"] | None = None
    """True points, float voxel index; None if unknown."""
    config: FitConfig = field(default_factory=FitConfig)
    """Settings of the search."""
    threshold: float = 0.2
    """Smallest alpha that is kept at first."""

    def explorer(self) -> Explorer:
        """Return a new explorer of the case."""
        explorer = Explorer(
            self.heatmap, image=self.image, truth=self.truth, config=self.config, threshold=self.threshold
        )
        explorer.wait()
        return explorer


def sample_case(name: str) -> ShownCase:
    """Return a sample (`gad`, `flair`) with the shipped prediction, or a bare heatmap out of the gallery (`SCENES`).

    Raises
    ------
    ValueError
        If there is no such sample.
    """
    if name in SAMPLES:
        cohort, case = sample(name)
        card = read_card(name)
        heatmap = read_volume(
            cohort.folder / "derivatives" / "lesionkit" / case.subject / "anat" / f"{case.subject}_heatmap.nii.gz"
        )
        assert case.points is not None
        return ShownCase(
            title=SAMPLES[name],
            heatmap=heatmap,
            image=read_volume(case.images[0]),
            truth=heatmap.to_voxel(read_points(case.points)[["x", "y", "z"]].to_numpy(dtype=float)),
            config=fit_config(card.sigma),
            threshold=card.threshold,
        )
    if name not in SCENES:
        raise ValueError(f"name must be one of {', '.join((*SAMPLES, *SCENES))}, got {name!r}")
    folder = samples_folder() / "gallery"
    heatmap = read_volume(folder / f"{name}_heatmap.nii.gz")
    points = read_points(folder / f"{name}_points.tsv")[["x", "y", "z"]].to_numpy(dtype=float)
    config = FitConfig(sigma=SCENE_SIGMA)
    return ShownCase(title=SCENES[name], heatmap=heatmap, truth=heatmap.to_voxel(points), config=config, threshold=0.1)


def user_case(
    images: Sequence[Path],
    *,
    checkpoint: str = "flair",
    heatmap: Path | None = None,
    sigma: float | None = None,
    truth: Path | None = None,
    network: Checkpoint | None = None,
) -> ShownCase:
    """Read a user's case; the heatmap is predicted unless it is given.

    Parameters
    ----------
    images : sequence of path
        NIfTI, one a channel of the checkpoint, in its order; with `heatmap` only the first is looked at, and there may
        be none.
    checkpoint : str
        Name or file of the network, whose sigma and threshold are taken.
    heatmap : path, optional
        NIfTI, predicted before.
    sigma : float, optional
        Standard deviation of the label in voxels, instead of the checkpoint's.
    truth : path, optional
        True points, TSV with x y z in mm (RAS+).
    network : Checkpoint, optional
        The checkpoint, if it is loaded already.

    Raises
    ------
    DataError
        If a file cannot be used.
    ValueError
        If there is nothing to show, or the images do not fit the network.
    """
    if not images and heatmap is None:
        raise ValueError("an image or --heatmap is wanted, got neither")
    card = read_card(checkpoint) if network is None else network.card
    if card.label != "heatmap":
        raise DataError(f"{checkpoint}: predicts a {card.label} map; a checkpoint for heatmaps is wanted")
    name = (images[0] if images else Path(str(heatmap))).name.removesuffix(".gz").removesuffix(".nii")
    if heatmap is not None:
        shown = read_volume(heatmap)
        image = read_volume(images[0]) if images else None
        if image is not None:
            check_same_grid(shown, image, (str(heatmap), str(images[0])))
    else:
        from lesionkit.checkpoints import load_checkpoint
        from lesionkit.inference import at_spacing, predict
        from lesionkit.pipeline import read_images

        volumes = read_images(images)
        shown = predict(network or load_checkpoint(checkpoint), volumes)
        image = at_spacing(volumes[:1], card)[0]
    points = None
    if truth is not None:
        table = read_points(truth)
        check_inside(truth, table, shown)
        points = shown.to_voxel(table[["x", "y", "z"]].to_numpy(dtype=float))
    return ShownCase(
        title=name,
        heatmap=shown,
        image=image,
        truth=points,
        config=fit_config(card.sigma if sigma is None else sigma),
        threshold=card.threshold,
    )


def own_case(image: str | Path | None = None, *, checkpoint: str = "flair") -> ShownCase | None:
    """Return a real case: the user's image, else a patient that `lesionkit fetch ljubljana` has brought; None without.

    Parameters
    ----------
    image : path, optional
        FLAIR, NIfTI, of any orientation and spacing.
    checkpoint : str
        Name or file of the network that predicts the heatmap; it must want one image.

    Raises
    ------
    DataError
        If the image cannot be used.
    """
    if image is not None:
        return user_case([Path(image)], checkpoint=checkpoint)
    patients = real_patients()
    if not patients:
        print("no real image here: set IMAGE to a FLAIR of your own (NIfTI), or run `lesionkit fetch ljubljana`")
        return None
    folder = patients[0]
    case = user_case([folder / "FLAIR.nii.gz"], checkpoint=checkpoint)
    drawn = read_volume(folder / "lesions.nii.gz")
    truth = case.heatmap.to_voxel(drawn.to_mm(points_from_mask(drawn.data).points))
    return replace(case, title=f"{folder.name}, FLAIR, lesions drawn by experts", truth=truth)
