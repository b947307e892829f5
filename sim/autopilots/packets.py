"""What Betaflight's software-in-the-loop build sends and takes, little-endian, as bytes; sockets are elsewhere.

Its packets are written for Gazebo: gyroscope and attitude of a body FRD in a world that is turned likewise, the
accelerometer with the opposite sign of a body FLU. The firmware turns all of it back: inside, pitch is positive with
the nose down and yaw rates to the left, as in ours. Motors are numbered rear right, front right, rear left, front left
by the firmware and sent with the first of them last. The build takes the attitude from the packet, not from the
sensors.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

MOTORS_PORT, STATE_PORT, STICKS_PORT, CLI_PORT = 9002, 9003, 9004, 5761
"""UDP from it; UDP to it, twice; TCP: command line and MSP on its first serial port."""
STATE, STICKS, MOTORS = struct.Struct("<18d"), struct.Struct("<d16H"), struct.Struct("<4f")
ORDER = [0, 3, 1, 2]
"""Of the motors in a packet (front right, rear left, front left, rear right): ours go round from the front right."""
LOW, MIDDLE, HIGH = 1000, 1500, 2000
"""Microseconds of a channel."""
METRES_PER_DEGREE = 111_319.5
MSP_ATTITUDE, MSP_STATUS = 108, 150
ARMING_FLAGS = (
    "NOGYRO", "FAILSAFE", "RXLOSS", "NOT_DISARMED", "BOXFAILSAFE", "RUNAWAY", "CRASH", "THROTTLE", "ANGLE", "BOOTGRACE",
    "NOPREARM", "LOAD", "CALIB", "CLI", "CMS", "BST", "MSP", "PARALYZE", "GPS", "RESCUE_SW", "DSHOT_TELEM",
    "REBOOT_REQD", "DSHOT_BBANG", "NO_ACC_CAL", "MOTOR_PROTO", "FLIP_SWITCH", "ALT_HOLD_SW", "POS_HOLD_SW",
    "ARM_SWITCH",
)  # fmt: skip
"""Why it refuses to arm, by bit."""


@dataclass(frozen=True)
class Sensed:
    """What the firmware is told. World ENU, body FLU."""

    position: np.ndarray  # (3,) m
    quat: np.ndarray  # (4,) xyzw
    velocity: np.ndarray  # (3,) m/s, world
    rates: np.ndarray  # (3,) rad/s, body
    specific_force: np.ndarray  # (3,) m/s2, body: 9.81 up for one that stands


def state(time_s: float, sensed: Sensed) -> bytes:
    """Time has to grow by less than 20 ms from packet to packet."""
    x, y, z, w = sensed.quat
    east, north, up = sensed.position
    flip = np.array([1.0, -1.0, -1.0])
    pressure_pa = 101_325.0 * (1.0 - 2.25577e-5 * up) ** 5.25588
    return STATE.pack(
        time_s, *(flip * sensed.rates), *(-sensed.specific_force), w, x, -y, -z, *sensed.velocity,
        east / METRES_PER_DEGREE, north / METRES_PER_DEGREE, up, pressure_pa,
    )  # fmt: skip


def sticks(time_s: float, channels: list[int]) -> bytes:
    """Roll, pitch, throttle, yaw, then switches; those that are missing are low."""
    return STICKS.pack(time_s, *channels, *[LOW] * (16 - len(channels)))


def motors(packet: bytes) -> np.ndarray:
    """(4,) shares of the full speed, in the order of our rotors."""
    return np.array(MOTORS.unpack(packet), dtype=np.float32)[ORDER].clip(0.0, 1.0)


def request(command: int) -> bytes:
    """An MSP question without content."""
    return b"$M<" + bytes([0, command, command])


def reply(received: bytes, command: int) -> bytes | None:
    """The content of the MSP answer to `command` in what was received, once it is there whole."""
    start = received.find(b"$M>")
    while start >= 0:
        size, of = (*received[start + 3 : start + 5], 256, 256)[:2]
        whole = received[start + 3 : start + 6 + size]
        if of == command and len(whole) == size + 3 and _checksum(whole[:-1]) == whole[-1]:
            return whole[2:-1]
        start = received.find(b"$M>", start + 1)
    return None


def _checksum(content: bytes) -> int:
    total = 0
    for byte in content:
        total ^= byte
    return total


def attitude(content: bytes) -> tuple[float, float, float]:
    """Roll, pitch and heading as the firmware has them, rad: pitch nose down, heading clockwise from our x axis."""
    roll, pitch, heading = struct.unpack("<3h", content)
    return tuple(np.radians([0.1 * roll, 0.1 * pitch, heading]).tolist())


def refusals(content: bytes) -> list[str]:
    """Names of the reasons not to arm in an answer to MSP_STATUS."""
    more = content[15]  # bytes of flight modes that do not fit into their first four
    (bits,) = struct.unpack_from("<I", content, 17 + more)
    return [name for i, name in enumerate(ARMING_FLAGS) if bits >> i & 1]
