"""Figures of a robot's episodes, by hand."""

import pytest

from real.progress import RECENT, Progress


class Told:
    """In place of a node: the diagnostics that were published."""

    def __init__(self):
        self.reports = []

    def create_publisher(self, *about):
        return self

    def publish(self, message):
        self.reports.append({v.key: v.value for v in message.status[0].values})

    def malformed(self):
        return {}

    def get_fully_qualified_name(self):
        return "/actor"

    def get_clock(self):
        return self

    def now(self):
        return self

    nanoseconds = 0


@pytest.fixture
def told():
    pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
    return Told()


def episode(progress, length, human, success, late=0):
    for k in range(length):
        progress(k < human, k < late, k == length - 1, success and k == length - 1)


def test_rates_are_of_the_last_episodes_and_steps_of_all(told):
    now = [0.0]
    progress = Progress(told, "an arm", 0.1, lambda: now[0])
    assert progress.figures() == {"steps": 0, "late steps": 0}
    episode(progress, 10, human=4, success=True, late=1)
    episode(progress, 30, human=0, success=False, late=2)
    assert progress.figures() == {
        "steps": 40, "late steps": 3, "success rate": 0.5, "intervention rate": 0.1, "cycle time, s": 1.0,
    }  # fmt: skip
    for _ in range(RECENT):
        episode(progress, 5, human=0, success=True)
    figures = progress.figures()
    assert figures["success rate"] == 1.0 and figures["intervention rate"] == 0.0
    assert figures["cycle time, s"] == pytest.approx(0.5) and figures["steps"] == 140


def test_an_end_that_is_told_after_the_step_counts_once_and_for_what_came_of_it(told):
    progress = Progress(told, "an arm", 0.1, lambda: 0.0)
    for human in (True, True, False, False):
        progress(human, False, False, False)
    progress.end(True)
    assert list(progress.recent) == [(4, 2, True)]
    episode(progress, 5, human=1, success=False)
    progress.end(True)  # the step had said that its time was over
    assert list(progress.recent) == [(4, 2, True), (5, 1, True)]


def test_it_is_told_once_a_second(told):
    now = [0.0]
    progress = Progress(told, "an arm", 0.1, lambda: now[0])
    for k in range(25):
        now[0] = 0.1 * k
        progress(False, False, False, False)
    assert [report["steps"] for report in told.reports] == ["1", "11", "21"]
