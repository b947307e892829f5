"""Learn from pictures what success looks like, and judge episodes with it or with any other reward.

usage: robolearn reward record task=NAME policy=expert|random|run:PATH out=SET [episodes=40] [label=task|key]
       robolearn reward train data="SET ..." out=REWARD [reward=classifier] [reward.key=value ...]
       robolearn reward evaluate source=REWARD data="SET ..." [out=FILE.png]
       robolearn reward review source=REWARD data=SET [min_step=0]
       robolearn reward correct data=SET episode=N steps="3 7-12" [success=false]
       robolearn reward label source=REWARD|NAME data=SET [name=LABEL]

SET is the folder of recorded episodes (docs/data.md), REWARD the folder of a trained reward (docs/rewards.md).

  record    plays a task and keeps with each picture whether the task is done in it: by the task's own check, or while a
            person holds the space bar (label=key; the world then keeps real time and is shown in the terminal). Good
            data are a third successes and many near misses: an expert with noise=1, and some of policy=random
  train     a fifth of the episodes chooses the threshold, another fifth, which nothing else saw, gives the figures.
            Writes the reward, figures.json and figures.png. Settings: reward.observed="[policy/front]" (all cameras if
            not given), reward.precision, reward.k and reward.n (k of the last n steps must show success),
            reward.updates, reward.weights (a local file of a pretrained ResNet); --help of them: docs/rewards.md
  evaluate  precision, recall and calibration on another set, and every mistake: episode and step
  review    shows every place where the reward says success and the label does not, or the other way round: one key says
            who is right. What it was wrong about is in the data of the next training
  correct   the same for known steps, without looking
  label     writes the reward of every step beside the episodes, as a new version: NAME, and NAME_success. Rewards that
            learn nothing go by their names (sparse, time_penalty). Ctrl-C or a kill: the same command goes on

Nothing that was recorded is changed: labels are versions beside the episodes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.cli import _options, _world, collect
from robolearn.cli._options import option
from robolearn.config import ConfigError
from robolearn.errors import unknown

if TYPE_CHECKING:
    from robolearn.data.read import Episodes
    from robolearn.rewards.base import RewardSource
    from robolearn.rewards.classifier import Classifier

log = logging.getLogger(__name__)
SETS = "sets of episodes, separated by spaces"


@dataclass
class RecordCfg(collect.CollectCfg):
    episodes: int = option(40, "that the set shall hold in the end")
    label: str = option("task", "who says what success is: the task's own check, or a person", ("task", "key"))
    linger_s: float = option(1.0, "an episode that ends with success goes on for so long, with pictures of it")
    hold_s: float = option(0.6, "label=key: the key counts as held for so long after its last repetition")

    def __post_init__(self) -> None:
        self.keep = self.keep or "all"
        super().__post_init__()
        if self.workers != 1 or self.keep != "all":
            raise ConfigError("what is recorded for a reward holds failures too, and is made by one process: leave "
                              "workers= and keep= out")  # fmt: skip
        if self.linger_s < 0.0 or self.hold_s <= 0.0:
            raise ValueError(f"linger_s must be at least 0 and hold_s above 0, got {self.linger_s} and {self.hold_s}")


@dataclass
class LearnCfg:
    defaults: list[Any] = field(default_factory=lambda: [{"reward": "classifier"}, "_self_"])
    reward: Any = option(_options.MISSING, "what is learned, with its settings as reward.key=value", group=True)
    data: str = option(_options.MISSING, SETS)
    out: str = option(_options.MISSING, "folder of the reward; one that is there is replaced")
    seed: int = option(0, "of the division of the episodes, and of the training")
    device: str = option("cpu", "cpu or cuda")

    def __post_init__(self) -> None:
        _options.check_range(self, seed=_options.SEEDS)


@dataclass
class JudgeCfg:
    source: str = option(_options.MISSING, "folder of a reward, or for label the name of one that learns nothing")
    data: str = option(_options.MISSING, SETS)
    out: str = option("", "evaluate: file.png of the precision over the recall, and of the calibration")
    name: str = option("", "label: of the new version; the reward's own if not given")
    device: str = option("cpu", "cpu or cuda")
    min_step: int = option(0, "review: leave out what comes before this step of an episode")


@dataclass
class MarkCfg:
    data: str = option(_options.MISSING, "a set of episodes")
    episode: int = option(_options.MISSING, "its number")
    steps: str = option(_options.MISSING, "numbers and spans, 3 7-12")
    success: bool = option(False, "what these steps show")


def help_text() -> str:
    parts = {"record": RecordCfg, "train": LearnCfg, "evaluate, review, label": JudgeCfg, "correct": MarkCfg}
    options = "\n\n".join(f"options of {name}:\n{_options.describe(cfg)}" for name, cfg in parts.items())
    return f"{__doc__}\n{options}"


def main(argv: list[str]) -> int:
    if not argv or "=" in argv[0]:
        raise ConfigError(f"what shall be done? {', '.join(ACTIONS)}")
    if argv[0] not in ACTIONS:
        raise ConfigError(unknown("action", argv[0], list(ACTIONS)))
    _world.discover()
    print(ACTIONS[argv[0]](argv[1:]))
    return 0


def _record(words: list[str]) -> str:
    from robolearn.cli import _reward_record

    cfg = config.load(RecordCfg, words)
    if cfg.policy.startswith(collect._collect.RUN):
        policy = _world.load_run(cfg.policy.removeprefix(collect._collect.RUN))[2].policy
        collect._collect.actor_of(policy, cfg.task)
    return _reward_record.record(cfg)


def _train(words: list[str]) -> str:
    from robolearn.cli import _reward_report
    from robolearn.loops.log import Display
    from robolearn.rewards import bundle

    cfg = config.load(LearnCfg, words)
    kind, out = config.entry("reward", cfg.reward.name).value, Path(cfg.out)
    if out.exists() and not (out.is_dir() and ((out / bundle.ABOUT).exists() or not any(out.iterdir()))):
        raise ConfigError(f"{out} is there and holds no reward: choose another folder")
    sets, device = _sets(cfg.data), _world.usable(cfg.device)
    with Display(getattr(cfg.reward, "updates", 1), "train") as display:
        source, figures = kind.learned(cfg.reward, sets, cfg.seed, device, display.update)
    made_from = {"data": [str(s.root) for s in sets], "fps": sets[0].fps, "seed": cfg.seed}
    bundle.save(out, source, made_from)
    (out / "figures.json").write_text(json.dumps(figures, indent=1))
    _reward_report.plot(out / "figures.png", figures["held_out"])
    return _reward_report.of_training(out, source, figures)


def _evaluate(words: list[str]) -> str:
    from robolearn.cli import _reward_report

    cfg = config.parse(JudgeCfg, words)
    if cfg.out and not cfg.out.endswith(".png"):
        raise ConfigError(f"out must be a .png file, got {cfg.out}")
    return _reward_report.evaluate(_classifier(cfg), _sets(cfg.data), Path(cfg.out) if cfg.out else None)


def _review(words: list[str]) -> str:
    from robolearn.cli import _reward_review

    cfg = config.parse(JudgeCfg, words)
    return _reward_review.review(_classifier(cfg), _one_set(cfg.data), cfg.min_step)


def _correct(words: list[str]) -> str:
    from robolearn.rewards import corrections

    cfg = config.parse(MarkCfg, words)
    label = corrections.mark(_one_set(cfg.data), {cfg.episode: {cfg.success: _steps(cfg.steps)}})
    return f"{cfg.data}: {label} is what the next training learns from"


def _label(words: list[str]) -> str:
    from robolearn.loops.interrupt import Interrupt
    from robolearn.loops.log import Display
    from robolearn.rewards.relabel import relabel

    cfg = config.parse(JudgeCfg, words)
    episodes, interrupt = _one_set(cfg.data), Interrupt("this episode")
    source = _source(cfg.source, cfg.device)
    with interrupt.watch(), Display(len(episodes), "label") as display:
        found = relabel(episodes, source, cfg.name, lambda n: display.update(n, {}), lambda: interrupt.wanted)
    if not found:
        log.info("go on with the same command; no label is written before all episodes are judged")
        raise KeyboardInterrupt
    return f"{cfg.data}: {', '.join(map(str, found))} of {len(episodes)} episodes"


ACTIONS: dict[str, Callable[[list[str]], str]] = {
    "record": _record, "train": _train, "evaluate": _evaluate, "review": _review, "correct": _correct, "label": _label,
}  # fmt: skip


# --- what the words mean -----------------------------------------------------------------------------------


def _sets(words: str) -> list[Episodes]:
    from robolearn.data.read import Episodes

    if not words.split():
        raise ConfigError("data= names no set of episodes; make one with robolearn reward record")
    return [Episodes(Path(word)) for word in words.split()]


def _one_set(words: str) -> Episodes:
    found = _sets(words)
    if len(found) != 1:
        raise ConfigError(f"one set at a time, got {len(found)} in data=")
    return found[0]


def _steps(text: str) -> list[int]:
    """`3 7-9` -> 3, 7, 8, 9."""
    out: list[int] = []
    for word in text.replace(",", " ").split():
        first, dash, last = word.partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise ConfigError(f"steps are numbers and spans like 3 7-12, got '{word}'")
        out += range(int(first), int(last if dash else first) + 1)
    if not out:
        raise ConfigError("steps= names no step; numbers and spans like 3 7-12")
    return out


def _source(name: str, device: str) -> RewardSource:
    from robolearn.rewards import base, bundle

    if (Path(name) / bundle.ABOUT).exists() or name not in config.names("reward"):
        return bundle.load(Path(name), _world.usable(device))
    entry = config.entry("reward", name)
    if entry.value.learned.__func__ is not base.RewardSource.learned.__func__:  # type: ignore[attr-defined]
        raise ConfigError(f"the reward {name} is learned: robolearn reward train reward={name}, and give its folder")
    assert entry.config is not None
    return entry.value(entry.config(), {}).to(_world.usable(device))


def _classifier(cfg: JudgeCfg) -> Classifier:
    from robolearn.rewards.classifier import Classifier

    found = _source(cfg.source, cfg.device)
    if not isinstance(found, Classifier):
        raise ConfigError(f"{cfg.source} is a {found.cfg.name}, which has no precision; only classifiers have")
    return found
