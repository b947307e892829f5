"""The reward source of an actor, and where its mistakes are kept."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.config import ConfigError

if TYPE_CHECKING:
    from robolearn.env import Env, Obs
    from robolearn.hil.rewarded import RewardedEnv
    from robolearn.rewards.base import RewardSource
    from robolearn.spec import PolicySpec

log = logging.getLogger(__name__)
DOUBTED = "no_success"


@contextmanager
def rewarded(env: Env, cfg: Any, spec: PolicySpec, folder: Path) -> Iterator[RewardedEnv]:
    """The world with the rewards of `cfg.reward`, a reward's folder or the name of one that needs no training. Episodes
    that it took for successes, and were none, go to a set in the run's folder, for its next training; all of them are
    there at the end."""
    from robolearn.cli import reward
    from robolearn.hil.rewarded import RewardedEnv

    source = reward._source(cfg.reward, "cpu")
    if not source.needs.success and getattr(cfg.task, "success_ends", False) and not cfg.site:
        raise ConfigError(f"reward={cfg.reward} ends episodes itself, and cannot where the task does so before it: "
                          "task.success_ends=false")  # fmt: skip
    task = config.build(cfg.task)
    words = task.instruction or cfg.task.name.replace("_", " ")
    keep = keeper(folder / f"{DOUBTED}_{cfg.actor}", source, spec, words, cfg.task.name)
    with aside(keep) as on_doubt:
        yield RewardedEnv(env, source, words, on_doubt)


@contextmanager
def aside(keep: Callable[[list[Obs]], None]) -> Iterator[Callable[[list[Obs]], None]]:
    """The same in a thread of its own, one after the other: who holds a robot's authority has no time to write. What is
    under way at the end is finished; what fails is told in the log, and stops nobody."""
    waiting: queue.SimpleQueue[list[Obs] | None] = queue.SimpleQueue()

    def work() -> None:
        while (seen := waiting.get()) is not None:
            try:
                keep(seen)
            except Exception:  # the disk is full, or the set is of other things: the robot goes on
                log.exception("an episode that was no success is not kept")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield waiting.put
    finally:
        waiting.put(None)
        thread.join()


def keeper(root: Path, source: RewardSource, spec: PolicySpec, words: str, task: str) -> Callable[[list[Obs]], None]:
    """Writes an episode's observations of what the source reads, labelled: no success in any of them."""
    from robolearn.data import contract
    from robolearn.data.read import Episodes
    from robolearn.data.write import Writer
    from robolearn.rewards import corrections

    columns = {key: contract.column_of(key) for key in source.needs.observed}
    features = {k: f for k, f in contract.features(spec).items() if k in columns.values()}

    def keep(seen: list[Obs]) -> None:
        if not features:  # a source that reads what others say makes no mistakes of its own
            return
        with Writer(root, contract.rate_hz(spec.rate_hz), features, spec.robot, contract.about(spec, task)) as writer:
            writer.begin(words)
            for obs in seen:
                writer.add({column: obs[key][0].cpu().numpy() for key, column in columns.items()})
            writer.end()
        episodes = Episodes(root)
        label = corrections.mark(episodes, {episodes.ids[-1]: {False: range(len(seen))}})
        log.info("%s: %d episodes that were no success, %s; robolearn reward train can learn from them too", root,
                 len(episodes), label)  # fmt: skip

    return keep
