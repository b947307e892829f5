"""Bags, read by others' readers: what is in them, how they split, where they end."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path
from typing import Any

import pytest
import yaml
from bag_samples import MS, OFFER, START_NS, STORE, TOPICS, image, messages, write
from mcap.reader import make_reader
from mcap.records import Chunk, MessageIndex
from mcap.stream_reader import StreamReader
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

from real.recording import bag as bags
from real.recording.bag import Bag, BagCfg, BagFullError
from real.recording.read import open_bag
from robolearn.errors import ConfigError


def by_others(path: Path) -> list[tuple[str, int, bytes]]:
    """(topic, time of reception, payload) by the reader of the format's own makers, in the order of the files."""
    info = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    found = []
    for name in info["relative_file_paths"]:
        if name.endswith(".mcap"):
            with (path / name).open("rb") as file:
                found += [(c.topic, m.log_time, m.data) for _, c, m in make_reader(file, True).iter_messages()]
        else:
            db = sqlite3.connect(f"file:{path / name}?mode=ro&immutable=1", uri=True)
            query = (
                "SELECT name, timestamp, data FROM messages JOIN topics ON topic_id = topics.id ORDER BY messages.id"
            )
            found += db.execute(query).fetchall()
    return found


def test_others_read_every_byte(tmp_path: Path, kind: dict[str, Any]) -> None:
    sent = messages(50)
    write(tmp_path / "bag", sent, **kind)
    assert sorted(by_others(tmp_path / "bag")) == sorted((m.topic, m.log_ns, bytes(m.data)) for m in sent)


def test_rosbags_reads_it_by_the_definitions_in_it(tmp_path: Path, kind: dict[str, Any]) -> None:
    """AnyReader refuses a bag whose type hashes are not those of its definitions."""
    write(tmp_path / "bag", messages(20), **kind)
    with AnyReader([tmp_path / "bag"]) as reader:
        assert {c.topic: c.digest for c in reader.connections} == {t.name: t.hash for t in TOPICS}
        found = [(c.topic, reader.deserialize(data, c.msgtype)) for c, _, data in reader.messages()]
        assert reader.duration == 19 * MS + 1
    states = [m for name, m in found if name == "/joint_states"]
    assert [m.position[0] for m in states] == pytest.approx([0.1 * k for k in range(20)])
    assert [len(m.data) for name, m in found if name == "/camera"] == [3 * 64 * 48] * 2


def test_ours_reads_it_with_both_times(tmp_path: Path, kind: dict[str, Any]) -> None:
    sent = messages(30)
    write(tmp_path / "bag", sent, **kind)
    with open_bag(tmp_path / "bag") as recording:
        found = list(recording.messages())
        assert recording.complete and not recording.trouble
        assert recording.topics == {t.name: t for t in TOPICS}
    assert sorted((m.topic, m.log_ns, m.data) for m in found) == sorted((m.topic, m.log_ns, m.data) for m in sent)
    if kind["storage"] == "mcap":
        assert all(m.publish_ns == m.log_ns - MS for m in found)


def test_a_file_says_type_hash_definition_and_qos(tmp_path: Path) -> None:
    write(tmp_path / "a", messages(3), storage="mcap")
    write(tmp_path / "b", messages(3), storage="sqlite3")
    with (tmp_path / "a/a_0.mcap").open("rb") as file:
        reader = make_reader(file)
        assert reader.get_header().profile == "ros2"
        summary = reader.get_summary()
        (info,) = [m for m in reader.iter_metadata() if m.name == "rosbag2"]
    db = sqlite3.connect(tmp_path / "b/b_0.db3")
    for each in TOPICS:
        (channel,) = [c for c in summary.channels.values() if c.topic == each.name]
        schema = summary.schemas[channel.schema_id]
        assert (schema.name, schema.encoding, schema.data.decode()) == (each.type, "ros2msg", each.definition)
        assert channel.message_encoding == "cdr" and channel.metadata["topic_type_hash"] == each.hash
        assert yaml.safe_load(channel.metadata["offered_qos_profiles"]) == [OFFER]
        row = db.execute("SELECT type, offered_qos_profiles, type_description_hash FROM topics WHERE name = ?",
                         (each.name,)).fetchone()  # fmt: skip
        assert (row[0], yaml.safe_load(row[1]), row[2]) == (each.type, [OFFER], each.hash)
    assert yaml.safe_load(info.metadata["serialized_metadata"])["message_count"] == 4
    assert summary.statistics.message_count == 4 and summary.statistics.channel_message_counts == {1: 3, 2: 1}


