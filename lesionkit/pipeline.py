"""The main job on one case: images -> heatmap -> lesions -> files and a page to look at.

In: `Volume`s and a `Checkpoint`. Out: a `CaseResult`, and with `write_result` the heatmap (NIfTI), the lesions (TSV)
and the report (HTML).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Bool

from lesionkit.brain import brain_note
from lesionkit.channels import check_contrast, in_order
from lesionkit.checkpoints import Checkpoint
from lesionkit.components import ComponentConfig, Components, detect_components
from lesionkit.detection import Detections, FitConfig, detect
from lesionkit.explorer import Explorer, Trajectory
from lesionkit.inference import at_spacing, fit_config, predict
from lesionkit.io import DataError, check_same_grid, read_volume, write_points, write_volume
from lesionkit.metrics import CasePoints
from lesionkit.preprocessing import brain_mask, check_image
from lesionkit.volume import Volume, resample_to
from lesionkit.widgets.page import export_page

RING_MM = 5.0
"""Radius of the rings around connected components, which have no sigma."""


@dataclass(frozen=True, eq=False)
class CaseResult:
    """What was found in one case."""

    source: Volume
    """The first image as it was given."""
    image: Volume
    """The first image on the network's grid."""
    heatmap: Volume
    """Predicted heatmap on that grid, mass a voxel; for other labels the map itself."""
    detections: Detections | Components
    """All candidates, voxel indices of that grid: of the fit, or connected components for other labels."""
    threshold: float
    """Smallest alpha of a lesion, or tau of the components."""
    checkpoint: str
    """Name of the network."""

    def candidates(self) -> pd.DataFrame:
        """Return all candidates, the highest first: `x y z` (mm, RAS+), `i j k` (voxel of the image), `alpha`...

        `alpha` of a connected component is the map's maximum in it; it has no standard error.
        """
        if isinstance(self.detections, Components):
            return self._component_frame(self.detections)
        frame = self.detections.to_frame(self.heatmap.affine)
        frame[["i", "j", "k"]] = self.source.to_voxel(frame[["x", "y", "z"]].to_numpy(dtype=float).reshape(-1, 3))
        frame = frame.drop(columns=["i_se", "j_se", "k_se"])
        return frame.sort_values("alpha", ascending=False, kind="stable", ignore_index=True)

    def _component_frame(self, found: Components) -> pd.DataFrame:
        world = self.heatmap.to_mm(found.points)
        frame = pd.DataFrame(np.hstack([world, self.source.to_voxel(world)]), columns=list("xyzijk"))
        return frame.assign(alpha=found.score, alpha_se=np.nan, explained=np.nan, size_vox=found.size)

    def lesions(self) -> pd.DataFrame:
        """Return the candidates whose alpha reaches the threshold (paper, section 3.2, step 5)."""
        frame = self.candidates()
        return frame[frame["alpha"] >= self.threshold].reset_index(drop=True)

    def heatmap_as_given(self) -> Volume:
        """Return the heatmap on the grid of the image as it was given, with its mass kept (other labels: values)."""
        if self.heatmap.same_grid(self.source):
            return self.heatmap
        moved = resample_to(self.heatmap, self.source.shape, self.source.affine)
        if isinstance(self.detections, Components):
            return self.source.with_data(np.asarray(moved.data, dtype=np.float32))
        per_voxel = self.source.voxel_mm3 / self.heatmap.voxel_mm3
        return self.source.with_data(np.asarray(moved.data * per_voxel, dtype=np.float32))

    def explorer(self, truth: pd.DataFrame | None = None, *, max_distance_mm: float = 6.0) -> Explorer:
        """Return the case to look into: nothing is predicted or searched again."""
        found, heatmap = self.detections, self.heatmap
        if isinstance(found, Components):  # the rings of 2 sigma are RING_MM wide
            config = FitConfig(sigma=tuple(RING_MM / 2 / s for s in heatmap.spacing))
            trajectory = Trajectory.given(heatmap.data, config, found.points, found.score)
        else:
            config, trajectory = found.config, Trajectory(found)
        points = (
            None if truth is None else heatmap.to_voxel(truth[["x", "y", "z"]].to_numpy(dtype=float).reshape(-1, 3))
        )
        explorer = Explorer(
            heatmap, image=self.image, truth=points, config=config, threshold=self.threshold,
            max_distance=max_distance_mm, found=trajectory,
        )  # fmt: skip
        return explorer

    def case_points(self, truth: pd.DataFrame, subject: str = "", split: str = "") -> CasePoints:
        """Return candidates and truth in mm, as the metrics want them."""
        frame = self.candidates()
        sizes = truth["size_vox"] if "size_vox" in truth else pd.Series(np.nan, index=truth.index)
        return CasePoints(
            predicted=frame[["x", "y", "z"]].to_numpy(dtype=float),
            score=frame["alpha"].to_numpy(dtype=float),
            true=truth[["x", "y", "z"]].to_numpy(dtype=float),
            sizes=sizes.to_numpy(dtype=float),
            subject=subject,
            split=split,
        )


