"""Train the network that finds the brain in a head, or compare ways to find it.

`python scripts/train_brain.py REAL COLIN OUT.safetensors [--without T02,T12,T15] [--steps N]` trains on the heads
(FLAIR, T1, T2 and brainmask a folder) and stripped brains below REAL, and on ch2 and ch2bet (Debian's mricron-data)
below COLIN. The few heads are made many: contrast, bias, noise, slices, field of view, face and skull are drawn anew.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional

from lesionkit.brain import SPACING, brain_network, find_brain, network_input
from lesionkit.io import atomic_path, read_volume
from lesionkit.volume import resample

SIZE = (48, 56, 40)


@dataclass
class Head:
    """A head on the network's grid."""

    name: str
    images: Tensor
    body: Tensor
    brain: Tensor
    whole: bool
    """With its skull."""


def heads(real: Path, colin: Path) -> list[Head]:
    """Read everything whose brain is known."""
    found = []
    for folder in sorted(real.glob("tabriz/T*")):
        if (folder / "brainmask.nii.gz").exists():
            found.append(head(folder.name, [folder / f"{m}.nii.gz" for m in ("FLAIR", "T1", "T2")], folder))
    for folder in sorted(real.glob("long/patient*")):
        if (folder / "brainmask.nii.gz").exists():
            found.append(head(folder.name, [folder / f"study1_{m}.nii.gz" for m in ("FLAIR", "T1", "T2")], folder))
    for folder in [*sorted(real.glob("cross/patient*")), real / "mslesseg/M14a", real / "mslesseg/M18"]:
        files = [folder / f"{m}.nii.gz" for m in ("FLAIR", "T1", "T2", "T1POST") if (folder / f"{m}.nii.gz").exists()]
        if files:
            found.append(head(folder.name, files, None))
    found.append(head("colin", [colin / "ch2.nii.gz"], colin / "ch2bet.nii.gz", whole=True))
    return found


