"""Who acts while episodes are recorded, and the processes in which that happens."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn.cli import _world
from robolearn.config import ConfigError
from robolearn.errors import UserError, unknown

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from robolearn.env import Obs
    from robolearn.loops.collect import Episode
    from robolearn.policies.base import Policy
    from sim.env import SimEnv

RUN = "run:"
POLICIES = ("expert", "random", f"{RUN}PATH")
Batches = Generator[tuple[int, "list[Episode]"], None, None]


# --- actors ------------------------------------------------------------------------------------------------


class ExpertActor:
    """A task's scripted expert, which knows the true state."""

    def __init__(self, env: SimEnv, noise: float, generator: torch.Generator, strategy: str = ""):
        import torch

        self.env, self.generator = env, generator
        self.expert = env.task.expert(env.num_envs, env.device, noise, generator)
        if strategy:
            self.expert.keep_to(strategy)
        self._all = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
        self.strategy: Tensor | None = self.expert.strategy

    def begin(self, seed: int) -> None:
        self.generator.manual_seed(seed)
        self.expert.reset(self._all)
        self.strategy = self.expert.strategy.clone()

    def act(self, obs: Obs) -> Tensor:
        return self.expert.act(*self.env.states())


class RandomActor:
    """Uniform in the action's bounds, anew at every step."""

    strategy: Tensor | None = None

    def __init__(self, env: SimEnv, generator: torch.Generator):
        self.env, self.generator = env, generator

    def begin(self, seed: int) -> None:
        self.generator.manual_seed(seed)

    def act(self, obs: Obs) -> Tensor:
        import torch

        spec = self.env.action_spec
        size = self.env.num_envs, spec.dim
        drawn = torch.rand(size, generator=self.generator, device=self.env.device)
        return spec.low + (spec.high - spec.low) * drawn


class PolicyActor:
    """A trained policy."""

    strategy: Tensor | None = None

    def __init__(self, env: SimEnv, policy: Policy, generator: torch.Generator):
        import torch

        self.env, self.policy, self.generator = env, policy.to(env.device), generator
        self.policy.generator = generator
        self._all = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)

    def begin(self, seed: int) -> None:
        self.generator.manual_seed(seed)
        self.policy.reset(self._all)

    def act(self, obs: Obs) -> Tensor:
        return self.policy.act(obs)


class TeacherActor(PolicyActor):
    """A trained policy in a world that shows something else than it reads: it is shown the true state instead, through
    its own terms. So a policy of poses records pictures, of any look."""

    def __init__(self, env: SimEnv, policy: Policy, generator: torch.Generator):
        from robolearn.observation import ObservationMemory, ObservationTerms

        super().__init__(env, policy, generator)
        seen = policy.spec.observation
        self._terms = ObservationTerms(seen, env.device)
        self._memory = ObservationMemory(seen, env.num_envs, env.device, env.step_dt)

    def begin(self, seed: int) -> None:
        super().begin(seed)
        self._memory.reset(self._all)

    def act(self, obs: Obs) -> Tensor:
        frames = self._terms.frames(*self.env.states(), self.env.applied_action)
        return self.policy.act(self._memory.push(frames))


def actor_of(policy: Policy, task: Any) -> type[PolicyActor]:
    """Who acts with it in a task: a teacher where that shows pictures and the policy reads none. ConfigError for a
    policy of another task."""
    from robolearn.nets.encoder import observed

    reads = any(len(shape) > 1 for shape in observed(policy.spec.observation).values())
    teaches = bool(getattr(task, "cameras", ())) and not reads
    _world.require_spec(policy, _world.spec_of(replace(task, cameras=()) if teaches else task))
    return TeacherActor if teaches else PolicyActor


def check_policy(policy: str) -> None:
    """ConfigError for what is none of POLICIES."""
    if policy in POLICIES[:2] or (policy.startswith(RUN) and policy != RUN):
        return
    raise ConfigError(unknown("policy", policy, POLICIES))


