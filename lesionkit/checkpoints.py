"""A trained network in one file that cannot run code: safetensors weights with the settings as JSON in its header.

In: a network and its `Card`. Out: the same, from a path or from the name of a shipped checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from lesionkit.io import DataError, atomic_path

if TYPE_CHECKING:
    from lesionkit.model import UNet

SHIPPED = ("gad", "flair")
"""Names of the checkpoints that come with the package."""

FORMAT = "1"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What one must know to use a network rightly; stored beside its weights."""

    kind: str
    """Kind of lesion, such as `gad` or `flair`."""
    channels: tuple[str, ...]
    """BIDS suffixes of the input images, in order."""
    spacing: tuple[float, float, float]
    """Voxel edges that the network was trained at, mm; images are resampled to it."""
    sigma: float
    """Standard deviation of the label's Gaussians, voxels of that spacing."""
    threshold: float
    """Smallest alpha of a lesion: the best F1 on the validation set (paper, section 3.2, step 5)."""
    scale: float = 1.0
    """The network's output times this is the heatmap in mass a voxel."""
    window: int = 96
    """Edge of the windows that the network sees at a time when predicting, voxels."""
    version: str = ""
    """lesionkit's version at training."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the training, the cohort's description and the validation scores."""
    notice: str = "For research and teaching. Not a medical device."
    """What users must be told."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network ready to predict, and its card."""

    model: UNet
    card: Card
    name: str
    """File name, or the name of a shipped checkpoint."""


def save_checkpoint(path: str | Path, model: UNet, card: Card, *, half: bool = True) -> None:
    """Write a network and its card, atomically.

    Parameters
    ----------
    path : path
        Usually ends with `.safetensors`.
    model : UNet
        The network.
    card : Card
        Its description.
    half : bool
        Store 16-bit weights (half the size; the heatmap changes by less than 1e-3 of its peak).
    """
    from safetensors.torch import save

    weights = {
        name: (w.half() if half and w.is_floating_point() else w).contiguous().cpu()
        for name, w in model.state_dict().items()
    }
    header = {"format": FORMAT, "model": json.dumps(asdict(model.config)), "card": json.dumps(asdict(card))}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(weights, metadata=header))


def load_checkpoint(source: str | Path) -> Checkpoint:
    """Load a checkpoint by path, or a shipped one by its name.

    Parameters
    ----------
    source : path or {"gad", "flair"}
        A `.safetensors` file written by `save_checkpoint`, or the name of a shipped one.

    Returns
    -------
    Checkpoint
        With the network in evaluation mode, float32, on the CPU.

    Raises
    ------
    DataError
        If the file is missing, is not safetensors (a pickled `.pt` is refused, since opening one can run code), or was
        not written by this kit.
    """
    from lesionkit.model import ModelConfig, UNet

    path = _path(source)
    with _opened(path, "pt") as (file, header):
        weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (not a dict)
    try:
        model = UNet(ModelConfig(**json.loads(header["model"])))
        card = _card(json.loads(header["card"]))
        model.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise _foreign(path, error) from error
    return Checkpoint(model.eval(), card, path.stem)


def read_card(source: str | Path) -> Card:
    """Read what one must know of a checkpoint, without its weights and without torch.

    Parameters
    ----------
    source : path or {"gad", "flair"}
        As in `load_checkpoint`.

    Raises
    ------
    DataError
        As in `load_checkpoint`.
    """
    path = _path(source)
    with _opened(path, "numpy") as (_, header):
        try:
            return _card(json.loads(header["card"]))
        except (KeyError, TypeError, ValueError) as error:
            raise _foreign(path, error) from error


def _path(source: str | Path) -> Path:
    path = Path(source)
    if str(source) in SHIPPED:
        path = Path(str(resources.files("lesionkit").joinpath(f"data/{source}.safetensors")))
    if not path.is_file():
        raise DataError(f"{source}: no such checkpoint; a .safetensors file or one of {', '.join(SHIPPED)} is wanted")
    return path


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open a file of weights; also return its header."""
    try:
        with safe_open(path, framework=framework) as file:
            yield file, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path}: not a safetensors file ({error}); checkpoints of `lesionkit train` are wanted"
        ) from error


def _foreign(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a checkpoint of lesionkit ({error}); one written by `lesionkit train` is wanted")


def _card(values: dict[str, Any]) -> Card:
    known = {f.name for f in fields(Card)}
    kept: dict[str, Any] = {key: value for key, value in values.items() if key in known}
    for name in ("channels", "spacing"):
        kept[name] = tuple(kept[name])
    return Card(**kept)
