"""Gamepads and keyboards by the bytes that the kernel writes, through FIFOs: what they say, and what is a loss."""

import os
import struct
import threading
from types import SimpleNamespace

import pytest

from real.teleop.base import DeviceError, Reading, claim, share
from real.teleop.evdev import EVENT, _bits, _request
from real.teleop.gamepad import Gamepad, GamepadCfg
from real.teleop.keyboard import Keyboard, KeyboardCfg
from robolearn.hil.takeover import Claim

KEY, ABS = 1, 3


class Wire:
    """A FIFO, the end that writes to it, and a clock."""

    def __init__(self, path):
        os.mkfifo(path)
        self.path, self.time_s = path, 100.0
        self.host = SimpleNamespace(now_s=lambda: self.time_s)
        self.plug()

    def plug(self):
        reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)  # a writer waits for one
        self.out = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        os.close(reader)

    def unplug(self):
        os.close(self.out)

    def send(self, *events, report=True):
        events += ((0, 0, 0),) if report else ()
        os.write(self.out, b"".join(EVENT.pack(1, 2, *event) for event in events))


@pytest.fixture
def wire(tmp_path):
    return Wire(tmp_path / "event0")


@pytest.fixture
def pad(wire):
    device = Gamepad(GamepadCfg(path=str(wire.path), dead_zone=0.2), wire.host)
    yield device
    device.close()


@pytest.fixture
def keys(wire):
    device = Keyboard(KeyboardCfg(path=str(wire.path)), wire.host)
    yield device
    device.close()


def test_an_event_is_that_of_the_kernel():
    assert EVENT.size == struct.calcsize("qqHHi") == 24  # of 64-bit machines


def test_what_the_kernel_is_asked_are_the_numbers_of_its_header():
    """EVIOCGNAME(256), EVIOCGABS(ABS_X), EVIOCGKEY(96), EVIOCGBIT(EV_KEY, 96), EVIOCGRAB, as a C program prints."""
    asked = (0x06, 256), (0x40, 24), (0x18, 96), (0x21, 96), (0x90, 4, True)
    assert [_request(*a) for a in asked] == [0x81004506, 0x80184540, 0x80604518, 0x80604521, 0x40044590]
    assert list(_bits(bytes([0b1001, *[0] * 7, 0, 2, *[0] * 6]))) == [0, 3, 73]


def test_a_gamepad_at_rest_says_nothing_and_reading_does_not_wait(pad, wire):
    assert pad.read() == Reading((0.0,) * 6, 0, frozenset(), 100.0)
    wire.time_s = 101.0
    assert pad.read().stamp_s == 101.0


def test_a_gamepads_sticks_triggers_and_cross_by_hand(pad, wire):
    wire.send(
        (ABS, 1, -32768), (ABS, 0, 19660), (ABS, 5, 255), (ABS, 2, 51), (ABS, 16, -1), (ABS, 4, 3276), (ABS, 3, 0)
    )
    x, y, z, roll, pitch, yaw = pad.read().twist
    assert x == pytest.approx(1.0)
    assert y == pytest.approx(-(0.6 - 0.2) / 0.8, abs=1e-4)  # 19660 of 32767.5
    assert z == pytest.approx((0.8 - 0.2) / 0.8)  # 1 up, 51 of 255 down
    assert (roll, pitch, yaw) == (pytest.approx(-1.0), 0.0, 0.0)  # a tenth lies in the dead zone


def test_a_gamepads_buttons_stay_as_they_are_until_they_change(pad, wire):
    wire.send((KEY, 0x130, 1), (KEY, 0x136, 1))
    assert pad.read()[1:3] == (-1, {"take"})
    assert pad.read()[1:3] == (-1, {"take"})
    wire.send((KEY, 0x130, 0), (KEY, 0x136, 0), (KEY, 0x133, 1), (KEY, 0x131, 1))
    assert pad.read()[1:3] == (1, {"stop"})


def test_the_newest_of_many_events_counts(pad, wire):
    for k in range(500):
        wire.send((ABS, 1, -60 * k))
    assert pad.read().twist[0] == pytest.approx((499 * 60 / 32767.5 - 0.2) / 0.8, abs=1e-3)


def test_what_comes_after_dropped_events_is_void_up_to_the_next_report(pad, wire):
    wire.send((ABS, 1, -32768))
    wire.send((0, 3, 0), (ABS, 0, 32767), (KEY, 0x136, 1), report=False)
    assert pad.read()[:3] == ((pytest.approx(1.0), 0.0, 0.0, 0.0, 0.0, 0.0), 0, frozenset())
    wire.send()
    assert pad.read() == Reading((0.0,) * 6, 0, frozenset(), 100.0)  # all is asked for anew; a FIFO knows nothing
    wire.send((ABS, 0, -32768))
    assert pad.read().twist[1] == pytest.approx(1.0)


