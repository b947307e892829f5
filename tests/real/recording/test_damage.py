"""Bags that a kill, a cut or a broken disk has left: what was whole is read, the rest is named."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from bag_samples import TOPICS, messages, write

from real.recording.read import open_bag
from robolearn.errors import ConfigError


def test_an_mcap_file_cut_anywhere_keeps_all_whole_chunks(tmp_path: Path) -> None:
    sent = messages(40)
    write(tmp_path / "bag", sent, every=5)
    whole = (tmp_path / "bag/bag_0.mcap").read_bytes()
    before = -1
    for length in sorted({8, len(whole), *random.Random(1).sample(range(8, len(whole)), 200)}):
        (tmp_path / "cut.mcap").write_bytes(whole[:length])
        with open_bag(tmp_path / "cut.mcap") as recording:
            found = list(recording.messages())
            assert recording.complete == (length == len(whole))
        assert [m.data for m in found] == [m.data for m in sent[: len(found)]]
        assert len(found) % 5 == 0 or len(found) == len(sent)
        assert len(found) >= before
        before = len(found)
    assert before == len(sent)


def test_a_cut_file_says_so(tmp_path: Path) -> None:
    write(tmp_path / "bag", messages(40), every=5)
    whole = (tmp_path / "bag/bag_0.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[:20000])
    with open_bag(tmp_path / "cut.mcap") as recording:
        list(recording.messages())
        assert "ends in the middle of a record" in " ".join(recording.trouble)


def test_a_bag_that_was_never_ended_is_read(tmp_path: Path, kind: dict[str, Any]) -> None:
    """As after a kill: the files are copied while they are open."""
    sent = messages(40)
    bag = write(tmp_path / "bag", sent, end=False, **kind)
    shutil.copytree(tmp_path / "bag", tmp_path / "copy")
    with open_bag(tmp_path / "copy") as recording:
        assert not recording.complete
        assert sorted(m.log_ns for m in recording.messages()) == sorted(m.log_ns for m in sent)
        assert recording.topics["/camera"] == TOPICS[1]
    bag.close()


def test_a_bag_without_metadata_is_read(tmp_path: Path, kind: dict[str, Any]) -> None:
    write(tmp_path / "bag", messages(30), split_s=0.02, **kind)
    (tmp_path / "bag/metadata.yaml").write_text("rosbag2_bagfile_inform")
    with open_bag(tmp_path / "bag") as recording:
        assert recording.metadata is None
        assert len(list(recording.messages())) == 33


def test_a_bag_between_two_files_is_not_ended(tmp_path: Path, kind: dict[str, Any]) -> None:
    bag = write(tmp_path / "bag", messages(30), end=False, **kind)
    bag._close_file()
    with open_bag(tmp_path / "bag") as recording:
        assert not recording.complete and not recording.trouble
    bag._open()
    bag.close()
    with open_bag(tmp_path / "bag") as recording:
        assert recording.complete


def test_a_file_that_was_only_made_does_not_hide_the_others(tmp_path: Path, kind: dict[str, Any]) -> None:
    """A kill in the moment of a split."""
    write(tmp_path / "bag", messages(30), **kind)
    suffix = next((tmp_path / "bag").glob("bag_0.*")).suffix
    (tmp_path / f"bag/bag_1{suffix}").touch()
    with open_bag(tmp_path / "bag") as recording:
        assert len(list(recording.messages())) == 33
        assert not recording.complete and recording.trouble == [f"bag_1{suffix}: is empty"]


def test_a_damaged_chunk_is_left_out_and_named(tmp_path: Path) -> None:
    sent = messages(40)
    write(tmp_path / "bag", sent, every=11)
    path = tmp_path / "bag/bag_0.mcap"
    data = bytearray(path.read_bytes())
    data[data.index(b"rgb8", 30000) + 100] ^= 1
    path.write_bytes(data)
    with open_bag(path) as recording:
        found = list(recording.messages())
        assert len(found) == len(sent) - 11
        assert "is damaged" in " ".join(recording.trouble)


@pytest.mark.parametrize("seed", range(4))
def test_rubbish_is_read_or_refused_in_a_line(tmp_path: Path, kind: dict[str, Any], seed: int) -> None:
    write(tmp_path / "bag", messages(10), every=3, **kind)
    path = next((tmp_path / "bag").glob("bag_0*"))
    whole, dice = path.read_bytes(), random.Random(seed)
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(dice.choice((1, 3, 30))):
            data[dice.randrange(len(data))] = dice.randrange(256)
        path.write_bytes(data[: dice.choice((len(data), dice.randrange(len(data))))])
        try:
            with open_bag(path) as recording:
                list(recording.headers())
                list(recording.messages())
        except ConfigError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("none", None, "there is no"),
        ("empty", (), "is no bag"),
        ("notes.txt", b"hello", "no file of a bag"),
        ("bag.mcap", b"hello", "is no MCAP file"),
        ("bag.mcap", b"", "it is empty"),
        ("bag.db3", b"hello, this is text", "is no SQLite file"),
        ("bag.db3", b"SQLite format 3\0rubbish", "cannot be read"),
        ("bag.db3", b"", "no tables"),
    ],
)
def test_what_is_no_bag_is_refused(tmp_path: Path, name: str, content: Any, why: str) -> None:
    if content == ():
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=why):
        open_bag(tmp_path / name)


def test_a_topic_that_is_not_there_is_named_with_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "bag", messages(2))
    with open_bag(tmp_path / "bag") as recording, pytest.raises(ConfigError, match="did you mean /camera"):
        list(recording.messages(["/camara"]))
