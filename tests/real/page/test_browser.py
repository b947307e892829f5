"""What the page does with fingers, mice and keys: a real browser before the real server, and no robot behind it."""

import time

import pytest

pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra page)")
pytest.importorskip("fastapi", reason="fastapi is not installed (extra page)")
pytest.importorskip("websockets", reason="websockets is not installed (extra page)")
from benchmarks import browser as browsers
from real.page.pages import Pages
from real.page.server import Server
from robolearn.distributed.access import Access

TOOL, TITLE = (0.5, 0.0, 0.5), "NOBODY IS IN CONTROL"
STATE = {
    "who": {"kind": "nobody", "title": TITLE, "detail": ""}, "mine": False, "holder": "", "pages": [],
    "robot": "an arm", "box": [[0.2, -0.5, 0.0], [0.8, 0.5, 1.0]], "lines": [[[0.0, 0.0, 0.0], list(TOOL)]],
    "tool": [*TOOL, 0.0, 0.0, 0.0, 1.0], "cameras": [], "figures": {},
}  # fmt: skip
STATE_S, WAIT_S = 0.05, 60.0


class Shown:
    """The page in a browser, and what has come of it; states are posted as long as it is waited for."""

    def __init__(self, folder):
        self.pages = Pages(4, lost_s=30.0)  # a busy machine
        self.server = Server("127.0.0.1:0", Access(), self.pages)
        self.browser, self.orders = browsers.Browser(self.server.url, folder), []

    def load(self):
        self.until(lambda: self.browser.value("document.querySelector('#title')?.textContent") == TITLE)
        self.browser.value("scene.turn = scene.tilt = 0; scene.draw()")  # from the front: y to the right, z up

    def text(self, selector):
        return self.browser.text(selector)

    def until(self, condition):
        end = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < end, (self.pages.refused, self.orders)
            self.server.post(STATE)
            self.orders += [order for _, order in self.pages.look(time.monotonic()).orders]
            time.sleep(STATE_S)

    def holder(self):
        return self.pages.look(time.monotonic()).holder

    def wish(self):
        return self.pages.wish(time.monotonic())

    def handle(self):
        """Where in the window, and how many of its points a metre is."""
        x, y = (float(v) for v in self.browser.value("scene.canvas.dataset.handle").split(","))
        left, top = self.browser.value("(() => {const r = scene.canvas.getBoundingClientRect(); return [r.x, r.y]})()")
        return left + x, top + y, self.browser.value("scene.metre()")

    def touch(self, what, *points):
        """Of fingers, by their numbers: (number, x, y)."""
        at = [{"id": number, "x": x, "y": y} for number, x, y in points]
        self.browser("Input.dispatchTouchEvent", type=what, touchPoints=at)


@pytest.fixture
def shown(tmp_path):
    if browsers.found() is None:
        pytest.skip("there is no chromium (Debian's package chromium)")
    made = Shown(tmp_path / "browser")
    try:
        made.load()
        yield made
    finally:
        made.browser.kill()
        made.server.close()


def test_a_drag_beyond_all_reach_stays_one_that_is_understood(shown):
    shown.browser.value("scene.scale = 0.2; scene.draw()")  # a metre is so small that the window is several wide
    x, y, metre = shown.handle()
    shown.browser.mouse("mousePressed", x, y)
    shown.until(shown.holder)
    shown.browser.mouse("mouseMoved", x + 50.0 * metre, y)
    shown.until(lambda: shown.wish().target_m == (0.5, 3.0, 0.5))
    assert shown.pages.refused == {}


def test_a_second_finger_does_not_make_the_target_jump(shown):
    x, y, metre = shown.handle()
    shown.touch("touchStart", (1, x, y))
    shown.until(shown.holder)
    shown.touch("touchMove", (1, x + 0.1 * metre, y))
    shown.until(lambda: shown.wish().target_m == pytest.approx((0.5, 0.1, 0.5), abs=0.01))
    far = x - 0.3 * metre, y
    shown.touch("touchStart", (1, x + 0.1 * metre, y), (2, *far))
    shown.touch("touchMove", (1, x + 0.2 * metre, y), (2, *far))
    shown.until(lambda: shown.wish().target_m == pytest.approx((0.5, 0.2, 0.5), abs=0.01))
    shown.touch("touchMove", (1, x + 0.3 * metre, y))  # the second one has gone
    shown.until(lambda: shown.wish().target_m == pytest.approx((0.5, 0.3, 0.5), abs=0.01))
    shown.touch("touchEnd")
    shown.until(lambda: shown.wish().target_m is None)


def test_another_button_than_the_left_one_takes_nothing_over(shown):
    x, y, _ = shown.handle()
    for what in ("mousePressed", "mouseReleased"):
        shown.browser("Input.dispatchMouseEvent", type=what, x=x, y=y, button="right", buttons=2, clickCount=1)
    shown.browser.press("KeyY")  # what comes later is here
    shown.until(lambda: shown.orders == ["success"])
    assert shown.holder() == ""


def test_a_hidden_page_loses_the_robot_and_does_not_have_it_back_when_it_is_shown_again(shown):
    x, y, metre = shown.handle()
    shown.browser.mouse("mousePressed", x, y)
    shown.browser.mouse("mouseMoved", x + 0.1 * metre, y)
    shown.until(lambda: shown.holder() and shown.wish().target_m)
    hidden = "Object.defineProperty(document, 'hidden', {configurable: true, get: () => %s});"
    shown.browser.value(hidden % "true" + "document.dispatchEvent(new Event('visibilitychange'))")
    shown.pages.lost_s = 1.0
    shown.until(lambda: shown.holder() == "")
    shown.pages.lost_s = 30.0
    shown.browser.value(hidden % "false")
    (page,) = shown.pages._pages
    beat_s = page.beat_s
    shown.until(lambda: page.beat_s > beat_s)
    assert shown.holder() == "" and page.beat.target_m is None and "lost" in page.told


def test_the_stop_key_works_whatever_else_is_held_and_wherever_one_types(shown):
    for code in ("Escape", "KeyN"):
        shown.browser("Input.dispatchKeyEvent", type="rawKeyDown", code=code, key=code, modifiers=2)  # Ctrl
    shown.until(lambda: shown.orders == ["stop"])
    shown.browser.value("at('login').hidden = false; at('token').focus()")
    for code in ("Escape", "KeyN", "KeyY"):
        shown.browser.release(code)
        shown.browser.press(code)
    shown.until(lambda: shown.orders == ["stop", "stop"])


def test_an_order_that_cannot_be_sent_is_said_not_to_be(shown):
    shown.server.close()
    shown.until(lambda: shown.text("#title") == "CONNECTION LOST")
    shown.browser.click("[data-do=stop]")
    assert shown.text("#told") == "stop: not sent, there is no connection"


def test_a_second_log_in_is_no_second_page(shown):
    shown.browser.value("connect(); connect()")
    shown.until(lambda: shown.browser.value("socket.readyState") == 1)
    assert shown.pages.open_pages == ("page 1 (127.0.0.1)",)
