"""From where a person drags the tool to, to how it moves there."""

from __future__ import annotations

from torch import Tensor

from robolearn.rotations import quat_apply, quat_conjugate

SETTLE_S = 0.25
"""Nearer than full speed goes in this time, the tool slows down in proportion."""
THERE_M = 0.0005


def towards(target_m: Tensor, pose: Tensor, speed_mps: float, in_tool: bool) -> tuple[float, ...]:
    """Twist (6,) in shares of full speed: straight to target_m (3,) from the tool's pose (7,), both in the base's
    frame, without a turn. Along the axes of the base, or of the tool."""
    gap = target_m - pose[:3]
    way = gap / (speed_mps * SETTLE_S) * (gap.norm() > THERE_M)
    way = way / way.norm().clamp(min=1.0)
    way = quat_apply(quat_conjugate(pose[None, 3:]), way[None])[0] if in_tool else way
    return (*way.clamp(-1.0, 1.0).tolist(), 0.0, 0.0, 0.0)
