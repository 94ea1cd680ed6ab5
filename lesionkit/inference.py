"""A network and the images of a case -> the predicted heatmap.

In: `Volume`s and a `Checkpoint`. Out: a heatmap `Volume` on the network's own grid, in mass a voxel, on which detection
runs; `lesionkit.io.write_volume` puts it back into the space of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lesionkit.checkpoints import Card, Checkpoint
from lesionkit.detection import fit_config
from lesionkit.model import UNet
from lesionkit.preprocessing import prepare
from lesionkit.volume import Volume, resample, resample_to

__all__ = ["at_spacing", "fast_bf16", "fit_config", "predict", "predict_array"]

AT_ONCE = 1 << 14
"""Voxels that are predicted at once, where windows are smaller: small ones alone do not keep a core busy."""


@cache
def fast_bf16() -> bool:
    """Tell whether this CPU multiplies bfloat16 natively; elsewhere it would be slower than float32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch has no public question
    return any(bool(getattr(torch.cpu, name)()) for name in probes if hasattr(torch.cpu, name))


def predict(
    checkpoint: Checkpoint,
    images: Sequence[Volume],
    *,
    mask: Bool[np.ndarray, "i j k"] | None = None,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Volume:
    """Predict the heatmap of a case.

    Parameters
    ----------
    checkpoint : Checkpoint
        The network; its card says which images it wants.
    images : sequence of Volume
        One volume a channel, in the card's order, on one grid, in any intensity units.
    mask : (i, j, k) array of bool, optional
        The brain, where it is known; found in the first image by default.
    device : str
        A torch device.
    progress : callable, optional
        Called with the fraction done.

    Returns
    -------
    Volume
        The heatmap at the network's spacing, mass a voxel: its Gaussians have the card's sigma. 0 outside the brain.

    Raises
    ------
    ValueError
        If there are more or fewer images than channels, or their grids differ.
    """
    card = checkpoint.card
    if len(images) != len(card.channels):
        raise ValueError(
            f"checkpoint {checkpoint.name} wants {len(card.channels)} image(s): {', '.join(card.channels)}; "
            f"got {len(images)}"
        )
    on_grid = at_spacing(images, card)
    if mask is not None and not on_grid[0].same_grid(images[0]):
        mask = resample_to(images[0].with_data(mask), on_grid[0].shape, on_grid[0].affine, order=0).data
    data, mask = prepare(on_grid, mask)
    heatmap = predict_array(
        checkpoint.model, torch.from_numpy(data), mask, window=card.window, device=device, progress=progress
    )
    return on_grid[0].with_data(heatmap * np.float32(card.scale))


def at_spacing(images: Sequence[Volume], card: Card) -> list[Volume]:
    """Resample images to the spacing that a network was trained at; those within 2 % stay as they are."""
    return [
        image if np.allclose(image.spacing, card.spacing, rtol=0.02) else resample(image, card.spacing)
        for image in images
    ]


def usable_device(name: str) -> torch.device:
    """Return the torch device of a name.

    Raises
    ------
    ValueError
        If there is none of that name on this machine.
    """
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).partition("\n")[0].rstrip(".")[:120]
        raise ValueError(
            f"device is {name!r}, which cannot be used here ({why}); cpu, or cuda with a GPU, is wanted"
        ) from error
    return device


def predict_array(
    model: UNet,
    image: Float[Tensor, "channels i j k"],
    mask: Bool[np.ndarray, "i j k"],
    *,
    window: int = 96,
    overlap: float = 0.25,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Float[np.ndarray, "i j k"]:
    """Slide a window over a normalised image and blend the network's outputs.

    Parameters
    ----------
    model : UNet
        In the state in which it is wanted; is moved to the device.
    image : (channels, i, j, k) tensor
        Normalised channels.
    mask : (i, j, k) array of bool
        The brain; windows without any of it are skipped, and the result is 0 outside.
    window : int
        Edge of the window, voxels; images that fit are done in one piece.
    overlap : float
        Share of a window that the next one repeats; outputs are blended with weights that fall towards the edges.
    device : str
        A torch device.
    progress : callable, optional
        Called with the fraction done.

    Returns
    -------
    heatmap : (i, j, k) array of float32
        In the units of the network's output.
    """
    model.to(usable_device(device))
    (heatmap,) = slide_window(
        model, image, mask, batch=max(AT_ONCE // window**3, 1), window=window, overlap=overlap, device=device,
        progress=progress,
    )  # fmt: skip
    return np.asarray(heatmap)


def slide_window(
    outputs: Callable[[Float[Tensor, "batch channels a b c"]], Float[Tensor, "batch n a b c"]],
    image: Float[Tensor, "channels i j k"],
    mask: Bool[np.ndarray, "i j k"],
    *,
    n: int = 1,
    batch: int = 1,
    window: int = 96,
    overlap: float = 0.25,
    device: str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> Float[np.ndarray, "n i j k"]:
    """Blend the `n` maps that a function makes of each window, `batch` windows at once.

    The other parameters are those of `predict_array`.
    """
    shape = image.shape[1:]
    total = torch.zeros((n, *shape))
    weight = torch.zeros(shape)
    boxes = [box for box in _windows(mask, window, overlap) if mask[box].any()]
    on_cpu = device == "cpu"
    with (
        torch.inference_mode(),
        torch.autocast("cpu" if on_cpu else device.split(":")[0], torch.bfloat16, enabled=not on_cpu or fast_bf16()),
    ):
        for first in range(0, len(boxes), batch):
            some = boxes[first : first + batch]  # all of one shape
            parts = torch.stack([image[(slice(None), *box)].float() for box in some]).to(device)
            output = outputs(parts).float().cpu()
            ramps = [_ramp(length, overlap) for length in output.shape[2:]]
            blend = ramps[0][:, None, None] * ramps[1][:, None] * ramps[2]
            for box, maps in zip(some, output, strict=True):
                total[(slice(None), *box)] += blend * maps
                weight[box] += blend
            if progress is not None:
                progress((first + len(some)) / len(boxes))
    blended = (total / weight.clamp_min(1e-12)).numpy()
    return np.asarray(np.where(mask, blended, 0), dtype=np.float32)


def _ramp(n: int, overlap: float) -> Tensor:
    """Blending weight along an axis: 1 in the middle, falling over the part that windows share."""
    edge = max(int(n * overlap), 1)
    distance = torch.minimum(torch.arange(n), torch.arange(n).flip(0)).float() + 1
    return torch.clamp(distance / edge, max=1.0)


def _windows(mask: Bool[np.ndarray, "i j k"], window: int, overlap: float) -> Iterator[tuple[slice, slice, slice]]:
    """Boxes that cover the bounding box of the mask, evenly spaced, overlapping by at least `overlap`."""
    starts: list[list[tuple[int, int]]] = []
    for axis, n in enumerate(mask.shape):
        profile = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        low, high = (int(profile[0]), int(profile[-1]) + 1) if len(profile) else (0, n)
        low, high = max(low - 4, 0), min(high + 4, n)
        length = high - low
        if length <= window:
            starts.append([(low, high)])
            continue
        count = int(np.ceil((length - window) / (window * (1 - overlap)))) + 1
        first = np.rint(np.linspace(low, high - window, count)).astype(int)
        starts.append([(int(s), int(s) + window) for s in first])
    for i, j, k in product(*starts):
        yield slice(*i), slice(*j), slice(*k)
