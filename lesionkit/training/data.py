"""Cases in memory, and the augmented patches with their labels that a network is trained on.

In: a cohort on disk. Out: for each index the sample that belongs to it, always the same one.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import weakref
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lesionkit.augment import Transform, alter_image, apply_to_mask, apply_transform, draw_transform
from lesionkit.distance_maps import euclidean_map, geodesic_map
from lesionkit.io import Case, Cohort, DataError, check_inside, check_same_grid, read_points, read_volume
from lesionkit.io.arrays import ArrayFile
from lesionkit.labels import gaussian_heatmap, points_from_mask
from lesionkit.placement import jitter, random_voxels
from lesionkit.preprocessing import prepare
from lesionkit.training.config import TrainConfig

IN_MEMORY = 1 << 27
"""Bytes of training images that are held in memory, some 50 cases at 2 mm; the rest stays in files, from which small
patches take half as long again."""


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """One case in memory, ready for the network."""

    subject: str
    split: str
    image: Float[Tensor, "channels i j k"]
    """Normalised, float16 to spare memory."""
    mask: Bool[np.ndarray, "i j k"]
    points: Float[np.ndarray, "n 3"]
    """Voxel indices of the lesions."""
    points_mm: Float[np.ndarray, "n 3"]
    sizes: Float[np.ndarray, " n"]
    """Voxels of each lesion; NaN where the table does not say."""
    spacing: tuple[float, float, float]
    affine: Float[np.ndarray, "4 4"]
    lesions: Bool[Tensor, "i j k"] | None = None
    """The lesion mask, where it was asked for."""
    ignored: Bool[Tensor, "i j k"] | None = None
    """What is left out of the loss, if anything is."""
    dataset: str = ""


def load_case(case: Case, *, with_mask: bool = False) -> LoadedCase:
    """Read and normalise the images of a case, and its points: those of its table, else the centres of its mask.

    Parameters
    ----------
    case : Case
        The files.
    with_mask : bool
        Read the lesion mask too.

    Raises
    ------
    DataError
        If the case has neither points nor a mask, no mask where one is wanted, or files that do not fit together.
    """
    if case.points is None and case.mask is None:
        raise DataError(
            f"{case.images[0]}: has no table of points and no lesion mask; training and evaluation want one"
        )
    if with_mask and case.mask is None:
        raise DataError(f"{case.images[0]}: has no lesion mask; this label or placement of points wants one")
    volumes = [read_volume(path) for path in case.images]
    given = None
    if case.brain is not None:
        brain = read_volume(case.brain)
        check_same_grid(volumes[0], brain, (str(case.images[0]), str(case.brain)))
        given = brain.data > 0
    try:
        image, mask = prepare(volumes, given)
    except ValueError as error:
        raise DataError(f"{case.images[0]}: {error}") from error
    first = volumes[0]
    lesions = None
    if case.mask is not None and (with_mask or case.points is None):
        drawn = read_volume(case.mask)
        check_same_grid(first, drawn, (str(case.images[0]), str(case.mask)))
        lesions = drawn.data > 0
    if case.points is not None:
        table = read_points(case.points)
        check_inside(case.points, table, first)
        points_mm = table[["x", "y", "z"]].to_numpy(dtype=float)
        sizes = table["size_vox"].to_numpy(dtype=float) if "size_vox" in table else np.full(len(table), np.nan)
        points = first.to_voxel(points_mm)
    else:
        found = points_from_mask(lesions)
        points, points_mm, sizes = found.points, first.to_mm(found.points), found.sizes.astype(float)
    return LoadedCase(
        case.subject, case.split, torch.from_numpy(image).half(), mask, points, points_mm, sizes, first.spacing,
        first.affine, torch.from_numpy(lesions) if with_mask and lesions is not None else None, dataset=case.dataset,
    )  # fmt: skip


def load_training_case(case: Case, config: TrainConfig) -> LoadedCase:
    """Load a case with the points where the training wants them; the truth of other splits stays exact.

    The draw depends on the seed and on the patient's name alone.
    """
    wants_mask = config.label == "segmentation"
    splits_off = config.confluent_mm3 is not None and case.mask is not None
    loaded = load_case(case, with_mask=wants_mask or splits_off or config.placement == "voxel")
    if config.confluent_mm3 is not None and loaded.lesions is not None and not wants_mask:
        loaded = _without_confluent(loaded, config.confluent_mm3)
    rng = np.random.default_rng([config.seed, zlib.crc32(case.subject.encode())])
    points = loaded.points
    if config.placement == "voxel":
        assert loaded.lesions is not None
        points = random_voxels(points_from_mask(loaded.lesions.numpy()), rng=rng)
    if config.jitter_mm > 0:
        points = jitter(points, config.jitter_mm, loaded.spacing, rng=rng)
    return replace(loaded, points=points, lesions=loaded.lesions if wants_mask else None)


def _without_confluent(case: LoadedCase, largest_mm3: float) -> LoadedCase:
    """Take the lesions above a size out of the points, and what lies in them or 2 voxels around out of the loss."""
    assert case.lesions is not None
    largest = largest_mm3 / float(np.prod(case.spacing))
    found = points_from_mask(case.lesions.numpy())
    giants = np.isin(found.labels, np.flatnonzero(found.sizes > largest) + 1)
    if not giants.any():
        return case
    keep = ~(case.sizes > largest)  # a size that is not known is kept
    return replace(
        case, points=case.points[keep], points_mm=case.points_mm[keep], sizes=case.sizes[keep],
        lesions=case.lesions & ~torch.from_numpy(giants),
        ignored=torch.from_numpy(ndimage.binary_dilation(giants, iterations=2)),
    )  # fmt: skip


def on_disk(case: LoadedCase, folder: Path) -> LoadedCase:
    """Move what is large in a case into files, of which patches are read; the points stay in memory."""
    image = ArrayFile(folder / f"{case.subject}_image.bin", case.image.numpy())
    mask = ArrayFile(folder / f"{case.subject}_brain.bin", case.mask)
    lesions = None
    if case.lesions is not None:
        lesions = ArrayFile(folder / f"{case.subject}_lesions.bin", case.lesions.numpy())
    # They have the shape of the arrays and are cut like them, which is all that PatchDataset asks for.
    return replace(case, image=cast(Tensor, image), mask=cast(Any, mask), lesions=cast(Any, lesions))


def _give_back() -> None:
    """Return freed memory to the system: glibc would keep half a megabyte or more of each case that was read."""
    with suppress(OSError, AttributeError, TypeError):  # other systems have no such call
        ctypes.CDLL(None).malloc_trim(0)


Sample = tuple[Tensor, Tensor, Tensor, int]
"""Image, label, brain mask of a patch, each with a channel axis, and the number of its case."""


class PatchDataset(Dataset[Sample]):
    """Augmented patches, drawn anew for each index: image, label (peak about 1), brain mask and number of the case."""

    def __init__(
        self, cases: Sequence[LoadedCase], config: TrainConfig, *, start: int, length: int, every: int = 1
    ) -> None:
        self.cases, self.config, self.start, self.length, self.every = cases, config, start, length, every
        self.groups = _groups(cases, config.shares)
        # Brain voxels up to the end of each plane: to draw one, a list of them all would take four times the image.
        self.planes = [np.cumsum(np.count_nonzero(case.mask[:], axis=(1, 2))) for case in cases]

    def __len__(self) -> int:
        """Return the number of patches."""
        return self.length

    def __getitem__(self, index: int) -> Sample:
        """Draw sample `start + every * index`; the same every time."""
        config = self.config
        place = self.start + self.every * index
        rng = np.random.default_rng([config.seed, place])
        number = self._draw_case(rng)
        case = self.cases[number]
        size = np.array(config.patch)
        uniform = place // config.batch_size >= round(config.steps * (1 - config.uniform_last))
        if len(case.points) and not uniform and rng.random() < config.lesion_share:
            centre = case.points[rng.integers(len(case.points))] + rng.uniform(-0.4, 0.4, 3) * size
        else:
            centre = self._brain_voxel(number, rng) + rng.uniform(-0.5, 0.5, 3)
        centre = np.clip(centre, 2, np.array(case.mask.shape) - 3)
        transform = _in_mm(draw_transform(config.augment, case.image.shape[0], rng=rng), case.spacing)
        patch, points = apply_transform(case.image, case.points, transform, centre, config.patch)
        label = self._label(case, transform, centre, patch, points)
        patch = alter_image(patch, config.augment, rng=rng)
        counts = patch[:1] != 0
        if case.ignored is not None:
            counts &= ~apply_to_mask(case.ignored, transform, centre, config.patch)
        return patch, label[None], counts, number

    def _draw_case(self, rng: np.random.Generator) -> int:
        """Draw a data set by its share, and one of its patients."""
        numbers, ends = self.groups
        group = numbers[0] if len(numbers) == 1 else numbers[int(np.searchsorted(ends, rng.random(), side="right"))]
        return int(group[rng.integers(len(group))])

    def _brain_voxel(self, number: int, rng: np.random.Generator) -> Int[np.ndarray, " 3"]:
        """Draw a voxel of the brain."""
        planes, mask = self.planes[number], self.cases[number].mask
        rank = int(rng.integers(planes[-1]))
        plane = int(np.searchsorted(planes, rank, side="right"))
        within = np.flatnonzero(mask[plane])[rank - (int(planes[plane - 1]) if plane else 0)]
        return np.array([plane, *np.unravel_index(within, mask.shape[1:])])

    def _label(
        self,
        case: LoadedCase,
        transform: Transform,
        centre: Float[np.ndarray, " 3"],
        patch: Float[Tensor, "channels i j k"],
        points: Float[np.ndarray, "n 3"],
    ) -> Float[Tensor, "i j k"]:
        """Render the label of a patch after the move, scaled to peak near 1."""
        config = self.config
        if config.label == "segmentation":
            assert case.lesions is not None
            return apply_to_mask(case.lesions, transform, centre, config.patch).float()
        if config.label == "euclidean":
            label = euclidean_map(points, config.patch, radius=config.radius, decay=config.decay)
        elif config.label == "geodesic":
            label = geodesic_map(
                points, patch[0].numpy(), radius=config.radius, decay=config.decay, contrast=config.contrast
            )
        else:
            label = gaussian_heatmap(points, config.patch, config.sigma, border="truncate") / np.float32(config.peak)
        return torch.from_numpy(label)


def _groups(
    cases: Sequence[LoadedCase], shares: Sequence[tuple[str, float]]
) -> tuple[list[Int[np.ndarray, " n"]], Float[np.ndarray, " groups"]]:
    """Return the numbers of each data set's cases, and the ends of their shares in [0, 1]."""
    of = np.array([case.dataset for case in cases])
    shares = shares or [(name, 1.0) for name in sorted(set(of))]
    unknown = sorted(set(of) - {name for name, _ in shares})
    numbers = [np.flatnonzero(of == name) for name, _ in shares]
    missing = [name for (name, _), group in zip(shares, numbers, strict=True) if not len(group)]
    if unknown or missing:
        raise ValueError(f"shares must name the cohort's data sets; not named: {unknown}, without a patient: {missing}")
    ends = np.cumsum([share for _, share in shares])
    return numbers, ends / ends[-1]


