"""How the nodes start."""

from pathlib import Path

import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")


def test_the_guard_starts_without_torch_which_takes_longer_than_all_else(stack):
    stack.start("guard")
    stack.wait(lambda: stack.heard["guard/state"])
    assert "libtorch" not in Path(f"/proc/{stack.processes['guard'].pid}/maps").read_text()