def test_message_indexes_point_at_their_messages(tmp_path: Path) -> None:
    write(tmp_path / "bag", messages(25), every=8)
    with (tmp_path / "bag/bag_0.mcap").open("rb") as file:
        records = list(StreamReader(file, emit_chunks=True).records)
    chunk, found = b"", 0
    for each in records:
        if isinstance(each, Chunk):
            chunk = each.data
        elif isinstance(each, MessageIndex):
            for log_ns, offset in each.records:
                kind, _, channel, _, at, _ = struct.unpack_from("<BQHIQQ", chunk, offset)
                assert (kind, channel, at) == (5, each.channel_id, log_ns)
                found += 1
    assert found == 28


def test_metadata_have_the_fields_of_another_writer(tmp_path: Path) -> None:
    """rosbags writes version 9, as ROS 2 Jazzy does."""
    with Writer(tmp_path / "theirs", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/camera", "sensor_msgs/msg/Image", typestore=STORE)
        writer.write(connection, START_NS, image(0))
    write(tmp_path / "ours", messages(1))

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shape(inner) for key, inner in value.items()}
        return [shape(value[0])] if isinstance(value, list) and value else type(value).__name__

    theirs, ours = (yaml.safe_load((tmp_path / n / "metadata.yaml").read_text()) for n in ("theirs", "ours"))
    theirs["rosbag2_bagfile_information"]["topics_with_message_count"][0]["topic_metadata"]["offered_qos_profiles"] = [
        OFFER
    ]
    assert shape(ours) == shape(theirs)


# --- splits and limits -------------------------------------------------------------------------------------


def test_splits_by_size(tmp_path: Path, kind: dict[str, Any]) -> None:
    sent = messages(2000)  # 2.1 MB of images and 0.2 MB of states
    write(tmp_path / "bag", sent, split_mb=1.0, **kind)
    files = sorted(p.name for p in (tmp_path / "bag").glob("bag_*"))
    suffix = bags.FILES[kind["storage"]].SUFFIX
    assert files[:2] == [f"bag_0{suffix}", f"bag_1{suffix}"] or kind["zstd"]
    info = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert info["relative_file_paths"] == files and info["message_count"] == len(sent)
    if not kind["zstd"]:
        assert len(files) == 3
        assert all((tmp_path / "bag" / name).stat().st_size < 1.15e6 for name in files)
    assert len(by_others(tmp_path / "bag")) == len(sent)


def test_splits_by_duration(tmp_path: Path, kind: dict[str, Any]) -> None:
    write(tmp_path / "bag", messages(50), split_s=0.02, **kind)
    info = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())["rosbag2_bagfile_information"]
    first = [file["starting_time"]["nanoseconds_since_epoch"] - START_NS for file in info["files"]]
    assert first == [0, 20 * MS, 40 * MS]
    assert [file["message_count"] for file in info["files"]] == [22, 22, 11]
    assert info["duration"]["nanoseconds"] == 49 * MS


def test_every_file_stands_alone(tmp_path: Path, kind: dict[str, Any]) -> None:
    write(tmp_path / "bag", messages(30), split_s=0.02, **kind)
    with open_bag(sorted((tmp_path / "bag").glob("bag_1*"))[0]) as last:
        assert last.topics["/joint_states"].definition == TOPICS[0].definition
        assert len(list(last.messages(["/joint_states"]))) == 10


