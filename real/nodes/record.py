"""A recorder of rosbag2 bags: every message as it came, never decoded, with the definition of its type.

Parameters: `topics` (names, separated by spaces) and `regex` say what is recorded, all if both are empty, without what
`exclude` (a regex) finds and without hidden topics; topics that appear later are taken in. `folder` holds the bags,
`name` is that of the bag (rosbag2_ and the time if empty). `storage` (mcap, sqlite3), `zstd` (of MCAP's chunks),
`split_mb`, `split_s`, `limit_mb` with `when_full` (stop, drop_oldest), `reserve_mb` that stay free on the disk,
`queue_mb` in memory before messages are dropped, `start` at once, `interfaces`: a folder of definitions that are not
standard (PACKAGE/msg/NAME.msg). Services (std_srvs/Trigger): `record/start`, `record/stop`, `record/split`.
`/diagnostics` once a second: messages, bytes, drops, and packets that the system dropped before DDS had them.

Its subscriptions fit the publishers: best effort if one of them is, transient local if all are.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from real import ros
from real.connection import Trigger
from real.nodes.report import ERROR, OK, WARN, Report
from real.nodes.run import run
from real.recording.bag import MB, Bag, BagCfg
from real.recording.recorder import Recorder
from real.recording.topic import Message, Topic
from real.site import parameter
from robolearn.errors import ConfigError, UserError

DEPTH = 1000
"""Messages of a topic that DDS holds while nobody takes them: a second of the fastest."""
LOOK_S, REPORT_S = 0.2, 1.0
CFG = ("storage", "zstd", "split_mb", "split_s", "limit_mb", "when_full", "reserve_mb")


class RecordNode(ros.Node):
    def __init__(self) -> None:
        super().__init__("record")
        self.cfg = BagCfg(**{name: parameter(self, name, getattr(BagCfg(), name)) for name in CFG})
        self._queue_mb = parameter(self, "queue_mb", 256.0)
        if not self._queue_mb > 0.0:
            raise ConfigError(f"queue_mb must be above 0, got {self._queue_mb}")
        self._folder, self._bag_name = Path(parameter(self, "folder", ".")), parameter(self, "name", "")
        if Path(self._bag_name).name != self._bag_name:
            raise ConfigError(f"name is that of one folder inside `folder`, got {self._bag_name!r}")
        self._wanted = Wanted(
            {self.resolve_topic_name(t) for t in parameter(self, "topics", "").split()},
            parameter(self, "regex", ""), parameter(self, "exclude", ""),
        )  # fmt: skip
        if interfaces := parameter(self, "interfaces", ""):
            ros.register_interfaces(interfaces)
        self.recorder: Recorder | None = None
        self._heard: dict[str, Heard] = {}
        self._refused: set[str] = set()
        self._ended, self._failed = "", False
        self._report_on = Report(self, "recorder")
        for name, call in (("start", self.start), ("stop", self.stop), ("split", self.split)):
            self.create_service(Trigger, f"record/{name}", partial(_answer, call))
        self.create_timer(LOOK_S, self._look)
        self.create_timer(REPORT_S, self._report)
        if parameter(self, "start", True):
            self._begin()

    # --- services ---

    def start(self) -> tuple[bool, str]:
        if self.recorder is not None:
            return True, f"it records {self.recorder.bag.path}"
        try:
            return True, str(self._begin())
        except UserError as error:
            return False, str(error)

    def stop(self) -> tuple[bool, str]:
        if self.recorder is None:
            return True, self._ended or "nothing is recorded"
        self._finish()
        return True, self._ended

    def split(self) -> tuple[bool, str]:
        if self.recorder is None:
            return False, "nothing is recorded"
        self.recorder.split()
        return True, "a new file begins"

    # --- recording ---

    def _begin(self) -> Path:
        path = self._folder / (self._bag_name or time.strftime("rosbag2_%Y_%m_%d-%H_%M_%S"))
        self.recorder = Recorder(Bag(path, self.cfg), self._queue_mb)
        self._ended, self._failed = "", False
        self.get_logger().info(f"records {path}")
        self._look()
        return path

    def _finish(self) -> None:
        """End the bag, and say what became of it."""
        recorder, self.recorder = self.recorder, None
        if recorder is None:
            return
        for heard in self._heard.values():
            self.destroy_subscription(heard.subscription)
        self._heard = {}
        recorder.close()
        metadata, lost = recorder.bag.metadata(), recorder.lost.total()
        self._ended = (
            f"{recorder.bag.path}: {metadata['message_count']} messages, {recorder.bag.bytes / MB:.1f} MB, {lost} lost"
            + (f"; it ended by itself: {recorder.error}" if recorder.error else "")
        )
        self._failed = bool(recorder.error)
        (self.get_logger().error if self._failed else self.get_logger().info)(self._ended)

    def _look(self) -> None:
        """For topics that are new, and publishers that our QoS does not fit."""
        if self.recorder is None:
            return
        if self.recorder.error:
            self._finish()
            return
        for name, types in self.get_topic_names_and_types():
            if self._wanted(name) and (offers := self.get_offers(name)):
                self._hear(name, types, offers)

    def _hear(self, name: str, types: list[str], offers: list[dict[str, Any]]) -> None:
        qos, heard = fitting(offers), self._heard.get(name)
        if heard is not None and (heard.qos == qos or not heard.misses(qos)):
            return
        if heard is not None:
            self.get_logger().warning(f"{name} has a publisher with another QoS: it is subscribed anew")
            self.destroy_subscription(heard.subscription)
            self._subscribe(name, heard.type, qos)
        elif name not in self._refused:
            self._take_in(name, types, offers, qos)

    def _take_in(self, name: str, types: list[str], offers: list[dict[str, Any]], qos: Any) -> None:
        try:
            if len(types) > 1:
                raise ConfigError(f"it has several types: {', '.join(types)}")
            text = ros.definition(types[0])
        except ConfigError as error:
            self._refused.add(name)
            self.get_logger().error(f"{name} is not recorded: {error} (see the parameter `interfaces`)")
            return
        told = [str(getattr(info, "topic_type_hash", "")) for info in self.get_publishers_info_by_topic(name)]
        ours = ros.type_hash(types[0])
        digest = next((h for h in told if h.startswith("RIHS01_")), "") or ours
        if ours and digest != ours:
            self.get_logger().warning(
                f"{name}: its publisher has another definition of {types[0]} than is known here; what is recorded of "
                "it may be incomplete, and decoded wrongly"
            )
        assert self.recorder is not None
        self.recorder.add_topic(Topic(name, types[0], digest, text, offers=tuple(offers)))
        self._subscribe(name, types[0], qos)

    def _subscribe(self, name: str, type_name: str, qos: Any) -> None:
        assert self.recorder is not None
        put = self.recorder.put

        def take(data: bytes, source_ns: int) -> None:
            now = time.time_ns()
            put(Message(name, now, source_ns or now, data))

        self._heard[name] = Heard(type_name, qos, self.create_raw_subscription(type_name, name, take, qos))

    # --- diagnostics ---

    def _report(self) -> None:
        recorder = self.recorder
        if recorder is None:
            level = ERROR if self._failed else WARN
            self._report_on(level, self._ended or "stopped", {"not recorded": " ".join(sorted(self._refused))})
            return
        lost = recorder.lost
        figures = {
            "bag": recorder.bag.path, "topics": len(self._heard), "not recorded": " ".join(sorted(self._refused)),
            "messages": recorder.written, "bytes": recorder.bag.bytes, "waiting bytes": recorder.waiting_bytes,
            "lost": lost.total(), "packets dropped": dropped_packets(), "files dropped": recorder.bag.dropped_files,
        }  # fmt: skip
        level = ERROR if recorder.error else WARN if lost or self._refused else OK
        self._report_on(level, recorder.error or "recording", figures)

    def close(self) -> None:
        self._finish()


class Heard:
    """A topic that is subscribed."""

    def __init__(self, type_name: str, qos: Any, subscription: Any):
        self.type, self.qos, self.subscription = type_name, qos, subscription

    def misses(self, qos: Any) -> bool:
        """Whether publishers that want this are not heard: we ask for more than they offer."""
        best_effort, volatile = ros.ReliabilityPolicy.BEST_EFFORT, ros.DurabilityPolicy.VOLATILE
        return (qos.reliability == best_effort != self.qos.reliability) or (
            qos.durability == volatile != self.qos.durability
        )


class Wanted:
    """Which topics are recorded, by name. Raises ConfigError for what is no regular expression."""

    def __init__(self, names: set[str], regex: str, exclude: str):
        self.names, self._all = names, not names and not regex
        self._regex, self._exclude = _compiled("regex", regex), _compiled("exclude", exclude)

    def __call__(self, name: str) -> bool:
        if name in self.names:
            return True
        if any(part.startswith("_") for part in name.split("/")) or (self._exclude and self._exclude.search(name)):
            return False
        return self._all or bool(self._regex and self._regex.search(name))


def _compiled(name: str, text: str) -> re.Pattern[str] | None:
    try:
        return re.compile(text) if text else None
    except re.error as error:
        raise ConfigError(f"{name} {text!r} is no regular expression: {error}") from None


def fitting(offers: Sequence[dict[str, Any]]) -> Any:
    """The QoS of a subscription that hears all of these publishers."""
    reliable = all(offer["reliability"] == "reliable" for offer in offers)
    latched = all(offer["durability"] == "transient_local" for offer in offers)
    return ros.QoSProfile(
        depth=DEPTH,
        reliability=ros.ReliabilityPolicy.RELIABLE if reliable else ros.ReliabilityPolicy.BEST_EFFORT,
        durability=ros.DurabilityPolicy.TRANSIENT_LOCAL if latched else ros.DurabilityPolicy.VOLATILE,
    )


def dropped_packets() -> int:
    """UDP packets for this process that the system threw away, as its sockets were full; 0 where there is no /proc.
    DDS asks again for those of reliable publishers, who may not have them any more."""
    own, count = set(), 0
    with suppress(OSError):
        for entry in os.listdir("/proc/self/fd"):
            with suppress(OSError):  # closed meanwhile
                own.add(os.readlink(f"/proc/self/fd/{entry}"))
        rows = [row.split() for row in Path("/proc/self/net/udp").read_text().splitlines()[1:]]
        count = sum(int(row[-1]) for row in rows if f"socket:[{row[9]}]" in own)
    return count


def _answer(call: Callable[[], tuple[bool, str]], request: Any, response: Any) -> Any:
    response.success, response.message = call()
    return response


def main(args: Sequence[str] | None = None) -> int:
    return run(RecordNode, args)


if __name__ == "__main__":
    raise SystemExit(main())
