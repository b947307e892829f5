"""The real nodes, with what they measure of themselves kept: `python -m benchmarks.deploy_nodes HOW NODE [words]`.

HOW is `record` (every value goes to the file that the parameter `record` names, when the node is told to end) or
`start` (a line on stdout as soon as the node is built: seconds of the clock when its module had been imported, ROS was
up, and the node was built).
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLASSES = {"twin": "TwinNode", "guard": "GuardNode", "policy": "PolicyNode"}
KEPT = {"guard": ("latency",), "policy": ("periods", "ages", "thinking")}
"""Attributes that are a `Spread`, by node."""


def record(name: str, made: type[Any]) -> Callable[[], Any]:
    """A node that differs in this alone: its spreads remember what they forget with each report."""
    from real.site import parameter
    from real.spread import Spread

    class Kept(Spread):
        def __init__(self) -> None:
            super().__init__()
            self.all: list[float] = []

        def add(self, seconds: float) -> None:
            super().add(seconds)
            self.all.append(seconds)

    class Recorder(made):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._file = Path(parameter(self, "record", ""))
            for attribute in KEPT[name]:
                setattr(self, attribute, Kept())

        def close(self) -> None:
            if hasattr(super(), "close"):
                super().close()
            self._file.write_text(json.dumps({a: getattr(self, a).all for a in KEPT[name]}))

    return Recorder


def start(name: str, made: type[Any]) -> Callable[[], Any]:
    imported = time.time()

    def build() -> Any:
        joined = time.time()
        node = made()
        print(json.dumps([imported, joined, time.time()]), flush=True)
        return node

    return build


def main(how: str, name: str, words: list[str]) -> int:
    made = getattr(importlib.import_module(f"real.nodes.{name}"), CLASSES[name])
    from real.nodes.run import run

    return run({"record": record, "start": start}[how](name, made), words)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
