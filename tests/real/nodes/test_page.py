"""A person with a browser, headless but real, before twin and guard as processes of their own."""

import contextlib
import itertools
import json
import signal
import socket

import pytest

pytest.importorskip("real.ros", reason="neither rclpy nor cyclonedds and rosbags (extra ros)")
pytest.importorskip("mujoco", reason="MuJoCo is not installed (extra mujoco)")
pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra page)")
pytest.importorskip("fastapi", reason="fastapi is not installed (extra page)")
import torch
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from benchmarks import browser as browsers
from real import ros
from real.connection import LATCHED, NEWEST, DiagnosticArray, DiagnosticStatus, KeyValue
from real.pictures import CompressedImage
from real.ros.qos import QoSProfile
from robolearn.kinematics import Chain
from robolearn.robots.franka import FRANKA
from robolearn.rotations import pose_difference

Joy, Bool = ros.interface("sensor_msgs/msg/Joy"), ros.interface("std_msgs/msg/Bool")
CHAIN = Chain(FRANKA.urdf, FRANKA.ee_link, FRANKA.arm_joints)
ACTOR = DiagnosticArray, "/diagnostics"
TRIES = 5


class Operator:
    """The page's node in the stack, and browsers that show it."""

    def __init__(self, stack):
        self.stack, self.browsers = stack, []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.actions, self.paused = [], []
        self.heard = stack.node.create_subscription(Joy, "page/action", self.actions.append, QoSProfile(depth=1000))
        stack.node.create_subscription(Bool, "page/paused", lambda m: self.paused.append(m.data), LATCHED)

    def start(self, *others, words=()):
        self.stack.start("twin", "guard", *others)
        self.stack.start(
            "page", words=["-p", f"address:={self.address}", "-p", "timeout_s:=1.0", *words]
        )  # a busy machine
        self.stack.wait(lambda: self.stack.states and self.stack.heard["guard/state"] and len(self.actions) > 5)

    def open(self):
        made = browsers.Browser(f"http://{self.address}/", self.stack.folder / f"browser{len(self.browsers)}")
        self.browsers.append(made)
        self.until(made, "(document.querySelector('#banner')?.dataset.kind ?? 'offline') !== 'offline'")
        return made

    def until(self, browser, script):
        """The script says true."""
        self.stack.wait(lambda: browser.value(script))

    def shows(self, browser, kind):
        self.until(browser, f"document.querySelector('#banner').dataset.kind === {json.dumps(kind)}")

    def take(self, browser):
        """By a click; again where a busy machine lets it be taken away."""
        for _ in range(TRIES):
            browser.click("[data-do=take]")
            for _ in range(300):
                self.stack.rest(0.05)
                if self.owner() == "page" and self.stack.state() == "active":
                    return
        pytest.fail(f"never in control; {self.stack.log('page')[-1000:]}")

    def owner(self):
        return self.stack.owner()

    def tool(self):
        arm = [list(self.stack.states[-1].name).index(n) for n in FRANKA.arm_joints]
        return CHAIN.pose(torch.tensor([[self.stack.states[-1].position[i] for i in arm]], dtype=torch.float32))[0]


@pytest.fixture
def operator(stack):
    made = Operator(stack)
    yield made
    for browser in made.browsers:
        browser.kill()


@pytest.fixture
def chromium():
    if browsers.found() is None:
        pytest.skip("there is no chromium (Debian's package chromium)")


def test_a_click_takes_the_arm_keys_move_the_tool_and_a_click_hands_it_back(chromium, operator, stack):
    operator.start()
    browser = operator.open()
    operator.shows(browser, "nobody")
    assert browser.text("#title") == "NOBODY IS IN CONTROL"
    browser.press("KeyR")  # without authority: nothing
    stack.rest(0.5)
    assert operator.owner() == "" and stack.state() == "idle"
    browser.release("KeyR")
    operator.take(browser)
    operator.shows(browser, "mine")
    assert browser.text("#title") == "YOU ARE IN CONTROL" and "page: page 1" in browser.text("#detail")
    start = operator.tool()
    browser.press("KeyR")
    stack.wait(lambda: operator.tool()[2] > start[2] + 0.04)
    browser.release("KeyR")
    moved = pose_difference(start, operator.tool())
    assert moved[:2].abs().max() < 0.02 and moved[3:].abs().max() < 0.05  # up only
    stack.wait(stack.still)
    assert operator.owner() == "page"  # it keeps the arm until it says so
    browser.press("Enter")
    stack.wait(lambda: operator.owner() == "")
    operator.shows(browser, "nobody")


