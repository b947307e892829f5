"""Settings that the off-policy learners share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from robolearn.algos.base import AlgoCfg
from robolearn.errors import unknown
from robolearn.nets.histogram import LEAST_BINS
from robolearn.nets.mlp import ACTIVATIONS, NORMALIZERS
from robolearn.nets.vision import POOLINGS

FROZEN = "frozen"
ENCODERS = ("trained", FROZEN)
GRIPPERS = ("continuous", "discrete")
LABELS = ("hil_serl", "supervised", "hg_dagger", "rlif")
BLAME = -1.0
"""The reward of an action that made a person take over (RLIF, Luo et al. 2024)."""


@dataclass
class OffPolicyCfg(AlgoCfg):
    capacity: int = 1_000_000
    """Observations kept."""
    batch: int = 256
    ratio: float = 1.0
    """Gradient updates per environment step."""
    report_steps: int = 4_000
    """Environment steps between two lines of figures."""
    warmup_steps: int = 2_000
    """Environment steps before the first update; where there are demonstrations, or a base policy, they may be few."""
    critic_warmup: int = 0
    """Updates of the critics before the actor's first."""
    actor_every: int = 2
    """Updates of the critics per update of the actor."""
    demo_share: float = 0.5
    """Of a batch, where there are demonstrations (RLPD, Ball et al. 2023)."""
    labels: str = "hil_serl"
    """What a person's interventions mean (robolearn.hil): hil_serl, that their steps are demonstrations too;
    supervised, that the actor imitates them besides; hg_dagger, that it does nothing else; rlif, that the action which
    made the person take over costs 1, and nothing else counts."""
    imitation: float = 1.0
    """Of labels=supervised: the weight, in the actor's loss, of the mean squared distance to a person's actions."""
    gripper: str = "continuous"
    """Of an action whose last number is a gripper's. Or discrete: closed or open is chosen by a deep Q network of its
    own, and actor and critics have the arm alone (HIL-SERL, Luo et al. 2024)."""
    gripper_penalty: float = 0.02
    """Of gripper=discrete: what each change of mind costs, in what is learned; the task's rewards stay as they are."""
    gripper_epsilon: float = 0.02
    """Of gripper=discrete: the share of steps at which the gripper is told either at random."""
    critics: int = 2
    sampled_critics: int = 2
    """Of these, drawn at random for each target, which is the least of them (REDQ, Chen et al. 2021)."""
    n_step: int = 1
    """Rewards in a target before the value."""
    gamma: float = 0.99
    tau: float = 0.005
    """Share of the critics that the targets' critics take over in an update."""
    critic_rate: float = 3e-4
    actor_rate: float = 3e-4
    """Learning rates."""
    rate_at_end: float = 1.0
    """The share of all learning rates that is left in the end; they fall on a straight line, report by report."""
    max_grad_norm: float = 10.0
    hidden: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    layer_norm: bool = True
    """In the critics."""
    normalizer: str = "running"
    """Of observations: running mean and deviation; or fine, where millimetres matter (robolearn.nets.normalize). It is
    made from what was seen before the first update, and stays."""
    value_low: float = -math.inf
    value_high: float = math.inf
    """No return can lie outside: targets are cut to it."""
    hl_gauss: int = 0
    """Bins about value_low to value_high for critics that learn a histogram (Farebrother et al. 2024), some 50; 0 for
    the squared error."""
    image_crop: tuple[int, ...] = ()
    image_widths: tuple[int, ...] = (32, 64, 128)
    image_blocks: int = 1
    image_features: int = 64
    """Of the encoder of each camera, which the critics' loss trains."""
    image_pooling: str = "keypoints"
    """What of a camera's map is kept: keypoints, where its channels see something; or embeddings, sums under learned
    masks (HIL-SERL)."""
    image_weights: str = ""
    """A safetensors file of pretrained weights for the picture encoders."""
    encoder: str = "trained"
    """Or frozen, at those weights: what follows a camera's map is learned none the less."""
    device: str = ""
    """Of networks and replay, if not that of the environments: a GPU may learn from what a CPU's engine simulates."""
    compile: bool = False
    """Updates through torch.compile, with CUDA graphs on a GPU; the first one waits for it."""

    def __post_init__(self) -> None:
        counts = ("capacity", "batch", "report_steps", "actor_every", "critics", "sampled_critics", "n_step")
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"algo.{name} must be at least 1, got {getattr(self, name)}")
        if min(self.image_blocks, self.image_features, *self.image_widths, *self.hidden) < 1:
            raise ValueError("algo.image_blocks, image_features and the sizes in image_widths and hidden must be at "
                             "least 1")  # fmt: skip
        if self.sampled_critics > self.critics:
            raise ValueError(f"algo.sampled_critics is {self.sampled_critics} of {self.critics} critics")
        if not (0.0 <= self.gripper_penalty < math.inf and 0.0 <= self.gripper_epsilon <= 1.0):
            raise ValueError("algo.gripper_penalty must be finite and at least 0, gripper_epsilon in [0, 1]")
        for name in ("ratio", "imitation", "critic_rate", "actor_rate", "max_grad_norm"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"algo.{name} must be finite and above 0, got {getattr(self, name)}")
        if not (0.0 <= self.gamma <= 1.0 and 0.0 < self.tau <= 1.0 and 0.0 <= self.demo_share <= 1.0):
            raise ValueError("algo.gamma and demo_share must be in [0, 1], tau in (0, 1]")
        if not 0.0 <= self.rate_at_end <= 1.0:
            raise ValueError(f"algo.rate_at_end must be in [0, 1], got {self.rate_at_end}")
        if self.warmup_steps < 0 or self.critic_warmup < 0 or self.hl_gauss < 0:
            raise ValueError("algo.warmup_steps, critic_warmup and hl_gauss must be at least 0")
        for name, table in (("activation", ACTIVATIONS), ("normalizer", NORMALIZERS), ("labels", LABELS),
                            ("gripper", GRIPPERS), ("image_pooling", POOLINGS),
                            ("encoder", ENCODERS)):  # fmt: skip
            if getattr(self, name) not in table:
                raise ValueError(f"algo.{name}: " + unknown(name, getattr(self, name), tuple(table)))
        self._check_values()
        if self.encoder == FROZEN and not self.image_weights:
            raise ValueError("algo.encoder=frozen needs algo.image_weights: nobody else would train it")
        if len(self.image_crop) not in (0, 2) or min(self.image_crop, default=1) < 1:
            raise ValueError(f"algo.image_crop must be a height and a width, or empty, got {self.image_crop}")

    def _check_values(self) -> None:
        if not self.value_low < self.value_high:
            raise ValueError(f"algo.value_low must be below value_high, got {self.value_low}, {self.value_high}")
        if 0 < self.hl_gauss < LEAST_BINS:
            raise ValueError(f"algo.hl_gauss must be 0 or at least {LEAST_BINS} bins, got {self.hl_gauss}")
        if self.hl_gauss and not (math.isfinite(self.value_low) and math.isfinite(self.value_high)):
            raise ValueError("algo.hl_gauss needs algo.value_low and value_high: its bins lie between them")

    def pictures(self) -> dict[str, Any]:
        """Of robolearn.nets.vision.PictureEncoder."""
        return {
            "features": self.image_features, "crop": list(self.image_crop) or None, "widths": list(self.image_widths),
            "blocks": self.image_blocks, "pooling": self.image_pooling, "points": POOLINGS[self.image_pooling],
        }  # fmt: skip
