"""The operator's page: a person with a browser sees who is in control, takes over, moves the tool, and stops the robot.

It proposes to the guard as the source `page`, a person as the teleop node is. A page that has the robot says so every
50 ms; one that is closed, hidden or cut off is lost, the robot stops within 200 ms and nobody has it. Of several pages
one has the robot; the others see who, and may stop it. docs/hil.md tells how it is used.

Parameters: `address` (HOST:PORT; one that is not of this machine needs a token and TLS: `token_file` or the variable
ROBOLEARN_TOKEN, `certificate`, `key`), `pages` (how many may be open), `timeout_s` (without a heartbeat), `run` (the
folder of a run, which may begin later, or `last` for the newest under runs/, then always: its figures are shown),
`cameras` (names; their JPEGs on `camera/NAME/image_raw/compressed`), `people` (as the guard's), and `frame`,
`speed_mps`, `turn_radps`, `rate_hz`, `source` as of the teleop node.

Topics below the robot's namespace: `page/action` and `page/owner`, as the teleop node's; `page/paused` (std_msgs/Bool,
latched, once somebody has said so): while it holds, whoever gets authority and is no person is relieved of it.
`/diagnostics` once a second, with what was refused.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from real import ros
from real.connection import LATCHED, SENSED, DiagnosticArray, String, Trigger
from real.nodes.authority import PEOPLE
from real.nodes.person import AGAIN_S, NO_GUARD, REPORT_S, TOLD, PersonNode
from real.nodes.report import ERROR, OK
from real.nodes.run import run
from real.page.drag import towards
from real.page.figures import Figures
from real.page.pages import LOST_S, Pages
from real.page.server import Server
from real.page.view import Skeleton, who
from real.pictures import CompressedImage
from real.site import parameter
from real.teleop.base import Reading
from robolearn.distributed.access import Access
from robolearn.errors import ConfigError

Bool = ros.interface("std_msgs/msg/Bool")
SHOWN_HZ, FIGURES_S, PICTURE_S = 15.0, 2.0, 0.2
PRESSED_S = 0.3
"""How long a button of the page counts as pressed, for who reads `page/action`."""
SILENT_S = 3.0
"""A guard speaks once a second."""
ACTING = ("steps", "late steps", "success rate", "intervention rate", "cycle time, s")
"""What is shown of the diagnostics of the node `actor`, which robolearn hil has on a robot."""
LARGEST_PICTURE, MOST_CAMERAS, MOST_TEXT = 1_000_000, 8, 200
JPEG = b"\xff\xd8\xff"


class PageNode(PersonNode):
    def __init__(self) -> None:
        super().__init__("page")
        self.people = tuple(parameter(self, "people", PEOPLE))
        self.pages = Pages(self._at_least_one("pages", 4), self._positive("timeout_s", LOST_S))
        self.skeleton, self.paused, self._relieved = Skeleton(self.site.robot), False, ""
        self.counts |= {"pages lost in control": 0, "pictures refused": 0}
        self._pressed_until: dict[str, float] = {}
        self._hands: dict[str, str] = {}
        self._guard_s, self._reason, self._asked_to_leave_s = -1e9, "", -1e9
        self._clear = self.create_client(Trigger, "guard/reset")
        self._start = self.create_client(Trigger, "policy/start")
        self._releases: dict[str, Any] = {}
        self._pause_told = self.create_publisher(Bool, "page/paused", LATCHED)
        self._guard_name, self._actor_name = (self.resolve_topic_name(name) for name in ("guard", "actor"))
        self._acting: dict[str, str] = {}  # its figures
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        for source in self.people:
            if source != self.source:
                self.create_subscription(String, f"{source}/owner", partial(self._on_hand, source), LATCHED)
        folder = parameter(self, "run", "")
        self.figures, self._drawn = Figures(folder) if folder else None, True
        self.server = Server(parameter(self, "address", "127.0.0.1:8090"), self._read_access(), self.pages)
        self.cameras = self._read_cameras()
        self.create_timer(self.dt, self._tick)
        self.create_timer(1.0 / SHOWN_HZ, self._show)
        self.create_timer(FIGURES_S, self._look_at_figures)
        self.create_timer(REPORT_S, self._report)
        self.get_logger().info(f"the operator's page of {self.site.profile.robot}: {self.server.url}")

    # --- parameters -----------------------------------------------------------------------------------------

    def _at_least_one(self, name: str, default: int) -> int:
        value = int(parameter(self, name, default))
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
        return value

    def _read_access(self) -> Access:
        paths = [parameter(self, name, "") for name in ("token_file", "certificate", "key")]
        return Access(*(Path(path) if path else None for path in paths))

    def _read_cameras(self) -> list[str]:
        names = list(parameter(self, "cameras", [""]))
        names = [] if names == [""] else names
        if len(names) > MOST_CAMERAS or not all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", n) for n in names):
            raise ConfigError(f"cameras must be at most {MOST_CAMERAS} names of letters, digits and _, got {names}")
        for number, name in enumerate(names):
            topic = f"camera/{name}/image_raw/compressed"
            self.create_subscription(CompressedImage, topic, partial(self._on_picture, number), SENSED)
        self._pictured_s = [-1e9] * len(names)
        return names

    # --- who has the robot ----------------------------------------------------------------------------------

    def drop_holder(self, why: str) -> None:
        self.pages.drop(why)

    def _leave(self, lost: bool) -> None:
        super()._leave(lost)
        self.counts["pages lost in control"] += lost

    def _give_back(self, lost: bool) -> None:
        """A policy that is paused gets nothing handed back."""
        super()._give_back(lost or self.paused)

    def _tick(self) -> None:
        now_s = time.monotonic()
        look = self.pages.look(now_s)
        for page, order in look.orders:
            self._carry_out(page, order, now_s)
        self._settle("" if look.lost else look.holder, look.lost)
        reading = self._reading(now_s)
        action = self._move(reading) if self.in_control else None
        self._tell(action, reading.buttons)
        self._relieve(now_s)

    def _reading(self, now_s: float) -> Reading:
        """What the page that has the robot wants, as a device would say it."""
        wish, pipeline = self.pages.wish(now_s), self.link.pipeline
        twist = wish.twist
        if wish.target_m is not None and not any(twist) and pipeline.chain is not None:
            pose, spec = pipeline.chain.pose(pipeline.target)[0], pipeline.spec.action
            twist = towards(torch.tensor(wish.target_m), pose, spec.scale[0] / self.dt, spec.frame == "tool")
        pressed = frozenset(word for word, until_s in self._pressed_until.items() if now_s < until_s)
        return Reading(twist, wish.gripper, pressed, self.link.now_s())

    def _carry_out(self, page: str, order: str, now_s: float) -> None:
        self.get_logger().info(f"{page}: {order}")
        if lack := self._lack_for(order):
            self.pages.tell(page, f"{order}: {lack}")
        if order == "stop":
            self._stop()
        elif order in TOLD:
            self._pressed_until[order] = now_s + PRESSED_S
        elif order in ("pause", "resume"):
            self._pause(order == "pause")
        elif order == "clear":
            self._clear.call_async(Trigger.Request())

    def _lack_for(self, order: str) -> str:
        """Why nobody carries an order out, or nothing."""
        if order in TOLD:
            return "" if self.count_subscribers("page/action") else "nobody who learns is there to hear it"
        needed = {"stop": self._estop, "clear": self._clear}.get(order)
        return NO_GUARD if needed and not needed.service_is_ready() else ""

    # --- pause ----------------------------------------------------------------------------------------------

    def _pause(self, paused: bool) -> None:
        """Whoever learns reads the topic; a policy node is started again, if it was relieved."""
        self.paused = paused
        self._pause_told.publish(Bool(data=paused))
        if paused:
            return
        if self._relieved == "policy":
            self._start.call_async(Trigger.Request())
        self._relieved = ""

    def _relieve(self, now_s: float) -> None:
        """While it is paused nobody but a person has the robot."""
        owner = self.link.owner
        if not owner or owner in self.people or not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", owner):
            return
        if owner not in self._releases:  # made before it is needed: it takes a while until the guard knows it
            self._releases[owner] = self.create_client(Trigger, f"guard/release/{owner}")
        if self.paused and now_s - self._asked_to_leave_s > AGAIN_S:
            self._asked_to_leave_s, self._relieved = now_s, owner
            self._releases[owner].call_async(Trigger.Request())

    # --- what it hears --------------------------------------------------------------------------------------

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == self._guard_name:
                self._guard_s, self._reason = time.monotonic(), status.message.partition(": ")[2][:MOST_TEXT]
            elif status.name == self._actor_name:
                self._acting = {v.key: v.value[:MOST_TEXT] for v in status.values if v.key in ACTING}

    def _on_hand(self, source: str, message: Any) -> None:
        self._hands[source] = message.data[:MOST_TEXT]

    def _on_picture(self, camera: int, message: Any) -> None:
        now_s = time.monotonic()
        if now_s - self._pictured_s[camera] < PICTURE_S:
            return
        self._pictured_s[camera] = now_s
        picture = bytes(message.data)
        if not picture.startswith(JPEG) or len(picture) > LARGEST_PICTURE:
            self.counts["pictures refused"] += 1
            return
        number = self.server.board.pictures.get(camera, (0, b""))[0]
        self.server.board.pictures[camera] = number + 1, picture

    # --- what is shown --------------------------------------------------------------------------------------

    def _show(self) -> None:
        link, limits = self.link, self.site.profile.limits
        there = time.monotonic() - self._guard_s < SILENT_S
        hand = self.holder if link.owner == self.source else self._hands.get(link.owner, "")
        position = np.asarray(link.reader.latest.position, dtype=np.float64)
        self.server.post({
            "who": who(link.guard_state if there else "", link.owner, self._reason, self.people, hand,
                       self.paused)._asdict(),
            "mine": self.in_control, "holder": self.holder, "pages": self.pages.open_pages,
            "robot": self.site.profile.robot, "box": [list(limits.box_lower_m), list(limits.box_upper_m)],
            "lines": self.skeleton.lines(position), "tool": np.round(self.skeleton.tool(position), 5).tolist(),
            "cameras": self.cameras, "figures": self._figures(),
        }, None if self._drawn or not self.figures else self.figures.curves)  # fmt: skip
        self._drawn = True

    def _figures(self) -> dict[str, str]:
        latest = self.figures.latest if self.figures else {}
        learned = {name: f"{value:.3g}" if value < 1000 else f"{value:,.0f}" for name, value in latest.items()}
        return learned | self._acting

    def _look_at_figures(self) -> None:
        if self.figures and self.figures.look():
            self._drawn = False

    def _report(self) -> None:
        state = f"{self.holder} is in control" if self.in_control else "waits"
        level, state = (OK, state) if self.server.alive else (ERROR, "the page is not served any more: start it anew")
        pages = {"pages": ", ".join(self.pages.open_pages), "paused": self.paused}
        refused = {f"refused: {why}": count for why, count in self.pages.refused.items()}
        self._diagnostics(level, state, pages | self.counts | refused | self.link.reader.refused)

    def close(self) -> None:
        super().close()
        self.server.close()


def main(args: Sequence[str] | None = None) -> int:
    return run(PageNode, args, on_time=True)


if __name__ == "__main__":
    raise SystemExit(main())