def test_a_limit_stops_the_bag_whole(tmp_path: Path, kind: dict[str, Any]) -> None:
    bag = Bag(tmp_path / "bag", BagCfg(limit_mb=1.0, reserve_mb=0.0, **kind | {"zstd": False}))
    bag.add_topic(TOPICS[1])
    with pytest.raises(BagFullError, match="has reached its limit of 1 MB"):
        for k in range(1000):
            bag.write("/camera", START_NS + k, 0, image(k))
    bag.close()
    assert k > 70
    assert len(by_others(tmp_path / "bag")) == k
    assert sum(p.stat().st_size for p in (tmp_path / "bag").iterdir()) < 1.15e6


def test_the_oldest_file_goes_where_that_is_wanted(tmp_path: Path, kind: dict[str, Any]) -> None:
    cfg = {"limit_mb": 3.0, "split_mb": 1.0, "when_full": "drop_oldest"} | kind | {"zstd": False}
    bag = write(tmp_path / "bag", [m for m in messages(6000) if m.topic == "/camera"], **cfg)
    kept = by_others(tmp_path / "bag")
    assert bag.dropped_files >= 3
    assert kept[-1][1] == START_NS + 5990 * MS
    assert 200 < len(kept) < 340
    info = yaml.safe_load((tmp_path / "bag/metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert info["message_count"] == info["topics_with_message_count"][1]["message_count"] == len(kept)
    assert sum(p.stat().st_size for p in (tmp_path / "bag").iterdir()) < 3.3e6


# --- what is refused ---------------------------------------------------------------------------------------


def test_a_bag_is_never_written_over(tmp_path: Path) -> None:
    write(tmp_path / "bag", messages(1))
    with pytest.raises(ConfigError, match="exists already"):
        Bag(tmp_path / "bag", BagCfg(reserve_mb=0.0))


def test_a_bag_that_cannot_be_made_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="cannot be made: File name too long"):
        Bag(tmp_path / ("x" * 300) / "bag", BagCfg(reserve_mb=0.0))
    for error in (OSError(28, "No space left on device"), sqlite3.OperationalError("No space left on device")):

        def broken(bag: Bag, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Bag, "_open", broken)
        with pytest.raises(ConfigError, match="cannot be made: No space left on device"):
            Bag(tmp_path / type(error).__name__, BagCfg(reserve_mb=0.0))


def test_a_disk_that_is_nearly_full_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BagFullError, match="stay free"):
        Bag(tmp_path / "bag", BagCfg(reserve_mb=1e12))
    assert not (tmp_path / "bag").exists()


def test_a_disk_that_fills_ends_the_bag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bag = Bag(tmp_path / "bag", BagCfg(reserve_mb=1.0))
    bag.add_topic(TOPICS[1])
    bag.write("/camera", START_NS, START_NS, image(1))
    monkeypatch.setattr(bags.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 0.5e6}))
    with pytest.raises(BagFullError, match="has 0 MB left"):
        bag.flush()
    bag.close()
    assert len(by_others(tmp_path / "bag")) == 1


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"storage": "mcp"}, "did you mean mcap"),
        ({"storage": "sqlite3", "zstd": True}, "mcap only"),
        ({"split_mb": -1.0}, "split_mb"),
        ({"split_s": float("nan")}, "split_s"),
        ({"split_mb": 0.1}, "at least 1"),
        ({"when_full": "drop"}, "drop_oldest"),
        ({"when_full": "drop_oldest", "limit_mb": 10.0}, "split_mb"),
        ({"when_full": "drop_oldest", "limit_mb": 10.0, "split_mb": 6.0}, "half"),
    ],
)
def test_wrong_settings_are_refused_by_name(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        BagCfg(**wrong)
