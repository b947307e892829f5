"""What the command asks of a kind of loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from robolearn.policies.base import Policy
    from robolearn.spec import RobotSpec


class Trainer(Protocol):
    def run(self) -> None: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Loop(ABC):
    """One training. What cannot be built (a world, a set of episodes) is refused by the constructor, which writes
    nothing."""

    robot: RobotSpec
    trainer: Trainer

    @abstractmethod
    def __init__(self, cfg: Any, folder: Path):
        """`cfg` is a TrainCfg; what is found out here and has to stay the same when it is resumed is put into it."""

    @abstractmethod
    def prepare(self, started: float) -> None:
        """Make `trainer`; `started` is the time.monotonic() from which the seconds of this process count."""

    @property
    @abstractmethod
    def policy(self) -> Policy:
        """As it is evaluated and packed."""

    @property
    @abstractmethod
    def eval_seed(self) -> int: ...

    @abstractmethod
    def said(self) -> str:
        """What it learns from, for the first line: `256 environments on cpu`."""

    @abstractmethod
    def done(self) -> dict[str, Any]:
        """`train_seconds`, of all processes that worked on it, and how much it learned, for scores.json."""

    @abstractmethod
    def ended(self) -> str:
        """The same for a person: `450,000 steps in 40.1 s`."""

    def close(self) -> None:  # noqa: B027 - often nothing to do
        """Whatever happened."""
