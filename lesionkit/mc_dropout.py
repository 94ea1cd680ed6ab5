"""The uncertainty that the paper compares with: MC dropout of the segmentation network, at lesion level.

In: a segmentation network and a case. Out: T sampled probability maps, and for each lesion found in their mean the
uncertainty of its voxels (paper, section 4.2 (2)). Costs T forward passes a window, where alpha costs one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lesionkit.inference import slide_window, usable_device
from lesionkit.labels import points_from_mask
from lesionkit.model import UNet
from lesionkit.uncertainty import entropy


@dataclass(frozen=True, kw_only=True)
class McConfig:
    """Settings of MC dropout."""

    samples: int = 20
    """Forward passes a window (T); each drops other channels."""
    batch: int = 5
    """Samples that are computed at a time."""
    aggregate: Literal["log_sum", "mean"] = "log_sum"
    """How a lesion's uncertainty follows from its voxels' entropies: the sum of their logarithms, as if voxels were
    independent (Nair et al. 2020, which the paper follows), or their mean."""
    threshold: float = 0.5
    """Binarisation threshold tau of the mean probability (paper: chosen on validation)."""
    min_size: int = 3
    """Components of fewer voxels are no lesions."""
    seed: int = 0
    """Of the dropout."""

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("samples", "batch", "min_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.aggregate not in ("log_sum", "mean"):
            raise ValueError(f"aggregate must be 'log_sum' or 'mean', got {self.aggregate!r}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold}")


@dataclass(frozen=True, eq=False)
class McLesions:
    """Lesions of the mean of the samples."""

    points: Float[np.ndarray, "n 3"]
    """Centres of mass of the components, voxel index."""
    score: Float[np.ndarray, " n"]
    """Largest mean probability inside each."""
    uncertainty: Float[np.ndarray, " n"]
    """Aggregated entropy of its voxels; more is more uncertain."""
    size: Int[np.ndarray, " n"]
    """Voxels."""


def sample_maps(
    model: UNet,
    image: Float[Tensor, "channels i j k"],
    mask: Bool[np.ndarray, "i j k"],
    config: McConfig,
    *,
    window: int = 96,
    device: str = "cpu",
) -> Float[np.ndarray, "samples i j k"]:
    """Predict a case `samples` times with dropout on, several samples at a time.

    Parameters
    ----------
    model : UNet
        The network; its dropout is switched on meanwhile, everything else stays in evaluation mode.
    image : (channels, i, j, k) tensor
        Normalised channels.
    mask : (i, j, k) array of bool
        The brain.
    config : McConfig
        Number of samples, batch and seed.
    window : int
        Edge of the windows, voxels.
    device : str
        A torch device.

    Returns
    -------
    (samples, i, j, k) array of float32
        Each sample drops the same channels in all windows: it is one network over the whole image.

    Raises
    ------
    ValueError
        If the network has no dropout: all samples would be the same.
    """
    model.to(usable_device(device))
    sizes = [min(config.batch, config.samples - done) for done in range(0, config.samples, config.batch)]

    def outputs(part: Float[Tensor, "1 channels a b c"]) -> Float[Tensor, "1 n a b c"]:
        maps = []
        for number, size in enumerate(sizes):
            torch.manual_seed(config.seed + number)  # channels are drawn by sample, whatever the window
            maps.append(model(part.expand(size, *part.shape[1:]))[:, 0])
        return torch.cat(maps)[None]

    with _dropout_on(model), torch.random.fork_rng():
        return slide_window(outputs, image, mask, n=config.samples, window=window, device=device)


def lesions_of_samples(maps: Float[np.ndarray, "samples i j k"], config: McConfig) -> McLesions:
    """Find the lesions of the mean map, and how uncertain each is.

    Parameters
    ----------
    maps : (samples, i, j, k) array
        Sampled probabilities.
    config : McConfig
        Threshold, smallest size and aggregation.

    Returns
    -------
    McLesions
        Connected components (18 neighbours) of the mean at or above the threshold.

    References
    ----------
    Paper, section 4.2 (2); T. Nair et al., Exploring uncertainty measures in deep networks for multiple sclerosis
    lesion detection and segmentation, Medical Image Analysis 2020.
    """
    mean = maps.mean(axis=0, dtype=np.float64)
    found = points_from_mask(mean >= config.threshold, min_size=config.min_size)
    inside = found.labels > 0
    lesion = found.labels[inside] - 1
    n = len(found.sizes)
    score = np.zeros(n)
    np.maximum.at(score, lesion, mean[inside])
    uncertain = entropy(mean[inside])  # of the mean: the whole predictive uncertainty
    if config.aggregate == "log_sum":
        total = np.bincount(lesion, np.log(np.maximum(uncertain, 1e-12)), minlength=n)
    else:
        total = np.bincount(lesion, uncertain, minlength=n) / found.sizes
    return McLesions(found.points, score, np.asarray(total, dtype=np.float64), found.sizes)


@contextmanager
def _dropout_on(model: nn.Module) -> Iterator[None]:
    """Train mode for the dropout layers alone."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Dropout3d)]
    if not any(layer.p > 0 for layer in layers):
        raise ValueError("model: got a network without dropout, wanted one that was trained with it")
    was = [layer.training for layer in layers]
    for layer in layers:
        layer.train()
    try:
        yield
    finally:
        for layer, mode in zip(layers, was, strict=True):
            layer.train(mode)
