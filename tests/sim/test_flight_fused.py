"""The fused period against SimEnv with the torch terms, and what it must keep on its own."""

import pytest
import torch

from robolearn import config
from sim.env import SimEnv

pytest.importorskip("warp", reason="Warp is not installed (extra flight)")
config.discover(["robolearn.robots", "sim.tasks", "sim.backends"])
B = 16
CASES = [
    ("crazyflie_hover_rpm", {"action_history": 4, "integral_limit_ms": 0.02}),
    ("crazyflie_hover_rpm", {}),
    ("crazyflie_hover", {}),
    ("crazyflie_track", {"variants": 12}),
]


def make(cls, task, changes, num_envs=B, noise=False, seed=3):
    cfg = config.entry("task", task).config(**changes)
    if not noise:
        cfg.randomize.observation_noise = {}
    return cls(cfg, config.entry("backend", "quadrotor").config(), num_envs, seed=seed)


def fused(*args, **more):
    from sim.vehicles.flight import FusedFlight

    return make(FusedFlight, *args, **more)


def align(ours, theirs):
    """Put the fused environment into SimEnv's world."""
    a, b = ours.backend, theirs.backend
    for name in ("state", "params_of", "wrench", "before", "memory"):
        getattr(a, name).copy_(getattr(b, name))
    ours._trim.copy_(theirs._trim[:, :2])
    ours._age.copy_(theirs.task.age)
    ours._variant.copy_(getattr(theirs.task, "variant", ours._variant))
    ours._action.copy_(theirs._action)


