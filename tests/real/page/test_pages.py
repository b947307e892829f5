"""Which page has hold of the robot, over a drawn timeline; and what a browser may say."""

import json
import math

import pytest

from real.page.messages import Beat, Order, Refused, read
from real.page.pages import ECHO_S, LOST_S, Pages

TWIST = [0, 0, 1, 0, 0, 0]


def beat(seen=1, **more):
    return json.dumps({"seen": seen, "twist": TWIST, "gripper": 0, "target": None, **more})


class Desk:
    """Two pages and one state, which was made at 0 s."""

    def __init__(self):
        self.pages = Pages(2)
        self.pages.made(1, 0.0)
        self.one, self.two = self.pages.open("here"), self.pages.open("there")

    def beat(self, page, now_s, **more):
        self.pages.hear(page, beat(**more), now_s)

    def order(self, page, what, now_s):
        self.pages.hear(page, json.dumps({"do": what}), now_s)

    def take(self, page, now_s):
        self.beat(page, now_s)
        self.order(page, "take", now_s)


@pytest.fixture
def desk():
    return Desk()


def test_what_a_page_wants_is_followed_for_100_ms_and_it_is_lost_after_150(desk):
    desk.take(desk.one, 0.0)
    assert desk.pages.look(0.01).holder == "page 1"
    assert desk.pages.wish(0.099).twist == (0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    assert not any(desk.pages.wish(0.101).twist)
    assert desk.pages.look(0.149) == ("page 1", False, ())
    assert desk.pages.look(0.151) == ("", True, ())
    assert not desk.pages.look(0.152).lost  # told once
    desk.beat(desk.one, 0.2)
    assert desk.pages.look(0.2).holder == ""  # it does not come back by itself
    assert "lost" in desk.one.told


def test_a_page_that_goes_on_beating_keeps_the_robot(desk):
    for k in range(8):
        desk.take(desk.one, 0.05 * k) if k == 0 else desk.beat(desk.one, 0.05 * k)
        assert desk.pages.look(0.05 * k + 0.04) == ("page 1", False, ())


def test_a_connection_that_ends_in_control_is_a_loss_and_another_one_is_none(desk):
    desk.take(desk.one, 0.0)
    desk.pages.close(desk.two)
    look = desk.pages.look(0.01)
    desk.pages.close(desk.one)
    assert look == ("page 1", False, ())  # as it was: whoever looked has not let go
    assert desk.pages.look(0.02) == ("", True, ())


def test_to_hand_back_is_no_loss(desk):
    desk.take(desk.one, 0.0)
    desk.order(desk.one, "back", 0.01)
    assert desk.pages.look(0.02) == ("", False, ())


def test_heartbeats_that_a_network_held_back_are_no_sign_of_life(desk):
    desk.take(desk.one, 0.0)
    desk.pages.made(2, 0.4)
    late = ECHO_S + LOST_S + 0.01
    desk.beat(desk.one, late, seen=1)  # answers what was made at 0 s
    desk.beat(desk.one, late, seen=7)  # what was never sent
    assert desk.pages.look(late).lost
    assert desk.pages.refused == {"a heartbeat that was under way for too long": 2}
    desk.beat(desk.two, late, seen=2)
    assert desk.two.beat_s == late


def test_without_a_heartbeat_nobody_takes_over(desk):
    desk.order(desk.one, "take", 1.0)
    assert desk.pages.look(1.0).holder == "" and "no heartbeat" in desk.one.told


def test_the_second_page_may_only_stop_until_the_first_has_handed_back(desk):
    desk.take(desk.one, 0.0)
    for what in ("stop", "take", "back", "success", "failure", "reset", "pause", "resume", "clear"):
        desk.beat(desk.two, 0.01)
        desk.order(desk.two, what, 0.01)
    assert desk.pages.look(0.02) == ("page 1", False, (("page 2", "stop"),))
    assert "page 1 (here) has the robot" in desk.two.told
    desk.order(desk.one, "back", 0.03)
    desk.take(desk.two, 0.04)
    assert desk.pages.look(0.05).holder == ""  # the guard must hear of the one before of the other
    desk.take(desk.two, 0.06)
    assert desk.pages.look(0.07).holder == "page 2"


def test_orders_of_any_page_count_while_none_has_the_robot(desk):
    for page, what in ((desk.one, "success"), (desk.two, "pause")):
        desk.order(page, what, 0.0)
    assert desk.pages.look(0.0).orders == (("page 1", "success"), ("page 2", "pause"))
    assert desk.pages.look(0.0).orders == ()


def test_no_more_than_so_many_pages_are_open(desk):
    assert desk.pages.open("elsewhere") is None
    desk.pages.close(desk.two)
    assert desk.pages.open("elsewhere").name == "page 3"
    assert desk.pages.refused == {"one page too many": 1}


def test_a_page_is_told_what_became_of_its_order_by_its_name(desk):
    desk.pages.tell("page 2", "there is no guard")
    desk.pages.close(desk.one)
    desk.pages.tell("page 1", "it is gone")
    assert (desk.one.told, desk.two.told) == ("", "there is no guard")


def test_what_was_refused_is_counted_in_one_thread_and_read_in_another(desk):
    seen = desk.pages.refused
    desk.pages.refuse("a flood")
    assert seen == {} and desk.pages.refused == {"a flood": 1}


def test_what_makes_sense_is_read():
    assert read('{"do": "pause"}') == Order("pause")
    assert read(beat(target=[0.4, 0, 0.3], gripper=-1)) == Beat(1, (0.0, 0.0, 1.0, 0.0, 0.0, 0.0), -1, (0.4, 0.0, 0.3))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no JSON"),
        ("[" * 1999, "no JSON"),
        ("9" * 1999, "neither"),  # Python reads no number of so many digits
        ("x" * 2001, "too long"),
        ("[]", "neither"),
        ('{"do": "stop", "seen": 1}', "neither"),
        ('{"do": {}}', "an unknown order"),
        (beat(twist=[0] * 5), "another shape"),
        (beat(twist="123456"), "another shape"),
        (beat(twist=[math.nan] * 6), "not within 1"),
        (beat(twist=[1.001, 0, 0, 0, 0, 0]), "not within 1"),
        (beat(twist=[True] * 6), "not within 1"),
        (beat(target=[math.inf, 0, 0]), "not within 3"),
        (beat(target=[0, 0, -3.1]), "not within 3"),
        (beat(gripper=2), "number or gripper"),
        (beat(seen=1.0), "number or gripper"),
    ],
)
def test_nonsense_is_refused_and_named(text, why, desk):
    if text[:1] == "9":
        why = "no JSON|neither"
    with pytest.raises(Refused, match=why):
        read(text)
    desk.take(desk.one, 0.0)
    desk.pages.hear(desk.one, text, 0.1)
    assert desk.pages.look(0.151).lost  # as if never sent
    assert sum(desk.pages.refused.values()) == 1
