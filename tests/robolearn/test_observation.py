"""Terms by hand, and the memory that stacks them."""

import pytest
import torch

from robolearn import actions, observation
from robolearn.errors import ConfigError
from robolearn.kinematics import Chain
from robolearn.observation import ObservationMemory, ObservationTerms
from robolearn.robots.franka import FRANKA
from robolearn.spec import Field, ObservationSpec, TermSpec
from robolearn.state import RobotState, SceneState


def state(n: int = 2) -> RobotState:
    rest = torch.tensor(FRANKA.default_joint_pos).expand(n, -1)
    still = torch.zeros(n, 9)
    return RobotState(
        stamp_s=torch.zeros(n), joint_pos=rest + 0.1, joint_vel=still + 0.2, joint_effort=still,
        joint_target=rest + 0.3, root_pose=torch.zeros(n, 7), root_vel=torch.zeros(n, 6),
        chain=Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.joint_names),
    )  # fmt: skip


def terms(*specs: TermSpec) -> ObservationTerms:
    return ObservationTerms(ObservationSpec({"policy": specs}), "cpu")


def test_terms_are_concatenated_in_order():
    both = terms(
        TermSpec(Field("q", (2,)), "joint_pos", {"joints": [1, 0], "offset": [1.0, 0.0]}),
        TermSpec(Field("e", (1,)), "joint_target_error", {"joints": [3]}),
        TermSpec(Field("a", (1,)), "last_action"),
    )
    frames = both.frames(state(), SceneState(), torch.tensor([[5.0], [6.0]]))
    expected = torch.tensor([[-0.569 + 0.1 - 1.0, 0.1, 0.2, 5.0], [-0.569 + 0.1 - 1.0, 0.1, 0.2, 6.0]])
    torch.testing.assert_close(frames["policy"], expected)
    both.check(frames)


def test_pose_error_points_to_the_goal():
    robot = state(1)
    goal = robot.ee_pose.clone()
    goal[:, 0] += 0.1
    error = terms(TermSpec(Field("e", (6,)), "pose_error", {"command": "goal"}))
    frames = error.frames(robot, SceneState(commands={"goal": goal}), torch.zeros(1, 1))
    torch.testing.assert_close(frames["policy"], torch.tensor([[0.1, 0, 0, 0, 0, 0]]), atol=1e-6, rtol=0)


def test_one_robot_sees_what_it_sees_in_a_batch():
    """Hardware (B = 1) and simulation (B = 4096) share the code, so also the numbers."""
    every = terms(
        TermSpec(Field("p", (3,)), "ee_position"),
        TermSpec(Field("r", (6,)), "ee_rotation_6d"),
        TermSpec(Field("v", (6,)), "ee_velocity"),
    )
    batch = state(64)
    batch.joint_pos = batch.joint_pos + 0.3 * torch.randn(64, 9)
    whole = every.frames(batch, SceneState(), torch.zeros(64, 1))["policy"]
    one = every.frames(batch.rows(torch.tensor([17])), SceneState(), torch.zeros(1, 1))["policy"]
    torch.testing.assert_close(one[0], whole[17], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TermSpec(Field("q", (1,)), "joint_positions"), "no observation term 'joint_positions'"),
        (TermSpec(Field("q", (1,)), "joint_vel", {"joint": [0]}), r"takes .* not \['joint'\]"),
    ],
)
def test_unknown_terms_and_parameters_are_named(spec, message):
    with pytest.raises((KeyError, ValueError), match=message):
        terms(spec)


def test_a_wrong_shape_is_named():
    wrong = terms(TermSpec(Field("q", (3,)), "joint_vel", {"joints": [0, 1]}))
    with pytest.raises(ValueError, match=r"has shape \(2,\), not \(3,\)"):
        wrong.check(wrong.frames(state(), SceneState(), torch.zeros(2, 1)))


SPEC = ObservationSpec({"policy": (TermSpec(Field("x", (1,)), "command", {"name": "x"}),)}, {"policy": 3})


