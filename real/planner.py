"""Chunks of actions planned beside the control loop: a thread draws the next chunk while the last one is being run.

A period is a call of `act`. Chunk k is run in the periods [k E, (k + 1) E), E = `execute`, the first of them begins
when the episode's first chunk is there; so the streaming sampler, whose buffer moves up by E actions a chunk, sees the
chunks of training. It is planned from the observations up to period k E - d: d, the lead, is how many periods planning
takes, measured, and 0 where it takes a small part of one; `act` then waits for it, and the actions are those of
`ChunkedPolicy.act`. A chunk's first action belongs to its newest observation, so execution begins at action d: what
belongs to periods that have passed is never run. Where a chunk has not E + d usable actions, it begins as near to d as
it can, and all its actions are run a few periods later than the policy meant (`behind`).

A chunk that is late costs nothing as long as the last one has actions of its own for these periods: they are run.
After that `act` returns None, as before the first chunk, and nothing is to be proposed: then the guard brings the robot
to rest within its limits, and takes authority away from a policy that stays silent. A rest action instead would keep
that guard content, and a robot standing in the middle of its task, for ever.

Of a residual policy the base's chunks are planned so; each period's action is corrected in that period, by `act`.
"""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from real.spread import Spread
from robolearn.policies.chunked import ChunkedPolicy
from robolearn.policies.residual import ResidualPolicy

AT_ONCE = 0.25
"""Share of a period that planning may take for the period itself to wait for it."""
PATIENCE = 0.5
"""Share of a period that is waited for a chunk without which there is no action."""
MARGIN, SHARE_PERCENT, REMEMBERED = 1.2, 95, 40
"""The lead covers this multiple of this percentile of the last so many times."""


class PlanError(RuntimeError):
    """A chunk could not be planned, or an action not be corrected."""


@dataclass(frozen=True)
class Chunk:
    """Actions (n, A), the first of which would be run in period `origin`; the next chunk takes over at `border`."""

    actions: Tensor
    origin: int
    border: int

    def at(self, period: int) -> Tensor | None:
        """(1, A), or None where it has none for that period."""
        k = period - self.origin
        return self.actions[k : k + 1] if 0 <= k < len(self.actions) else None


@dataclass
class Order:
    """A chunk that is being planned since `period`, of which the steady clock told `asked_s`, to be run from `start`
    on; `first` of an episode: from whenever it is there."""

    future: Future[tuple[Tensor, float]]
    asked_s: float
    period: int
    start: int
    first: bool
    late: bool = False


def worker() -> Executor:
    """One thread. Torch has as many as the program has given it."""
    return ThreadPoolExecutor(1, "planner")