def read_images(paths: Sequence[str | Path]) -> list[Volume]:
    """Read the images of a case, one a channel.

    Raises
    ------
    DataError
        If a file cannot be used, there can be no brain in an image, or they are not on one grid.
    """
    volumes = [read_volume(path) for path in paths]
    for path, volume in zip(paths, volumes, strict=True):
        try:
            check_image(volume)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from error
        check_same_grid(volumes[0], volume, (str(paths[0]), str(path)))
    return volumes


def read_brain(path: Path, image: Volume, given: Path | None = None) -> tuple[Bool[np.ndarray, "i j k"], str]:
    """Return the brain of an image, and in words where it is from and how large it is.

    Parameters
    ----------
    path : Path
        The file of the image; a BIDS mask of the brain beside it is taken.
    image : Volume
        Its content.
    given : Path, optional
        File of a mask instead; resampled if it is on another grid.

    Raises
    ------
    DataError
        If the mask cannot be read or has nothing where the image is.
    """
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    base = stem.rpartition("_")[0] or stem
    beside = (path.with_name(f"{n}_mask{e}") for n in (f"{base}_desc-brain", base) for e in (".nii.gz", ".nii"))
    source = given or next((file for file in beside if file.is_file() and file != path), None)
    if source is None:
        mask, how = brain_mask(image), "found in the image"
    else:
        drawn = read_volume(source)
        if not drawn.same_grid(image):
            drawn = resample_to(drawn, image.shape, image.affine, order=0)
        mask, how = drawn.data > 0, f"mask {source}"
        if not mask.any():
            raise DataError(f"{source}: has no brain in the field of view of {path}; a mask of it is wanted")
    return mask, f"{brain_note(mask, image)} ({how})"


def read_case(
    paths: Sequence[Path], channels: Sequence[str], *, force: bool = False
) -> tuple[tuple[Path, ...], list[Volume]]:
    """Read the images of a case, in the order of a network's channels.

    Parameters
    ----------
    paths : sequence of path
        One image a channel; names and images say which is which (`lesionkit.channels`).
    channels : sequence of str
        What the network wants, in its order.
    force : bool
        Take the images in the order in which they are given, whatever they look like.

    Returns
    -------
    paths, images
        In the network's order.

    Raises
    ------
    DataError
        As `read_images` does.
    ValueError
        If the images cannot be these channels.
    """
    if force:
        return tuple(paths), read_images(paths)
    paths = in_order(paths, channels)
    images = read_images(paths)
    order = check_contrast(paths, images, channels)
    return tuple(paths[place] for place in order), [images[place] for place in order]


