"""The network that tells a brain from a head: a small U-Net on 8 mm blocks of 2 x 2 x 2 voxels.

In: `(n, 2, i, j, k)`, intensities and foreground at 4 mm. Out: the brain's logits `(n, 1, i, j, k)`.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from lesionkit.model import ModelConfig, UNet

WEIGHTS = Path(str(resources.files("lesionkit").joinpath("data/brain.safetensors")))


class BrainNetwork(nn.Module):
    """A U-Net whose channels are the subvoxels of a block, at an eighth of the cost of one that is as fine."""

    def __init__(self) -> None:
        super().__init__()
        self.unet = UNet(ModelConfig(channels=16, levels=3, filters=20, max_filters=32, dropout=0.0))
        self.unet.head = nn.Conv3d(20, 8, kernel_size=1)

    def forward(self, images: Float[Tensor, "n 2 i j k"]) -> Float[Tensor, "n 1 i j k"]:
        """Return the logits of the brain at each voxel."""
        i, j, k = images.shape[2:]
        even = functional.pad(images, (0, k % 2, 0, j % 2, 0, i % 2))
        n, channels, a, b, c = even.shape
        blocks = even.reshape(n, channels, a // 2, 2, b // 2, 2, c // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
        values = self.unet.values(blocks.reshape(n, 8 * channels, a // 2, b // 2, c // 2))
        fine = values.reshape(n, 2, 2, 2, a // 2, b // 2, c // 2).permute(0, 4, 1, 5, 2, 6, 3)
        return fine.reshape(n, 1, a, b, c)[:, :, :i, :j, :k]


def load_brain_network(path: Path = WEIGHTS) -> BrainNetwork:
    """Return the network with its weights, in float32."""
    model = BrainNetwork()
    model.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
    return model.eval()
