"""Trainings over a base policy through the command line: resumed exactly, refused where they make no sense."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from chunk_samples import Constant, chunk_spec, step_spec
from torch import Tensor

from robolearn.algos.td3 import TD3, TD3Cfg
from robolearn.cli import _world, collect, train
from robolearn.cli._loops.online import Online
from robolearn.config import ConfigError
from robolearn.loops import checkpoint
from robolearn.loops.guided import GuidedEnv
from robolearn.loops.online import Trainer

pytest.importorskip("pyarrow", reason="pyarrow is not installed (extra data)")
_world.discover()
TASK = ["task=cartpole", "task.episode_length_s=1", "backend.threads=1"]
TINY = [*TASK, "algo=td3", "num_envs=4", "eval_episodes=0", "algo.hidden=[16]", "algo.batch=16", "algo.report_steps=40",
        "algo.warmup_steps=40", "algo.ratio=0.25", "algo.capacity=400", "residual.scale=0.2"]  # fmt: skip
BASE = [*TASK, "algo=diffusion", "algo.channels=[8,16]", "algo.level_dim=8", "algo.horizon=4", "algo.execute=2",
        "algo.steps=2", "updates=3", "batch=8", "eval_episodes=0"]  # fmt: skip


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A diffusion policy that knows little, whose noise matters, and the episodes that it had."""
    out = tmp_path_factory.mktemp("given")
    data = f"data.path={out / 'set'}"
    assert collect.main([*TASK, "num_envs=4", "policy=expert", "episodes=4", f"out={out / 'set'}"]) == 0
    assert train.main([*BASE, data, f"run_dir={out / 'base'}"]) == 0
    return [data, f"residual.base={out / 'base'}"]


def left(folder: Path) -> dict[str, Tensor]:
    state = checkpoint.read_newest(folder / "checkpoints")
    return checkpoint.flatten({k: state[k] for k in ("algo", "generator", "env", "obs")})[0]


def test_a_corrected_training_with_demonstrations_resumes_exactly(tmp_path: Path, given: list[str]) -> None:
    """The base's noise too, though it also acted along the demonstrations."""
    assert train.main([*TINY, *given, "total_steps=240", f"run_dir={tmp_path / 'whole'}"]) == 0
    assert train.main([*TINY, *given, "total_steps=120", f"run_dir={tmp_path / 'half'}"]) == 0
    assert train.main([f"resume={tmp_path / 'half'}", "total_steps=240"]) == 0
    whole, resumed = left(tmp_path / "whole"), left(tmp_path / "half")
    assert whole.keys() == resumed.keys() and "env/base/history/policy" in whole
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []


def test_the_bundle_acts_as_the_base_and_the_head_do(tmp_path: Path, given: list[str]) -> None:
    assert train.main([*TINY, *given, "total_steps=80", f"run_dir={tmp_path / 'run'}"]) == 0
    policy = _world.load_run(str(tmp_path / "run"))[2].policy
    obs = {"policy": torch.randn(3, policy.spec.observation.dim("policy"))}
    policy.generator = torch.Generator().manual_seed(0)
    action = policy.act(obs)
    policy.reset(torch.ones(3, dtype=torch.bool))
    policy.generator = torch.Generator().manual_seed(0)
    base = policy.base.act(obs)  # type: ignore[operator, union-attr]
    head = policy.head.act({"policy": torch.cat((obs["policy"], base), dim=1)})  # type: ignore[operator, union-attr]
    torch.testing.assert_close(action, (base + 0.2 * head).clamp(-1.0, 1.0))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["algo=td3", "residual.scale=0.3"], r"missing: residual\.base="),
        (
            ["algo=ppo", "residual.base=BASE", "residual.switch_steps=100"],
            r"residual\.switch_steps: algo=ppo learns from",
        ),
        (["algo=ppo", "data.path=SET"], r"data\.path: algo=ppo does not learn from episodes"),
        (["algo=td3", "residual.base=BASE", "task.decimation=8"], r"does not fit .* rate_hz: 30\.0 != 15\.0"),
    ],
    ids=lambda v: v[-1] if isinstance(v, list) else "",
)
def test_what_makes_no_sense_is_refused(words: list[str], said: str, given: list[str], tmp_path: Path) -> None:
    data, base = (w.partition("=")[2] for w in given)
    words = [w.replace("=BASE", f"={base}").replace("=SET", f"={data}") for w in words]
    with pytest.raises(ConfigError, match=said):
        train.main([*TASK, *words, f"run_dir={tmp_path / 'run'}"])
    assert not (tmp_path / "run" / "config.yaml").exists()


def test_the_base_that_is_meant_is_written_down(tmp_path: Path, given: list[str]) -> None:
    """`last` would be another run when it is resumed."""
    from robolearn import config

    folder = Path(given[1].partition("=")[2])
    cfg = config.load(train.TrainCfg, [*TINY, f"residual.base={folder / 'bundle'}", f"run_dir={tmp_path / 'run'}"])
    loop = Online(cfg, tmp_path / "run")
    loop.close()
    assert Path(cfg.residual.base).resolve() == (folder / "bundle").resolve()


