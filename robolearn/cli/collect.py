"""Record episodes of a scripted expert, a trained policy or random actions, for learning from data.

usage: robolearn collect task=NAME policy=expert|random|run:PATH out=FOLDER [episodes=100] [key=value ...]

FOLDER becomes a set of episodes in the LeRobot v3.0 layout (docs/data.md), or is gone on with: `episodes` is how many
it shall hold in the end. The same seed gives the same episodes, whatever `workers` is. Ctrl-C keeps what is whole; the
same command goes on after it, and so it does after a kill. Observations, actions or a rate that differ from what is
there are refused; episodes of another noise, policy or setting of the task are added to it.

A policy that was trained on poses may record pictures (task.cameras=[front,wrist]): it is shown the true state. So
vision learns from state, with looks at random if wanted (task.randomize.looks...).

`noise` is of the expert: 0 as well as it can, 1 with a person's errors, pauses and detours. Of an expert only the
episodes that succeed are kept, unless keep=all. `task.key=value` and `backend.key=value` change the world.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.cli import _collect, _options, _world
from robolearn.cli._options import option
from robolearn.config import ConfigError
from robolearn.errors import UserError

if TYPE_CHECKING:
    from robolearn.data.write import Writer
    from robolearn.loops.collect import Episode
    from robolearn.spec import PolicySpec

log = logging.getLogger(__name__)
ENVS, ENVS_WITH_PICTURES = 32, 8
TRIES = 10
WORKERS = 1, 256
CODECS = ("h264", "h264_lossless", "ffv1", "av1")


@dataclass
class CollectCfg:
    defaults: list[Any] = field(default_factory=lambda: [{"task": "???"}, {"backend": "mujoco"}, "_self_"])
    task: Any = option(_options.MISSING, "what is done; robolearn list tasks", group=True)
    backend: Any = option(_options.MISSING, "physics engine; robolearn list backends", group=True)
    policy: str = option(_options.MISSING, "who does it: expert, random, or run:PATH with a run, a bundle or last")
    out: str = option(_options.MISSING, "folder of the set")
    noise: float = option(0.0, "of the expert: 0 clean, 1 like a person")
    strategy: str = option("", "of the expert, for all episodes; at random if not given (docs/tasks.md)")
    episodes: int = option(100, "that the set shall hold in the end")
    keep: str = option("", "success or all; success for an expert and all for others if not given")
    tries: int = option(0, f"end after so many attempts at most; {TRIES} for each episode if not given")
    workers: int = option(1, "processes")
    num_envs: int = option(0, f"environments of each; {ENVS}, or {ENVS_WITH_PICTURES} with pictures, if not given. "
                           "Another number gives other episodes")  # fmt: skip
    seed: int = option(0, "of everything: same seed, same episodes")
    device: str = option("auto", "cpu, cuda or auto")
    codec: str = option("h264", "of pictures", CODECS)

    def __post_init__(self) -> None:
        _options.check_range(self, seed=_options.SEEDS, episodes=_options.EPISODES, workers=WORKERS)
        _options.check_choices(self)
        _collect.check_policy(self.policy)
        self.keep = self.keep or ("success" if self.policy == "expert" else "all")
        if self.keep not in ("success", "all"):
            raise ValueError(f"keep must be success or all, got {self.keep}")
        if self.tries < 0 or self.num_envs < 0:
            raise ValueError(f"tries and num_envs must be at least 0, got {self.tries} and {self.num_envs}")
        if self.noise and self.policy != "expert":
            raise ValueError(f"noise is of the expert; policy={self.policy} has none")
        if self.strategy and self.policy != "expert":
            raise ValueError(f"strategy is of the expert; policy={self.policy} has none")
        if self.device.startswith("cuda") and self.workers > 1:
            raise ValueError("workers is for processors; on a GPU raise num_envs")


@dataclass
class Tally:
    """Of the attempts of this process."""

    tried: Counter[str]
    won: Counter[str]
    kept: int = 0
    steps: int = 0

    def add(self, episode: Episode, way: str) -> None:
        self.tried[way] += 1
        self.won[way] += episode.success

    @property
    def rate(self) -> float:
        return self.won.total() / max(1, self.tried.total())


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(CollectCfg)}"


def main(argv: list[str]) -> int:
    if wrong := [word for word in argv if word.startswith("experiment=")]:
        raise ConfigError(f"{wrong[0]} is for training; here it is task=NAME, with its settings as task.key=value")
    _world.discover()
    cfg = config.load(CollectCfg, argv)
    if cfg.policy.startswith(_collect.RUN):
        policy = _world.load_run(cfg.policy.removeprefix(_collect.RUN))[2].policy
        _collect.actor_of(policy, cfg.task)
    return _collect_all(cfg)


def _collect_all(cfg: CollectCfg) -> int:
    from robolearn.data.write import Writer

    task = config.build(cfg.task)
    spec = _world.spec_of(cfg.task)
    strategies = _strategies(cfg, task)
    cfg.num_envs = cfg.num_envs or (ENVS_WITH_PICTURES if _pictures(spec) else ENVS)
    start, tally = time.monotonic(), Tally(Counter(), Counter())
    with _no_empty_folder(Path(cfg.out)), Writer(Path(cfg.out), **_format(cfg, spec, bool(strategies))) as writer:
        stopped = _record(cfg, writer, task.instruction or cfg.task.name.replace("_", " "), strategies, tally)
    print(_summary(cfg, tally, time.monotonic() - start))
    if stopped:
        log.info("go on with the same command")
        raise KeyboardInterrupt
    return 0


@contextmanager
def _no_empty_folder(out: Path) -> Iterator[None]:
    """What fails before the first episode leaves nothing behind."""
    fresh = not out.exists()
    try:
        yield
    except BaseException:
        if fresh and not any(out.glob("data/*/*")):
            shutil.rmtree(out, ignore_errors=True)
        raise


def _pictures(spec: PolicySpec) -> bool:
    return any(t.field.kind != "vector" for t in spec.observation.terms("policy"))


def _strategies(cfg: CollectCfg, task: Any) -> tuple[str, ...]:
    """Names; none where whoever acts has none."""
    import torch

    if cfg.policy != "expert":
        return ()
    return tuple(task.expert(1, torch.device("cpu"), cfg.noise, torch.Generator()).strategies)


def _format(cfg: CollectCfg, spec: PolicySpec, strategies: bool) -> dict[str, Any]:
    from robolearn.data import contract
    from robolearn.data.video import VideoCfg

    return {
        "fps": contract.rate_hz(spec.rate_hz), "features": contract.features(spec, strategies), "robot": spec.robot,
        "about": contract.about(spec, cfg.task.name), "video": VideoCfg(cfg.codec),
    }  # fmt: skip


def _record(cfg: CollectCfg, writer: Writer, words: str, strategies: tuple[str, ...], tally: Tally) -> bool:
    """Attempts until the set is as large as asked; whether it was interrupted before. UserError if too few succeed."""
    from robolearn.loops.interrupt import Interrupt
    from robolearn.loops.log import Display

    there, begin = _there(cfg)
    if there >= cfg.episodes:
        return False
    most, interrupt = cfg.tries or TRIES * cfg.episodes, Interrupt("this episode")
    found = _attempts(cfg, begin, lambda: interrupt.wanted)
    with interrupt.watch(), Display(cfg.episodes, "collect", there) as display, closing(found):
        for attempt, episode in found:
            tally.add(episode, strategies[episode.strategy] if episode.strategy is not None else "")
            if episode.success or cfg.keep == "all":
                _write(writer, episode, words, (cfg.seed, attempt))
                tally.kept, tally.steps = tally.kept + 1, tally.steps + len(episode)
                display.update(there + tally.kept, {"success": tally.rate})
            if there + tally.kept >= cfg.episodes:
                return False
            if tally.tried.total() >= most:
                raise UserError(
                    f"{tally.won.total()} of {most} attempts succeeded, too few for episodes={cfg.episodes}; what is "
                    f"kept is in {cfg.out}. More attempts with tries=, failures too with keep=all"
                )
            if interrupt.wanted:
                break
    return interrupt.wanted


def _there(cfg: CollectCfg) -> tuple[int, int]:
    """How many episodes the set has, and the number of the next attempt with this seed."""
    from robolearn.data.read import Episodes

    episodes = Episodes(Path(cfg.out))
    origin = episodes.column("origin")
    mine = origin[origin[:, 0] == cfg.seed, 1]
    return len(episodes), int(mine.max()) + 1 if len(mine) else 0


def _attempts(cfg: CollectCfg, begin: int, stop: Callable[[], bool]) -> Generator[tuple[int, Episode], None, None]:
    """Numbers of attempts with their episodes, from `begin` on."""
    first = begin // cfg.num_envs
    one = cfg.workers == 1
    batches = _collect.here(cfg, first, stop) if one else _collect.in_processes(cfg, first, cfg.workers, stop)
    with closing(batches):
        for number, episodes in batches:
            for attempt, episode in enumerate(episodes, number * cfg.num_envs):
                if attempt >= begin:
                    yield attempt, episode


def _write(writer: Writer, episode: Episode, words: str, origin: tuple[int, int]) -> None:
    import numpy as np

    writer.begin(task=words)
    try:
        for step in range(len(episode)):
            row = {k: v[step] for k, v in episode.columns.items()}
            writer.add(row | {"origin": np.array(origin, dtype=np.int64)})
    except BaseException:
        writer.abandon()
        raise
    writer.end()


def _summary(cfg: CollectCfg, tally: Tally, seconds: float) -> str:
    from robolearn.data.read import Episodes
    from robolearn.loops.evaluate import wilson

    out, whole = Path(cfg.out), Episodes(Path(cfg.out))
    size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1024**2
    won, tried = tally.won.total(), tally.tried.total()
    low, high = wilson(won, tried)
    lines = [("set", f"{out}: {len(whole)} episodes, {whole.frames:,} steps, {size:.1f} MB")]
    if tried:
        share = f"{100 * won / tried:.1f} % (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
        lines += [("attempts", f"{tried}, of which {tally.kept} are kept, {tried - won} failed"),
                  ("success", f"{share}, n = {tried}")]  # fmt: skip
        ways = sorted(tally.tried) if len(tally.tried) > 1 else []
        lines += [(f"  {way}", f"{tally.won[way]} of {tally.tried[way]}") for way in ways]
        lines += [("time", f"{seconds:.1f} s, {tally.steps / seconds:,.0f} steps/s")]
    lines += [("look at it", f"robolearn data view {out}")]
    return "\n".join(f"{name:22} {text}" for name, text in lines)
