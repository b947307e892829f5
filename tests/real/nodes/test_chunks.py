"""Chunked policies in the policy node, over a twin and a guard that are processes of their own."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
from real.nodes.policy import PolicyNode
from real.pipeline import Pipeline
from real.spread import Spread
from robolearn import bundle, config
from robolearn.cli import _world
from robolearn.policies.base import Policy, build
from robolearn.policies.noise import alphas_cumprod
from robolearn.policies.residual import ResidualPolicy, correction_spec
from robolearn.spec import PolicySpec
from sim.env import SimEnv

EXECUTE = 4
TEST_NODE = Path(__file__).with_name("failing_policy.py")


@pytest.fixture(scope="module")
def env():
    _world.discover()
    made = SimEnv(config.entry("task", "franka_reach").config(), config.entry("backend", "mujoco").config(), 1)
    yield made
    made.close()


def chunked(spec: PolicySpec, horizon: int) -> PolicySpec:
    return replace(spec, action=replace(spec.action, horizon=horizon, execute=EXECUTE))


def dreamer(spec: PolicySpec, steps: int) -> Policy:
    """A diffusion policy that has learned nothing, and takes its time."""
    torch.manual_seed(0)
    network = {"name": "unet", "channels": [16, 32], "level_dim": 32}
    about = {"observation_steps": 2, "network": network, "sampler": {"name": "ddim", "steps": steps}}
    return build("diffusion", chunked(spec, 16), about | {"alphas_cumprod": alphas_cumprod(100)})


def straight_on(spec: PolicySpec, kind: str = "gaussian_chunk") -> Policy:
    """A chunk is done at once; all joints keep moving slowly."""
    config = {"hidden": [], "activation": "elu", "initial_std": 0.5, "min_std": 0.1, "observation_steps": 2}
    policy = build(kind, chunked(spec, 8), config)
    with torch.no_grad():
        policy.mean[-1].weight.zero_()
        policy.mean[-1].bias.fill_(0.05)
    return policy


def turned_round(base: Policy) -> Policy:
    """Every action is corrected by -0.1."""
    config = {"hidden": [], "activation": "elu", "normalizer": "running", "stochastic": False}
    head = build("squashed", correction_spec(base.spec, 0.2), config)
    torch.nn.init.constant_(head.net[-1].bias, math.atanh(-0.5))
    return ResidualPolicy.of(base, head, 0.2)


def use(stack, env, policy: Policy) -> None:
    stack.run = bundle.save(stack.folder / "chunks.zip", bundle.Bundle(policy, env.robot))


def figures(stack) -> dict[str, str]:
    """The policy's newest diagnostics."""
    return {v.key: v.value for v in stack.said["/policy"].values} if "/policy" in stack.said else {}


def number(stack, key: str) -> int:
    return int(figures(stack).get(key, -1))


def test_until_its_first_chunk_an_episode_begins_where_the_robot_is_braked_to(env):
    """A `policy/reset` on the way: nothing is proposed before the chunk is there, and the guard brakes meanwhile."""
    pipeline, rest = Pipeline(env.policy_spec(), env.robot), torch.tensor(env.robot.default_joint_pos)
    pipeline.reset(rest)
    proposed, actions = [], iter([None, None, torch.zeros(1, 7)])
    link = SimpleNamespace(
        age_s=float, reference=None, state=lambda: None, scene=lambda: None, standing=lambda: rest + 0.1,
        propose=lambda command, part: proposed.append(command.target[0, :7]),
    )  # fmt: skip
    pipeline.observe = lambda robot, scene: {}
    node = SimpleNamespace(
        link=link, pipeline=pipeline, ages=Spread(), _proposed=False, _part=0, counts={"proposals": 0},
        planner=SimpleNamespace(act=lambda obs: next(actions)),
    )  # fmt: skip
    for _ in range(3):
        PolicyNode._propose(node)
    assert len(proposed) == 1 and proposed[0].allclose(rest[:7] + 0.1)


def test_planning_that_takes_most_of_a_period_leaves_no_gap(stack, env):
    use(stack, env, dreamer(env.policy_spec(), 20))
    stack.fly()
    began = number(stack, "chunks planned")
    stack.wait(lambda: stack.call("policy/start").success and number(stack, "chunks planned") > began + 8)
    proposals, without = number(stack, "proposals"), number(stack, "periods without an action")
    assert number(stack, "lead, periods") >= 1 and proposals > 8 * EXECUTE
    assert without < 0.1 * proposals  # none, but on a busy machine
    assert "begins" in stack.log("policy") and "Traceback" not in stack.log("policy")
    limits = torch.tensor(env.robot.of("velocity_limit", env.robot.arm_joints)) + 1e-6
    assert all((torch.tensor(c.velocity).abs() <= limits).all() for c in stack.commands)


def test_a_chunked_policy_is_stopped_and_started_again_while_it_plans(stack, env):
    use(stack, env, dreamer(env.policy_spec(), 20))
    stack.fly()
    for _ in range(2):
        assert stack.call("policy/stop").success
        stack.wait(lambda: stack.state() == "idle" and stack.still())
        stack.wait(lambda: stack.call("policy/start").success and stack.state() == "active")
        assert stack.call("policy/reset").success
    assert "Traceback" not in stack.log("policy")


@pytest.mark.parametrize(("corrected", "sign"), [(False, 1.0), (True, -1.0)])
def test_a_residual_policys_base_plans_beside_the_loop_and_is_corrected_in_it(stack, env, corrected, sign):
    base = straight_on(env.policy_spec())
    use(stack, env, turned_round(base) if corrected else base)
    stack.fly()
    stack.wait(lambda: stack.call("policy/start").success and number(stack, "chunks planned") > 4)
    arm = [c.velocity for c in stack.commands if any(c.velocity)]
    assert arm and all(sign * v >= 0.0 for velocities in arm for v in velocities)
    assert "chunks of 8 actions, 4 are run" in stack.log("policy") and "Traceback" not in stack.log("policy")


def test_a_thread_that_fails_gives_authority_back_and_the_next_start_is_another_try(stack, env):
    sys.path.insert(0, str(TEST_NODE.parent))
    try:
        import failing_policy  # noqa: F401 - it registers itself
    finally:
        sys.path.pop(0)
    use(stack, env, straight_on(env.policy_spec(), "failing"))
    stack.start("twin", "guard")
    words = [sys.executable, str(TEST_NODE), "--ros-args", "-p", "robot:=franka", "-p", f"run:={stack.run}"]
    with (stack.folder / "policy.log").open("w") as log:
        stack.processes["policy"] = subprocess.Popen(words, stdout=log, stderr=log)
    stack.wait(lambda: stack.states and stack.heard["guard/state"])
    said = "no chunk of actions could be planned: RuntimeError: the network met a number it did not like"
    for again in (1, 2):
        # Asked only while it has not failed so often: who asks first and looks then has started one try too many.
        stack.wait(lambda n=again: stack.log("policy").count(said) >= n or not stack.call("policy/start"))
        stack.wait(stack.at_rest)
    assert "Traceback" not in stack.log("policy")
    assert stack.processes["policy"].poll() is None