def _actor(cfg: Any, env: SimEnv) -> ExpertActor | RandomActor | PolicyActor:
    import torch

    generator = torch.Generator(env.device)
    if cfg.policy == "expert":
        return ExpertActor(env, cfg.noise, generator, cfg.strategy)
    if cfg.policy == "random":
        return RandomActor(env, generator)
    policy = _world.load_run(cfg.policy.removeprefix(RUN))[2].policy
    return actor_of(policy, cfg.task)(env, policy, generator)


# --- batches -----------------------------------------------------------------------------------------------


class Collector:
    """Environments with whoever acts in them. Batch number k of a seed is the same wherever it is made."""

    def __init__(self, cfg: Any):
        from sim.env import SimEnv

        self.seed = cfg.seed
        device = _world.pick_device(cfg.device, cfg.backend)
        self.env = SimEnv(cfg.task, cfg.backend, cfg.num_envs, device, 0)  # batches bring their own seeds
        try:
            self.actor = _actor(cfg, self.env)
        except BaseException:
            self.env.close()
            raise

    def batch(self, number: int, stop: Callable[[], bool]) -> list[Episode]:
        """Empty if it was stopped."""
        from robolearn.loops.collect import attempts

        return attempts(self.env, self.actor, batch_seed(self.seed, number), stop)

    def close(self) -> None:
        self.env.close()


def batch_seed(seed: int, number: int) -> int:
    """Of an environment, so below 2^31."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0]) >> 1


def here(cfg: Any, first: int, stop: Callable[[], bool]) -> Batches:
    """Batch after batch from number `first` on, without an end but `stop`."""
    collector, number = Collector(cfg), first
    try:
        while not stop() and (episodes := collector.batch(number, stop)):
            yield number, episodes
            number += 1
    finally:
        collector.close()


def in_processes(cfg: Any, first: int, workers: int, stop: Callable[[], bool]) -> Batches:
    """As `here`, in the same order, made by `workers` processes ahead of who asks."""
    context = multiprocessing.get_context("spawn")  # a fork would inherit the engines' threads
    stopped = context.Event()
    pool = ProcessPoolExecutor(workers, context, _begin, (_shared_out(cfg, workers), stopped))
    pending: deque[tuple[int, Future[list[Episode]]]] = deque()
    try:
        number = first
        while True:
            while len(pending) <= workers:
                pending.append((number, pool.submit(_work, number)))
                number += 1
            at, future = pending.popleft()
            episodes = _result(future, stop)
            if not episodes:
                return
            yield at, episodes
    except BrokenProcessPool as error:
        raise UserError("a worker process was killed (too little memory? try a smaller num_envs=); what was recorded "
                        "before is kept, the same command goes on after it") from error  # fmt: skip
    finally:
        stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _shared_out(cfg: Any, workers: int) -> Any:
    """Each worker its share of the processor, unless the user said how much."""
    from robolearn.loops.threads import usable_cores

    if getattr(cfg.backend, "threads", None) == 0:
        cfg.backend.threads = max(1, usable_cores() // workers)
    return cfg


def _result(future: Future[list[Episode]], stop: Callable[[], bool]) -> list[Episode]:
    while not stop():
        try:
            return future.result(timeout=0.1)
        except NotYet:
            if future.done():  # a TimeoutError of the work itself
                raise
    return []


# --- in a worker process -----------------------------------------------------------------------------------

_given: tuple[Any, Any] | None = None
_collector: Collector | None = None


def _begin(cfg: Any, stopped: Any) -> None:
    """Ctrl-C goes to all processes of a terminal; the parent says when to stop."""
    global _given
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _world.discover()
    _given = cfg, stopped


def _work(number: int) -> list[Episode]:
    global _collector
    assert _given is not None
    cfg, stopped = _given
    if _collector is None:
        _collector = Collector(cfg)  # here, and not in _begin: its errors come to the parent
    return _collector.batch(number, stopped.is_set)
