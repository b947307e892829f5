"""A keyboard, best one of its own: what is typed there moves the robot, whatever window is in front.

W S forwards and back, A D left and right, R F up and down; U O roll, I K tip, J L turn; shift for a quarter of the
speed. G closes and H opens the gripper. Space takes over, enter lets go, escape is the emergency stop; Y success,
N failure, backspace reset.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from real.teleop.base import DeviceError, Host, Reading
from real.teleop.evdev import FOLDER, EventDevice, EventFile, find
from robolearn.config import register

FORWARDS, GRIP = 17, (35, 34)
AXES = ((FORWARDS, 31), (30, 32), (19, 33), (24, 22), (23, 37), (36, 38))
"""Of each part of the twist the keys that are +1 and -1: W S, A D, R F, O U, I K, J L by linux/input-event-codes.h."""
KEYS = {57: "take", 28: "release", 1: "stop", 21: "success", 49: "failure", 14: "reset"}
SHIFTS, SLOW = {42, 54}, 0.25


@dataclass
class KeyboardCfg:
    path: str = ""
    """Of the file of events, better that of /dev/input/by-id. It must be set: whose keyboard moves the robot?"""
    grab: bool = True
    """No other program hears this keyboard while it moves a robot."""


@register("device", "keyboard", KeyboardCfg)
class Keyboard(EventDevice):
    name = "keyboard"

    def __init__(self, cfg: KeyboardCfg, host: Host):
        self.cfg = cfg
        super().__init__(host)

    def open(self) -> EventFile:
        if not self.cfg.path:
            found = "; ".join(f"{path} ({title})" for path, title in find(self.name, FORWARDS, {}).items())
            raise DeviceError(f"keyboard.path is not set; there is {found or f'none that may be read in {FOLDER}'}")
        file = EventFile(self.name, Path(self.cfg.path), {})
        if self.cfg.grab:
            try:
                file.grab()
            except DeviceError:
                file.close()
                raise
        return file

    def reading(self, file: EventFile, now_s: float) -> Reading:
        down = file.keys
        speed = SLOW if down & SHIFTS else 1.0
        twist = tuple(speed * ((more in down) - (less in down)) for more, less in AXES)
        buttons = frozenset(word for code, word in KEYS.items() if code in down)
        return Reading(twist, (GRIP[0] in down) - (GRIP[1] in down), buttons, now_s)
