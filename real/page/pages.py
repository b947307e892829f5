"""The pages that are open, and which of them has hold of the robot. Times come in, on the steady clock; one thread may
serve the browsers while another one looks.

A page that has hold says so every 50 ms by a heartbeat, which holds all that its keys and pointer do. It is lost when
none came for `lost_s`, or when its connection ends; what it last wanted is followed for two thirds of that time only,
so that the tool has stopped by then. A heartbeat that answers a state older than `ECHO_S` and that time was under way
for too long: what a network held back and delivers at once is no sign of life.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from real.page.messages import Beat, Order, Refused, read

LOST_S, ECHO_S = 0.15, 0.35
STATES = 64
"""Whose numbers are remembered: some seconds."""
NOTHING = Beat(0)


@dataclass(eq=False)
class Page:
    name: str
    where: str
    """The browser's address."""
    beat: Beat = NOTHING
    beat_s: float = float("-inf")
    told: str = ""
    """What it was told last: why something was refused."""


class Look(NamedTuple):
    holder: str
    """Name of the page that has hold, or empty."""
    lost: bool
    """The page that had hold is lost: nobody has let go."""
    orders: tuple[tuple[str, str], ...]
    """(page, order) since the last look, of those that others carry out."""


class Pages:
    def __init__(self, most: int, lost_s: float = LOST_S):
        """`most` pages may be open."""
        self.most, self.lost_s, self._stale_s = most, lost_s, 2.0 / 3.0 * lost_s
        self._refused: dict[str, int] = {}
        self._pages: list[Page] = []
        self._holder: Page | None = None
        self._left = self._lost = False  # since the last look
        self._orders: list[tuple[str, str]] = []
        self._made: deque[tuple[int, float]] = deque(maxlen=STATES)
        self._count = 0
        self._lock = threading.RLock()

    # --- of the thread that serves --------------------------------------------------------------------------

    def open(self, where: str) -> Page | None:
        """None if there is no room for another one."""
        with self._lock:
            if len(self._pages) >= self.most:
                self._refuse("one page too many")
                return None
            self._count += 1
            page = Page(f"page {self._count}", where)
            self._pages.append(page)
            return page

    def close(self, page: Page) -> None:
        """The connection ended: of the page that has hold, that is a loss, however it came about."""
        with self._lock:
            self._pages.remove(page)
            if page is self._holder:
                self._lose()

    def hear(self, page: Page, text: str, now_s: float) -> None:
        """One message; one that makes no sense is counted, and as if never sent."""
        with self._lock:
            try:
                said = read(text)
            except Refused as why:
                page.told = f"refused: {why}"
                self._refuse(str(why))
                return
            if isinstance(said, Beat):
                self._hear_beat(page, said, now_s)
            else:
                self._hear_order(page, said, now_s)

    def refuse(self, why: str) -> None:
        """Of what never came to be a message."""
        with self._lock:
            self._refuse(why)

    def _hear_beat(self, page: Page, beat: Beat, now_s: float) -> None:
        made_s = next((when for number, when in self._made if number == beat.seen), None)
        if made_s is None or now_s - made_s > ECHO_S + self.lost_s:
            self._refuse("a heartbeat that was under way for too long")
            return
        page.beat, page.beat_s = beat, now_s

    def _hear_order(self, page: Page, order: Order, now_s: float) -> None:
        holder, page.told = self._holder, ""
        if order.what == "stop":
            self._orders.append((page.name, "stop"))
        elif holder is not None and holder is not page:
            page.told = (
                f"{holder.name} ({holder.where}) has the robot, and must hand it back first; you may only stop it"
            )
            self._refuse("an order of a page that is not in control")
        elif order.what == "take":
            self._take(page, now_s)
        elif order.what != "back":
            self._orders.append((page.name, order.what))
        elif holder is page:
            self._holder, self._left = None, True

    def _take(self, page: Page, now_s: float) -> None:
        if self._left:
            page.told = "the page before has just let go; try again"
        elif now_s - page.beat_s > self.lost_s:
            page.told = "no heartbeat of this page comes in time: is the network slow?"
            self._refuse("a take-over without a heartbeat")
        else:
            self._holder, page.told = page, ""

    # --- of the thread that looks ---------------------------------------------------------------------------

    def made(self, number: int, now_s: float) -> None:
        """A state with this number is being sent."""
        with self._lock:
            self._made.append((number, now_s))

    def look(self, now_s: float) -> Look:
        """What has happened since the last time, and how it is now: asked for apart, a loss between the two would look
        as if somebody had let go."""
        with self._lock:
            if self._holder is not None and now_s - self._holder.beat_s > self.lost_s:
                self._holder.told = "lost: no heartbeat of this page came in time, and the robot was stopped"
                self._lose()
            look = Look(self._holder.name if self._holder else "", self._lost, tuple(self._orders))
            self._left = self._lost = False
            self._orders.clear()
            return look

    def wish(self, now_s: float) -> Beat:
        """What the page that has hold wants; nothing, if that is old."""
        with self._lock:
            holder = self._holder
            fresh = holder is not None and now_s - holder.beat_s <= self._stale_s
            return holder.beat if fresh and holder else NOTHING

    def drop(self, why: str) -> None:
        """The robot went to somebody else, or was refused."""
        with self._lock:
            if self._holder is not None:
                self._holder.told, self._holder = why, None

    def tell(self, name: str, what: str) -> None:
        """The page of this name, if it is still open."""
        with self._lock:
            for page in self._pages:
                if page.name == name:
                    page.told = what

    @property
    def refused(self) -> dict[str, int]:
        """How often what was refused, so far."""
        with self._lock:
            return dict(self._refused)

    @property
    def open_pages(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(f"{page.name} ({page.where})" for page in self._pages)

    def _lose(self) -> None:
        self._holder, self._left, self._lost = None, True, True

    def _refuse(self, why: str) -> None:
        self._refused[why] = self._refused.get(why, 0) + 1
