"""A SpaceMouse through the real pyspacemouse, by the reports that its documentation of devices describes; only the HID
library below it is scripted, for there is no mouse."""

import struct
from types import SimpleNamespace

import pytest

pytest.importorskip("pyspacemouse", reason="pyspacemouse is not installed (extra teleop)")
import pyspacemouse.api
from easyhid import HIDException

from real.teleop.base import DeviceError
from real.teleop.spacemouse import SpaceMouse, SpaceMouseCfg


class Mouse:
    """A SpaceMouse Compact's HID device: translation in report 1, rotation in 2, buttons in 3."""

    vendor_id, product_id = 0x256F, 0xC635
    product_string, manufacturer_string, release_number, serial_number = "SpaceMouse Compact", "3Dconnexion", 1, ""
    path = "/dev/hidraw0"

    def __init__(self):
        self.reports, self.there = [], True

    def push(self, x=0, y=0, z=0, rx=0, ry=0, rz=0, buttons=0):
        self.reports += [struct.pack("<B3h", 1, x, y, z), struct.pack("<B3h", 2, rx, ry, rz), bytes([3, buttons, 0])]

    def open(self):
        if not self.there:
            raise HIDException("Failed to open device")

    def close(self):
        pass

    def set_nonblocking(self, on):
        assert on  # a read must never wait

    def read(self, size):
        if not self.there:
            raise HIDException("Failed to read from HID device: -1")
        return bytearray(self.reports.pop(0).ljust(size, b"\0")) if self.reports else bytearray()


@pytest.fixture
def mouse(monkeypatch):
    made = Mouse()
    monkeypatch.setattr(
        pyspacemouse.api, "Enumeration", lambda: SimpleNamespace(find=lambda **k: [made] if made.there else [])
    )
    return made


@pytest.fixture
def clock():
    return SimpleNamespace(time_s=1.0)


@pytest.fixture
def device(mouse, clock):
    return SpaceMouse(SpaceMouseCfg(dead_zone=0.0), SimpleNamespace(now_s=lambda: clock.time_s))


def test_pushed_away_is_forwards_and_to_the_left_is_left(device, mouse):
    """HID's axes are right, towards the person and down; 350 is full."""
    mouse.push(x=-70, y=-175, z=-350)
    assert device.read().twist == pytest.approx((0.5, 0.2, 1.0, 0.0, 0.0, 0.0))
    mouse.push(rz=-175)  # seen from above, against the clock
    assert device.read().twist == pytest.approx((0.0, 0.0, 0.0, 0.0, 0.0, 0.5))


def test_the_newest_of_many_reports_counts(device, mouse):
    for k in range(15):
        mouse.push(y=-10 * k)
    assert device.read().twist[0] == pytest.approx(140 / 350)


def test_its_buttons_move_the_gripper(device, mouse):
    mouse.push(buttons=1)
    assert device.read().gripper == -1
    mouse.push(buttons=2)
    assert device.read().gripper == 1


def test_what_no_mouse_says_is_a_loss(device, mouse):
    mouse.push(x=30000)
    with pytest.raises(DeviceError, match=r"is spacemouse\.model the right one"):
        device.read()


def test_unplugged_it_is_lost_and_it_is_found_again(device, mouse, clock):
    mouse.push(y=-350)
    assert device.read().twist[0] == pytest.approx(1.0)
    mouse.there = False
    with pytest.raises(DeviceError, match="it was unplugged"):
        device.read()
    clock.time_s += 0.6
    with pytest.raises(DeviceError, match="plug it in"):
        device.read()
    mouse.there = True
    clock.time_s += 0.6
    assert device.read().twist == (0.0,) * 6


def test_none_says_what_to_do(mouse, clock):
    mouse.there = False
    with pytest.raises(DeviceError, match="libhidapi"):
        SpaceMouse(SpaceMouseCfg(), SimpleNamespace(now_s=lambda: clock.time_s))
