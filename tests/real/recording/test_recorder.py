"""The thread that writes: what it drops when the disk is slow, and what a kill takes."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from bag_samples import TOPICS, image, messages

from real.recording.bag import Bag, BagCfg
from real.recording.read import open_bag
from real.recording.recorder import Recorder
from real.recording.topic import Message

WRITER = """
import sys, time
from pathlib import Path
from real.recording.bag import Bag, BagCfg
from real.recording.recorder import Recorder
from real.recording.topic import Message
from bag_samples import TOPICS, image
folder, storage, packed, split_s = sys.argv[1:]
cfg = BagCfg(storage=storage, zstd=packed == "True", split_s=float(split_s), reserve_mb=0.0)
recorder = Recorder(Bag(Path(folder), cfg))
for topic in TOPICS:
    recorder.add_topic(topic)
picture = image(7)
for k in range(10**9):
    now = time.time_ns()
    recorder.put(Message("/joint_states", now, k, b"\\0\\1\\0\\0" + k.to_bytes(4, "little")))
    if k % 33 == 0:
        recorder.put(Message("/camera", now, k, picture))
    if k == 0:
        print("begun", flush=True)
    time.sleep(0.001)
"""
LOST_S = 1.0


def recorder(path: Path, queue_mb: float = 256.0, **cfg: Any) -> Recorder:
    made = Recorder(Bag(path, BagCfg(reserve_mb=0.0, **cfg)), queue_mb)
    for topic in TOPICS:
        made.add_topic(topic)
    return made


def test_all_is_written_when_it_is_closed(tmp_path: Path, kind: dict[str, Any]) -> None:
    made, sent = recorder(tmp_path / "bag", **kind), messages(100)
    for message in sent:
        made.put(message)
    made.close()
    made.close()
    assert not made.lost and made.written == len(sent) and made.waiting_bytes == 0
    with open_bag(tmp_path / "bag") as recording:
        assert len(list(recording.messages())) == len(sent)


def test_a_slow_disk_costs_messages_that_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recorder(tmp_path / "bag", queue_mb=0.05)
    slow = Bag.write
    monkeypatch.setattr(Bag, "write", lambda *args: (time.sleep(0.1), slow(*args))[1])
    sent = [m for m in messages(200) if m.topic == "/camera"]
    began = time.monotonic()
    for message in sent:
        made.put(message)
    assert time.monotonic() - began < 0.5
    made.close()
    assert 0 < made.lost["/camera"] < len(sent)
    with open_bag(tmp_path / "bag") as recording:
        assert len(list(recording.messages())) + made.lost["/camera"] == len(sent)
        assert recording.lost == dict(made.lost)


def test_a_limit_ends_it_with_a_word(tmp_path: Path) -> None:
    made = recorder(tmp_path / "bag", limit_mb=1.0)
    for message in messages(2000):
        made.put(message)
    made.close()
    assert "has reached its limit" in made.error
    with open_bag(tmp_path / "bag") as recording:
        assert recording.complete
        assert len(list(recording.messages())) + made.lost.total() == 2200


def test_a_broken_disk_ends_it_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = recorder(tmp_path / "bag")
    made.put(messages(1)[0])

    def broken(bag: Bag) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Bag, "flush", broken)
    end = time.monotonic() + 10.0
    while not made.error:
        assert time.monotonic() < end
        time.sleep(0.01)
    made.put(messages(1)[0])
    made.close()
    assert "Input/output" in made.error and made.lost["/joint_states"] == 2  # one was not flushed, one came after


@pytest.mark.parametrize("room", [300_000, 3_000_000])
def test_a_disk_that_is_full_costs_messages_that_are_counted(
    tmp_path: Path, kind: dict[str, Any], caplog: pytest.LogCaptureFixture, room: int
) -> None:
    """No file may grow beyond `room` bytes."""
    kind, sent = kind | {"zstd": False}, [m for m in messages(6000) if m.topic == "/camera"]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    made = recorder(tmp_path / "bag", **kind)
    time.sleep(0.1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        for message in sent:
            made.put(message)
        made.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert made.error and not [record for record in caplog.records if record.exc_info]
    with open_bag(tmp_path / "bag") as recording:
        kept = list(recording.messages())
    assert [m.data for m in kept] == [m.data for m in sent[: len(kept)]]
    assert len(kept) + made.lost["/camera"] == len(sent)
    assert made.bag.metadata()["message_count"] == len(kept)


def test_losses_are_noted_while_it_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("real.recording.recorder.METADATA_S", 0.0)
    made = recorder(tmp_path / "bag", queue_mb=1e-6)
    made.put(messages(1)[0])
    end = time.monotonic() + 10.0
    while True:
        with open_bag(tmp_path / "bag") as recording:
            if recording.lost == {"/joint_states": 1}:
                break
        assert time.monotonic() < end
    assert not recording.complete
    made.close()


def test_losses_can_be_asked_for_while_topics_are_added_to_them(tmp_path: Path) -> None:
    """Without a copy in one step: dictionary changed size during iteration."""
    made, interval = recorder(tmp_path / "bag", queue_mb=1e-6), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    data, stop = bytes(100), threading.Event()

    def put() -> None:
        for k in range(20_000):
            made.put(Message(f"/{k}", 1, 1, data))
        stop.set()

    thread = threading.Thread(target=put)
    thread.start()
    try:
        while not stop.is_set():
            made.lost  # noqa: B018
    finally:
        thread.join()
        sys.setswitchinterval(interval)
        made.close()
    assert made.lost.total() == 20_000


def test_a_split_that_was_asked_for(tmp_path: Path) -> None:
    made, sent = recorder(tmp_path / "bag"), messages(20)
    for message in sent[:11]:
        made.put(message)
    made.split()
    for message in sent[11:]:
        made.put(message)
    made.close()
    with open_bag(tmp_path / "bag") as recording:
        assert [f.name for f in recording.files] == ["bag_0.mcap", "bag_1.mcap"]
        assert len(list(recording.messages())) == len(sent)


def test_a_kill_takes_less_than_a_second(tmp_path: Path, kind: dict[str, Any]) -> None:
    """At any moment, with and without splits: all up to the last second is there, in order, without a hole."""
    dice, here = random.Random(3), Path(__file__).resolve().parent
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(here), str(here.parents[2])))}
    for attempt in range(4):
        path = tmp_path / f"bag{attempt}"
        words = [sys.executable, "-c", WRITER, str(path), kind["storage"], str(kind["zstd"]),
                 str(0.7 * (attempt % 2))]  # fmt: skip
        process = subprocess.Popen(words, stdout=subprocess.PIPE, env=env)
        assert process.stdout is not None and process.stdout.readline() == b"begun\n"
        time.sleep(dice.uniform(0.6, 1.8))
        process.send_signal(signal.SIGKILL)
        killed_ns = time.time_ns()
        process.communicate()
        with open_bag(path) as recording:
            found = list(recording.messages())
            assert not recording.complete
        states = [m for m in found if m.topic == "/joint_states"]
        numbers = [int.from_bytes(m.data[4:], "little") for m in states]
        assert numbers == list(range(len(states)))
        assert killed_ns - states[-1].log_ns < LOST_S * 1e9
        pictures = [m for m in found if m.topic == "/camera"]
        assert len(pictures) >= len(states) // 33
        assert all(m.data == image(7) for m in pictures)
