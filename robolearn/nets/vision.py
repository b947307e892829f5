"""Encoders of pictures: a small ResNet (He et al. 2016) with GroupNorm, whose map becomes key points by a spatial
softmax (Levine et al. 2016), or sums under learned masks. Weights come from a local file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from robolearn.errors import ConfigError, unknown

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which pretrained weights expect
POOLINGS = {"keypoints": 32, "embeddings": 8}
"""How a map becomes features, with the points or masks that are usual."""
LEFT_OUT = ("fc.", "num_batches_tracked", "running_mean", "running_var")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions. Names are those of the usual ResNet-18 files."""

    def __init__(self, n_in: int, n_out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = _norm(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = _norm(n_out)
        self.downsample = nn.Sequential()
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), _norm(n_out))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.downsample(x))


def _norm(channels: int) -> nn.GroupNorm:
    """16 channels a group, as Diffusion Policy has in place of BatchNorm, whose statistics and EMA do not agree."""
    return nn.GroupNorm(max(1, channels // 16), channels)


class ResNet(nn.Module):
    """(B, 3, H, W) -> (B, widths[-1], H', W'): the stem and one stage of `blocks` blocks a width."""

    def __init__(self, widths: Sequence[int] = (64, 128, 256, 512), blocks: int = 2):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 7, 2, 3, bias=False)
        self.bn1 = _norm(widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        n_in, self.stages = widths[0], len(widths)
        for i, width in enumerate(widths):
            first = ResidualBlock(n_in, width, 1 if i == 0 else 2)
            rest = (ResidualBlock(width, width, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{i + 1}", nn.Sequential(first, *rest))
            n_in = width

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        for i in range(self.stages):
            x = self.get_submodule(f"layer{i + 1}")(x)
        return x

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """(H', W') of pictures of this size: the stem halves them twice, each stage but the first once more."""
        for _ in range(self.stages + 1):
            height, width = (height + 1) // 2, (width + 1) // 2
        return height, width

    def load_weights(self, path: str | Path) -> None:
        """A safetensors file with the parameter names of the usual ResNet-18; classifier and running statistics are
        left out. ConfigError, naming what is absent or of another shape."""
        try:
            found = {k: v for k, v in load_file(path).items() if not k.startswith("fc.") and not k.endswith(LEFT_OUT)}
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{path} is no safetensors file of weights ({error}); convert it with "
                              f"safetensors.torch.save_file") from None  # fmt: skip
        mine = self.state_dict()
        wrong = [k for k in mine if k not in found or found[k].shape != mine[k].shape]
        wrong += sorted(found.keys() - mine.keys())
        if wrong:
            raise ConfigError(f"{path} does not fit the ResNet of these widths and blocks: {', '.join(wrong[:5])}"
                              + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""))  # fmt: skip
        self.load_state_dict(found)


class SpatialSoftmax(nn.Module):
    """Feature map (B, C, H, W) -> expected positions (B, 2 points), x then y of each point, in [-1, 1]."""

    def __init__(self, channels: int, points: int):
        super().__init__()
        self.points = nn.Conv2d(channels, points, 1)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.points(x)
        height, width = scores.shape[2:]
        weight = scores.flatten(2).softmax(-1).unflatten(2, (height, width))
        across = torch.linspace(-1.0, 1.0, width, device=x.device)
        down = torch.linspace(-1.0, 1.0, height, device=x.device)
        xy = ((weight.sum(2) * across).sum(-1), (weight.sum(3) * down).sum(-1))
        return torch.stack(xy, dim=-1).flatten(1)


class SpatialEmbeddings(nn.Module):
    """Feature map (B, C, H, W) -> (B, count * C): each channel's sums over the map under `count` learned masks of its
    own, which keep apart what is where (HIL-SERL, Luo et al. 2024)."""

    def __init__(self, channels: int, size: tuple[int, int], count: int):
        super().__init__()
        self.masks = nn.Parameter(torch.randn(count, channels, *size) / (size[0] * size[1]) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bkc", x, self.masks).flatten(1)


def crop(images: Tensor, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
    """(B, ..., H, W) -> (B, ..., h, w): from the middle, or with a generator at random, each row of the batch at a
    place of its own (the same for all its other axes). ValueError if the picture is smaller."""
    height, width = images.shape[-2:]
    if size[0] > height or size[1] > width:
        raise ValueError(
            f"a picture of {height}x{width} cannot be cropped to {size[0]}x{size[1]}; make encoder.crop smaller"
        )
    if generator is None:
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        return images[..., top : top + size[0], left : left + size[1]]
    n, device = len(images), images.device
    tops, lefts = (
        torch.randint(room + 1, (n,), generator=generator, device=device)
        for room in (height - size[0], width - size[1])
    )
    windows = images.unfold(-2, size[0], 1).unfold(-2, size[1], 1)  # every crop there is: nothing is copied
    places: Any = (torch.arange(n, device=device), *(slice(None),) * (images.dim() - 3), tops, lefts)
    return windows[places]


class PictureEncoder(nn.Module):
    """uint8 pictures (B, T, H, W, 3) -> (B, T, features). Cropped at random while training, if given a generator; the T
    pictures of a row at the same place. With the pooling `embeddings` all have the size `picture`, (H, W)."""

    mean: Tensor
    std: Tensor

    def __init__(self, features: int, crop: tuple[int, int] | None, widths: Sequence[int], blocks: int, points: int,
                 pooling: str = "keypoints", picture: tuple[int, int] | None = None):  # fmt: skip
        super().__init__()
        if pooling not in POOLINGS:
            raise ConfigError(unknown("pooling", pooling, tuple(POOLINGS)))
        self.size = crop
        self.backbone = ResNet(widths, blocks)
        if pooling == "embeddings":
            size = crop or picture
            assert size is not None
            masks = SpatialEmbeddings(widths[-1], self.backbone.map_size(size[0], size[1]), points)
            linear = nn.Linear(points * widths[-1], features)
            self.head = nn.Sequential(masks, linear, nn.LayerNorm(features), nn.Tanh())
        else:
            self.head = nn.Sequential(SpatialSoftmax(widths[-1], points), nn.Linear(2 * points, features), nn.ReLU())
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        x = images.movedim(-1, -3)
        if self.size is not None:
            x = crop(x, self.size, generator if self.training else None)
        x = (x.flatten(0, 1).float() / 255.0 - self.mean) / self.std
        return self.head(self.backbone(x)).unflatten(0, images.shape[:2])
