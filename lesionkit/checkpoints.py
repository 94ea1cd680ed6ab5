"""A trained network in one file that cannot run code: safetensors weights with the settings as JSON in its header.

In: a network and its `Card`. Out: the same, from a path or from the name of a shipped checkpoint.
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from lesionkit.io import DataError, atomic_path, one_line

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
    sigma: float | tuple[float, float, float]
    """Standard deviation of the label's Gaussians, voxels of that spacing; one number, or one an axis."""
    threshold: float
    """Smallest alpha of a lesion: the best F1 on the validation set (paper, section 3.2, step 5). For labels other than
    heatmaps the threshold tau at which the map is cut into connected components."""
    label: str = "heatmap"
    """What the network predicts: `heatmap`, `euclidean`, `geodesic` or `segmentation`."""
    scale: float = 1.0
    """The network's output times this is the heatmap in mass a voxel; 1 for other labels."""
    window: int = 96
    """Edge of the windows that the network sees at a time when predicting, voxels."""
    preprocessing: str = ""
    """What was done to the images before the network saw them, in words."""
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
    header = {
        "format": FORMAT,
        "model": json.dumps(asdict(model.config)),
        "card": json.dumps(asdict(card)),
        "model_card": model_card(card),
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(weights, metadata=header))


def model_card(card: Card) -> str:
    """Return a card as a page of Markdown for people; it is stored in the file, beside the card for programs."""
    sizes = " x ".join(f"{edge:g}" for edge in card.spacing)
    lines = [
        f"# lesionkit: {card.kind} lesions, {card.label}",
        "",
        f"- **Use**: {card.notice}",
        f"- **Input**: {', '.join(card.channels)}, in this order, at {sizes} mm",
        f"- **Preprocessing**: {card.preprocessing or 'that of this version of lesionkit'}",
        f"- **Output**: {card.label}, sigma {card.sigma} voxels; seen in windows of {card.window} voxels",
        f"- **Threshold**: {card.threshold:g}, of the best F1 on validation cases",
    ]
    scores = card.training.get("validation", {})
    if scores:
        shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        lines.append(f"- **On these validation cases**: {shown}; a threshold chosen on them flatters them a little")
    cohort = card.training.get("cohort", {})
    if cohort:
        known = {name: cohort[name] for name in ("name", "train", "val", "seed") if name in cohort}
        lines.append(f"- **Cohort**: {', '.join(f'{name} {value}' for name, value in known.items())}")
    lines.append(f"- **Version**: lesionkit {card.version or 'unknown'}")
    return "\n".join(lines) + "\n"


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
    import torch

    from lesionkit.model import ModelConfig, UNet

    path = _path(source)
    with _opened(path, "pt") as (file, header):
        try:
            card = _card(json.loads(header["card"]))
            config = ModelConfig(**json.loads(header["model"]))
            if config.channels != len(card.channels):
                raise ValueError(f"its network takes {config.channels} images, its card names {len(card.channels)}")
            with torch.device("meta"):  # no memory is taken for what a header merely claims
                model = UNet(config)
            wanted = {name: list(weight.shape) for name, weight in model.state_dict().items()}
            there = {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
            if wanted != there:
                names = sorted(name for name in {*wanted, *there} if wanted.get(name) != there.get(name))
                raise ValueError(f"its weights are not those of its network, such as {names[0]!r:.60}")
            weights = {name: file.get_tensor(name).float() for name in wanted}
            if not all(bool(torch.isfinite(weight).all()) for weight in weights.values()):
                raise ValueError("its weights hold NaN or inf")
            model.load_state_dict(weights, assign=True)
        except _NOT_OURS as error:
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
        except _NOT_OURS as error:
            raise _foreign(path, error) from error


def load_state(path: str | Path) -> dict[str, Any]:
    """Load what a training keeps of itself to go on from, on the CPU; nothing in the file is executed.

    Raises
    ------
    DataError
        If the file is missing or is none of Lightning's checkpoints.
    """
    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if not {"state_dict", "global_step", "callbacks"} <= state.keys():
            raise ValueError("it holds something else")
        return state
    except (*_NOT_OURS, EOFError, OSError, pickle.UnpicklingError) as error:
        why = one_line(error)[:200]
        raise DataError(f"{path}: cannot be read ({why}); one that a training wrote is wanted: train anew") from error


def _path(source: str | Path) -> Path:
    path = Path(source)
    if str(source) in SHIPPED:
        path = Path(str(resources.files("lesionkit").joinpath(f"data/{source}.safetensors")))
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name that no system takes
        there = False
    if not there:
        raise DataError(
            f"{one_line(source)}: no such checkpoint; a .safetensors file or one of {', '.join(SHIPPED)} is wanted"
        )
    return path


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """Open a file of weights; also return its header."""
    try:
        with path.open("rb") as start:
            mark = start.read(9)
        # safetensors begins with the length of its header, in which a byte may be 0x80 too; then comes a brace.
        if mark.startswith((b"\x80", b"PK\x03\x04")) and not mark.endswith(b"{"):
            wrong = "is a pickle or a zip of them (.pt, .ckpt), which can run code when it is opened, and is refused"
            raise DataError(f"{path}: {wrong}; a .safetensors file of `lesionkit train` is wanted")
        with safe_open(path, framework=framework) as file:
            yield file, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        why = one_line(error)
        raise DataError(
            f"{path}: not a safetensors file ({why}); checkpoints of `lesionkit train` are wanted"
        ) from error


_NOT_OURS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What a header of another kind, or a damaged one, leads to."""


def _foreign(path: Path, error: Exception) -> DataError:
    why = one_line(f"no entry {error}" if isinstance(error, KeyError) else error)[:300]
    return DataError(f"{path}: not a checkpoint of lesionkit ({why}); one written by `lesionkit train` is wanted")


def _card(values: dict[str, Any]) -> Card:
    """Return the card in a header, which anybody may have written."""
    known = {f.name for f in fields(Card)}
    kept: dict[str, Any] = {key: value for key, value in values.items() if key in known}
    for name in ("channels", "spacing"):
        kept[name] = tuple(kept[name])
    if isinstance(kept["sigma"], list):
        kept["sigma"] = tuple(kept["sigma"])
    card = Card(**kept)
    widths = card.sigma if isinstance(card.sigma, tuple) else (card.sigma,) * 3
    for name, lengths in (("spacing", card.spacing), ("sigma", widths)):
        if len(lengths) != 3 or not all(_is_number(length) and 0 < length < 1000 for length in lengths):
            raise ValueError(f"{name} is {getattr(card, name)!r:.60}; positive lengths are wanted")
    for name in ("threshold", "scale"):
        if not (_is_number(getattr(card, name)) and 0 <= getattr(card, name) < math.inf):
            raise ValueError(f"{name} is {getattr(card, name)!r:.60}; a finite number of 0 or more is wanted")
    if not isinstance(card.window, int) or not 1 <= card.window <= 1024:
        raise ValueError(f"window is {card.window!r:.60}; 1 to 1024 voxels are wanted")
    texts = (card.kind, card.label, card.preprocessing, card.version, card.notice, *card.channels)
    if not card.channels or not all(isinstance(text, str) for text in texts):
        raise ValueError("kind, label, preprocessing, version, notice and channels must be texts")
    if not isinstance(card.training, dict):
        raise ValueError("training must be an object")
    return card


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
