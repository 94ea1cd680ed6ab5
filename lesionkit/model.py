"""The network: a U-Net from image channels to a heatmap (paper, section 4.1).

In: a batch of normalised images `(n, channels, i, j, k)`. Out: a batch of heatmaps `(n, 1, i, j, k)`, or of whatever
label it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

Activation = Literal["exp", "softplus", "linear", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of the U-Net."""

    channels: int = 1
    """Input images."""
    levels: int = 5
    """Resolutions; each halves the last (paper: 5)."""
    stem: int = 1
    """Edge of the blocks of voxels that go in, and come out, as the channels of one (paper: 1). With 2 the U-Net works
    on a grid of half the resolution: it costs a quarter and sees twice as far; the map keeps the image's grid."""
    filters: int = 32
    """Features at full resolution, doubled at each level (paper's configuration: 32)."""
    max_filters: int = 512
    """Upper bound of that doubling."""
    dropout: float = 0.1
    """Probability of dropping a feature channel, during training and MC dropout."""
    activation: Activation = "exp"
    """Output: `exp(x + bias)` (the paper's), `softplus(x + bias)`, or `x`, cut off at 0 when predicting; for a
    segmentation `sigmoid(x + bias)`, the probability of a lesion at each voxel."""
    bias: float = -4.0
    """Added before the output activation, so that an untrained network predicts almost nothing (paper's code: -4)."""

    def __post_init__(self) -> None:
        """Check the settings."""
        for name, most in (("channels", 64), ("levels", 10), ("stem", 4), ("filters", 1024), ("max_filters", 4096)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(f"{name} must be an integer from 1 to {most}, got {value!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        if self.activation not in get_args(Activation):
            raise ValueError(f"activation must be one of {', '.join(get_args(Activation))}, got {self.activation!r}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Features of each level, full resolution first."""
        return tuple(min(self.filters * 2**level, self.max_filters) for level in range(self.levels))


class ConvBlock(nn.Sequential):
    """Twice: 3x3x3 convolution, instance norm, leaky ReLU; then channel dropout."""

    def __init__(self, n_in: int, n_out: int, dropout: float) -> None:
        layers: list[nn.Module] = []
        for n in (n_in, n_out):
            layers += [
                nn.Conv3d(n, n_out, kernel_size=3, padding=1, bias=False),  # the norm has the bias
                nn.InstanceNorm3d(n_out, affine=True),
                nn.LeakyReLU(0.01),
            ]
        super().__init__(*layers, nn.Dropout3d(dropout))


class UNet(nn.Module):
    """The heatmap regressor.

    Parameters
    ----------
    config : ModelConfig
        Shape of the network.

    Notes
    -----
    Sizes that do not divide by `stem * 2 ** (levels - 1)` are padded with zeros at the far end and cropped again.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        inputs = (config.channels * config.stem**3, *widths[:-1])
        self.encoder = nn.ModuleList(ConvBlock(a, b, config.dropout) for a, b in zip(inputs, widths, strict=True))
        pairs = list(zip(widths[1:], widths[:-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose3d(deep, fine, kernel_size=2, stride=2) for deep, fine in pairs)
        self.decoder = nn.ModuleList(ConvBlock(2 * fine, fine, config.dropout) for _, fine in pairs)
        self.head = nn.Conv3d(widths[0], config.stem**3, kernel_size=1)

    def forward(self, images: Float[Tensor, "n channels i j k"]) -> Float[Tensor, "n 1 i j k"]:
        """Return the heatmap in the units of the label that the network was trained on."""
        return self.activate(self.values(images))

    def values(self, images: Float[Tensor, "n channels i j k"]) -> Float[Tensor, "n 1 i j k"]:
        """Return the last layer's values, before the output activation and its bias."""
        size = images.shape[2:]
        multiple = self.config.stem * 2 ** (self.config.levels - 1)
        padding = [(-n) % multiple for n in size]
        features = functional.pad(images, (0, padding[2], 0, padding[1], 0, padding[0])) if any(padding) else images
        features = fold(features, self.config.stem)
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            features = block(features if level == 0 else functional.max_pool3d(features, 2))
            skips.append(features)
        for level in reversed(range(len(self.up))):
            features = self.decoder[level](torch.cat([skips[level], self.up[level](features)], dim=1))
        values = unfold(self.head(features), self.config.stem)[:, :, : size[0], : size[1], : size[2]]
        return values.float()

    def activate(self, x: Tensor) -> Tensor:
        """Map the last layer's values to a heatmap."""
        if self.config.activation == "exp":
            return torch.exp(torch.clamp(x + self.config.bias, max=5.0))  # bound: one bad batch must not overflow
        if self.config.activation == "softplus":
            return functional.softplus(x + self.config.bias)
        if self.config.activation == "sigmoid":
            return torch.sigmoid(x + self.config.bias)
        return x if self.training else torch.clamp(x, min=0)


def fold(images: Float[Tensor, "n c i j k"], edge: int) -> Float[Tensor, "n d a b e"]:
    """Make blocks of `edge` voxels an axis the channels of one (space to depth)."""
    if edge == 1:
        return images
    n, c, i, j, k = images.shape
    blocks = images.reshape(n, c, i // edge, edge, j // edge, edge, k // edge, edge)
    return blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(n, c * edge**3, i // edge, j // edge, k // edge)


def unfold(values: Float[Tensor, "n d a b e"], edge: int) -> Float[Tensor, "n c i j k"]:
    """Undo `fold`."""
    if edge == 1:
        return values
    n, d, a, b, e = values.shape
    blocks = values.reshape(n, d // edge**3, edge, edge, edge, a, b, e)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(n, d // edge**3, a * edge, b * edge, e * edge)