def _in_mm(transform: Transform, spacing: tuple[float, float, float]) -> Transform:
    """Turn and shear in mm, not in voxels, which anisotropic ones would distort."""
    lengths = np.array(spacing)
    return replace(transform, matrix=transform.matrix * lengths / lengths[:, None])


class CohortData(pl.LightningDataModule):
    """Training patches and whole validation cases of a cohort."""

    def __init__(self, cohort: Cohort, config: TrainConfig, *, scratch: Path | None = None) -> None:
        super().__init__()
        self.cohort, self.config, self.scratch = cohort, config, scratch
        self.close = weakref.finalize(self, shutil.rmtree, scratch or "", ignore_errors=True)  # at the latest at exit
        self.train_cases: list[LoadedCase] = []
        self.validation_cases: list[LoadedCase] = []

    def setup(self, stage: str | None = None) -> None:
        """Load the training cases, and as many validation cases as are looked at.

        What is beyond `IN_MEMORY` goes into files in the folder `scratch`, where one is given.
        """
        if self.train_cases:
            return
        held = 0
        for entry in self.cohort.split("train"):
            case = load_training_case(entry, self.config)
            size = case.image.nbytes + case.mask.nbytes + (0 if case.lesions is None else case.lesions.nbytes)
            if self.scratch is not None and held + size > IN_MEMORY:
                case = on_disk(case, self.scratch)
                _give_back()
            else:
                held += size
            self.train_cases.append(case)
        most = max(self.config.validation_cases, self.config.threshold_cases)
        self.validation_cases = [load_case(case) for case in self.cohort.split("validation")[:most]]
        for name, cases in (("train", self.train_cases), ("validation", self.validation_cases)):
            if not any(len(case.points) for case in cases):
                raise DataError(
                    f"{self.cohort.folder}: the {name} split has no lesion; patients with points are wanted"
                )
        first = self.train_cases[0]
        for case in (*self.train_cases, *self.validation_cases):
            if not np.allclose(case.spacing, first.spacing, rtol=0.05):
                raise DataError(
                    f"{self.cohort.folder}: {case.subject} has voxels of {case.spacing} mm and {first.subject} of "
                    f"{first.spacing} mm; one spacing for the whole cohort is wanted"
                )

    @property
    def settings(self) -> dict[str, Any]:
        """Return what makes a training the one it is, by name: its settings and its patients, not who prepares them."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self.config)))  # lists for tuples, plain numbers
        del values["workers"]
        for part in ("model", "augment"):
            values |= {f"{part}.{name}": value for name, value in values.pop(part).items()}
        cases = (*self.train_cases, *self.validation_cases)
        lesions = sum(len(case.points) for case in cases)
        seen = replace(self.cohort, cases=tuple(case for case in self.cohort if case.split != "test"))
        return values | {"cohort": f"{len(cases)} patients with {lesions} lesions, {seen.digest()[:8]}"}

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the patches of one epoch, that is, of the steps between two validations.

        Of several processes each takes its share of every batch, so that their number changes nothing but the speed.
        """
        config = self.config
        rank, world = self._rank_and_world()
        done = self.trainer.global_step if self.trainer is not None else 0
        steps = min(config.validate_every, max(config.steps - done, 1))
        share = config.batch_size // world
        dataset = PatchDataset(
            self.train_cases, config, start=done * config.batch_size + rank, length=steps * share, every=world
        )
        return DataLoader(dataset, batch_size=share, num_workers=config.workers)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return indices of validation cases; the cases are too large to collate."""
        rank, world = self._rank_and_world()
        n = min(self.config.validation_cases, len(self.validation_cases))
        return DataLoader(range(rank, n, world), batch_size=1)  # type: ignore[arg-type]  # a range is a map-style data set

    def _rank_and_world(self) -> tuple[int, int]:
        """Return which process this is, and of how many."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