def frame(*values: float) -> dict:
    return {"policy": torch.tensor(values)[:, None]}


def test_history_is_oldest_first_and_starts_full():
    memory = ObservationMemory(SPEC, 2, "cpu", 0.02)
    assert memory.push(frame(1, 10))["policy"].tolist() == [[1, 1, 1], [10, 10, 10]]
    assert memory.push(frame(2, 20))["policy"].tolist() == [[1, 1, 2], [10, 10, 20]]
    memory.reset(torch.tensor([True, False]))
    assert memory.push(frame(3, 30))["policy"].tolist() == [[3, 3, 3], [10, 20, 30]]


def test_a_masked_push_leaves_the_others_alone():
    memory = ObservationMemory(SPEC, 2, "cpu", 0.02)
    memory.push(frame(1, 10))
    memory.reset(torch.tensor([False, True]))
    assert memory.push(frame(2, 20), torch.tensor([False, True]))["policy"].tolist() == [
        [1, 1, 1],
        [20, 20, 20],
    ]
    assert memory.push(frame(3, 30))["policy"].tolist() == [[1, 1, 3], [20, 20, 30]]


def test_dimensions():
    assert SPEC.dim("policy") == 3 and SPEC.frame_dim("policy") == 1
    with pytest.raises(KeyError, match="no observation group 'critic'; there are policy"):
        SPEC.terms("critic")


def test_two_terms_of_one_name_are_refused():
    def joint_vel(robot):
        return robot.joint_vel

    with pytest.raises(
        ConfigError, match=r"two observation terms are called 'joint_vel': in robolearn.observation and"
    ):
        observation.term(joint_vel)
    with pytest.raises(ConfigError, match=r"two action terms are called 'joint_position': in robolearn.actions and"):
        actions.action_term("joint_position")(type("Mine", (), {}))
    assert observation.term(observation.joint_vel) is observation.joint_vel  # the same again: a reload


REMEMBERED = ObservationSpec(
    {
        "policy": (
            TermSpec(Field("x", (1,), "m"), "command", {"name": "x"}),
            TermSpec(Field("x_integral", (1,), "m s"), "command", {"name": "x"}, integral_limit=0.5),
            TermSpec(Field("u", (1,)), "command", {"name": "u"}, history=2),
        )
    }
)


def test_a_term_has_its_own_history_and_integral():
    memory = ObservationMemory(REMEMBERED, 1, "cpu", 0.1)
    assert REMEMBERED.frame_dim("policy") == 3 and REMEMBERED.shapes() == {"policy": (4,)}
    assert memory.push({"policy": torch.tensor([[2.0, 2.0, 7.0]])})["policy"].tolist() == [[2.0, 0.0, 7.0, 7.0]]
    seen = memory.push({"policy": torch.tensor([[3.0, 3.0, 8.0]])})["policy"]
    torch.testing.assert_close(seen, torch.tensor([[3.0, 0.3, 7.0, 8.0]]))
    seen = memory.push({"policy": torch.tensor([[9.0, 9.0, 9.0]])})["policy"]
    torch.testing.assert_close(seen, torch.tensor([[9.0, 0.5, 8.0, 9.0]]))  # 0.3 + 0.9, clamped
    memory.reset(torch.tensor([True]))
    assert memory.push({"policy": torch.tensor([[4.0, 4.0, 1.0]])})["policy"].tolist() == [[4.0, 0.0, 1.0, 1.0]]


def test_memory_of_terms_survives_saving():
    memory, again = (ObservationMemory(REMEMBERED, 1, "cpu", 0.1) for _ in range(2))
    for x in (1.0, 2.0):
        memory.push({"policy": torch.full((1, 3), x)})
    again.load_state_dict(memory.state_dict())
    frame = {"policy": torch.full((1, 3), 3.0)}
    assert torch.equal(memory.push(frame)["policy"], again.push(frame)["policy"])