def head(name: str, files: list[Path], mask: Path | None, *, whole: bool = True) -> Head:
    """Read one head; without a mask it is a stripped brain."""
    volumes = [read_volume(file) for file in files]
    first = volumes[0]
    if mask is None:
        given = first.data != 0
    else:
        given = read_volume(mask / "brainmask.nii.gz" if mask.is_dir() else mask).data > 0
    brain, body = find_brain(first, given)
    inputs = [torch.from_numpy(network_input(volume, body)[0]) for volume in volumes]
    small = resample(first.with_data(brain.astype(np.float32)), SPACING).data
    images = torch.stack([i[0] for i in inputs])
    return Head(name, images, inputs[0][1], torch.from_numpy(small), whole and mask is not None)


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a number."""
    return float(rng.uniform(low, high))


def smooth_field(rng: np.random.Generator, shape: tuple[int, ...], knots: int) -> Tensor:
    """Return a smooth random field of unit spread."""
    coarse = torch.from_numpy(rng.normal(size=(1, 1, knots, knots, knots)).astype(np.float32))
    return functional.interpolate(coarse, shape, mode="trilinear", align_corners=True)[0, 0]


def draw(one: Head, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return an input (2, i, j, k) and the brain in it (i, j, k)."""
    channel = rng.integers(len(one.images))
    image = one.images[channel]
    if rng.random() < 0.3:  # a contrast between those that there are
        image = image * uniform(rng, -1, 1) + one.images[rng.integers(len(one.images))] * uniform(rng, -1, 1)
    angles = np.deg2rad(rng.normal(0, 10, 3))
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        matrix = matrix @ turn
    matrix = matrix @ np.diag(uniform(rng, 0.9, 1.1) * rng.uniform(0.92, 1.08, 3)) + rng.normal(0, 0.03, (3, 3))
    matrix[:, 0] *= rng.choice([-1, 1])
    source = np.array(image.shape)
    # grid_sample wants (x, y, z) = (k, j, i) in units of half the source
    unit = np.diag(2 / source) @ matrix @ np.diag(np.array(SIZE) / 2)
    theta = np.concatenate([unit[::-1, ::-1], rng.normal(0, 0.12, (3, 1))], axis=1)
    grid = functional.affine_grid(torch.from_numpy(theta[None].astype(np.float32)), [1, 3, *SIZE], align_corners=False)
    moved = functional.grid_sample(torch.stack([image, one.body, one.brain])[None], grid, align_corners=False)[0]
    image, body, brain = moved[0] / moved[1].clamp_min(0.25), (moved[1] > 0.5).float(), moved[2]
    if one.whole:
        what = rng.random()
        grown = brain[None, None]
        if what < 0.25:  # stripped, more or less well
            for _ in range(rng.integers(0, 3)):
                grown = functional.max_pool3d(grown, 3, 1, 1)
            body = body * (grown[0, 0] > uniform(rng, 0.3, 0.7)).float()
        elif what < 0.4:  # defaced
            for _ in range(3):
                grown = functional.max_pool3d(grown, 3, 1, 1)
            _, j, k = torch.meshgrid(*(torch.arange(n) for n in SIZE), indexing="ij")
            face = (j - uniform(rng, 24, 40)) - uniform(rng, 0.3, 1.5) * (k - uniform(rng, 8, 24)) > 0
            body = body * (1 - face.float() * (grown[0, 0] < 0.5))
        if rng.random() < 0.3:  # another scalp or marrow
            layer = body * (brain < 0.1)
            image = image + layer * (uniform(rng, -2, 2) + smooth_field(rng, SIZE, 6))
    if rng.random() < 0.35:  # air that is taken for body
        wide = body[None, None]
        for _ in range(rng.integers(1, 12)):
            wide = functional.max_pool3d(wide, 3, 1, 1)
        low = torch.quantile(image[body > 0][::7], uniform(rng, 0.0, 0.06)) if body.any() else torch.zeros(())
        air = (wide[0, 0] > 0) & (body == 0)
        image = torch.where(air, low + uniform(rng, 0, 0.2) * torch.randn(SIZE).abs(), image)
        body = torch.maximum(body, air.float())
    if rng.random() < 0.8:  # another curve of intensities
        knots = np.linspace(-3, 4, 6)
        steps = rng.uniform(0.1, 1.5, 6) * (1 if rng.random() < 0.8 else rng.choice([-1, 1], 6))
        if rng.random() < 0.5:
            steps = -steps
        image = torch.from_numpy(np.interp(image.numpy(), knots, np.cumsum(steps))).float()
    image = image * torch.exp(uniform(rng, 0, 0.3) * smooth_field(rng, SIZE, 4))
    if rng.random() < 0.4:  # thick slices
        factor = uniform(rng, 1.2, 3)
        shape = list(SIZE)
        axis = 2 if rng.random() < 0.6 else int(rng.integers(3))
        shape[axis] = round(shape[axis] / factor)
        thick = functional.interpolate(image[None, None], shape, mode="area")
        image = functional.interpolate(thick, SIZE, mode="trilinear")[0, 0]
    if body.sum() > 100:
        spread = float(image[body > 0].std())
        image = image + uniform(rng, 0, 0.25) * spread * torch.randn(SIZE)
    if rng.random() < 0.3:  # a crop
        inside = torch.zeros(SIZE)
        centre = [uniform(rng, 0.35, 0.65) * n for n in SIZE]
        half = [uniform(rng, 4, 22) for _ in SIZE]
        box = tuple(slice(max(int(c - h), 0), int(c + h)) for c, h in zip(centre, half, strict=True))
        inside[box] = 1
        body, brain = body * inside, brain * inside
    data = torch.where(body > 0, image, 0)
    if body.any():
        values = image[body > 0]
        low, middle, high = torch.quantile(values[:: max(len(values) // 20000, 1)], torch.tensor([0.25, 0.5, 0.75]))
        data = ((image - middle) / ((high - low) / 1.349).clamp_min(1e-3)).clamp(-5, 5) * body
    return torch.stack([data, body]), brain * body


def main() -> None:
    """Train, and write the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real", type=Path)
    parser.add_argument("colin", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--without", default="")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--start", type=Path, help="weights to go on from; none by default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    left_out = options.without.split(",")
    everything = [one for one in heads(options.real, options.colin) if one.name not in left_out]
    share = np.array([3.0 if one.whole and not one.name.startswith("patient") else 1.0 for one in everything])
    rng = np.random.default_rng(options.seed)
    torch.manual_seed(options.seed)
    model = brain_network(options.start).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, total_steps=options.steps, pct_start=0.15)
    begin, losses = time.perf_counter(), []
    for step in range(1, options.steps + 1):
        chosen = rng.choice(len(everything), 2, p=share / share.sum())
        inputs, targets = zip(*(draw(everything[n], rng) for n in chosen), strict=True)
        batch, target = torch.stack(inputs), torch.stack(targets)[:, None]
        values = model.values(batch)
        body = batch[:, 1:]
        overlap = (torch.sigmoid(values) * target * body).sum((1, 2, 3, 4))
        whole = ((torch.sigmoid(values) + target) * body).sum((1, 2, 3, 4))
        entropy = functional.binary_cross_entropy_with_logits(values, target, reduction="none") * body
        loss = entropy.sum() / body.sum().clamp_min(1) + (1 - (2 * overlap + 1) / (whole + 1)).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if step % 50 == 0 or step == options.steps:
            print(f"step {step}: loss {np.mean(losses[-50:]):.4f}, {time.perf_counter() - begin:.0f} s", flush=True)
            weights = {name: weight.detach().half().contiguous() for name, weight in model.state_dict().items()}
            with atomic_path(options.output) as temporary:
                temporary.write_bytes(save(weights))


if __name__ == "__main__":
    main()
