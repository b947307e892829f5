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
    noise: wp.vec4  # position, rotation, velocity, rates
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
def put3(m: wp.array2d(dtype=float), i: int, j: int, v: wp.vec3):
    m[i, j] = v[0]
    m[i, j + 1] = v[1]
    m[i, j + 2] = v[2]


@wp.func
def put4(m: wp.array2d(dtype=float), i: int, j: int, v: wp.vec4):
    for k in range(4):
        m[i, j + k] = v[k]


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
def key_of(i: int, n: int, draws: int, stream: int, seed: int):
    """A generator of its own for each purpose: Warp hands generators to functions by value."""
    return wp.rand_init(seed * 7 + stream, i + n * draws)


@wp.func
def draw_params(
    params: wp.array2d(dtype=float), nominal: wp.array(dtype=float), ranges: wp.array2d(dtype=float), i: int,
    rng: wp.uint32,
):  # fmt: skip
    for k in range(DRAWN):
        low = ranges[k, 0]
        if low >= 0.0:
            by = low + (ranges[k, 1] - low) * wp.randf(rng)  # exactly zero where both are
            if k == 0:
                params[i, 0] = nominal[0] * by
            elif k == 1:
                for j in range(3):
                    params[i, 1 + j] = nominal[1 + j] * by
                    params[i, 4 + j] = nominal[4 + j] / by
            elif k < 4:
                params[i, 5 + k] = nominal[5 + k] * by
            elif k < 6:
                params[i, 5 + k] = wp.pow(nominal[5 + k], 1.0 / by)
            elif k == 6:
                params[i, 11] = nominal[11] * by
                params[i, 12] = nominal[12] * by
            else:
                params[i, 6 + k] = nominal[6 + k] * by


@wp.func
def start(
    state: wp.array2d(dtype=float), wrench: wp.array2d(dtype=float), before: wp.array2d(dtype=float),
    memory: wp.array2d(dtype=float), trim: wp.array2d(dtype=float), i: int, goal: wp.vec3, drift: wp.vec3,
    hover: float, rules: Rules, rng: wp.uint32, turned: wp.uint32,
):  # fmt: skip
    """A new episode's state about `goal`, which moves with `drift`."""
    position = rules.start[0] * wp.vec3(wp.randf(rng, -1.0, 1.0), wp.randf(rng, -1.0, 1.0), wp.randf(rng, -1.0, 1.0))
    velocity = rules.start[1] * wp.vec3(wp.randf(rng, -1.0, 1.0), wp.randf(rng, -1.0, 1.0), wp.randf(rng, -1.0, 1.0))
    rates = rules.start[2] * wp.vec3(wp.randf(rng, -1.0, 1.0), wp.randf(rng, -1.0, 1.0), wp.randf(rng, -1.0, 1.0))
    q = capped_rotation(turned, rules.start[3])
    if wp.randf(rng) < rules.level:
        position = wp.vec3(0.0)
        velocity = wp.vec3(0.0)
        rates = wp.vec3(0.0)
        q = wp.vec4(0.0, 0.0, 0.0, 1.0)
    put3(state, i, 0, goal + position)
    put4(state, i, 3, q)
    put3(state, i, 7, drift + velocity)
    put3(state, i, 10, rates)
    put4(state, i, 13, wp.vec4(hover, hover, hover, hover))
    state[i, 17] = 0.0
    for j in range(5):
        memory[i, j] = 0.0
    put3(memory, i, 5, d.DEG * rates)
    put4(before, i, 0, wp.vec4(0.0, 0.0, 0.0, rules.weight))
    put3(wrench, i, 0, rules.force * wp.vec3(wp.randn(rng), wp.randn(rng), wp.randn(rng)))
    put3(wrench, i, 3, rules.torque * wp.vec3(wp.randn(rng), wp.randn(rng), wp.randn(rng)))
    trim[i, 0] = rules.trim * wp.randn(rng)
    trim[i, 1] = rules.trim * wp.randn(rng)
