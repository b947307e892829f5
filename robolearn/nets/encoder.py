"""What a policy sees, as one vector a step: the normalised state, and what is in the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.nets.normalize import FixedNormalizer
from robolearn.nets.vision import PictureEncoder
from robolearn.spec import ObservationSpec

DEFAULTS: dict[str, Any] = {
    "normalizer": "range", "crop": None, "widths": (64, 128, 256, 512), "blocks": 2, "points": 32, "features": 64,
}  # fmt: skip


def observed(spec: ObservationSpec) -> dict[str, tuple[int, ...]]:
    """Keys of the observation dictionary that a policy reads, with their shapes: the group `policy`. ConfigError for
    what is neither a vector nor a picture."""
    kinds = {f"policy/{t.field.name}": t.field.kind for t in spec.terms("policy") if t.field.kind != "vector"}
    foreign = [f"{k} ({kind})" for k, kind in kinds.items() if kind not in ("image", "goal_image")]
    if foreign:
        raise ConfigError(f"this policy reads vectors and pictures, not {', '.join(foreign)}")
    return {k: s for k, s in spec.shapes().items() if k.partition("/")[0] == "policy"}


class ObservationEncoder(nn.Module):
    """Observations by key, (B, T, n) or uint8 (B, T, H, W, 3) -> (B, T, dim).

    config: that of DEFAULTS. `crop` is [height, width] or None, `features` the numbers that a camera gives. Every
    camera has an encoder of its own. ConfigError for a crop that is larger than a picture.
    """

    def __init__(self, spec: ObservationSpec, config: Mapping[str, Any]):
        super().__init__()
        wrong = sorted(config.keys() - DEFAULTS.keys())
        if wrong:
            raise ConfigError(f"an encoder has no setting {', '.join(wrong)}; there are {', '.join(DEFAULTS)}")
        c = DEFAULTS | dict(config)
        self.shapes = observed(spec)
        self.vectors = [k for k, s in self.shapes.items() if len(s) == 1]
        self.pictures = [k for k in self.shapes if k not in self.vectors]
        size = tuple(c["crop"]) if c["crop"] else None
        small = [k for k in self.pictures if size and (self.shapes[k][0] < size[0] or self.shapes[k][1] < size[1])]
        if small:
            raise ConfigError(f"encoder.crop {size} is larger than {small[0]}, which is {self.shapes[small[0]][:2]}")
        self.normalizers = nn.ModuleDict({k: FixedNormalizer(self.shapes[k][0], c["normalizer"]) for k in self.vectors})
        settings = (c["features"], size, c["widths"], c["blocks"], c["points"])
        self.cameras = nn.ModuleDict({_module(k): PictureEncoder(*settings) for k in self.pictures})
        self.dim = sum(self.shapes[k][0] for k in self.vectors) + c["features"] * len(self.pictures)

    def forward(self, obs: Mapping[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """With a generator, and while training, pictures are cropped at random; those of one camera in one row at the
        same place, so that what moves between them is what moved in the world."""
        parts = [self.normalizers[k](obs[k]) for k in self.vectors]
        for key in self.pictures:
            parts.append(self.cameras[_module(key)](obs[key], generator))
        return torch.cat(parts, dim=-1)

    def fit(self, statistics: Mapping[str, Mapping[str, Tensor]]) -> None:
        """`statistics` by `observation.<key>`. ConfigError if the data lack one that the policy reads."""
        missing = [k for k in self.vectors if f"observation.{k}" not in statistics]
        if missing:
            have = ", ".join(sorted(statistics)) or "nothing"
            raise ConfigError(f"the data have no statistics of observation.{missing[0]}; they have {have}")
        for key in self.vectors:
            normalizer = self.normalizers[key]
            assert isinstance(normalizer, FixedNormalizer)
            normalizer.fit(statistics[f"observation.{key}"], f"observation.{key}")

    def backbones(self) -> list[nn.Module]:
        return [camera.backbone for camera in self.cameras.values() if isinstance(camera, PictureEncoder)]

    def load_backbones(self, path: str) -> None:
        """The same local file of pretrained weights for every camera."""
        for camera in self.cameras.values():
            assert isinstance(camera, PictureEncoder)
            camera.backbone.load_weights(path)


def _module(key: str) -> str:
    """A slash separates the parts of a checkpoint's paths."""
    return key.replace("/", ":")
