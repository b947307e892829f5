# mypy: ignore-errors
# Warp reads the annotations of its kernels as types of its own.
"""How an episode of a flight task starts, as Warp functions: its vehicle, its state, what disturbs it."""

import warp as wp

from sim.vehicles import dynamics as d

wp.set_module_options({"enable_backward": False, "fast_math": True})

DRAWN = 9
"""Parameters that a reset may draw, in the order of `ranges`: mass, inertia, thrust, reaction torque, up, down, drag,
sag, delay."""


@wp.struct
class Rules:
    """Numbers of a flight task."""

    attitude: int
    half_speed: float
    weight: float
    scale: wp.vec4
    rest: wp.vec4
    dt: float
    substeps: int
    period: float
    integral: float
    history: int
    preview: int  # -1: the goal's future is not seen
    stride: int
    far: float
    steady_from: int
    start: wp.vec4  # position, velocity, rates, largest angle
    level: float
    force: float
    torque: float
    trim: float
    force_unit: float
    torque_unit: float
    alive: float  # weights of the reward, times the period
    position_squared: float
    position: float
    tilt: float
    velocity: float
    action: float
    action_change: float
    seed: int


@wp.func
def key_of(i: int, n: int, draws: int, stream: int, seed: int):
    """A generator of its own for each purpose: Warp hands generators to functions by value."""
    return wp.rand_init(seed * 7 + stream, i + n * draws)


@wp.func
def capped_rotation(rng: wp.uint32, largest: float):
    """Uniform over SO(3) among the rotations of at most `largest` rad (the angle's density is 1 - cos)."""
    axis = wp.normalize(wp.vec3(wp.randn(rng), wp.randn(rng), wp.randn(rng)))
    share = wp.randf(rng) * (largest - wp.sin(largest))
    angle = wp.pow(6.0 * share, 1.0 / 3.0)
    for _k in range(4):
        slope = wp.max(1.0 - wp.cos(angle), 1.0e-6)
        angle = wp.clamp(angle - (angle - wp.sin(angle) - share) / slope, 0.0, largest)
    s = wp.sin(0.5 * angle)
    return wp.vec4(axis[0] * s, axis[1] * s, axis[2] * s, wp.cos(0.5 * angle))


@wp.func
def draw_params(now: d.Parameters, nominal: d.Parameters, ranges: wp.array2d(dtype=float), rng: wp.uint32):
    """A vehicle: `nominal`, scaled by draws from `ranges`; what is not drawn stays as it is `now`."""
    out = now
    for k in range(DRAWN):
        low = ranges[k, 0]
        if low >= 0.0:
            by = low + (ranges[k, 1] - low) * wp.randf(rng)  # exactly zero where both ends are
            if k == 0:
                out[0] = nominal[0] * by
            elif k == 1:
                for j in range(3):
                    out[1 + j] = nominal[1 + j] * by
                    out[4 + j] = nominal[4 + j] / by
            elif k < 4:
                out[5 + k] = nominal[5 + k] * by
            elif k < 6:
                out[5 + k] = wp.pow(nominal[5 + k], 1.0 / by)
            elif k == 6:
                out[11] = nominal[11] * by
                out[12] = nominal[12] * by
            else:
                out[6 + k] = nominal[6 + k] * by
    return out


@wp.func
def start(goal: wp.vec3, drift: wp.vec3, hover: float, rules: Rules, rng: wp.uint32, turned: wp.uint32):
    """A new episode's state about `goal`, which moves with `drift`."""
    e = rules.start[0]
    f = rules.start[1]
    g = rules.start[2]
    p = wp.vec3(wp.randf(rng, -e, e), wp.randf(rng, -e, e), wp.randf(rng, -e, e))
    v = wp.vec3(wp.randf(rng, -f, f), wp.randf(rng, -f, f), wp.randf(rng, -f, f))
    w = wp.vec3(wp.randf(rng, -g, g), wp.randf(rng, -g, g), wp.randf(rng, -g, g))
    q = capped_rotation(turned, rules.start[3])
    if wp.randf(rng) < rules.level:
        p = wp.vec3(0.0)
        v = wp.vec3(0.0)
        w = wp.vec3(0.0)
        q = wp.vec4(0.0, 0.0, 0.0, 1.0)
    p += goal
    v += drift
    return d.Row(p[0], p[1], p[2], q[0], q[1], q[2], q[3], v[0], v[1], v[2], w[0], w[1], w[2],
                 hover, hover, hover, hover, 0.0)  # fmt: skip


@wp.func
def disturb(rules: Rules, rng: wp.uint32):
    """An episode's force and torque, world frame."""
    f = rules.force
    t = rules.torque
    return d.Wrench(f * wp.randn(rng), f * wp.randn(rng), f * wp.randn(rng), t * wp.randn(rng), t * wp.randn(rng),
                    t * wp.randn(rng))  # fmt: skip
