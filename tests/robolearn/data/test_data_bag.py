"""Bags become episodes: interpolation by hand, joints in another order, gaps, clocks, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_samples import MS, START_NS, STORE, topic

from real.recording.bag import Bag, BagCfg
from robolearn.cli.main import main
from robolearn.data.layout import DataError
from robolearn.data.read import Episodes
from robolearn.data.resample import slerp, stream, ticks_of

pytest.importorskip("pyarrow")
pytest.importorskip("av")

JOINTS, ARRAY, IMAGE = "sensor_msgs/msg/JointState", "std_msgs/msg/Float64MultiArray", "sensor_msgs/msg/Image"
POSE, BOOL = "geometry_msgs/msg/PoseStamped", "std_msgs/msg/Bool"
STATE, COMMAND, CAMERA = "/joint_states", "/forward_position_controller/commands", "/front/image_raw"
FRONT = "observation.images.front"
Sent = list[tuple[str, str, float, Any]]
"""Topic, type, time of reception (ms after the start) and message."""


def header(ms: float | None) -> Any:
    """Stamped so long after the start; without a stamp for None."""
    ns = 0 if ms is None else START_NS + round(ms * MS)
    time = STORE.types["builtin_interfaces/msg/Time"](ns // 10**9, ns % 10**9)
    return STORE.types["std_msgs/msg/Header"](time, "base")


def joints(ms: float | None, *values: float, names: tuple[str, ...] = ("a", "b")) -> Any:
    return STORE.types[JOINTS](header(ms), list(names), np.array(values), np.zeros(0), np.zeros(0))


def array(*values: float) -> Any:
    layout = STORE.types["std_msgs/msg/MultiArrayLayout"]([], 0)
    return STORE.types[ARRAY](layout, np.array(values))


def image(ms: float | None, level: int, side: int = 16) -> Any:
    return STORE.types[IMAGE](header(ms), side, side, "rgb8", 0, 3 * side, np.full(3 * side * side, level, np.uint8))


def pose(ms: float, x: float, quaternion: tuple[float, ...]) -> Any:
    kinds = STORE.types
    point, turn = kinds["geometry_msgs/msg/Point"](x, 0.0, 1.0), kinds["geometry_msgs/msg/Quaternion"](*quaternion)
    return kinds[POSE](header(ms), kinds["geometry_msgs/msg/Pose"](point, turn))


def recorded(path: Path, sent: Sent, end: bool = True) -> Path:
    bag = Bag(path, BagCfg(reserve_mb=0.0))
    for name, kind in dict.fromkeys((name, kind) for name, kind, _, _ in sent):
        bag.add_topic(topic(name, kind))
    for name, kind, ms, message in sorted(sent, key=lambda s: s[2]):
        at = START_NS + round(ms * MS)
        bag.write(name, at, at, bytes(STORE.serialize_cdr(message, kind)))
    (bag.close if end else bag.flush)()
    return path


def grasp(first_ms: float = 0.0) -> Sent:
    """0.3 s: joints every 30 ms from 0, 5 ms under way, a = the time in s; commands at 20 and 150; pictures each 40."""
    sent: Sent = []
    for ms in np.arange(0.0, 301.0, 30.0):
        sent.append((STATE, JOINTS, first_ms + ms + 5, joints(first_ms + ms, ms * 1e-3, (ms * 1e-3) ** 2)))
    sent += [(COMMAND, ARRAY, first_ms + ms, array(ms, -ms)) for ms in (20.0, 150.0)]
    for ms in np.arange(0.0, 281.0, 40.0):
        sent.append((CAMERA, IMAGE, first_ms + ms + 9, image(first_ms + ms, int(ms / 2))))
    return sent


def convert(bag: Path, out: Path, *words: str) -> Episodes:
    assert main(["data", "convert", str(bag), str(out), "codec=ffv1", *words]) == 0
    return Episodes(out)


def test_a_bag_becomes_an_episode_at_a_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ticks at 20 (the first command), 70, 120, ... up to 280 (the last picture)."""
    found = convert(recorded(tmp_path / "bag", grasp()), tmp_path / "set", "fps=20", "task=grasp")
    said = capsys.readouterr().out
    assert f"observation.state={STATE} action={COMMAND} {FRONT}={CAMERA}" in said
    assert (len(found), found.length(0), found.fps, found.task(0)) == (1, 6, 20, "grasp")
    assert found.info.features["observation.state"].names == ("a", "b")
    numbers, ticks = found.episode(0), np.array([20.0, 70, 120, 170, 220, 270])
    np.testing.assert_allclose(numbers["observation.state"][:, 0], ticks * 1e-3, atol=1e-7)
    third = 1 / 3  # 70 ms lies one third of the way from 60 to 90
    np.testing.assert_allclose(numbers["observation.state"][1, 1], 0.06**2 + third * (0.09**2 - 0.06**2), atol=1e-8)
    assert numbers["action"][:, 0].tolist() == [20.0, 20, 20, 150, 150, 150]
    pictures = found.pictures(FRONT, 0, range(6))[:, 0, 0, 0].tolist()
    assert pictures == [0, 20, 60, 80, 100, 120]  # of 0, 40, 120, 160, 200, 240 ms


