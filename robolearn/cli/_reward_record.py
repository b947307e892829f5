"""Episodes with a label of every picture: whether the task is done in it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from robolearn import config
from robolearn.cli import _collect, _keys, _world, collect
from robolearn.config import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

    from robolearn.data.write import Writer
    from robolearn.env import Extras, Obs
    from robolearn.loops.collect import Episode
    from robolearn.rewards.drafts import Draft
    from sim.env import SimEnv

log = logging.getLogger(__name__)
LABEL = "success"
Labelled = tuple[int, "Episode", np.ndarray]
"""Number of the attempt, what was recorded, and (T,) bool of its observations."""


class Labeller(Protocol):
    def __call__(self, obs: Obs, extras: Extras | None) -> Tensor:
        """(B,) bool: whether the task is done in `obs`; `extras` are of the step that led there, None at a reset."""
        ...


class TaskLabels:
    """The task's own check."""

    def __init__(self, env: SimEnv):
        self.env = env

    def __call__(self, obs: Obs, extras: Extras | None) -> Tensor:
        if extras is None:
            return self.env.task.metrics(*self.env.states())["success"] > 0.5
        return extras["episode"]["success"] > 0.5


class KeyLabels:
    """A person's: true while the key is held. The world keeps real time, and its pictures are shown."""

    def __init__(self, env: SimEnv, screen: _keys.Screen):
        if env.num_envs != 1:
            raise ConfigError(f"one person labels one environment: num_envs=1, not {env.num_envs}")
        self.env, self.screen = env, screen

    def __call__(self, obs: Obs, extras: Extras | None) -> Tensor:
        import torch

        picture = next((v for k, v in obs.items() if "/" in k and v.dtype == torch.uint8), None)
        held = self.screen.show(None if picture is None else picture[0].cpu().numpy(), self.env.step_dt)
        return torch.tensor([held], device=self.env.device)


