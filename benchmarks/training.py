"""A training step as shipped against the same network in plain fp32, and against MONAI's BasicUNet trained plainly.

`python -m benchmarks training`
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.timing import Row, interleaved
from lesionkit.inference import fast_bf16
from lesionkit.model import ModelConfig, UNet
from lesionkit.training import TrainConfig


def rows(*, quick: bool = False) -> list[Row]:
    """Measure one optimiser step of the `gad` recipe: 4 patches of 40^3, 16 filters."""
    config = TrainConfig.preset("gad")
    shape = ModelConfig(**{**config.model.__dict__, "channels": 2})
    batch = torch.randn(config.batch_size, 2, *config.patch)
    label = torch.rand(config.batch_size, 1, *config.patch)

    def step(model: torch.nn.Module, bf16: bool) -> Callable[[], None]:
        optimiser = torch.optim.Adam(model.parameters())

        def run() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                output = model(batch)
            optimiser.zero_grad()
            ((output.float() - label) ** 2).sum().backward()
            optimiser.step()

        return run

    functions = {"ours": step(UNet(shape), fast_bf16()), "fp32": step(UNet(shape), False)}
    try:
        from monai.networks.nets import BasicUNet
    except ImportError:
        pass
    else:
        peer = BasicUNet(spatial_dims=3, in_channels=2, out_channels=1, features=(16, 16, 32, 64, 128, 16))
        functions["monai"] = step(peer, False)
    seconds = interleaved(functions, repeats=3 if quick else 7)
    ratio = seconds["fp32"] / seconds["ours"]
    found = [
        Row("training step: bf16 autocast against plain fp32, same network", "", f"{ratio:.1f}x", None),
        Row("training step: time on the CPU", "", f"{seconds['ours']:.2f} s of CPU", None),
    ]
    if "monai" in seconds:
        ratio = seconds["monai"] / seconds["ours"]
        found.append(Row("training step: against MONAI BasicUNet, fp32", ">= 3x", f"{ratio:.1f}x", ratio >= 3))
    return found
