"""Success as a classifier sees it: pictures of one or several cameras, and the state if wanted -> done or not.

The network is that of HIL-SERL (Luo et al. 2024): encoder, 256, dropout 0.1, LayerNorm, ReLU, one logit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from robolearn.env import Obs
from robolearn.errors import ConfigError, unknown
from robolearn.nets.normalize import FixedNormalizer
from robolearn.nets.vision import PictureEncoder
from robolearn.registry import register
from robolearn.rewards.base import Judgement, Live, Needs, RewardCfg, RewardError, RewardSource, Shapes, Transitions
from robolearn.rewards.debounce import Debounce, debounced

if TYPE_CHECKING:
    from robolearn.data.read import Episodes

log = logging.getLogger(__name__)
CHUNK = 256
BLANK = 2
"""Grey levels between the darkest and the brightest number of a picture that shows nothing."""
AT_START = "refuse", "warn"


@dataclass
class ClassifierCfg(RewardCfg):
    name: str = "classifier"
    observed: tuple[str, ...] = ()
    """Observation keys: policy/front, policy/wrist, policy (the state); all cameras of the data if none is given."""
    precision: float = 0.95
    """The threshold is the smallest one, of at least `least_threshold`, that has it on episodes kept for choosing."""
    least_threshold: float = 0.5
    threshold: float = 0.0
    """0: chosen when it is trained."""
    k: int = 3
    """Of the last n steps, so many must show success before it is said."""
    n: int = 4
    at_start: str = "refuse"
    """What to do with success at the first sight of an episode: refuse, or warn and wait until it is gone."""
    margin: int = 4
    """Pixels at each side that a crop leaves out on average; at random in training."""
    features: int = 64
    """Of each camera."""
    hidden: int = 256
    dropout: float = 0.1
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1
    points: int = 16
    weights: str = ""
    """Local safetensors file of a ResNet of these widths and blocks, which stays as it is."""
    updates: int = 1500
    batch: int = 64
    """Half of it successes."""
    learning_rate: float = 3e-4
    choose_share: float = 0.2
    """Of the episodes: to choose threshold and temperature."""
    held_out_share: float = 0.2
    """Of the episodes: to judge the result, for nothing else."""

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n:
            raise ValueError(f"reward.k must be 1 to reward.n ({self.n}), got {self.k}")
        if self.at_start not in AT_START:
            raise ValueError("reward.at_start: " + unknown("choice", self.at_start, AT_START))
        for name in ("precision", "least_threshold", "threshold", "dropout", "choose_share", "held_out_share"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"reward.{name} must be at least 0 and below 1, got {getattr(self, name)}")
        if self.choose_share + self.held_out_share >= 1.0:
            raise ValueError("reward.choose_share and reward.held_out_share leave no episode to train with")
        if min(self.updates, self.batch // 2, self.hidden, self.features, self.points, self.blocks) < 1:
            raise ValueError("reward.updates, hidden, features, points and blocks must be at least 1, batch at least 2")


@register("reward", "classifier", ClassifierCfg)
class Classifier(RewardSource):
    """Learned from labelled pictures; success is reward 1, all else 0."""

    cfg: ClassifierCfg
    log_odds: Tensor
    temperature: Tensor

    def __init__(self, cfg: ClassifierCfg, shapes: Shapes):
        keys = cfg.observed or tuple(k for k in shapes if "/" in k)
        if not keys:
            raise ConfigError("there is no camera to see success with; name what it shall read with reward.observed")
        if missing := [k for k in keys if k not in shapes]:
            raise ConfigError("reward.observed: " + unknown("observation", missing[0], list(shapes)))
        super().__init__(cfg, {k: tuple(shapes[k]) for k in keys})
        self.needs = Needs(observed=keys)
        self.pictures = [k for k in keys if "/" in k]
        self.vectors = [k for k in keys if "/" not in k]
        self.cameras = nn.ModuleDict({_module(k): self._camera(self.shapes[k]) for k in self.pictures})
        self.normalizers = nn.ModuleDict({k: FixedNormalizer(self.shapes[k][0], "range") for k in self.vectors})
        size = cfg.features * len(self.pictures) + sum(self.shapes[k][0] for k in self.vectors)
        self.head = nn.Sequential(nn.Linear(size, cfg.hidden), nn.Dropout(cfg.dropout), nn.LayerNorm(cfg.hidden),
                                  nn.ReLU(), nn.Linear(cfg.hidden, 1))  # fmt: skip
        self.register_buffer("log_odds", torch.zeros(()))
        self.register_buffer("temperature", torch.ones(()))

    def _camera(self, shape: tuple[int, ...]) -> PictureEncoder:
        height, width = (side - 2 * self.cfg.margin for side in shape[:2])
        if min(height, width) < 1 or self.cfg.margin < 0:
            raise ConfigError(f"reward.margin={self.cfg.margin} leaves nothing of a picture of {shape[:2]}")
        c = self.cfg
        return PictureEncoder(c.features, (height, width), c.widths, c.blocks, c.points)

    @classmethod
    def learned(cls, cfg: ClassifierCfg, sets: Sequence[Episodes], seed: int, device: str,
                progress: Callable[[int, dict[str, float]], None]) -> tuple[RewardSource, dict[str, Any]]:  # fmt: skip
        from robolearn.rewards import classifier_training

        return classifier_training.fit(cfg, sets, seed, device, progress)

    def logits(self, obs: Mapping[str, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """(N,), of a world in which half of all is success, as in training; with a generator, and while training,
        pictures are cropped at random."""
        parts = [self.cameras[_module(k)](obs[k][:, None], generator)[:, 0] for k in self.pictures]
        parts += [self.normalizers[k](obs[k]) for k in self.vectors]
        return self.head(torch.cat(parts, dim=1))[:, 0]

    def probability(self, obs: Mapping[str, Tensor]) -> Tensor:
        """(N,) of success, where it is as frequent as in the data that it was trained with."""
        return (self.evidence(obs) / self.temperature + self.log_odds).sigmoid()

    @torch.no_grad()
    def evidence(self, obs: Mapping[str, Tensor]) -> Tensor:
        """`logits` without training, for any number of observations, on any device."""
        training = self.training
        self.eval()
        keys = self.needs.observed
        starts = range(0, len(obs[keys[0]]), CHUNK)
        parts = [self.logits({k: obs[k][i : i + CHUNK].to(self.device) for k in keys}) for i in starts]
        self.train(training)
        return torch.cat(parts) if parts else torch.zeros(0, device=self.device)

    def hits(self, obs: Mapping[str, Tensor]) -> Tensor:
        """(N,) bool: shows success, and shows anything at all."""
        return (self.probability(obs) >= self.cfg.threshold) & ~self.blank(obs)

    def blank(self, obs: Mapping[str, Tensor]) -> Tensor:
        """(N,) bool: a camera shows one colour, as one that is covered does."""
        out = torch.zeros(len(obs[self.needs.observed[0]]), dtype=torch.bool, device=self.device)
        for flat in (obs[k].to(self.device).flatten(1) for k in self.pictures):
            out = out | (flat.amax(1).int() - flat.amin(1).int() <= BLANK)
        return out

    def judge(self, steps: Transitions) -> Judgement:
        hits = self.hits(steps.next_obs)
        return Judgement(hits.float(), hits)

    def episode(self, steps: Transitions) -> Judgement:
        """Debounced, as it would have been live."""
        first = self.hits({k: steps.obs[k][:1] for k in self.needs.observed})[0]
        success = debounced(self.hits(steps.next_obs), first, self.cfg.k, self.cfg.n)
        return Judgement(success.float(), success)

    def live(self, num_envs: int) -> Live:
        return LiveClassifier(self, num_envs)


class LiveClassifier(Live):
    """K of the last N steps; and never what was so from the first sight on."""

    source: Classifier

    def __init__(self, source: Classifier, num_envs: int):
        super().__init__(source, num_envs)
        if source.cfg.threshold <= 0.0:
            raise RewardError("this classifier has no threshold: it is not trained; robolearn reward train")
        self._memory = Debounce(source.cfg.k, source.cfg.n, num_envs, source.device)

    @torch.inference_mode()
    def reset(self, mask: Tensor, obs: Obs) -> None:
        begun = mask.to(self.source.device).nonzero().flatten()
        if not len(begun):
            return
        first = {k: obs[k].to(self.source.device)[begun] for k in self.source.needs.observed}
        hits = torch.zeros(self.num_envs, dtype=torch.bool, device=self.source.device)
        hits[begun] = self.source.hits(first)
        self._memory.reset(mask.to(hits.device), hits)
        if found := begun[self.source.blank(first)].tolist():
            raise RewardError(f"a camera of environment {found[0]} shows one colour: is it covered, or not on yet? "
                              "Without a picture nothing can be called a success")  # fmt: skip
        if found := hits.nonzero().flatten().tolist():
            self._doubt(found, self.source.probability(first)[hits[begun]])

    def _doubt(self, envs: list[int], probability: Tensor) -> None:
        how = f"{float(probability[0]):.2f}, threshold {self.source.cfg.threshold:.2f}"
        said = (
            f"the classifier says success ({how}) at the first sight of an episode, in environments "
            f"{', '.join(map(str, envs))}: does an object lie at its goal from before? If not, it is wrong: add such "
            "pictures to its data (robolearn reward review), and train again"
        )
        if self.source.cfg.at_start == "refuse":
            raise RewardError(f"{said}. reward.at_start=warn goes on, and rewards nothing until it is gone")
        log.warning("%s. Nothing is rewarded until it is gone", said)

    @torch.inference_mode()
    def step(self, steps: Transitions) -> Judgement:
        success = self._memory(self.source.hits(steps.next_obs))
        return Judgement(success.float(), success)


def _module(key: str) -> str:
    """A slash separates the parts of a checkpoint's paths."""
    return key.replace("/", ":")