def test_the_handle_drags_the_tool_in_the_plane_of_the_view_for_as_long_as_it_is_held(chromium, operator, stack):
    operator.start()
    browser = operator.open()
    operator.take(browser)
    browser.value("scene.turn = scene.tilt = 0; scene.draw()")  # from the front: y to the right, z up
    start = operator.tool()
    x, y = (float(v) for v in browser.value("scene.canvas.dataset.handle").split(","))
    left, top = browser.value("(() => {const r = scene.canvas.getBoundingClientRect(); return [r.x, r.y]})()")
    metre = browser.value("scene.metre()")
    browser.mouse("mousePressed", left + x, top + y)
    for share in (0.5, 1.0):
        browser.mouse("mouseMoved", left + x + 0.1 * share * metre, top + y)
    stack.wait(lambda: operator.tool()[1] > start[1] + 0.09)
    stack.wait(stack.still)
    moved = pose_difference(start, operator.tool())
    assert moved[1] == pytest.approx(0.1, abs=0.01) and moved[[0, 2]].abs().max() < 0.02
    browser.mouse("mouseMoved", left + x, top + y)  # back, and let go on the way
    stack.wait(lambda: operator.tool()[1] < start[1] + 0.07)
    browser.mouse("mouseReleased", left + x, top + y)
    stack.wait(stack.still)
    assert operator.tool()[1] > start[1] + 0.02 and operator.owner() == "page"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_a_lost_browser_in_control_stops_the_arm_and_hands_nothing_back(chromium, operator, stack, how):
    operator.start("policy")
    browser, other = operator.open(), None
    for _ in range(TRIES):
        stack.wait(lambda: stack.call("policy/start").success and stack.state() == "active")
        operator.take(browser)
        if [who for who, _ in itertools.groupby(stack.heard["guard/owner"])][-2:] == ["policy", "page"]:
            break
    count = len(stack.heard["guard/owner"])
    browser.press("KeyR")
    stack.wait(lambda: any(stack.commands[-1].velocity))
    browser.signal(how)
    stack.wait(stack.at_rest)
    stack.rest(0.5)
    assert "policy" not in stack.heard["guard/owner"][count:] and stack.still()
    assert "lost: nobody is in control" in stack.log("page")
    other = operator.open()  # and the next one can take over
    operator.take(other)


def test_the_page_s_node_that_dies_leaves_the_arm_at_rest_and_the_browser_says_so(chromium, operator, stack):
    operator.start()
    browser = operator.open()
    operator.take(browser)
    browser.press("KeyR")
    stack.wait(lambda: any(stack.commands[-1].velocity))
    stack.kill("page")
    stack.wait(lambda: stack.state() == "stopped" and operator.owner() == "" and stack.still())
    operator.shows(browser, "offline")
    assert browser.text("#title") == "CONNECTION LOST"


def test_of_two_pages_one_has_the_arm_and_the_other_may_only_stop_it(chromium, operator, stack):
    operator.start()
    first, second = operator.open(), operator.open()
    operator.take(first)
    operator.shows(second, "person")
    second.click("[data-do=take]")
    operator.until(second, "document.querySelector('#told').textContent.includes('page 1 (127.0.0.1) has the robot')")
    second.click("[data-do=success]")
    second.signal(signal.SIGKILL)  # one that does not have it may go
    stack.rest(1.0)
    assert operator.owner() == "page" and stack.state() == "active"
    assert not any(m.buttons[1] for m in operator.actions)
    third = operator.open()
    third.press("Escape")
    stack.wait(lambda: stack.state() == "fault" and stack.still())
    operator.shows(first, "fault")
    assert first.text("#title") == "EMERGENCY STOP"
    operator.until(first, "document.querySelector('#detail').textContent.includes('emergency stop')")  # by diagnostics
    third.click("[data-do=clear]")
    stack.wait(lambda: stack.state() == "idle")


