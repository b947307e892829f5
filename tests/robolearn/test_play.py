"""Physics that diverges is contained, counted, recorded and replayed; films show what they should."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from robolearn import config, registry
from robolearn.cli import _video, _world, main
from robolearn.errors import ConfigError
from robolearn.policies.base import Policy
from sim import trace
from sim.env import SimEnv

BAD, B = 2, 4
OTHERS = [i for i in range(B) if i != BAD]
Make = Callable[..., SimEnv]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Seeded environments whose traces go to tmp_path/diverged, working in tmp_path."""
    monkeypatch.chdir(tmp_path)
    _world.discover()

    def env(task: str = "cartpole", num_envs: int = B, record: bool = True) -> SimEnv:
        cfg, backend = (registry.entry(g, n).config for g, n in (("task", task), ("backend", "mujoco")))
        assert cfg is not None and backend is not None
        made = _world.make_env(cfg(), backend(threads=1), num_envs, "cpu", 5, tmp_path / "diverged" if record else None)
        made.reset()
        return made

    return env


def explode(env: SimEnv, speed: float = 9e5) -> None:
    """A joint speed that is finite, and that no physics survives."""
    only = torch.arange(env.num_envs) == BAD
    velocity = torch.full_like(env.backend.joint_vel("robot"), speed)
    env.backend.write_joints("robot", env.backend.joint_pos("robot"), velocity, only)


def steps(env: SimEnv, n: int) -> list[tuple[Any, ...]]:
    generator = torch.Generator().manual_seed(1)
    actions = torch.rand(n, env.num_envs, env.action_spec.dim, generator=generator) * 2 - 1
    return [env.step(a) for a in actions]


@pytest.mark.parametrize("task", ["cartpole", "franka_reach"])
def test_divergence_ends_one_environment_and_leaves_the_others_bit_by_bit(make: Make, task: str) -> None:
    env, twin = make(task), make(task)
    steps(env, 2), steps(twin, 2)
    explode(env)
    ours, theirs = steps(env, 3), steps(twin, 3)
    assert [out[2].tolist() for out in ours] == [[False, False, True, False]] + [[False] * B] * 2
    assert env.diverged_count == 1 and twin.diverged_count == 0
    assert [float(out[4]["log"]["diverged"]) for out in ours] == [1.0] * 3
    assert ours[0][1][BAD] == 0.0
    for (obs, reward, *_, extras), (twin_obs, twin_reward, *_) in zip(ours, theirs, strict=True):
        tensors = (obs["policy"], reward, extras["final_obs"]["policy"], *extras["episode"].values())
        assert all(t.isfinite().all() for t in tensors)
        assert torch.equal(obs["policy"][OTHERS], twin_obs["policy"][OTHERS])
        assert torch.equal(reward[OTHERS], twin_reward[OTHERS])


def test_a_state_that_was_nan_already_is_left_too(make: Make) -> None:
    env = make()
    state = env.backend.get_state()
    env.backend.set_state(torch.full_like(state, torch.nan), torch.arange(B) == BAD)
    for obs, reward, *_, extras in steps(env, 2):
        assert obs["policy"].isfinite().all() and reward.isfinite().all()
        assert extras["final_obs"]["policy"].isfinite().all()
    assert env.diverged_count == 1