class Planner:
    """Batch 1. `act` and `reset` are of the control loop's thread; `executor` runs one job at a time, in order."""

    def __init__(self, policy: ChunkedPolicy | ResidualPolicy, period_s: float, executor: Executor,
                 clock: Callable[[], float] = time.monotonic, blend: int = 0):  # fmt: skip
        """`blend`: periods at a border in which the last chunk's actions, where it has some, fade into the new ones."""
        self._residual = policy if isinstance(policy, ResidualPolicy) else None
        self.policy = policy.base if isinstance(policy, ResidualPolicy) else policy
        self.period_s, self.blend, self._clock = period_s, blend, clock
        self._drawer = _same_weights(self.policy)
        self._executor = executor
        self._took: deque[float] = deque(maxlen=REMEMBERED)
        self.seconds = 0.0
        """That planning a chunk takes, but an episode's first, which may need more; 0 as long as nobody knows."""
        self.counts = {"chunks planned": 0, "chunks late": 0, "periods without an action": 0}
        self.planning = Spread()
        self._order: Order | None = None
        self._chunk: Chunk | None = None
        self._period = 0

    # --- the control loop -------------------------------------------------------------------------------------

    def reset(self) -> None:
        """An episode begins: what was planned before, or is being planned, is never run."""
        if self._order:
            self._order.future.cancel()
        self._order, self._chunk, self._period = None, None, 0
        (self._residual or self.policy).reset(torch.ones(1, dtype=torch.bool))

    @torch.inference_mode()
    def act(self, obs: dict[str, Tensor]) -> Tensor | None:
        """The action (1, A) of this period, or None where none is there. Raises PlanError."""
        self.policy.observe(obs)
        now, self._period = self._period, self._period + 1
        self._take(now, 0.0)
        self._ask(now)
        if self._chunk is None or self.lead == 0 or self._chunk.at(now) is None:
            self._take(now, PATIENCE * self.period_s)
        action = self._chunk.at(now) if self._chunk else None
        self._count(now, action)
        return self._corrected(obs, action)

    def _corrected(self, obs: dict[str, Tensor], action: Tensor | None) -> Tensor | None:
        if self._residual is None or action is None:
            return action
        try:
            return self._residual.correct(obs, action)
        except Exception as error:
            raise PlanError(f"an action could not be corrected: {type(error).__name__}: {error}") from error

    def _count(self, now: int, action: Tensor | None) -> None:
        """Before an episode's first chunk the robot stands, and waits."""
        order = self._order
        if order and not order.first and not order.late and order.start <= now:
            order.late = True
            self.counts["chunks late"] += 1
        if action is None and self._chunk:
            self.counts["periods without an action"] += 1

    # --- planning -----------------------------------------------------------------------------------------------

    @property
    def lead(self) -> int:
        """Periods before its first one in which the planning of a chunk begins; never more than a chunk lasts."""
        seconds = self.seconds
        if seconds <= AT_ONCE * self.period_s:
            return 0
        return min(math.ceil(MARGIN * seconds / self.period_s), self.policy.execute)

    @property
    def behind(self) -> int:
        """Periods by which all actions are run later than the policy meant."""
        return max(0, self.lead - self._room)

    @property
    def _room(self) -> int:
        return self.policy.usable - self.policy.execute

    def _ask(self, now: int) -> None:
        """Begin with the next chunk when it is time."""
        chunk = self._chunk
        if self._order or (chunk and now < chunk.border - self.lead):
            return
        start = now if chunk is None else chunk.border if now <= chunk.border else now + self.lead
        future = self._executor.submit(self._draw, self.policy.history(), chunk is None)
        self._order = Order(future, self._clock(), now, start, chunk is None)

    def _draw(self, history: Mapping[str, Tensor], first: bool) -> tuple[Tensor, float]:
        """In the thread: a chunk (H, A), and when it was there."""
        with torch.inference_mode():
            if first:
                self._drawer.reset(torch.ones(1, dtype=torch.bool))
            chunk = self._drawer.chunk(torch.zeros(1, dtype=torch.long), history)[0]
        return chunk, self._clock()

    def _take(self, now: int, patience_s: float) -> None:
        """The chunk whose time has come takes over, if it is there within `patience_s`."""
        order = self._order
        if order is None or now < order.start or (patience_s == 0.0 and not order.future.done()):
            return
        drawn = _outcome(order.future, patience_s)
        if drawn is None:
            return
        self._order = None
        self._note(drawn[1] - order.asked_s, order.first)
        start = now if order.first else order.start
        passed = 0 if order.first else min(order.start - order.period, self._room)
        chunk = Chunk(drawn[0][: self.policy.usable], start - passed, start + self.policy.execute)
        self._chunk = _faded(self._chunk, chunk, now, self.blend) if self._chunk else chunk

    def _note(self, seconds: float, first: bool) -> None:
        self.counts["chunks planned"] += 1
        self.planning.add(seconds)
        if not first:
            self._learn(seconds)

    def _learn(self, seconds: float) -> None:
        self._took.append(seconds)
        self.seconds = float(np.percentile(self._took, SHARE_PERCENT))

    def warm_up(self, times: int = 4) -> None:
        """Plan, and correct, from zeros, before it counts: torch's first calls are slow, and the lead is known then.
        It waits. Raises PlanError."""
        shapes, steps = self.policy.encoder.shapes, self.policy.steps
        kinds = {k: torch.float32 if len(s) == 1 else torch.uint8 for k, s in shapes.items()}
        blank = {k: torch.zeros(1, steps, *s, dtype=kinds[k]) for k, s in shapes.items()}
        for first in (True, True, *[False] * times):
            asked_s = self._clock()
            drawn = _outcome(self._executor.submit(self._draw, blank, first))
            if drawn and not first:
                self._learn(drawn[1] - asked_s)
            if drawn:
                self._corrected({k: v[:, -1] for k, v in blank.items()}, drawn[0][:1])

    # --- what it says of itself ---------------------------------------------------------------------------------

    def warning(self, patience_s: float = math.inf) -> str:
        """What is wrong with the times, and the remedy; empty where nothing is. The guard waits `patience_s` for a
        first proposal."""
        seconds, execute = self.seconds, self.policy.execute
        takes = f"planning a chunk takes {1e3 * seconds:.0f} ms"
        if seconds > patience_s:
            return (f"{takes}, the guard waits {1e3 * patience_s:.0f} ms for the first proposal: the policy will not "
                    "start; use fewer steps of the sampler, or a smaller network")  # fmt: skip
        if seconds > execute * self.period_s:
            return (f"{takes}, running its {execute} actions {1e3 * execute * self.period_s:.0f} ms: the robot will "
                    "stop again and again; use fewer steps of the sampler, or execute more actions")  # fmt: skip
        if self.behind:
            return (f"{takes}, and of its actions {self.policy.usable} are usable and {execute} are run: all are "
                    f"run {self.behind} periods late; use fewer steps of the sampler, or execute fewer actions of a "
                    "longer horizon (streaming can use no more than it executes)")  # fmt: skip
        return ""

    def told(self) -> str:
        """What was found out about the times."""
        policy = self.policy
        return (f"chunks of {policy.horizon} actions, {policy.execute} are run; planning one takes "
                f"{1e3 * self.seconds:.1f} ms and begins {self.lead} periods ahead")  # fmt: skip

    def figures(self) -> dict[str, object]:
        """For diagnostics; the times are of what was planned since the last call."""
        told = {"planning, ms": str(self.planning), "lead, periods": self.lead, "behind, periods": self.behind}
        self.planning.clear()
        return told | self.counts

    def close(self) -> None:
        """What is being planned ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def _same_weights(policy: ChunkedPolicy) -> ChunkedPolicy:
    """A policy with the same parameters, and a sampler's memory of its own: that is of the thread, so a reset here and
    a chunk that is under way there do not meet."""
    shared = [*policy.parameters(), *policy.buffers(), policy.generator, policy.spec, policy.config]
    return copy.deepcopy(policy, {id(thing): thing for thing in shared})


def _outcome(future: Future[tuple[Tensor, float]], patience_s: float | None = None) -> tuple[Tensor, float] | None:
    """The chunk, and when it was there; None if it is not there in time. Raises PlanError if the thread failed."""
    try:
        return future.result(patience_s)
    except Exception as error:
        if not future.done():
            return None
        if isinstance(error, NotInTime) and future.exception() is not error:
            return _outcome(future)  # it came between the end of the wait and the question
        raise PlanError(f"no chunk of actions could be planned: {type(error).__name__}: {error}") from error


def _faded(old: Chunk, new: Chunk, now: int, periods: int) -> Chunk:
    """`new`, of which the actions of the next so many periods are the old one's in part, less and less."""
    actions = new.actions.clone()
    for k in range(periods):
        was, row = old.at(now + k), now + k - new.origin
        if was is not None and 0 <= row < len(actions):
            share = (k + 1) / (periods + 1)
            actions[row] = share * actions[row] + (1.0 - share) * was[0]
    return replace(new, actions=actions)
