"""A gamepad as Linux lays them out (Documentation/input/gamepad.rst: xpad, hid-playstation, hid-nintendo and others).

Left stick: forwards and left. Triggers: right up, left down. Right stick: tips and turns about the vertical. Cross:
rolls. South closes the gripper, north (X of an Xbox pad) opens it, east is the emergency stop. Left shoulder takes
over, right lets go.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from real.teleop.base import DeviceError, Host, Reading, demand_dead_zone, share
from real.teleop.evdev import FOLDER, EventDevice, EventFile, Range, find
from robolearn.config import register

X, Y, Z, RX, RY, RZ, HAT_X, HAT_Y = 0, 1, 2, 3, 4, 5, 16, 17
STICK, TRIGGER, CROSS = Range(-32768, 32767), Range(0, 255), Range(-1, 1)
SOUTH, EAST, NORTH, LEFT, RIGHT, SELECT, START, MODE = 0x130, 0x131, 0x133, 0x136, 0x137, 0x13A, 0x13B, 0x13C
KEYS = {LEFT: "take", RIGHT: "release", EAST: "stop", START: "success", SELECT: "failure", MODE: "reset"}


@dataclass
class GamepadCfg:
    path: str = ""
    """Of the file of events, better that of /dev/input/by-id; empty: the first gamepad that is found."""
    dead_zone: float = 0.1
    """Share of the full deflection about the middle that counts as zero."""

    def __post_init__(self) -> None:
        demand_dead_zone(self.dead_zone)


@register("device", "gamepad", GamepadCfg)
class Gamepad(EventDevice):
    name = "gamepad"
    assumed = dict.fromkeys((X, Y, RX, RY), STICK) | dict.fromkeys((Z, RZ), TRIGGER) | {HAT_X: CROSS, HAT_Y: CROSS}

    def __init__(self, cfg: GamepadCfg, host: Host):
        self.cfg = cfg
        super().__init__(host)

    def open(self) -> EventFile:
        path = Path(self.cfg.path) if self.cfg.path else next(iter(find(self.name, SOUTH, self.assumed)), None)
        if path is None:
            raise DeviceError(f"gamepad: none found in {FOLDER}; plug one in, or set gamepad.path (the user must be in "
                              "the group input)")  # fmt: skip
        return EventFile(self.name, path, self.assumed)

    def reading(self, file: EventFile, now_s: float) -> Reading:
        up = file.pressed(RZ) - file.pressed(Z)
        raw = (-file.centred(Y), -file.centred(X), up, file.centred(HAT_X), -file.centred(RY), -file.centred(RX))
        gripper = (NORTH in file.keys) - (SOUTH in file.keys)
        buttons = frozenset(word for code, word in KEYS.items() if code in file.keys)
        return Reading(tuple(share(v, self.cfg.dead_zone) for v in raw), gripper, buttons, now_s)
