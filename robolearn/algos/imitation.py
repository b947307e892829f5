"""What behaviour cloning and diffusion learners share: one supervised update, with an average of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from robolearn.algos.base import AlgoCfg
from robolearn.errors import ConfigError
from robolearn.policies.chunked import ChunkedPolicy, Windows
from robolearn.spec import PolicySpec


class WindowSource(Protocol):
    """Training windows, wherever they are stored."""

    def __len__(self) -> int:
        """How many windows there are."""
        ...

    def windows(self, batch: Tensor) -> Windows:
        """Those with the numbers `batch` (B,), int64 on the CPU; the tensors may be on any device."""
        ...

    def stream(self, batches: Iterable[Tensor]) -> Iterator[Windows]:
        """`windows` of batch after batch, in their order; may work ahead."""
        ...

    def statistics(self) -> dict[str, dict[str, Tensor]]:
        """`min`, `max`, `mean` and `std` (n,) of `action` and of every vector `observation.<key>`."""
        ...


@dataclass
class ImitationCfg(AlgoCfg):
    loop: ClassVar[str] = "offline"
    observation_steps: int = 2
    """How many observations the policy sees."""
    horizon: int = 16
    """Actions in a chunk, from the one at the last observation on."""
    execute: int = 8
    """Of these, how many are run before the next chunk."""
    learning_rate: float = 1e-4
    warmup: int = 500
    """Updates in which the learning rate rises from 0, before it falls to 0 as a cosine."""
    weight_decay: float = 1e-6
    betas: tuple[float, float] = (0.95, 0.999)
    max_grad_norm: float = 1.0
    ema_power: float = 0.75
    ema_max: float = 0.9999
    """The average forgets at 1 - (1 + update)^-ema_power, at most this; 0 for no average."""
    mask_padding: bool = False
    """Whether actions after an episode's end are left out of the loss; else the data's padding is learned. Padding
    that repeats the last action makes a policy of deltas go on as it moved, which is what a demonstration that was cut
    at success wants; one whose last action must not go on (a retreat) is better masked, or recorded until it rests."""
    image_crop: tuple[int, ...] = ()
    """Height and width of the crops of pictures, at random in training; empty for none."""
    image_widths: tuple[int, ...] = (64, 128, 256, 512)
    image_blocks: int = 2
    image_features: int = 64
    image_weights: str = ""
    """A safetensors file of pretrained weights for the picture encoders."""
    bfloat16: bool = False
    """The networks in bfloat16 where that is precise enough (autocast); for GPUs."""
    compile: bool = False
    """Train through torch.compile, which needs a C++ compiler, or Triton on a GPU; the first update waits for it."""

    def __post_init__(self) -> None:
        counts = (self.observation_steps, self.horizon, self.execute, self.image_blocks, self.image_features)
        if min(counts) < 1 or self.execute > self.horizon:
            raise ValueError(f"algo.observation_steps, horizon, execute, image_blocks and image_features must be at "
                             f"least 1, and execute at most the horizon, got {counts}")  # fmt: skip
        for name in ("learning_rate", "max_grad_norm", "ema_power"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"algo.{name} must be finite and above 0, got {getattr(self, name)}")
        if not (0.0 <= self.ema_max < 1.0 and self.warmup >= 0 and 0.0 <= self.weight_decay < math.inf):
            raise ValueError("algo.ema_max must be in [0, 1), warmup and weight_decay at least 0")
        if len(self.image_crop) not in (0, 2):
            raise ValueError(f"algo.image_crop must be a height and a width, or empty, got {self.image_crop}")

    def encoder(self) -> dict[str, Any]:
        return {
            "crop": list(self.image_crop) or None, "widths": list(self.image_widths), "blocks": self.image_blocks,
            "features": self.image_features,
        }  # fmt: skip

    def chunked(self, spec: PolicySpec) -> PolicySpec:
        return replace(spec, action=replace(spec.action, horizon=self.horizon, execute=self.execute))


def learning_rate(update: int, total: int, peak: float, warmup: int) -> float:
    """Of update number `update` (from 0): a linear rise over `warmup` updates, then half a cosine to 0 at `total`."""
    if update < warmup:
        return peak * (update + 1) / (warmup + 1)
    return 0.5 * peak * (1.0 + math.cos(math.pi * min(1.0, (update - warmup) / max(1, total - warmup))))


def ema_decay(update: int, power: float, most: float) -> float:
    """What the average keeps at the update number `update` (from 0)."""
    return min(most, 1.0 - (1.0 + update) ** -power)


def require_compiler(device: torch.device) -> None:
    """ConfigError if torch cannot compile for this device."""
    try:
        torch.compile(lambda x: x + 1.0)(torch.ones(2, device=device))
    except Exception as error:  # of the compiler, whichever it is
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"algo.compile: torch cannot compile for {device} ({reason}); install a C++ compiler (for a "
                          f"GPU also Triton), or set algo.compile=false") from error  # fmt: skip


class Imitation:
    """AdamW on `policy.loss`, gradients clipped, a cosine schedule. `policy` is the average of the weights `learner`
    goes through: what is evaluated and exported."""

    def __init__(self, cfg: ImitationCfg, learner: ChunkedPolicy, source: WindowSource, total_updates: int,
                 device: torch.device, generator: torch.Generator):  # fmt: skip
        if not len(source):
            raise ConfigError("there is not one window to learn from: the episodes are missing or too short")
        self.cfg, self.total_updates, self.device, self.generator = cfg, total_updates, device, generator
        learner.fit_normalizers(source.statistics())
        if cfg.image_weights:
            learner.encoder.load_backbones(cfg.image_weights)
        self.learner = learner.to(device).train()
        self.policy = copy.deepcopy(self.learner).eval().requires_grad_(False)
        self.updates = 0
        if cfg.compile:
            require_compiler(device)
            for network in self.learner.networks():
                network.compile()
        self.optimizer = torch.optim.AdamW(
            self.learner.parameters(), lr=cfg.learning_rate, betas=cfg.betas, weight_decay=cfg.weight_decay, fused=True
        )

    def update(self, windows: Windows) -> dict[str, Tensor | float]:
        """One step on a batch. Figures; `loss` and `gradient` stay on the device."""
        cfg = self.cfg
        batch = {k: v.to(self.device, non_blocking=True) for k, v in windows.items() if cfg.mask_padding or k != "mask"}
        rate = learning_rate(self.updates, self.total_updates, cfg.learning_rate, cfg.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=cfg.bfloat16):
            loss = self.learner.loss(batch, self.generator)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradient = nn.utils.clip_grad_norm_(self.learner.parameters(), cfg.max_grad_norm)
        self.optimizer.step()
        self._average(ema_decay(self.updates, cfg.ema_power, cfg.ema_max))
        self.updates += 1
        return {"loss": loss.detach(), "gradient": gradient.detach(), "learning_rate": rate}

    @torch.no_grad()
    def _average(self, keep: float) -> None:
        mine: list[Tensor] = list(self.policy.parameters())
        torch._foreach_lerp_(mine, list(self.learner.parameters()), 1.0 - keep)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers that, loaded, continue the training exactly."""
        return {
            "learner": self.learner.state_dict(), "policy": self.policy.state_dict(),
            "optimizer": {str(i): s for i, s in self.optimizer.state_dict()["state"].items()},
            "updates": self.updates,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.policy.load_state_dict(state["policy"])
        moments = {int(i): s for i, s in state["optimizer"].items()}
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.updates = state["updates"]