def test_a_base_that_was_trained_anew_is_not_the_one_that_was_corrected(tmp_path: Path, given: list[str]) -> None:
    data, base = given[0], tmp_path / "base"
    assert train.main([*BASE, data, f"run_dir={base}"]) == 0
    assert train.main([*TINY, f"residual.base={base}", "total_steps=80", f"run_dir={tmp_path / 'run'}"]) == 0
    shutil.rmtree(base)
    assert train.main([*BASE, data, "seed=1", f"run_dir={base}"]) == 0
    with pytest.raises(ConfigError, match="the base policy is not the one that was corrected"):
        train.main([f"resume={tmp_path / 'run'}", "total_steps=160"])


class Robot:
    """A world that goes on without us: there is no state to put back. Frames count the steps of its life."""

    def __init__(self, num_envs: int):
        self.num_envs, self.device, self.max_episode_length = num_envs, torch.device("cpu"), 50
        self.episode_length_buf, self.action_spec = torch.zeros(num_envs), step_spec().action
        self.life = 0.0

    def _seen(self) -> dict[str, Tensor]:
        self.life += 1.0
        return {"policy": torch.full((self.num_envs, 3), self.life)}

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Tensor], Any]:
        return self._seen(), {}

    def step(self, action: Tensor) -> Any:
        obs, no = self._seen(), torch.zeros(self.num_envs, dtype=torch.bool)
        return obs, no.float(), no, no, {"final_obs": obs, "applied_action": action, "episode": {}, "log": {}}


@pytest.mark.parametrize("guided", [False, True])
def test_nothing_leads_from_before_a_stop_to_after_it_where_the_world_went_on(tmp_path: Path, guided: bool) -> None:
    def trainer(life: float, steps: int) -> Trainer:
        robot, spec, env = Robot(2), step_spec(), None
        robot.life = life
        if guided:
            base = Constant(chunk_spec(8, 4), {"observation_steps": 1, "says": 0.1})
            env = GuidedEnv(robot, spec, base, 0.2, 0)
            spec = env.policy_spec()
        cfg = TD3Cfg(hidden=(8,), batch=4, capacity=100, warmup_steps=1000, report_steps=2)
        algo = TD3(cfg, spec, 2, torch.device("cpu"), torch.Generator().manual_seed(0))
        return Trainer(env or robot, algo, steps, tmp_path, torch.Generator().manual_seed(0), 0.0, time.monotonic())

    trainer(0.0, 10).run()
    second = trainer(1000.0, 20)
    second.load_state_dict(checkpoint.read_newest(tmp_path / "checkpoints"))
    second.run()
    replay = second.algo.replay
    rows = replay.acted.nonzero().flatten()
    batch = replay.gather(rows, 3, 0.9)
    before, after = batch["obs/policy"][:, 0] < 500, batch["next/policy"][:, 0] < 500
    assert len(rows) == 20 and before.sum() == 10 and torch.equal(before, after)


def test_learner_and_environments_may_be_on_different_devices(tmp_path: Path) -> None:
    """With a generator of its own, which a checkpoint holds."""
    words = [w for w in TINY if not w.startswith("residual")] + ["algo.device=cpu:0"]
    assert train.main([*words, "total_steps=160", f"run_dir={tmp_path / 'whole'}"]) == 0
    assert train.main([*words, "total_steps=80", f"run_dir={tmp_path / 'half'}"]) == 0
    assert train.main([f"resume={tmp_path / 'half'}", "total_steps=160"]) == 0
    whole, resumed = left(tmp_path / "whole"), left(tmp_path / "half")
    assert "algo/generator/state" in whole
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []


def test_a_correction_is_at_most_the_scale(given: list[str]) -> None:
    """An on-policy learner's actions have no bounds of their own."""
    from robolearn import config

    cfg = config.load(train.TrainCfg, [*TASK, "num_envs=2", given[1]])
    found = []
    for size in (1.0, 50.0):
        env = _world.make_env(cfg.task, cfg.backend, 2, "cpu", 0)
        base = _world.load_run(cfg.residual.base)[2].policy
        guided = GuidedEnv(env, env.policy_spec(), base, 0.2, 0)  # type: ignore[arg-type]
        guided.reset()
        found.append(guided.step(torch.full((2, 1), size))[0]["policy"])
        env.close()
    assert torch.equal(*found)


def test_pictures_beside_a_vector_survive_a_checkpoint(tmp_path: Path) -> None:
    obs = {"policy": torch.rand(2, 3), "policy/front": torch.zeros(2, 4, 4, 3, dtype=torch.uint8)}
    checkpoint.write(tmp_path, 1, {"obs": obs, "empty": {}})
    back = checkpoint.read_newest(tmp_path)["obs"]
    assert back.keys() == obs.keys() and all(torch.equal(back[k], v) for k, v in obs.items())
