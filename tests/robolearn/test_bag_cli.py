"""`robolearn bag`: what it says of whole, killed and broken bags, its page and its film."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bag_samples import MS, START_NS, STORE, image, joint_state, messages, topic, write
from rosbags.highlevel import AnyReader

from real.recording.bag import Bag, BagCfg
from real.recording.decode import Decoder, numbers
from real.recording.topic import Topic
from robolearn.cli import _bag_info, _bag_series, _bag_video
from robolearn.cli.main import main
from robolearn.errors import ConfigError


def said(path: Path, *sent: tuple[Topic, list[tuple[int, bytes]]], **cfg: Any) -> Path:
    """A bag of these topics: (ms after the start, payload)."""
    bag = Bag(path, BagCfg(reserve_mb=0.0, **cfg))
    for each, found in sent:
        bag.add_topic(each)
        for at, data in found:
            bag.write(each.name, START_NS + at * MS, START_NS + at * MS, data)
    bag.close()
    return path


def text(words: str) -> bytes:
    return bytes(STORE.serialize_cdr(STORE.types["std_msgs/msg/String"](words), "std_msgs/msg/String"))


def rows(out: str) -> dict[str, list[str]]:
    """The table of `bag info`: topic -> its columns."""
    return {
        line.split()[0]: line.split() for line in out.splitlines() if line.startswith("/") and "messages" not in line
    }


# --- info --------------------------------------------------------------------------------------------------


def test_info_counts_rates_and_gaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """100 Hz with a hole of 0.2 s, beside one message."""
    at = [*range(0, 500, 10), *range(700, 1001, 10)]
    said(tmp_path / "bag", (topic("/text", "std_msgs/msg/String"), [(t, text("x")) for t in at]),
         (topic("/once", "std_msgs/msg/String"), [(0, text("y"))]))  # fmt: skip
    assert main(["bag", "info", str(tmp_path / "bag")]) == 0
    out = capsys.readouterr().out
    assert "82 messages, 1.00 s from 2023-11-1" in out
    assert rows(out)["/text"] == ["/text", "81", "80.0", "0.00", "1", "0.21", "s", "std_msgs/msg/String"]
    assert rows(out)["/once"] == ["/once", "1", "0.00", "std_msgs/msg/String"]


def test_info_says_that_a_recorder_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: Any) -> None:
    bag = write(tmp_path / "bag", messages(50), end=False, **kind)
    assert main(["bag", "info", str(tmp_path / "bag")]) == 0
    found = capsys.readouterr()
    assert "55 messages" in found.out and "not ended by its recorder" in found.out
    bag.close()
    assert main(["bag", "info", str(tmp_path / "bag")]) == 0
    assert "not ended" not in capsys.readouterr().out


def test_info_tells_what_was_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bag = write(tmp_path / "bag", messages(20), end=False)
    bag.close({"/camera": 7})
    main(["bag", "info", str(tmp_path / "bag")])
    assert rows(capsys.readouterr().out)["/camera"][-2:] == ["7", "sensor_msgs/msg/Image"]


def test_a_killed_bag_is_recovered(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: Any) -> None:
    bag = write(tmp_path / "bag", messages(50), end=False, **kind)
    assert main(["bag", "recover", str(tmp_path / "bag")]) == 0
    assert "bag_recovered: 55 messages" in capsys.readouterr().out
    bag.close()
    with AnyReader([tmp_path / "bag_recovered"]) as reader:
        assert reader.message_count == 55
    assert main(["bag", "recover", str(tmp_path / "bag")]) == 2
    assert "never written over" in capsys.readouterr().err


def test_a_bag_may_be_where_one_stands_and_have_dots_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "grasp.v2", messages(5))
    monkeypatch.chdir(tmp_path / "grasp.v2")
    assert main(["bag", "info", "."]) == 0
    assert "6 messages" in capsys.readouterr().out
    assert main(["bag", "recover", "."]) == 0
    assert (tmp_path / "grasp.v2_recovered/metadata.yaml").exists()


def test_an_empty_bag_has_no_messages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said(tmp_path / "bag")
    assert main(["bag", "info", str(tmp_path / "bag")]) == 0
    assert "no messages" in capsys.readouterr().out


def test_gaps_by_hand() -> None:
    flow = _bag_info.Flow.of(np.array([0, 10, 20, 30, 40, 50, 60, 70, 100, 131, 140]) * 10**9, 5)
    assert (flow.count, flow.gaps, flow.longest_s, flow.bytes) == (
        11,
        1,
        pytest.approx(31.0),
        5,
    )  # 30 s is three periods: no gap
    assert flow.rate_hz == pytest.approx(10 / 140)


# --- plot --------------------------------------------------------------------------------------------------


def test_plot_draws_joints_states_and_ages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    states = [(k, joint_state(k)) for k in range(50)]
    said(
        tmp_path / "bag",
        (topic("/joint_states", "sensor_msgs/msg/JointState"), states),
        (topic("/guard/target", "sensor_msgs/msg/JointState"), states),
        (topic("/guard/state", "std_msgs/msg/String"), [(0, text("idle")), (20, text("active"))]),
    )
    assert main(["bag", "plot", str(tmp_path / "bag"), "fields=/joint_states.header.stamp"]) == 0
    page = (tmp_path / "bag.html").read_text()
    assert capsys.readouterr().out.strip() == str(tmp_path / "bag.html")
    for words in ("Joints: position", "Joints: velocity", "/guard/target", "active", "Age on arrival", ".header.stamp"):
        assert words in page
    assert not re.search(r"<script|<link|src=|@import|url\(http", page)  # it loads nothing


def test_series_hold_what_was_sent(tmp_path: Path) -> None:
    from real.recording.read import open_bag

    sent = [(10 * k, joint_state(k)) for k in range(5)]
    said(tmp_path / "bag", (topic("/joint_states", "sensor_msgs/msg/JointState"), sent))
    with open_bag(tmp_path / "bag") as recording:
        found = _bag_series.collect(recording, ["/joint_states.position[1]"], lambda done: None)
    position = found.series["/joint_states", "position"]
    assert position.names == ("a", "b") and position.times == pytest.approx([0.0, 0.01, 0.02, 0.03, 0.04])
    assert [row[0] for row in position.rows] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    assert found.series["/joint_states", ".position[1]"].rows == [[2.0]] * 5
    assert found.ages["/joint_states"][1] == pytest.approx((START_NS + 10 * MS - 10**9 * 1) * 1e-6)


def test_thinning_keeps_every_peak() -> None:
    values = np.zeros(10_000)
    values[[17, 5003]] = 5.0, -5.0
    times, kept = _bag_series.thinned(np.arange(10_000.0), values, 100)
    assert len(times) <= 200 and {5.0, -5.0} <= set(kept) and (np.diff(times) > 0).all()


def test_fields_of_a_message() -> None:
    each = topic("/a", "sensor_msgs/msg/JointState")
    message = Decoder([each])(joint_state(3), each.type)
    assert numbers(message, "position[0]") == pytest.approx(0.3)
    assert numbers(message, "header.stamp") == 3.0
    assert numbers(message, "velocity").tolist() == [0.0, 1.0]
    with pytest.raises(ConfigError, match="did you mean position"):
        numbers(message, "positon")
    with pytest.raises(ConfigError, match="no number"):
        numbers(message, "header")
    with pytest.raises(ConfigError, match="no field"):
        numbers(message, "position[x]")
    with pytest.raises(IndexError):
        numbers(message, "position[2]")


# --- video -------------------------------------------------------------------------------------------------


def test_video_shows_the_topics_side_by_side_in_their_time(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    left = [(100 * k, image(250 if k < 10 else 10)) for k in range(20)]
    right = [(100 * k, image(120, 32, 48)) for k in range(0, 20, 4)]
    kind = "sensor_msgs/msg/Image"
    said(tmp_path / "bag", (topic("/left", kind), left), (topic("/right", kind), right))
    assert main(["bag", "video", str(tmp_path / "bag"), f"out={tmp_path / 'film.mp4'}"]) == 0
    with av.open(str(tmp_path / "film.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
        assert float(film.streams.video[0].average_rate) == pytest.approx(10.0)
    assert 19 <= len(frames) <= 21
    assert frames[0].shape == (48, 64 + 32, 3)
    assert frames[5][:, :64].mean() > 235 and frames[15][:, :64].mean() < 30
    assert frames[10][:, 70:].mean() == pytest.approx(120, abs=8)


def test_pictures_that_cannot_be_read_are_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    av = pytest.importorskip("av")
    pictures = [(100 * k, image(200) if k % 3 else image(200)[:-9]) for k in range(10)]  # the first is broken, too
    said(tmp_path / "bag", (topic("/left", "sensor_msgs/msg/Image"), pictures))
    assert main(["bag", "video", str(tmp_path / "bag")]) == 0
    assert "/left: 4 pictures are left out" in caplog.text
    with av.open(str(tmp_path / "bag.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 10 and frames[-1].mean() == pytest.approx(200, abs=8)
    said(tmp_path / "all", (topic("/left", "sensor_msgs/msg/Image"), pictures[:1]))
    assert main(["bag", "video", str(tmp_path / "all")]) == 2


def test_pixels_of_each_encoding() -> None:
    kinds = STORE.types
    header = kinds["std_msgs/msg/Header"](kinds["builtin_interfaces/msg/Time"](0, 0), "")

    def made(encoding: str, data: list[int], step: int = 0, width: int = 2, big: int = 0) -> np.ndarray:
        raw = np.array(data, np.uint8)
        return _bag_video.pixels(
            kinds["sensor_msgs/msg/Image"](header, 1, width, encoding, big, step or len(data), raw)
        )

    assert made("rgb8", [1, 2, 3, 4, 5, 6]).tolist() == [[[1, 2, 3], [4, 5, 6]]]
    assert made("bgr8", [1, 2, 3, 4, 5, 6, 9, 9], step=8).tolist() == [[[3, 2, 1], [6, 5, 4]]]
    assert made("bgra8", [1, 2, 3, 0, 4, 5, 6, 0]).tolist() == [[[3, 2, 1], [6, 5, 4]]]
    assert made("mono8", [7, 8]).tolist() == [[[7] * 3, [8] * 3]]
    assert made("16UC1", [0xC4, 0x09, 0, 0]).tolist() == [[[127] * 3, [0] * 3]]  # 2500 mm of 5 m, and none
    assert made("16UC1", [0x09, 0xC4, 0, 0], big=1).tolist() == [[[127] * 3, [0] * 3]]
    with pytest.raises(ConfigError, match="no encoding 'yuv'"):
        made("yuv", [1, 2])
    with pytest.raises(ConfigError, match="cannot be 2x1 rgb8"):
        made("rgb8", [1, 2, 3])


def test_a_compressed_image_is_unpacked() -> None:
    av = pytest.importorskip("av")
    import io

    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as container:
        stream = container.add_stream("png")
        stream.width, stream.height, stream.pix_fmt = 4, 2, "rgb24"
        picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    kinds = STORE.types
    header = kinds["std_msgs/msg/Header"](kinds["builtin_interfaces/msg/Time"](0, 0), "")
    made = kinds["sensor_msgs/msg/CompressedImage"]
    data = np.frombuffer(file.getvalue(), np.uint8)
    assert _bag_video.pixels(made(header, "png", data)).tolist() == picture.tolist()
    with pytest.raises(ConfigError, match="compressed image"):
        _bag_video.pixels(made(header, "jpeg", data[20:]))


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "what shall be done"),
        (["inf"], "did you mean info"),
        (["info"], "which bag"),
        (["info", "none"], "there is no none"),
        (["plot", "bag", "out=page.pdf"], "must be a .html"),
        (["plot", "bag", "out=nowhere/page.html"], "folder of nowhere/page.html does not exist"),
        (["plot", "bag", "fields=/text.data"], "no number"),
        (["plot", "bag", "fields=/txt.data"], "did you mean /text"),
        (["plot", "bag", "fields=/text"], "names no field"),
        (["plot", "odd"], "nothing to draw"),
        (["video", "bag"], "holds no images"),
        (["video", "bag", "topics=/text"], "no image topic"),
        (["info", "bag", "colour=red"], "colour"),
        (["info", "text.txt"], "no file of a bag"),
        (["info", "broken.mcap"], "is no MCAP file"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said(Path("bag"), (topic("/text", "std_msgs/msg/String"), [(0, text("x"))]))
    said(Path("odd"), (Topic("/odd", "lab_msgs/msg/Odd"), [(0, b"\0\1\0\0\0\0\0\0")]))
    Path("text.txt").write_text("x")
    Path("broken.mcap").write_bytes(b"x")
    assert main(["bag", *words]) == 2
    err = capsys.readouterr().err.strip()
    assert why in err and len(err.splitlines()) == 1


def test_a_type_without_definition_is_counted_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    broken = topic("/state", "std_msgs/msg/String")
    said(
        tmp_path / "bag",
        (Topic("/odd", "lab_msgs/msg/Odd"), [(0, b"\0\1\0\0\1")]),
        (broken, [(0, text("x")), (9, b"\0\1\0\0\xff\xff")]),
    )
    assert main(["bag", "info", str(tmp_path / "bag")]) == 0
    assert "lab_msgs/msg/Odd" in capsys.readouterr().out
    assert main(["bag", "plot", str(tmp_path / "bag")]) == 0
    assert "is no std_msgs/msg/String" in (tmp_path / "bag.html").read_text()


@pytest.fixture(params=["mcap", "sqlite3"])
def kind(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"storage": request.param}