class Watched:
    """An environment whose observations are labelled as they come."""

    def __init__(self, env: SimEnv, labeller: Labeller):
        self._env, self._labeller = env, labeller
        self.rows: list[Tensor] = []
        """(B,) of each observation since the reset of all."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, seed: int | None = None) -> tuple[Obs, Extras]:
        obs, extras = self._env.reset(seed=seed)
        self.rows = [self._labeller(obs, None).clone()]
        return obs, extras

    def step(self, action: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]:
        out = self._env.step(action)
        self.rows.append(self._labeller(out[0], out[4]).clone())
        return out

    def labels(self, env: int, length: int) -> np.ndarray:
        """(length,) bool of the first observations of an environment."""
        return np.array([bool(row[env]) for row in self.rows[:length]])


def linger(env: SimEnv, steps: int) -> None:
    """A success ends an episode so many steps later: a picture of it is otherwise in no episode, which ends with the
    observation before its last action."""
    import torch

    ends, since = env.task.terminated, torch.zeros(env.num_envs, dtype=torch.long, device=env.device)

    def terminated(robot: Any, scene: Any) -> Tensor:
        nonlocal since
        success = env.task.metrics(robot, scene)["success"] > 0.5
        since = torch.where(success, since + 1, 0)
        return ends(robot, scene) & (~success | (since > steps))

    setattr(env.task, "terminated", terminated)  # noqa: B010 - of this task alone, not of its class


def record(cfg: Any) -> str:
    """Fill the set `cfg.out` up to `cfg.episodes`; what was done, in words. Raises KeyboardInterrupt after Ctrl-C; what
    is whole stays, with its labels, and the same command goes on."""
    from robolearn.data import contract
    from robolearn.data.video import VideoCfg
    from robolearn.data.write import Writer
    from robolearn.rewards.drafts import Draft

    spec, task = _world.spec_of(cfg.task), config.build(cfg.task)
    cfg.num_envs = 1 if cfg.label == "key" else cfg.num_envs or collect.ENVS_WITH_PICTURES
    out, draft = Path(cfg.out), Draft(Path(cfg.out), {"record": LABEL})
    with Writer(out, contract.rate_hz(spec.rate_hz), contract.features(spec), spec.robot,
                contract.about(spec, cfg.task.name), VideoCfg(cfg.codec)) as writer:  # fmt: skip
        stopped = _fill(cfg, writer, draft, task.instruction or cfg.task.name.replace("_", " "))
    said = _publish(cfg, draft)
    if stopped:
        log.info("%s; go on with the same command", said)
        raise KeyboardInterrupt
    return said


def _fill(cfg: Any, writer: Writer, draft: Draft, words: str) -> bool:
    """Whether it was interrupted."""
    from robolearn.loops.interrupt import Interrupt
    from robolearn.loops.log import Display

    there, begin = len(writer.rows), _next_attempt(cfg)
    if there >= cfg.episodes:
        return False
    interrupt = Interrupt("this episode")
    found = _attempts(cfg, begin, lambda: interrupt.wanted)
    with interrupt.watch(), Display(cfg.episodes, "record", there) as display, closing(found):
        for attempt, episode, success in found:
            draft.put(len(writer.rows), {LABEL: success})  # first: no episode is without its label
            _write(writer, episode, words, (cfg.seed, attempt))
            display.update(len(writer.rows), {"done in": float(success.mean())})
            if len(writer.rows) >= cfg.episodes or interrupt.wanted:
                break
    return interrupt.wanted


def _next_attempt(cfg: Any) -> int:
    from robolearn.data.read import Episodes

    origin = Episodes(Path(cfg.out)).column("origin")
    mine = origin[origin[:, 0] == cfg.seed, 1]
    return int(mine.max()) + 1 if len(mine) else 0


def _attempts(cfg: Any, begin: int, stop: Callable[[], bool]) -> Generator[Labelled, None, None]:
    """From number `begin` on, without an end but `stop`. Batches are those of `robolearn collect`."""
    collector = _collect.Collector(cfg)
    env, screen = collector.env, _keys.Screen(cfg.hold_s) if cfg.label == "key" else None
    linger(env, round(cfg.linger_s / env.step_dt))
    watched = Watched(env, TaskLabels(env) if screen is None else KeyLabels(env, screen))
    collector.env = watched  # type: ignore[assignment]
    number = begin // cfg.num_envs
    try:
        while not stop() and (episodes := collector.batch(number, stop)):
            for i, episode in enumerate(episodes):
                if number * cfg.num_envs + i >= begin:
                    yield number * cfg.num_envs + i, episode, watched.labels(i, len(episode))
            number += 1
    finally:
        collector.close()
        if screen is not None:
            screen.close()


def _write(writer: Writer, episode: Episode, words: str, origin: tuple[int, int]) -> None:
    columns = {k: v for k, v in episode.columns.items() if k != "strategy"}  # whoever acts, one set
    writer.begin(task=words)
    try:
        for step in range(len(episode)):
            row = {k: v[step] for k, v in columns.items()}
            writer.add(row | {"origin": np.array(origin, dtype=np.int64)})
    except BaseException:
        writer.abandon()
        raise
    writer.end()


def _publish(cfg: Any, draft: Draft) -> str:
    """A new version of the label: what the newest one had, and the new episodes."""
    from robolearn.data import labels
    from robolearn.data.read import Episodes

    root, before = Path(cfg.out), dict[int, np.ndarray]()
    if versions := labels.versions(root).get(LABEL):
        before = labels.read(root, LABEL, versions[-1])[1]
    if not draft.there():
        return f"{root}: {len(Episodes(root))} episodes are there already"
    about = {"by": cfg.label, "of": "the observation of its own row", "policy": cfg.policy}
    (label,) = draft.publish(about, {LABEL: before})
    whole = Episodes(root)
    done = whole.column(LABEL)
    return (f"{root}: {len(whole)} episodes, {whole.frames} steps; {label}: {int(done.sum())} steps show success, in "
            f"{sum(bool(whole.episode(e)[LABEL].any()) for e in whole.ids)} episodes")  # fmt: skip
