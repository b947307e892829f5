"""Quality of service, with rclpy's names, and what DDS is told for it (as rmw_cyclonedds does)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

from cyclonedds.core import Policy, Qos
from cyclonedds.util import duration

from robolearn.errors import ConfigError

INFINITE = duration(infinite=True)


class ReliabilityPolicy(IntEnum):
    SYSTEM_DEFAULT, RELIABLE, BEST_EFFORT = range(3)


class DurabilityPolicy(IntEnum):
    SYSTEM_DEFAULT, TRANSIENT_LOCAL, VOLATILE = range(3)


class HistoryPolicy(IntEnum):
    SYSTEM_DEFAULT, KEEP_LAST, KEEP_ALL = range(3)


@dataclass(frozen=True)
class QoSProfile:
    """`QoSProfile(depth=10)`: reliable, volatile, the last `depth` samples kept."""

    depth: int = 10
    history: HistoryPolicy = HistoryPolicy.KEEP_LAST
    reliability: ReliabilityPolicy = ReliabilityPolicy.RELIABLE
    durability: DurabilityPolicy = DurabilityPolicy.VOLATILE
    lifespan_s: float | None = None

    @classmethod
    def of(cls, qos: QoSProfile | int) -> QoSProfile:
        """A number is a depth."""
        profile = cls(depth=qos) if isinstance(qos, int) else qos
        if not isinstance(profile, QoSProfile):
            raise TypeError(f"a QoSProfile or a depth expected, not {type(qos).__name__}")
        if profile.history != HistoryPolicy.KEEP_ALL and not 0 <= profile.depth < 2**31:
            raise ConfigError(f"a depth of {profile.depth} samples cannot be kept")
        return profile

    def to_dds(self, user_data: str, ignore_local: bool = False) -> Qos:
        keep = (
            Policy.History.KeepAll if self.history == HistoryPolicy.KEEP_ALL
            else Policy.History.KeepLast(max(1, self.depth))
        )  # fmt: skip
        policies = [
            keep,
            Policy.Reliability.BestEffort if self.reliability == ReliabilityPolicy.BEST_EFFORT
            else Policy.Reliability.Reliable(INFINITE),
            Policy.WriterDataLifecycle(autodispose=False),
            Policy.DataRepresentation(use_cdrv0_representation=True, use_xcdrv2_representation=False),
            Policy.Userdata(user_data.encode()),
        ]  # fmt: skip
        if self.durability == DurabilityPolicy.TRANSIENT_LOCAL:
            policies += [Policy.Durability.TransientLocal, Policy.DurabilityService(0, keep, -1, -1, -1)]
        else:
            policies += [Policy.Durability.Volatile]
        if self.lifespan_s is not None:
            policies += [Policy.Lifespan(round(self.lifespan_s * 1e9))]
        if ignore_local:
            policies += [Policy.IgnoreLocal.Participant]
        return Qos(*policies)


qos_profile_sensor_data = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
SERVICES = QoSProfile(depth=10)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PARAMETER_EVENTS = QoSProfile(depth=1000)
ROSOUT = replace(LATCHED, depth=1000, lifespan_s=10.0)


def offer(qos: Qos) -> dict[str, Any]:
    """What a writer offers, with the keys and words of rosbag2. Its history is not told to others."""

    def time_of(policy: Any, field: str) -> dict[str, int]:
        ns = getattr(qos[policy], field) if policy in qos else INFINITE
        sec, nsec = divmod(min(ns, INFINITE), 10**9)
        return {"sec": sec, "nsec": nsec}

    lively = qos[Policy.Liveliness.Automatic]
    return {
        "history": "unknown",
        "depth": 0,
        "reliability": "reliable" if isinstance(qos[Policy.Reliability], Policy.Reliability.Reliable)
        else "best_effort",
        "durability": "transient_local" if qos[Policy.Durability] == Policy.Durability.TransientLocal else "volatile",
        "deadline": time_of(Policy.Deadline, "deadline"),
        "lifespan": time_of(Policy.Lifespan, "lifespan"),
        "liveliness": "automatic" if isinstance(lively, Policy.Liveliness.Automatic | None) else "manual_by_topic",
        "liveliness_lease_duration": time_of(Policy.Liveliness.Automatic, "lease_duration"),
        "avoid_ros_namespace_conventions": False,
    }  # fmt: skip