def test_the_trace_is_replayed_and_reported(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = make("franka_reach")
    steps(env, 3)
    explode(env)
    steps(env, 1)
    (dump,) = (tmp_path / "diverged").iterdir()
    about, tensors = trace.read(dump)
    assert (about["env"], about["backend"], about["task"]["name"]) == (BAD, "mujoco", "franka_reach")
    assert tensors["state"].shape[0] == tensors["action"].shape[0] == 4
    assert tensors["task.goal"].shape == (1, 7)

    assert main.main(["play", f"dump={dump}"]) == 0
    said = capsys.readouterr().out
    assert "diverged again in period 4 of 4" in said
    before = next(line for line in said.splitlines() if "panda_joint3 velocity" in line).split()
    assert float(before[2]) == 9e5 and abs(float(before[3])) > 1e6
    assert dump.with_suffix(".mp4").stat().st_size > 1000


def test_a_healthy_trace_does_not_diverge_again(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = make()
    steps(env, 2)
    env.trace.dump(torch.arange(B) == 0)
    assert main.main(["play", f"dump={next((tmp_path / 'diverged').iterdir())}"]) == 0
    assert "did not diverge again" in capsys.readouterr().out


def test_a_resumed_run_keeps_the_traces_before_it(make: Make, tmp_path: Path) -> None:
    for _ in range(2):
        env = make()
        explode(env)
        steps(env, 1)
    assert len(list((tmp_path / "diverged").iterdir())) == 2


def test_mujoco_leaves_no_log_in_the_working_directory(make: Make, tmp_path: Path) -> None:
    env = make(record=False)
    explode(env)
    steps(env, 1)
    assert env.diverged_count == 1
    assert list(tmp_path.iterdir()) == []


def test_a_dump_of_another_engine_is_refused(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    env = make()
    steps(env, 1)
    env.trace.dump(torch.arange(B) == 0)
    (dump,) = (tmp_path / "diverged").iterdir()
    assert main.main(["play", f"dump={dump}", "backend=mujoco_warp"]) == ConfigError.exit_code
    assert "holds states of mujoco, which mujoco_warp cannot take; leave backend= out" in capsys.readouterr().err


class Restless(Policy):
    """Notes how many environments begin an episode, period by period, and does nothing."""

    def act(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        return torch.zeros(len(obs["policy"]), self.spec.action.dim)

    def reset(self, mask: torch.Tensor) -> None:
        self.config.setdefault("begun", []).append(int(mask.sum()))


def world(**changes: Any) -> SimpleNamespace:
    task, engine = registry.entry("task", "cartpole").config, registry.entry("backend", "mujoco").config
    assert task is not None and engine is not None
    return SimpleNamespace(task=task(**changes), backend=engine(threads=1), device="cpu")


def test_a_film_tells_the_policy_of_every_beginning(make: Make, tmp_path: Path) -> None:
    pytest.importorskip("av")
    policy = Restless(make().policy_spec(), {})
    _video.record(policy, world(episode_length_s=0.2), tmp_path / "a.mp4", 2, 0)  # 6 periods an episode, 2 s in all
    assert policy.config["begun"] == [2 if period % 6 == 0 else 0 for period in range(60)]


def test_a_policy_for_another_environment_is_neither_filmed_nor_shown(make: Make, tmp_path: Path) -> None:
    policy = Restless(make("franka_reach").policy_spec(), {})
    with pytest.raises(ConfigError, match=r"does not fit this environment .*robot: 'franka' != 'cartpole'"):
        _video.record(policy, world(), tmp_path / "a.mp4", 2, 0)


def test_an_evaluation_leaves_traces_of_divergence(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, reset = Restless(make().policy_spec(), {}), SimEnv.reset

    def exploding(env: SimEnv, seed: int | None = None) -> Any:
        out = reset(env, seed)
        explode(env)
        return out

    monkeypatch.setattr(SimEnv, "reset", exploding)
    cfg = world(episode_length_s=0.2)
    scores = _world.score(policy, cfg.task, cfg.backend, B, 0, "cpu", tmp_path / "run" / "diverged")
    assert scores["diverged"]["mean"] == 1 / B
    assert [p.name for p in (tmp_path / "run" / "diverged").iterdir()] == [f"diverged_00_env{BAD}.safetensors"]


@pytest.mark.parametrize("device", ["meta", "mps", "abacus"])
def test_devices_are_cpu_and_cuda(make: Make, device: str) -> None:
    with pytest.raises(ConfigError, match=f"device={device} cannot be used here"):
        _world.pick_device(device, world().backend)


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "run=RUN or dump=FILE"),
        (["dump=nowhere.safetensors"], "does not exist"),
        (["dump=note.txt"], "not a divergence trace"),
        (["run=x", "video=film.gif"], "must be a .mp4"),
    ],
)
def test_bad_input_names_the_remedy(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("note.txt").write_text("not a trace")
    assert main.main(["play", *words]) == ConfigError.exit_code
    assert says in capsys.readouterr().err


# --- films -----------------------------------------------------------------------------------------------


def test_tiles_lie_row_by_row_with_a_border_of_their_state() -> None:
    pictures = np.stack([np.full((4, 6, 3), value, np.uint8) for value in (10, 20, 30)])
    grid = _video.tile(pictures, [True, False, True], columns=2)
    assert grid.shape == (20, 24, 3)  # two rows of 4 + 2 x 3, two columns of 6 + 2 x 3
    assert tuple(grid[0, 0]) == _video.SUCCESS and tuple(grid[0, 12]) == _video.ELSE
    assert grid[5, 5, 0] == 10 and grid[5, 17, 0] == 20 and grid[15, 5, 0] == 30
    assert tuple(grid[15, 17]) == _video.EMPTY


def test_film_is_h264_in_real_time(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    frames = [np.full((32, 64, 3), 8 * i, np.uint8) for i in range(12)]
    _video.write(tmp_path / "a.mp4", iter(frames), Fraction(30))
    with av.open(str(tmp_path / "a.mp4")) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt, stream.frames) == ("h264", "yuv420p", 12)
        assert (stream.width, stream.height, float(stream.duration * stream.time_base)) == (64, 32, 0.4)
        assert [f.to_ndarray(format="rgb24").mean() for f in film.decode(stream)][6] == pytest.approx(48, abs=4)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_a_broken_film_leaves_no_file(tmp_path: Path) -> None:
    def frames():
        yield from np.zeros((100, 32, 32, 3), np.uint8)  # enough for the encoder to write something
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _video.write(tmp_path / "a.mp4", frames(), Fraction(30))
    assert list(tmp_path.iterdir()) == []


def test_goals_are_drawn_for_people_only(make: Make) -> None:
    env = make("franka_reach", num_envs=1)
    camera = env.task.camera
    film, seen = env.backend.render(camera, [0], film=(120, 160)), env.backend.render(camera, [0])
    env.backend.set_marker("goal", torch.tensor([[0.3, 0.0, 0.6, 0.0, 0.0, 0.0, 1.0]]))
    assert (env.backend.render(camera, [0], film=(120, 160)) != film).any()
    assert (env.backend.render(camera, [0]) == seen).all()
    assert film.shape == (1, 120, 160, 3) and seen.shape == (1, 240, 320, 3)


def test_pictures_need_nothing_of_the_stepped_model(make: Make) -> None:
    backend: Any = make("franka_reach", num_envs=1).backend
    assert backend.painter.model.nq == backend.model.nq
    assert backend.painter.model.ngeom > backend.model.ngeom


def test_every_setting_of_a_task_survives_plain_data(make: Make) -> None:
    for name in registry.names("task"):
        cls = registry.entry("task", name).config
        assert cls is not None
        assert config.from_plain(cls, config.to_plain(cls())) == cls()