def test_a_pause_relieves_the_policy_until_it_is_resumed(chromium, operator, stack):
    operator.start("policy")
    browser = operator.open()
    stack.wait(lambda: stack.call("policy/start").success and stack.state() == "active")
    operator.shows(browser, "policy")
    browser.click("[data-do=pause]")
    stack.wait(lambda: operator.owner() == "" and stack.still() and operator.paused == [True])
    operator.shows(browser, "paused")
    stack.call("policy/start")  # by somebody else: relieved again
    stack.rest(1.5)
    assert operator.owner() == "" and stack.still()
    browser.click("[data-do=resume]")
    stack.wait(lambda: operator.owner() == "policy" and stack.state() == "active" and operator.paused == [True, False])


def test_success_failure_and_reset_are_told_once_each(chromium, operator, stack):
    operator.start()
    browser = operator.open()
    for word, code, column in (("success", "KeyY", 1), ("failure", "KeyN", 2), ("reset", "", 3)):
        browser.press(code) if code else browser.click(f"[data-do={word}]")
        stack.wait(lambda column=column: operator.actions[-1].buttons[column])
        stack.wait(lambda column=column: not operator.actions[-1].buttons[column])
    edges = [sum(b and not a for a, b in itertools.pairwise(m.buttons[k] for m in operator.actions)) for k in (1, 2, 3)]
    assert edges == [1, 1, 1]