def test_bags_are_appended_and_a_folder_of_bags_is_taken(tmp_path: Path) -> None:
    folder = tmp_path / "bags"
    folder.mkdir()
    for k in range(2):
        recorded(folder / f"grasp_{k}", grasp(1000.0 * k))
    assert len(convert(folder, tmp_path / "set", "fps=20")) == 2
    found = convert(recorded(tmp_path / "more", grasp()), tmp_path / "set", "fps=20")
    assert len(found) == 3
    np.testing.assert_allclose(found.episode(1)["observation.state"], found.episode(2)["observation.state"], atol=1e-6)


def test_other_rules_are_refused_on_appending(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = recorded(tmp_path / "bag", grasp())
    convert(bag, tmp_path / "set", "fps=20")
    assert main(["data", "convert", str(bag), str(tmp_path / "set"), "fps=20", "gap_s=0.4"]) > 0
    assert "gap_s: 0.5 != 0.4" in capsys.readouterr().err


def test_joints_may_come_in_another_order(tmp_path: Path) -> None:
    sent: Sent = [(STATE, JOINTS, 0, joints(0, 1.0, 2.0)),
                  (STATE, JOINTS, 50, joints(50, 9.0, names=("finger",))),
                  (STATE, JOINTS, 100, joints(100, 2.0, 1.0, names=("b", "a")))]  # fmt: skip
    found = convert(recorded(tmp_path / "bag", sent), tmp_path / "set", "fps=10").episode(0)["observation.state"]
    np.testing.assert_array_equal(found, [[1, 2], [1, 2]])


def test_a_field_of_several_topics_and_kinds(tmp_path: Path) -> None:
    """A pose turns by 90 degrees about z on the arc; truth values are held; a key given twice is joined."""
    half = 0.5**0.5
    sent: Sent = [("/tool", POSE, 0, pose(0, 0.0, (0, 0, 0, 1))),
                  ("/tool", POSE, 100, pose(100, 1.0, (0, 0, half, half))),
                  ("/grip", BOOL, 0, STORE.types[BOOL](False)), ("/grip", BOOL, 60, STORE.types[BOOL](True)),
                  (STATE, JOINTS, 0, joints(0, 5.0, 6.0)), (STATE, JOINTS, 100, joints(100, 7.0, 8.0))]  # fmt: skip
    words = f"observation.state=/tool observation.state={STATE}:position[1] observation.held=/grip"
    episodes = convert(recorded(tmp_path / "bag", sent), tmp_path / "set", "fps=20", f"topics={words}")
    names = episodes.info.features["observation.state"].names
    assert names is None or "position.x" in names
    found = episodes.episode(0)
    turn = np.deg2rad(45.0) / 2
    np.testing.assert_allclose(
        found["observation.state"][1], [0.5, 0, 1, 0, 0, np.sin(turn), np.cos(turn), 7.0], atol=1e-6
    )
    assert found["observation.held"][:, 0].tolist() == [False, False, True]
    assert episodes.info.features["observation.held"].dtype == "bool"


def test_a_gap_is_named_or_splits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sent = [s for s in grasp() if not (s[0] == CAMERA and 100 < s[2] < 200)]  # pictures at 0, 40, 80, 200, ...
    bag = recorded(tmp_path / "bag", sent)
    assert main(["data", "convert", str(bag), str(tmp_path / "set"), "fps=50", "gap_s=0.05"]) > 0
    error = capsys.readouterr().err
    assert f"{bag}: {CAMERA} has a gap of 0.120 s (limit 0.05 s) 0.060 s after the first tick" in error
    assert "gaps=split" in error and not (tmp_path / "set").exists()
    found = convert(bag, tmp_path / "set", "fps=50", "gap_s=0.05", "gaps=split")
    assert [found.length(e) for e in found.ids] == [6, 5]  # 20 to 120 ms; 200 to 280
    assert found.pictures(FRONT, 1, [0])[0, 0, 0, 0] == 100
    np.testing.assert_allclose(found.episode(1)["observation.state"][:, 0], [0.2, 0.22, 0.24, 0.26, 0.28], atol=1e-6)


def test_a_clock_that_differs_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Joints stamped by a clock that is an hour late: their time of reception can be taken instead."""
    sent = [(n, k, ms, joints(ms - 3.6e6, ms, 0.0) if n == STATE else m) for n, k, ms, m in grasp()]
    bag = recorded(tmp_path / "bag", sent)
    assert main(["data", "convert", str(bag), str(tmp_path / "set"), "fps=20"]) > 0
    assert f"at no time there is a value of all: {STATE} 0.000 to 0.300 s, {COMMAND} 3600.0" in capsys.readouterr().err
    found = convert(bag, tmp_path / "set", "fps=20", "stamps=receive").episode(0)["observation.state"]
    np.testing.assert_allclose(found[:3, 0], [20, 70, 120], atol=1e-4)


def test_without_a_stamp_the_time_of_reception_counts(tmp_path: Path) -> None:
    sent: Sent = [(STATE, JOINTS, ms, joints(None, ms, 0.0)) for ms in (0, 70, 100)]
    found = convert(recorded(tmp_path / "bag", sent), tmp_path / "set", "fps=20").episode(0)["observation.state"]
    np.testing.assert_allclose(found[:, 0], [0, 50, 100], atol=1e-4)


BAD: list[tuple[Sent, list[str], str]] = [
    ([(STATE, JOINTS, 0, joints(0, 0.0, 0.0)), (STATE, JOINTS, 50, joints(50, 0.0, np.nan))], ["fps=20"],
     f"{STATE}: 0.050 s after its first message: element 1 is nan"),
    ([(STATE, JOINTS, 0, joints(0, 0.0, 0.0)), (STATE, JOINTS, 50, joints(50, 0.0, names=("a",)))], ["fps=20"],
     "it lacks the joints b of the topic's first message"),
    ([("/x", ARRAY, 0, array(1.0)), ("/x", ARRAY, 50, array(1.0, 2.0))], ["fps=20", "topics=action=/x"],
     "it has 2 numbers, the topic's first message 1"),
    (grasp(), [], "give fps="),
    (grasp(), ["fps=20", "topics=action=/comands"], "no topic '/comands'"),
    (grasp(), ["fps=20", f"topics=action={CAMERA}"], "pictures, and nothing else, go to observation.images.NAME"),
    (grasp(), ["fps=20", f"topics=action={STATE}:positon"], "no field 'positon'; did you mean position"),
    (grasp(), ["fps=20", f"topics=action={STATE}:name"], "name is no number"),
    (grasp(), ["fps=20", "topics=action"], "'action' is not KEY=/TOPIC or KEY=/TOPIC:FIELD"),
    (grasp(), ["fps=20", "gaps=fill"], "no gaps 'fill'"),
    ([*grasp(), ("/b/joint_states", JOINTS, 0, joints(0, 0.0, 0.0))], ["fps=20"],
     "/b/joint_states, /joint_states could each be observation.state: say it in topics="),
    (grasp(), ["fps=20", f"topics=action={STATE} action={STATE}"], f"action={STATE} is given twice"),
    ([(STATE, JOINTS, 0, joints(0, 0.0, 0.0)), (STATE, JOINTS, 900, joints(900, 0.0, 0.0))],
     ["fps=20", f"topics=observation.state={STATE} action={STATE}"], f"{STATE} has a gap of 0.900 s (limit 0.5 s)"),
    ([("/x", ARRAY, 0, array(1.0))], ["fps=20"], "has neither joints nor pictures: say what to take in topics= (/x)"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "words", "message"), BAD, ids=range(len(BAD)))
def test_bad_bags_and_words(
    tmp_path: Path, sent: Sent, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = recorded(tmp_path / "bag", sent)
    assert main(["data", "convert", str(bag), str(tmp_path / "set"), *words]) > 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_the_arc_is_the_shorter_one() -> None:
    one, turned = np.array([[0.0, 0, 0, 1]]), np.array([[0.0, 0, -np.sin(0.5), -np.cos(0.5)]])  # 1 rad about z, negated
    found = slerp(one, turned, np.array([[0.25]]))
    np.testing.assert_allclose(found, [[0, 0, np.sin(0.125), np.cos(0.125)]], atol=1e-12)
    np.testing.assert_allclose(slerp(one, -one, np.array([[0.5]])), one)
    assert not slerp(0 * one, 0 * one, np.array([[0.5]])).any()  # of an IMU that knows no orientation; not NaN


def test_streams_in_disorder() -> None:
    """In the order of time; of two at one time the later message counts; ticks are whole numbers of a rate."""
    made, order = stream("x", "line", [30, 10, 20, 20], np.array([[3.0], [1], [7], [2]]), gap_s=1e-6)
    assert (made.times_ns.tolist(), made.values[:, 0].tolist(), order.tolist()) == ([10, 20, 30], [1, 2, 3], [1, 3, 0])
    late, _ = stream("y", "hold", [10**9, 3 * 10**9], np.zeros((2, 1)), gap_s=1.0)
    assert ticks_of([late], 3.0).tolist() == [
        10**9,
        1333333333,
        1666666667,
        2 * 10**9,
        2333333333,
        2666666667,
        3 * 10**9,
    ]
    with pytest.raises(DataError, match=r"at no time there is a value of all: x 0.000 to 0.000 s, y 1.000 to 3.000 s"):
        ticks_of([made, late], 3.0)


@pytest.mark.parametrize("fps", [20.0, 30.0, 29.97, 60.0, 7.0])
def test_a_recording_at_the_rate_keeps_its_last_value(fps: float) -> None:
    """Times are whole nanoseconds: the last one may be earlier than that many periods, and is a tick all the same."""
    for count in range(1, 60):
        times = [10**9 + round(k * 1e9 / fps) for k in range(count)]
        made, _ = stream("x", "line", times, np.zeros((count, 1)), gap_s=1.0)
        assert ticks_of([made], fps).tolist() == times
        early, _ = stream("x", "line", [*times[:-1], times[-1] - 1], np.zeros((count, 1)), gap_s=1.0)
        assert len(ticks_of([early], fps)) == max(count - 1, 1)


def test_a_bag_whose_recorder_was_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = convert(recorded(tmp_path / "bag", grasp(), end=False), tmp_path / "set", "fps=20")
    assert found.length(0) == 6
    assert "its recorder did not end it (killed?)" in caplog.text
