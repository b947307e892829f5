"""Bring a quadrotor to a point and keep it there."""

from __future__ import annotations

from dataclasses import dataclass, field

from robolearn.config import register
from sim.randomize import RandomizeCfg
from sim.tasks.flight.base import FlightCfg, FlightTask, paper_randomization, published_randomization


@dataclass
class CrazyflieHoverRpmCfg(FlightCfg):
    name: str = "crazyflie_hover_rpm"
    physics_dt_s: float = 0.01
    decimation: int = 1
    action: str = "rotor_speed"
    action_history: int = 32
    level_start: float = 0.1
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "alive": 2.0, "position_squared": -2.5, "position": 0.0, "tilt": -2.5, "velocity": -0.005,
            "action": -0.005, "action_change": 0.0,
        }
    )  # fmt: skip
    randomize: RandomizeCfg = field(default_factory=paper_randomization)


@register("task", "crazyflie_hover_rpm", CrazyflieHoverRpmCfg)
class CrazyflieHoverRpm(FlightTask):
    """## Description
    Learning to Fly in Seconds (Eschmann et al. 2023): a Crazyflie recovers from any attitude up to 90 degrees and
    hovers at a point 1 m above the ground; four rotor set-points at 100 Hz, integrated by RK4 at 10 ms, for 5 s. The
    policy sees position, rotation matrix, velocity, body rates and its last 32 actions (`action_history`); the critic
    also the disturbance and the rotor speeds. Rewards are the paper's first stage; its curriculum is left out. Rotor
    speeds cannot be commanded over a radio link: this task is for comparison with the paper.

    ## Randomisation
    Starts: |p| <= 0.2 m and |v| <= 1 m/s, |w| <= 1 rad/s each axis, rotation uniform up to 90 degrees, a tenth of them
    (`level_start`) at rest at the goal; the rotors start at hover speed. A constant force (sd m g / 20 each axis) and
    torque (sd m g / 10,000 N m) an episode; sensor noise of 1 mm, 0.001 (rotation matrix), 2 mm/s, 2 mrad/s.

    ## Success
    Still within 0.6 m of the point, each axis, after 5 s. `steady_error_m` is the RMS distance of the last 2 s.
    """

    fused = True


@dataclass
class CrazyflieHoverCfg(FlightCfg):
    name: str = "crazyflie_hover"
    physics_dt_s: float = 0.002
    decimation: int = 5
    integral_limit_ms: float = 0.3
    weights: dict[str, float] = field(
        default_factory=lambda: {
            "alive": 2.0, "position_squared": -5.0, "position": -0.5, "tilt": -1.0, "velocity": -0.01,
            "action": -0.01, "action_change": -0.02,
        }
    )  # fmt: skip
    randomize: RandomizeCfg = field(default_factory=published_randomization)


@register("task", "crazyflie_hover", CrazyflieHoverCfg)
class CrazyflieHover(FlightTask):
    """## Description
    A Crazyflie recovers from any attitude up to 90 degrees and hovers at a point 1 m above the ground, by roll, pitch,
    yaw rate and thrust at 100 Hz through a model of its firmware (500 Hz) and its radio link: what a real one accepts.
    The policy sees position, its integral (against constant forces and trim), rotation, velocity, rates and its last
    four actions.

    ## Randomisation
    Mass, inertia, thrust, rotor time constants, drag, battery sag and link delay over the union of the published
    Crazyflies; a constant force (sd m g / 20 each axis), torque, roll and pitch trim (sd 0.03 rad); starts as in
    `crazyflie_hover_rpm`, none of them level; sensor noise of 1 mm, 0.001, 2 mm/s, 2 mrad/s.

    ## Success
    Still within 0.6 m of the point, each axis, after 5 s. `steady_error_m` is the RMS distance of the last 2 s.
    """

    fused = True
