"""What a person's node asks of the guard, and when: in one process over real topics, with a guard that answers when the
test lets it."""

import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
from real import ros
from real.connection import LATCHED, String, Trigger
from real.nodes.person import PersonNode

WAIT_S = 60.0


class Someone(PersonNode):
    def __init__(self):
        super().__init__("someone")
        self.dropped = []

    def drop_holder(self, why):
        self.dropped.append(why)


class Guard(ros.Node):
    """Says yes to all, and remembers what it was asked."""

    def __init__(self, *names):
        super().__init__("guard")
        self.asked = []
        for name in names:
            self.create_service(
                Trigger, f"guard/{name}", lambda request, response, name=name: self.hear(name, response)
            )
        self.owner = self.create_publisher(String, "guard/owner", LATCHED)

    def hear(self, name, response):
        self.asked.append(name)
        response.success = True
        return response


class Both:
    def __init__(self, until):
        ros.init(args=["test", "--ros-args", "-p", "robot:=franka"])
        self.person, self.guard, self._until = Someone(), None, until

    def start_guard(self, *names):
        self.guard = Guard(*names)
        clients = self.person.link
        self.until(lambda: all(c.service_is_ready() for c in (clients.take, clients.release, clients.hand_back)))

    def until(self, condition, *nodes):
        """Only these nodes listen meanwhile."""
        self._until(condition, lambda: [ros.spin_once(n, timeout_sec=0.01) for n in nodes], WAIT_S)

    def asked(self, *names):
        """The guard alone listens until it has been asked all this."""
        self.until(lambda: self.guard.asked == list(names), self.guard)


@pytest.fixture
def both(domain, until):
    yield Both(until)
    ros.shutdown()


AUTHORITY = ("take/someone", "release/someone", "hand_back/someone")


def test_who_lets_go_before_the_guard_has_answered_hands_back(both):
    both.start_guard(*AUTHORITY)
    both.person._settle("a hand", False)
    both.person._settle("", False)
    both.asked("take/someone")
    both.until(lambda: len(both.guard.asked) == 2, both.person, both.guard)
    assert both.guard.asked[1] == "hand_back/someone" and not both.person.in_control


def test_who_is_lost_before_the_guard_has_answered_hands_nothing_back(both):
    both.start_guard(*AUTHORITY)
    both.person._settle("a hand", False)
    both.person._settle("", True)
    both.person._settle("", False)  # the next periods
    both.asked("take/someone")
    both.until(lambda: len(both.guard.asked) == 2, both.person, both.guard)
    assert both.guard.asked[1] == "release/someone" and not both.person.in_control


def test_an_answer_that_comes_too_late_takes_nothing_away_from_who_asked_again(both):
    both.start_guard(*AUTHORITY)
    both.person._settle("a hand", False)
    both.until(lambda: both.person._settle("a hand", False) or both.person.dropped)  # the guard does not listen
    assert both.person.dropped == ["the guard does not answer"] and both.person.holder == ""
    both.person.link.patience_s = WAIT_S
    both.person._settle("a hand", False)
    both.asked("take/someone", "take/someone")
    both.guard.owner.publish(String(data="someone"))
    both.until(lambda: both.person.in_control, both.person)
    both.until(lambda: both.person.link.owner == "someone", both.person, both.guard)
    both.person._settle("a hand", False)
    assert both.person.in_control and both.guard.asked == ["take/someone"] * 2


def test_an_emergency_stop_is_asked_for_until_a_guard_has_heard_it(both):
    both.person._stop()  # nobody hears that
    both.start_guard(*AUTHORITY, "estop")
    both.until(lambda: both.person._settle("", False) or both.guard.asked, both.person, both.guard)
    both.until(lambda: both.person._stop_until_s < 0.0, both.person)
    count = len(both.guard.asked)
    assert set(both.guard.asked) == {"estop"}
    both.person._stop_asked_s = -1e9
    both.person._settle("", False)  # that was heard: no more
    both.until(lambda: True, both.guard)
    ros.spin_once(both.guard, timeout_sec=0.3)
    assert len(both.guard.asked) == count
