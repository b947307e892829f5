"""Learning from what the policy itself does in parallel environments, alone or correcting a base policy."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn import config
from robolearn.cli import _world
from robolearn.cli._loops.base import Loop
from robolearn.cli._loops.options import ResidualOptions
from robolearn.cli._loops.people import ALONE, accompanied
from robolearn.config import ConfigError, register

if TYPE_CHECKING:
    from robolearn.algos.off_policy import OffPolicy
    from robolearn.policies.base import Policy
    from robolearn.policies.chunked import ChunkedPolicy
    from sim.env import SimEnv

log = logging.getLogger(__name__)
OFFLINE = ("updates", "batch")
"""What is not for those who learn here."""


@register("loop", "online")
class Online(Loop):
    def __init__(self, cfg: Any, folder: Path):
        self.cfg, self.folder = cfg, folder
        _refuse_strange(cfg)
        self.base = load_base(cfg) if cfg.residual.base else None
        self.demos = _open_demos(cfg) if cfg.data.path else None
        self.world = _world.make_env(cfg.task, cfg.backend, cfg.num_envs, cfg.device, cfg.seed, folder / "diverged")
        self.robot = self.world.robot
        shorten(self.world, cfg)

    def prepare(self, started: float) -> None:
        import torch

        from robolearn.loops.guided import GuidedEnv
        from robolearn.loops.online import Trainer

        cfg, env = self.cfg, self.world
        torch.set_num_threads(max(1, cfg.torch_threads))
        generator = torch.Generator(env.device).manual_seed(cfg.seed + 1)
        spec, world = env.policy_spec(), env
        if self.base is not None:
            about = cfg.residual
            self.base = self.base.to(env.device)
            world = GuidedEnv(env, spec, self.base, about.scale, cfg.seed + 2, about.switch_steps)  # type: ignore[assignment]
            spec = world.policy_spec()
        if cfg.person.name != ALONE:
            world = accompanied(env, cfg)  # type: ignore[assignment]
        algo = config.build(cfg.algo, spec=spec, num_envs=env.num_envs, device=env.device, generator=generator)
        if self.demos is not None:
            self._show(algo)
        limit = cfg.time_limit_s or math.inf
        self.trainer: Trainer = Trainer(
            world, algo, cfg.total_steps, self.folder, generator, cfg.checkpoint_every_s, started, limit
        )

    def _show(self, algo: OffPolicy) -> None:
        """Put the demonstrations into a replay of their own."""
        from robolearn.data.demonstrations import replay_of

        assert self.demos is not None
        scale = self.cfg.residual.scale
        what = f"what is demonstrated in {self.demos.root}"
        replay = algo.new_replay(self.demos.frames + len(self.demos) + 1, 1, what)
        algo.learn_also_from(replay_of(self.demos, replay, self.world.policy_spec(), self.base, scale, self.cfg.seed))
        log.info("%d transitions of %s are in %.0f %% of what is learned from", len(replay), self.demos.root,
                 100 * algo.cfg.demo_share)  # fmt: skip

    @property
    def policy(self) -> Policy:
        from robolearn.policies.residual import ResidualPolicy

        learned = self.trainer.algo.policy.eval()
        if self.base is None:
            return learned
        return ResidualPolicy.of(self.base, learned, self.cfg.residual.scale).eval()

    @property
    def eval_seed(self) -> int:
        return int(self.cfg.seed) + 10_000

    def said(self) -> str:
        over = f", over {self.base.kind} of {self.cfg.residual.base}" if self.base is not None else ""
        return f"{self.cfg.num_envs} environments on {self.world.device}{over}"

    def done(self) -> dict[str, Any]:
        counters = self.trainer.counters
        return {"train_seconds": counters.seconds, "train_steps": counters.env_steps}

    def ended(self) -> str:
        counters = self.trainer.counters
        return f"{counters.env_steps:,} steps in {counters.seconds:.1f} s, start-up included"

    def close(self) -> None:
        self.world.close()


def load_base(cfg: Any) -> ChunkedPolicy:
    """ConfigError, with both shown, for a base policy of another robot, rate, observation or action meaning, and for
    one that plans no chunks."""
    from robolearn import runs
    from robolearn.policies.chunked import ChunkedPolicy

    path, packed = runs.load_bundle(cfg.residual.base)
    if not isinstance(packed.policy, ChunkedPolicy):
        raise ConfigError(f"residual.base={path} is a policy of kind {packed.policy.kind}; corrected are those that "
                          f"plan chunks: train one with algo=bc or algo=diffusion")  # fmt: skip
    _world.require_spec(packed.policy, _world.spec_of(cfg.task))
    cfg.residual.base = str(path)  # `last` would be another run when it is resumed
    return packed.policy


def _open_demos(cfg: Any) -> Any:
    from robolearn.data import source

    data = cfg.data
    found = source.open_set(data.path, _world.spec_of(cfg.task), cfg.task.name, data.episodes, data.only_success)
    data.episodes = len(found)
    return found


def _refuse_strange(cfg: Any) -> None:
    from robolearn.cli.train import TrainCfg

    given = [n for n in OFFLINE if getattr(cfg, n) != TrainCfg.__dataclass_fields__[n].default]
    if given:
        raise ConfigError(f"{', '.join(given)}: algo={cfg.algo.name} learns in environments; its length is total_steps="
                          f", and its batches are settings of algo.")  # fmt: skip
    if cfg.data.path and not hasattr(cfg.algo, "demo_share"):
        raise ConfigError(
            f"data.path: algo={cfg.algo.name} does not learn from episodes; sac, td3, bc and diffusion do"
        )
    if cfg.person.name != ALONE and (cfg.residual.base or not hasattr(cfg.algo, "demo_share")):
        raise ConfigError(f"person={cfg.person.name}: from interventions learn td3 and sac, without residual.base")
    about = cfg.residual
    if not about.base and (about.scale, about.switch_steps) != (ResidualOptions.scale, ResidualOptions.switch_steps):
        raise ConfigError("missing: residual.base=..., a run of a policy that plans chunks, which is to be corrected")
    if about.switch_steps and not hasattr(cfg.algo, "demo_share"):
        raise ConfigError(f"residual.switch_steps: algo={cfg.algo.name} learns from what it said, not from what was "
                          f"done; td3 and sac can")  # fmt: skip
    if getattr(cfg.algo, "warmup_steps", 0) >= cfg.total_steps:
        log.warning("nothing is learned yet: algo.warmup_steps=%d of total_steps=%d", cfg.algo.warmup_steps,
                    cfg.total_steps)  # fmt: skip


def shorten(env: SimEnv, cfg: Any) -> None:
    """Let the chosen share of the environments end its episodes early."""
    count = round(cfg.short_episodes * env.num_envs)
    longest = min(cfg.short_episode_s, env.max_episode_length_s)  # goals are planned no further
    env.episode_limit_buf[:count] = max(1, round(longest / env.step_dt))
