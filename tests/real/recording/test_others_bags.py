"""Bags of other writers, read by ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from bag_samples import STORE, TOPICS, messages
from mcap.writer import CompressionType, Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as RosbagsWriter

from real.recording.decode import Decoder
from real.recording.read import open_bag
from real.recording.topic import Topic
from robolearn.errors import ConfigError


@pytest.mark.parametrize(
    ("compression", "chunks"),
    [(CompressionType.NONE, True), (CompressionType.LZ4, True), (CompressionType.ZSTD, True),
     (CompressionType.NONE, False)],
)  # fmt: skip
def test_mcap_files_of_the_formats_makers(tmp_path: Path, compression: CompressionType, chunks: bool) -> None:
    sent, path = messages(50), tmp_path / "a.mcap"
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=20_000, compression=compression, use_chunking=chunks)
        writer.start(profile="ros2")
        channels = {}
        for each in TOPICS:
            schema = writer.register_schema(each.type, "ros2msg", each.definition.encode())
            channels[each.name] = writer.register_channel(each.name, "cdr", schema)
        for m in sent:
            writer.add_message(channels[m.topic], m.log_ns, bytes(m.data), m.publish_ns)
        writer.finish()
    with open_bag(path) as recording:
        assert recording.complete
        assert sorted(recording.messages()) == sorted(sent)
        assert sorted(recording.headers()) == sorted((m.topic, m.log_ns, m.publish_ns, len(m.data)) for m in sent)
        assert not recording.trouble and recording.topics["/camera"].definition == TOPICS[1].definition


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_bags_of_rosbags(tmp_path: Path, plugin: StoragePlugin) -> None:
    sent = messages(20)
    with RosbagsWriter(tmp_path / "bag", version=9, storage_plugin=plugin) as writer:
        by_name = {t.name: writer.add_connection(t.name, t.type, typestore=STORE) for t in TOPICS}
        for m in sent:
            writer.write(by_name[m.topic], m.log_ns, bytes(m.data))
    with open_bag(tmp_path / "bag") as recording:
        found = list(recording.messages())
        decode = Decoder(list(recording.topics.values()))
        state = next(m for m in found if m.topic == "/joint_states")
        assert recording.complete and len(found) == len(sent)
        assert decode(state.data, "sensor_msgs/msg/JointState").name == ["a", "b"]


@pytest.mark.parametrize("mode", [CompressionMode.FILE, CompressionMode.MESSAGE])
def test_what_is_compressed_otherwise_is_refused_with_the_remedy(tmp_path: Path, mode: CompressionMode) -> None:
    writer = RosbagsWriter(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/camera", "sensor_msgs/msg/Image", typestore=STORE)
        writer.write(connection, 1, bytes(messages(1)[1].data))
    with pytest.raises(ConfigError, match=r"unzstd|ros2 bag convert"):
        open_bag(tmp_path / "bag")


def test_bags_from_before_definitions_were_stored_are_decoded_by_the_standard_ones() -> None:
    decode = Decoder([Topic("/a", "sensor_msgs/msg/JointState"), Topic("/b", "lab_msgs/msg/Odd")])
    assert decode(messages(1)[0].data, "sensor_msgs/msg/JointState").name == ["a", "b"]
    with pytest.raises(ConfigError, match="holds no definition"):
        decode(b"", "lab_msgs/msg/Odd")
