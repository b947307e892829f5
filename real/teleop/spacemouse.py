"""3Dconnexion's mice with six axes, by the package pyspacemouse 2 (extra `teleop`; it needs the library hidapi).

No such mouse has been tried: reports are decoded by the package, in the axes that ROS uses. The first button closes the
gripper, the second opens it; of mice with more, `menu` lets go and `esc` is the emergency stop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from real.teleop.base import RETRY_S, DeviceError, Host, Reading, demand_dead_zone, demand_shares, share
from robolearn.config import register
from robolearn.optional import load

MOST = 64
"""Reports that are read at once."""
FARTHEST = 2.0
"""The package scales by a number that is the same for all models; some go beyond it."""
NAMED = {"MENU": "release", "ESC": "stop"}


@dataclass
class SpaceMouseCfg:
    model: str = ""
    """Of pyspacemouse, such as SpaceMouseCompact; empty: the first that is found."""
    dead_zone: float = 0.1

    def __post_init__(self) -> None:
        demand_dead_zone(self.dead_zone)


@register("device", "spacemouse", SpaceMouseCfg)
class SpaceMouse:
    def __init__(self, cfg: SpaceMouseCfg, host: Host):
        self.cfg, self.host = cfg, host
        self._package = load("pyspacemouse", "teleop")
        self._lost: type[Exception] = load("easyhid", "teleop").HIDException
        self._again_s, self._why = 0.0, ""
        self.mouse: Any = self._open()

    def _open(self) -> Any:
        try:
            return self._package.open(
                device=self.cfg.model or None, axis_convention=self._package.AxisConvention.ROS, nonblocking=True
            )
        except (RuntimeError, ValueError, self._lost) as error:
            raise DeviceError(f"spacemouse: {error}; plug it in, install the library hidapi (libhidapi-libusb0 or "
                              "libhidapi-hidraw0), and let the user read /dev/hidraw*") from error  # fmt: skip

    def read(self) -> Reading:
        now_s = self.host.now_s()
        try:
            if self.mouse is None:
                if abs(now_s - self._again_s) < RETRY_S:
                    raise DeviceError(self._why)
                self._again_s = now_s
                self.mouse = self._open()
            return self._reading(self._newest(), now_s)
        except (DeviceError, self._lost, OSError) as error:
            known = isinstance(error, DeviceError)
            self._why = str(error) if known else f"spacemouse: it was unplugged ({error}); plug it in again"
            if self.mouse is not None:
                self._again_s = now_s
            self.close()
            raise DeviceError(self._why) from None

    def _newest(self) -> Any:
        """A read takes one report; they queue."""
        state = self.mouse.read()
        for _ in range(MOST):
            before = state.t
            state = self.mouse.read()
            if state.t == before:
                break
        return state

    def _reading(self, state: Any, now_s: float) -> Reading:
        raw = (state.x, state.y, state.z, state.roll, state.pitch, state.yaw)
        demand_shares("spacemouse", raw, "is spacemouse.model the right one?", FARTHEST)
        down = [k for k, pressed in enumerate(state.buttons) if pressed]
        names = {self.mouse.get_button_name(k).upper() for k in down if k > 1}
        buttons = frozenset(NAMED[n] for n in names & NAMED.keys())
        return Reading(tuple(share(v, self.cfg.dead_zone) for v in raw), (1 in down) - (0 in down), buttons, now_s)

    def close(self) -> None:
        if self.mouse is not None:
            self.mouse.close()
            self.mouse = None