GARBAGE = {
    "half an event": b"\0" * 13,
    "an axis that is nowhere": EVENT.pack(1, 2, ABS, 0, 2_000_000_000),
    "a key that is neither": EVENT.pack(1, 2, KEY, 0x136, 77),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_is_a_loss_with_a_remedy(pad, wire, what):
    wire.send((ABS, 1, -32768), (KEY, 0x136, 1))
    assert pad.read().twist[0] == pytest.approx(1.0)
    os.write(wire.out, GARBAGE[what])
    for _ in range(3):
        with pytest.raises(DeviceError, match=r"is (it an input device|gamepad.path the right)"):
            pad.read()


def test_an_axis_a_little_beyond_its_range_is_at_its_end(pad, wire):
    wire.send((ABS, 1, -33000))
    assert pad.read().twist[0] == pytest.approx(1.0)


def test_an_unplugged_gamepad_is_lost_and_comes_back_at_rest(pad, wire):
    wire.send((ABS, 1, -32768))
    pad.read()
    wire.unplug()
    with pytest.raises(DeviceError, match="plug the device in again"):
        pad.read()
    threading.Thread(target=lambda: os.close(os.open(wire.path, os.O_RDONLY))).start()
    wire.out = os.open(wire.path, os.O_WRONLY)  # plugged in, and nobody has it yet
    with pytest.raises(DeviceError, match="plug the device in again"):
        pad.read()  # not at every period
    wire.time_s += 0.6
    assert pad.read().twist == (0.0,) * 6
    wire.send((ABS, 0, -32768))
    assert pad.read().twist[1] == pytest.approx(1.0)


def test_a_device_that_is_not_there_says_what_to_do(wire, tmp_path, monkeypatch):
    with pytest.raises(
        DeviceError, match=r"gamepad: no device at .*event7 \(No such file.*; plug it in, or set gamepad.path"
    ):
        Gamepad(GamepadCfg(path=str(tmp_path / "event7")), wire.host)
    monkeypatch.setattr("real.teleop.evdev.FOLDER", tmp_path)  # which holds a FIFO, that is no gamepad
    with pytest.raises(DeviceError, match=r"gamepad: none found in .*plug one in, or set gamepad\.path"):
        Gamepad(GamepadCfg(), wire.host)
    with pytest.raises(DeviceError, match=r"keyboard\.path is not set; there is"):
        Keyboard(KeyboardCfg(), wire.host)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_device_that_may_not_be_read_names_the_group(wire, tmp_path):
    wire.path.chmod(0)
    with pytest.raises(DeviceError, match="usermod -aG input"):
        Gamepad(GamepadCfg(path=str(wire.path)), wire.host)


def test_a_keyboards_keys_by_hand(keys, wire):
    wire.send((KEY, 17, 1), (KEY, 30, 1), (KEY, 33, 1), (KEY, 38, 1))
    assert keys.read().twist == (1.0, 1.0, -1.0, 0.0, 0.0, -1.0)
    wire.send((KEY, 17, 2), (KEY, 42, 1), (KEY, 31, 1))  # repeated; shift; forwards and back
    assert keys.read().twist == (0.0, 0.25, -0.25, 0.0, 0.0, -0.25)
    wire.send(*((KEY, code, 0) for code in (17, 30, 33, 38, 42, 31)), (KEY, 34, 1), (KEY, 1, 1))
    assert keys.read()[:3] == ((0.0,) * 6, -1, {"stop"})


def test_a_share_has_no_jump_at_the_end_of_the_dead_zone():
    assert [share(v, 0.2) for v in (0.0, 0.2, -0.2, 0.6, -1.0, 1.04)] == pytest.approx([0, 0, 0, 0.5, -1, 1])
    assert share(float("nan"), 0.2) != 0.0


def test_what_a_reading_claims():
    still = (0.0,) * 6
    assert claim(Reading((0.0, -0.7, 0.1, 0.0, 0.0, 0.0), 0, frozenset(), 0.0)) == Claim(0.7)
    assert claim(Reading(still, -1, frozenset(), 0.0)) == Claim(0.0, take=True)
    assert claim(Reading(still, 0, frozenset({"take"}), 0.0)) == Claim(0.0, take=True)
    assert claim(Reading(still, 0, frozenset({"stop", "take"}), 0.0)) == Claim(0.0, take=True, let_go=True)


@pytest.mark.parametrize("wrong", [-0.1, 1.0, float("nan")])
def test_a_dead_zone_that_leaves_nothing_is_refused(wrong):
    with pytest.raises(ValueError, match="dead_zone"):
        GamepadCfg(dead_zone=wrong)