def detect_lesions(
    checkpoint: Checkpoint,
    images: Sequence[Volume],
    *,
    mask: Bool[np.ndarray, "i j k"] | None = None,
    threshold: float | None = None,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> CaseResult:
    """Find the lesions of a case (paper, section 3.2).

    Parameters
    ----------
    checkpoint : Checkpoint
        The network; its card gives sigma and the threshold.
    images : sequence of Volume
        One volume a channel, in the card's order.
    mask : (i, j, k) array of bool, optional
        The brain, where it is known.
    threshold : float, optional
        Smallest alpha of a lesion, or tau of connected components, instead of the card's.
    device : str
        A torch device.
    progress : callable, optional
        Called with the fraction of the prediction done.

    Returns
    -------
    CaseResult

    Raises
    ------
    ValueError
        If the images do not fit the network or one another.
    """
    card = checkpoint.card
    if threshold is not None and not threshold >= 0:
        raise ValueError(f"threshold must be 0 or more, got {threshold}")
    heatmap = predict(checkpoint, images, mask=mask, device=device, progress=progress)
    threshold = card.threshold if threshold is None else threshold
    detections: Detections | Components
    if card.label == "heatmap":
        config = fit_config(card.sigma)
        # A lesion below the alpha at which the fit stops by itself would never be seen.
        detections = detect(heatmap.data, replace(config, min_alpha=min(config.lowest_alpha, max(threshold, 0.01))))
    else:
        detections = detect_components(heatmap.data, ComponentConfig.for_label(card.label, threshold))
    return CaseResult(
        source=images[0],
        image=at_spacing(images[:1], card)[0],
        heatmap=heatmap,
        detections=detections,
        threshold=threshold,
        checkpoint=checkpoint.name,
    )


def result_files(folder: str | Path, name: str) -> dict[str, Path]:
    """Return where `write_result` writes."""
    return {part: Path(folder) / f"{name}_{part}" for part in ("heatmap.nii.gz", "lesions.tsv", "report.html")}


def write_result(
    result: CaseResult,
    folder: str | Path,
    name: str,
    *,
    truth: pd.DataFrame | None = None,
    max_distance_mm: float = 6.0,
) -> dict[str, Path]:
    """Write `<name>_heatmap.nii.gz`, `<name>_lesions.tsv` and `<name>_report.html`; return their paths."""
    files = result_files(folder, name)
    lesions = result.lesions()
    spacing = " x ".join(f"{s:g}" for s in result.heatmap.spacing)
    facts = {
        "checkpoint": result.checkpoint,
        "lesions": f"{len(lesions)} with alpha of {result.threshold:.3f} or more",
        "grid": f"{' x '.join(map(str, result.heatmap.shape))} voxels of {spacing} mm",
    }
    if isinstance(result.detections, Detections):
        widths = [f"{s:g}" for s in result.detections.sigma]
        sigma = widths[0] if len(set(widths)) == 1 else " x ".join(widths)
        facts["grid"] += f"; sigma {sigma} voxels"
        facts["expected count"] = f"{lesions['alpha'].clip(0, 1).sum():.1f} (sum of their alphas)"
    else:
        facts["lesions"] = f"{len(lesions)} connected components of the map at tau {result.threshold:.3f}"
    write_volume(files["heatmap.nii.gz"], result.heatmap_as_given())
    write_points(files["lesions.tsv"], lesions)
    sizes = None if truth is None or "size_vox" not in truth else _whole(truth["size_vox"])
    explorer = result.explorer(truth, max_distance_mm=max_distance_mm)
    explorer.last()
    if explorer.detections.alpha.size:
        explorer.move_to(explorer.detections.mu[explorer.detections.alpha.argmax()])
    fitted = isinstance(result.detections, Detections)
    sigmas = (explorer.config.sigma,) if isinstance(explorer.config.sigma, float) else None
    export_page(
        explorer, files["report.html"], title=name, facts=facts, sizes=sizes, sigmas=sigmas,
        score="alpha" if fitted else "score",
    )  # fmt: skip
    return files


def _whole(sizes: pd.Series) -> list[int | None]:
    """Return sizes in voxels, None where they are unknown."""
    numbers = pd.to_numeric(sizes, errors="coerce").to_numpy(dtype=np.float64)
    return [round(size) if np.isfinite(size) and size >= 0 else None for size in numbers.tolist()]
