"""What the recorder keeps of a robot's load: `python -m benchmarks.record [seconds=30] [storage=mcap ...]`.

A JointState of 7 joints at 1 kHz and two rgb8 images of 640x480 at 30 Hz, all reliable, from a process of their own,
recorded by `record_node` in another, for each way to store: messages sent, recorded and lost, processor time of the
recorder, and MB/s that were written. Every message is numbered, and the numbers in the bag are looked at.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KINDS = {"mcap": [], "mcap+zstd": ["-p", "zstd:=true"], "sqlite3": ["-p", "storage:=sqlite3"]}
TOPICS = {"/joint_states": 1000.0, "/left/image_raw": 30.0, "/right/image_raw": 30.0}
"""Hz."""
WIDTH, HEIGHT = 640, 480
DEPTH = 100
MB = 10**6


def load(seconds: float) -> dict[str, int]:
    """Publish from a process of its own, when all are subscribed; messages sent, by topic."""
    words = [sys.executable, __file__, "publish", str(seconds)]
    root = str(Path(__file__).resolve().parent.parent)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=env, timeout=seconds + 60.0)
    return dict(zip(TOPICS, map(int, done.stdout.split()), strict=True))


def publish(seconds: float) -> None:
    """In the time of the day, each message where it is due; a late one follows at once."""
    from real import ros

    ros.init(args=["load"])
    node = ros.Node("load")
    kinds = [ros.interface("sensor_msgs/msg/JointState"), *[ros.interface("sensor_msgs/msg/Image")] * 2]
    publishers = [node.create_publisher(kind, name, DEPTH) for kind, name in zip(kinds, TOPICS, strict=True)]
    messages = [_states(kinds[0]), _image(kinds[1]), _image(kinds[2])]
    while not all(p.get_subscription_count() for p in publishers):
        time.sleep(0.05)
    time.sleep(0.3)
    counts, rates, start = [0, 0, 0], list(TOPICS.values()), time.monotonic()
    while (now := time.monotonic() - start) < seconds:
        for k, rate in enumerate(rates):
            while counts[k] / rate <= now:
                messages[k].header.stamp.sec = counts[k]
                publishers[k].publish(messages[k])
                counts[k] += 1
        time.sleep(max(0.0, min(c / r for c, r in zip(counts, rates, strict=True)) - (time.monotonic() - start)))
    time.sleep(1.0)
    print(*counts)
    ros.shutdown()


def _states(kind: Any) -> Any:
    names = [f"joint{k}" for k in range(1, 8)]
    return kind(name=names, position=[0.1] * 7, velocity=[0.2] * 7, effort=[0.3] * 7)


def _image(kind: Any) -> Any:
    """A gradient with noise in its low bits, as cameras see: it compresses, but not to nothing."""
    import numpy as np

    slope = np.linspace(0.0, 200.0, WIDTH)[None, :, None] + np.linspace(0.0, 40.0, HEIGHT)[:, None, None]
    noise = np.random.default_rng(0).integers(0, 4, (HEIGHT, WIDTH, 3))
    return kind(width=WIDTH, height=HEIGHT, encoding="rgb8", step=3 * WIDTH,
                data=(slope + noise).astype(np.uint8).tobytes())  # fmt: skip


def measure(kind: str, seconds: float, folder: Path) -> str:
    path = folder / kind
    words = ["-p", f"folder:={folder}", "-p", f"name:={kind}", "-p", f"topics:={' '.join(TOPICS)}", *KINDS[kind]]
    recorder = subprocess.Popen([sys.executable, "-m", "real.nodes.record", "--ros-args", *words],
                                stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        while not path.exists():
            if recorder.poll() is not None:
                raise RuntimeError(f"the recorder ended with {recorder.returncode}")
            time.sleep(0.05)
        time.sleep(1.0)
        began, before = time.monotonic(), cpu_s(recorder.pid)
        sent = load(seconds)
        share = (cpu_s(recorder.pid) - before) / (time.monotonic() - began)
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait(60.0)
    from real.recording.read import open_bag

    with open_bag(path) as recording:
        numbers: dict[str, set[int]] = {name: set() for name in TOPICS}
        count = 0
        for m in recording.messages():
            numbers[m.topic].add(int.from_bytes(m.data[4:8], "little"))
            count += 1
        size, dropped = recording.size, sum(recording.lost.values())
    kept, total = sum(map(len, numbers.values())), sum(sent.values())
    missing = ", ".join(f"{sent[name] - len(got)} of {name}" for name, got in numbers.items() if len(got) < sent[name])
    return (
        f"{kind:10} sent {total}, recorded {kept}, lost {total - kept}"
        f"{f' ({missing}; {dropped} of them waited for the disk)' if missing else ''}, twice {count - kept}; "
        f"{size / MB / seconds:.1f} MB/s written; recorder {100 * share:.0f} % of a core"
    )


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(words: list[str]) -> int:
    if words[:1] == ["publish"]:
        publish(float(words[1]))
        return 0
    given = dict(word.split("=", 1) for word in words)
    kinds = given["storage"].split(",") if "storage" in given else list(KINDS)
    from real.domain import own_domain

    with own_domain(), tempfile.TemporaryDirectory(dir=given.get("folder")) as folder:
        for kind in kinds:
            print(measure(kind, float(given.get("seconds", 30.0)), Path(folder)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