@pytest.mark.parametrize(("task", "changes"), CASES)
def test_it_equals_the_torch_terms(task, changes):
    changes = changes | {"steady_s": config.entry("task", task).config().episode_length_s - 0.2}
    theirs, ours = make(SimEnv, task, changes), fused(task, changes)
    theirs.reset(seed=5)
    ours.reset(seed=5)
    for env in (theirs, ours):
        env.episode_limit_buf[:3] = 30  # by the clock, where it has not crashed before
    align(ours, theirs)
    generator, ended, cut = torch.Generator().manual_seed(0), *torch.zeros(2, B, dtype=torch.bool)
    action = torch.randn(B, 4, generator=generator)
    for _ in range(60):
        action = (0.7 * action + 0.5 * torch.randn(B, 4, generator=generator)).clone()
        action[0, 0] = float("nan")
        _, reward, terminated, truncated, extras = theirs.step(action)
        _, our_reward, our_terminated, our_truncated, our_extras = ours.step(action)
        alive = ~ended
        assert torch.equal(our_terminated[alive], terminated[alive])
        assert torch.equal(our_truncated[alive], truncated[alive])
        torch.testing.assert_close(our_reward[alive], reward[alive], atol=2e-6, rtol=1e-4)
        for group in ("policy", "critic"):
            mine, other = dict(our_extras["final_obs"])[group], extras["final_obs"][group]
            torch.testing.assert_close(mine[alive], other[alive], atol=2e-4, rtol=2e-4)
        just = alive & (terminated | truncated)
        cut |= just & truncated
        for key, value in extras["episode"].items():
            torch.testing.assert_close(our_extras["episode"][key][just], value[just], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(our_extras["applied_action"], extras["applied_action"])
        ended |= terminated | truncated
    assert cut.any() and int((ended & ~cut).sum()) > 2


def test_the_first_observation_equals_the_torch_terms():
    theirs, ours = make(SimEnv, "crazyflie_track", {"variants": 12}), fused("crazyflie_track", {"variants": 12})
    obs, _ = ours.reset(seed=5)
    theirs.reset(seed=5)
    for name in ("state", "wrench", "params_of"):
        getattr(theirs.backend, name).copy_(getattr(ours.backend, name))
    theirs.task.variant = ours._variant.long()
    theirs._disturbance = ours.backend.wrench.clone()
    theirs.task._look()
    frames = theirs.terms.frames(*theirs._states(), theirs._action)
    theirs.memory.reset(torch.ones(B, dtype=torch.bool))
    for group, value in theirs.memory.push(frames).items():
        torch.testing.assert_close(obs[group], value, atol=1e-5, rtol=1e-5)


def test_starts_fill_what_the_task_says():
    env = fused("crazyflie_hover_rpm", {"level_start": 0.25}, num_envs=4096)
    env.reset(seed=0)
    state = env.backend.state
    offset = state[:, :3] - torch.tensor([0.0, 0.0, 1.0])
    level = (offset == 0.0).all(1)
    assert level.float().mean().item() == pytest.approx(0.25, abs=0.03)
    rest, lively = state[level], state[~level]
    assert (rest[:, 7:13] == 0.0).all() and (rest[:, 6] == 1.0).all()
    for columns, most in ((slice(0, 3), 0.2), (slice(7, 10), 1.0), (slice(10, 13), 1.0)):
        values = offset[~level] if columns.start == 0 else lively[:, columns]
        assert values.abs().max() <= most and values.abs().mean().item() == pytest.approx(most / 2, rel=0.05)
        pairs = torch.corrcoef(torch.cat((values, offset[~level], lively[:, 3:6]), dim=1).T)[:3, 6:]
        assert pairs.abs().max() < 0.08  # independent of the rotation
    angle = 2.0 * torch.acos(lively[:, 6].abs())
    assert angle.max() <= torch.pi / 2 + 1e-3
    # density 1 - cos: the mean is (pi^2/8 - pi/2 + 1) / (pi/2 - 1) of an angle up to pi / 2
    assert angle.mean().item() == pytest.approx((torch.pi**2 / 8 - torch.pi / 2 + 1) / (torch.pi / 2 - 1), abs=0.02)


def test_parameters_are_drawn_within_their_ranges():
    env = fused("crazyflie_hover", {}, num_envs=2048)
    env.reset(seed=0)
    ratio = env.backend.params_of / env.backend._nominal
    for column, low, high in ((0, 1.0, 1.26), (1, 1.0, 4.3), (7, 0.9, 1.1), (11, 0.0, 1.5), (14, 0.0, 2.0)):
        assert low <= ratio[:, column].min() and ratio[:, column].max() <= high + 1e-6
        assert ratio[:, column].mean().item() == pytest.approx((low + high) / 2, rel=0.05)
    torch.testing.assert_close(ratio[:, 4], 1.0 / ratio[:, 1])
    tau = -0.001 / env.backend.params_of[:, 9].log()
    assert tau.min() >= 0.15 * 0.17 - 1e-4 and tau.max() <= 0.15 + 1e-4


def test_same_seed_same_rollout_and_resumption_is_exact():
    changes = {"action_history": 4}
    first, second = fused("crazyflie_hover", changes, noise=True), fused("crazyflie_hover", changes, noise=True)
    actions = torch.rand(40, B, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for env in (first, second):
        env.reset(seed=9)
    for k, action in enumerate(actions):
        seen = first.step(action)[0]["policy"].clone()
        if k == 20:
            fresh = fused("crazyflie_hover", changes, noise=True, seed=1)
            fresh.reset()
            fresh.load_state_dict(second.state_dict())
            second = fresh
        assert torch.equal(seen, second.step(action)[0]["policy"])
    other = fused("crazyflie_hover", changes, noise=True, seed=10)
    assert not torch.equal(other.reset()[0]["policy"], seen)


def test_what_diverges_ends_without_reward_and_is_counted():
    env = fused("crazyflie_hover", {"steady_s": 4.98})
    env.reset(seed=0)
    for _ in range(4):
        env.step(torch.zeros(B, 4))
    env.backend.state[3, 8] = float("nan")  # while the steady error is counted
    obs, reward, terminated, _, extras = env.step(torch.zeros(B, 4))
    assert reward[3] == 0.0 and terminated[3] and terminated.sum() == 1
    assert extras["episode"]["diverged"][3] == 1.0 and extras["episode"]["success"][3] == 0.0
    assert torch.isfinite(obs["policy"]).all() and torch.isfinite(extras["final_obs"]["critic"]).all()
    assert all(value.isfinite().all() for value in extras["episode"].values())


def test_kernels_run_on_the_stream_that_torch_uses_now(monkeypatch):
    """Which only a GPU has; here it is a mark that every launch must be given."""
    import warp

    env, streams, launch = fused("crazyflie_hover", {}), [], warp.Launch.launch
    env.reset()
    monkeypatch.setattr(env.backend, "stream", lambda: "torch's")
    monkeypatch.setattr(warp.Launch, "launch", lambda self, stream=None: (streams.append(stream), launch(self)))
    env.step(torch.zeros(B, 4))
    env.backend.step(1)
    assert streams == ["torch's"] * 2


def test_noise_has_the_size_that_is_asked_for():
    env = fused("crazyflie_hover", {}, num_envs=4096, noise=True)
    obs, _ = env.reset(seed=0)
    difference = obs["policy"][:, :18] - obs["critic"][:, :18]
    for columns, std in ((slice(0, 3), 0.001), (slice(3, 12), 0.001), (slice(12, 15), 0.002), (slice(15, 18), 0.002)):
        assert difference[:, columns].std().item() == pytest.approx(std, rel=0.05)


def test_the_command_line_takes_it_only_where_it_can():
    from robolearn.cli import _world
    from sim.vehicles.flight import FusedFlight

    cfg, engine = config.entry("task", "crazyflie_hover").config(), config.entry("backend", "quadrotor").config()
    assert isinstance(_world.make_env(cfg, engine, 2, "cpu", 0), FusedFlight)
    cfg.randomize.action_delay = (0, 1)
    assert isinstance(_world.make_env(cfg, engine, 2, "cpu", 0), SimEnv)


def test_a_task_made_from_one_of_ours_is_not_taken_for_it():
    """It may pay for something else, of which the kernel knows nothing."""
    cfg, engine = config.entry("task", "crazyflie_hover").config(), config.entry("backend", "quadrotor").config()
    ours = config.entry("task", "crazyflie_hover").value
    theirs = type("Sideways", (ours,), {"rewards": lambda self, *_: {"sideways": torch.zeros(2)}})
    assert ours.fast_env(cfg, engine, 2) is not None
    assert theirs.fast_env(cfg, engine, 2) is None