def test_figures_curves_and_pictures_are_shown(chromium, operator, stack, tmp_path):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed (extra vision)")
    rows = [{"step": k, "episode/success": 0.25 * k, "episode/ratio": 1.5} for k in range(4)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    operator.start(words=["-p", f"run:={tmp_path}", "-p", "cameras:=[front, side]"])
    topic = "camera/side/image_raw/compressed"
    out, actor = (stack.node.create_publisher(*about, NEWEST) for about in ((CompressedImage, topic), ACTOR))
    data = cv2.imencode(".jpg", torch.zeros(6, 8, 3, dtype=torch.uint8).numpy())[1].tobytes()
    late = DiagnosticStatus(name="/actor", values=[KeyValue(key="late steps", value="7"), KeyValue(key="x", value="y")])
    stack.node.create_timer(0.1, lambda: out.publish(CompressedImage(format="jpeg", data=data)))
    stack.node.create_timer(0.1, lambda: actor.publish(DiagnosticArray(status=[late])))
    browser = operator.open()
    operator.until(browser, "document.querySelector('#cameras img')?.naturalWidth === 8")
    operator.until(browser, "document.querySelectorAll('#curves canvas').length === 2")
    operator.until(browser, "document.querySelector('#figures').textContent.includes('late steps7')")
    shown = browser.text("#figures")  # they come before the curves of the same look
    assert "success rate0.75" in shown and "updates a step1.5" in shown and "steps learned from3" in shown
    assert "xy" not in shown and browser.text("#cameras") == "side"


# --- what comes over the wire; no browser needed ---------------------------------------------------------------------


def connected(operator, **more):
    return connect(f"ws://{operator.address}/ws", **{"origin": f"http://{operator.address}", **more})


@pytest.fixture
def wires():
    with contextlib.ExitStack() as opened:
        yield opened


def state_of(line):
    while "n" not in (said := json.loads(line.recv(timeout=10.0))):
        pass
    return said


def beat(line, **more):
    line.send(json.dumps({"seen": state_of(line)["n"], "twist": [0] * 6, "gripper": 0, "target": None, **more}))


def refused(stack):
    status = stack.said.get("/page")
    return {v.key: v.value for v in status.values} if status else {}


def test_other_sites_too_many_pages_and_garbage_are_refused_counted_and_never_a_crash(operator, stack, wires):
    operator.start(words=["-p", "pages:=2"])
    host, port = operator.address.split(":")
    for origin in ("http://evil.example", "http://127.0.0.1:1", None):
        with pytest.raises(WebSocketException), connected(operator, origin=origin):
            pass
    foreign, here = f"evil.example:{port}", socket.create_connection((host, int(port)))
    with pytest.raises(WebSocketException), connect(f"ws://{foreign}/ws", sock=here, origin=f"http://{foreign}"):
        pass  # a foreign name that leads here
    one, two = wires.enter_context(connected(operator)), wires.enter_context(connected(operator))
    with connected(operator) as third, pytest.raises(WebSocketException, match="2 pages are open already"):
        third.recv(timeout=10.0)
    for nonsense in ("[" * 1900, "null", '{"do": "dance"}', '{"do": ["stop"]}', "\x00", b"\x01\x02"):
        one.send(nonsense)
    for twist in ([float("nan")] * 6, [2] + [0] * 5, [0] * 5):
        beat(one, twist=twist)
    for wrong in ({"target": [float("inf"), 0, 0]}, {"target": [9, 9, 9]}, {"gripper": True}, {"seen": "1"}, {"x": 1}):
        beat(one, **wrong)
    two.send("x" * 5000)
    counts = {"a page of another origin": 4, "one page too many": 1, "no JSON": 2, "a twist that is not within 1": 2,
              "a target that is not within 3": 2, "too long": 1}  # fmt: skip
    expected = {f"refused: {why}": str(count) for why, count in counts.items()}
    stack.wait(lambda: expected.items() <= refused(stack).items())
    assert stack.processes["page"].poll() is None and "Traceback" not in stack.log("page")
    assert operator.owner() == "" and not stack.commands


def test_who_pauses_twice_has_the_policy_back_by_one_resume(operator, stack, wires):
    operator.start("policy")
    stack.wait(lambda: stack.call("policy/start").success and stack.state() == "active")
    line = wires.enter_context(connected(operator))
    line.send('{"do": "pause"}')
    stack.wait(lambda: operator.owner() == "" and operator.paused == [True])
    line.send('{"do": "pause"}')
    stack.wait(lambda: operator.paused == [True, True])
    line.send('{"do": "resume"}')
    stack.wait(lambda: operator.owner() == "policy" and stack.state() == "active")


def test_orders_that_nobody_carries_out_are_said_to_be_so(operator, stack, wires):
    """Neither a guard nor a learner; what the test itself listens to would count as one."""
    stack.start("page", words=["-p", f"address:={operator.address}", "-p", "timeout_s:=1.0"])
    stack.wait(lambda: "the operator's page" in stack.log("page"))
    stack.node.destroy_subscription(operator.heard)
    stack.rest(0.5)
    line = wires.enter_context(connected(operator))
    for what, why in (("stop", "no guard"), ("clear", "no guard"), ("success", "nobody who learns")):
        line.send(json.dumps({"do": what}))
        told = ""
        while not told.startswith(f"{what}: "):
            told = state_of(line)["told"]
        assert why in told


def test_heartbeats_that_stop_while_the_connection_stays_are_a_loss(operator, stack):
    operator.start()
    with connected(operator) as line:
        for _ in range(TRIES):
            beat(line)
            line.send('{"do": "take"}')
            for _ in range(100):
                beat(line, twist=[0, 0, 0.5, 0, 0, 0])
                stack.spin()
                if stack.commands and any(stack.commands[-1].velocity):
                    break
            else:
                continue
            break
        assert operator.owner() == "page"
        stack.wait(stack.at_rest)
        assert "lost: no heartbeat" in state_of(line)["told"] or any(
            "lost: no heartbeat" in state_of(line)["told"] for _ in range(50)
        )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-p", "address:=0.0.0.0:8090"], "needs a token"),
        (["-p", "address:=127.0.0.1:99999"], "use HOST:PORT with a free port"),
        (["-p", "pages:=0"], "pages must be at least 1"),
        (["-p", "cameras:=[a/b]"], "names of letters, digits and _"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(stack, words, reason):
    stack.start("page", words=words)
    assert stack.processes["page"].wait(timeout=60) in (1, 2)
    assert "Traceback" not in stack.log("page") and reason in stack.log("page")
