# mypy: ignore-errors
# Warp reads the annotations of its kernels as types of its own, and int(0) as a variable.
# ruff: noqa: UP018, RUF046
"""A whole control period of a flight task in one kernel: command, physics, reward, ends, reset, observation.

The same as SimEnv with the torch terms of sim/tasks/flight, to which a test compares it. A row of `policy` is position
error (3), rotation matrix (9), velocity error (3), rates (3), the position's integral (3, if wanted), the goal's
acceleration and positions ahead (3 + 3 preview, if wanted), and the last actions (4 history); a row of `critic` the
same without noise, integral and actions, then the disturbance (6) and rotor speeds (4).
"""

import warp as wp

from sim.vehicles import dynamics as d
from sim.vehicles.starts import Rules, draw_params, key_of, put3, put4, start

wp.set_module_options({"enable_backward": False, "fast_math": True})

TABLE = 1 << 16
NORMALS = wp.constant(TABLE)
RETURN, LENGTH, SUCCESS, ERROR, STEADY, DIVERGED, EPISODE = 0, 1, 2, 3, 4, 5, 6
"""Columns of `episode` (B, EPISODE), meaningful where an episode ended."""


@wp.func
def row_of(m: wp.array2d(dtype=float), i: int, j: int):
    return wp.vec3(m[i, j], m[i, j + 1], m[i, j + 2])


@wp.func
def quat_of(state: wp.array2d(dtype=float), i: int):
    return wp.vec4(state[i, 3], state[i, 4], state[i, 5], state[i, 6])


@wp.func
def act(
    state: wp.array2d(dtype=float), params: wp.array2d(dtype=float), wrench: wp.array2d(dtype=float),
    before: wp.array2d(dtype=float), memory: wp.array2d(dtype=float), trim: wp.array2d(dtype=float), i: int, a: wp.vec4,
    rules: Rules, body: d.Body, fw: d.Firmware,
):  # fmt: skip
    """The physics of a period with action a."""
    if rules.attitude == 0:
        speeds = rules.half_speed * (a + wp.vec4(1.0, 1.0, 1.0, 1.0))
        for _k in range(rules.substeps):
            d.integrate(state, i, params, wrench, speeds, body, rules.dt)
        return
    aim = wp.vec4(before[i, 0], before[i, 1], before[i, 2], before[i, 3])
    new = wp.cw_mul(rules.scale, a) + wp.vec4(trim[i, 0], trim[i, 1], 0.0, rules.weight)
    wait = wp.min(int(params[i, 14]), rules.substeps - 1)
    for k in range(rules.substeps):
        if k == wait:
            aim = new
        speeds = d.firmware_step(state, memory, i, aim, body, fw, rules.dt)
        for j in range(4):
            speeds[j] = wp.min(speeds[j], body.max_speed)
        d.integrate(state, i, params, wrench, speeds, body, rules.dt)
    put4(before, i, 0, aim)


@wp.func
def reward_of(state: wp.array2d(dtype=float), i: int, error: wp.vec3, slip: wp.vec3, a: wp.vec4, last: wp.vec4,
              rules: Rules):  # fmt: skip
    squared = wp.dot(error, error)
    off = a - rules.rest
    change = a - last
    return (
        rules.alive
        + rules.position_squared * squared
        + rules.position * wp.sqrt(squared + 1.0e-8)
        + rules.tilt * (1.0 - state[i, 6] * state[i, 6])
        + rules.velocity * wp.dot(slip, slip)
        + rules.action * wp.dot(off, off)
        + rules.action_change * wp.dot(change, change)
    )


@wp.func
def is_finite(state: wp.array2d(dtype=float), i: int):
    most = float(0.0)
    for j in range(13):
        most += wp.abs(state[i, j])
    return most < 1.0e3


@wp.func
def see(
    policy: wp.array2d(dtype=float), critic: wp.array2d(dtype=float), state: wp.array2d(dtype=float),
    wrench: wp.array2d(dtype=float), goals: wp.array3d(dtype=float), normals: wp.array(dtype=float), i: int,
    variant: int, age: int, area: wp.vec3, at: int, rules: Rules,
):  # fmt: skip
    """Fill both rows but for the actions; the column at which these begin."""
    q = quat_of(state, i)
    error = wp.vec3(state[i, 0], state[i, 1], state[i, 2])
    slip = wp.vec3(state[i, 7], state[i, 8], state[i, 9])
    for j in range(3):
        error[j] -= goals[variant, age, j]
        slip[j] -= goals[variant, age, 3 + j]
    x = d.turn(q, wp.vec3(1.0, 0.0, 0.0))
    y = d.turn(q, wp.vec3(0.0, 1.0, 0.0))
    z = d.thrust_axis(q)
    for j in range(3):
        critic[i, j] = error[j]
        critic[i, 3 + 3 * j] = x[j]
        critic[i, 4 + 3 * j] = y[j]
        critic[i, 5 + 3 * j] = z[j]
        critic[i, 12 + j] = slip[j]
        critic[i, 15 + j] = state[i, 10 + j]
    for j in range(3):
        policy[i, j] = critic[i, j] + rules.noise[0] * normals[at + j]
        policy[i, 12 + j] = critic[i, 12 + j] + rules.noise[2] * normals[at + 3 + j]
        policy[i, 15 + j] = critic[i, 15 + j] + rules.noise[3] * normals[at + 6 + j]
    for j in range(9):
        policy[i, 3 + j] = critic[i, 3 + j] + rules.noise[1] * normals[at + 9 + j]
    n = int(18)
    m = int(18)
    if rules.integral > 0.0:
        put3(policy, i, n, area)
        n += 3
    if rules.preview >= 0:
        for j in range(3):
            critic[i, m + j] = goals[variant, age, 6 + j]
        for k in range(rules.preview):
            later = wp.min(age + (k + 1) * rules.stride, goals.shape[1] - 1)
            for j in range(3):
                critic[i, m + 3 + 3 * k + j] = goals[variant, later, j] - state[i, j]
        for j in range(3 + 3 * rules.preview):
            policy[i, n + j] = critic[i, m + j]
        n += 3 + 3 * rules.preview
        m += 3 + 3 * rules.preview
    for j in range(3):
        critic[i, m + j] = wrench[i, j] / rules.force_unit
        critic[i, m + 3 + j] = wrench[i, 3 + j] / rules.torque_unit
    for j in range(4):
        critic[i, m + 6 + j] = state[i, 13 + j] / (2.0 * rules.half_speed)
    return n


@wp.func
def copy_row(a: wp.array2d(dtype=float), b: wp.array2d(dtype=float), i: int):
    for j in range(a.shape[1]):
        b[i, j] = a[i, j]


@wp.kernel
def begin(
    state: wp.array2d(dtype=float), params: wp.array2d(dtype=float), wrench: wp.array2d(dtype=float),
    before: wp.array2d(dtype=float), memory: wp.array2d(dtype=float), trim: wp.array2d(dtype=float),
    nominal: wp.array(dtype=float), ranges: wp.array2d(dtype=float), goals: wp.array3d(dtype=float),
    normals: wp.array(dtype=float), variant: wp.array(dtype=int), age: wp.array(dtype=int), draws: wp.array(dtype=int),
    counts: wp.array2d(dtype=float), action: wp.array2d(dtype=float), policy: wp.array2d(dtype=float),
    critic: wp.array2d(dtype=float), hover: float, rules: Rules,
):  # fmt: skip
    """Every environment anew."""
    i = wp.tid()
    renew(state, params, wrench, before, memory, trim, nominal, ranges, goals, normals, variant, age, draws, counts,
          action, policy, critic, i, hover, rules)  # fmt: skip


@wp.func
def renew(
    state: wp.array2d(dtype=float), params: wp.array2d(dtype=float), wrench: wp.array2d(dtype=float),
    before: wp.array2d(dtype=float), memory: wp.array2d(dtype=float), trim: wp.array2d(dtype=float),
    nominal: wp.array(dtype=float), ranges: wp.array2d(dtype=float), goals: wp.array3d(dtype=float),
    normals: wp.array(dtype=float), variant: wp.array(dtype=int), age: wp.array(dtype=int), draws: wp.array(dtype=int),
    counts: wp.array2d(dtype=float), action: wp.array2d(dtype=float), policy: wp.array2d(dtype=float),
    critic: wp.array2d(dtype=float), i: int, hover: float, rules: Rules,
):  # fmt: skip
    """A new episode in row i, and its first observation."""
    draws[i] = draws[i] + 1
    b = state.shape[0]
    rng = key_of(i, b, draws[i], 0, rules.seed)
    which = wp.randi(rng, 0, goals.shape[0])
    variant[i] = which
    age[i] = 0
    for j in range(3):
        counts[i, j] = 0.0
    draw_params(params, nominal, ranges, i, key_of(i, b, draws[i], 1, rules.seed))
    goal = wp.vec3(goals[which, 0, 0], goals[which, 0, 1], goals[which, 0, 2])
    drift = wp.vec3(goals[which, 0, 3], goals[which, 0, 4], goals[which, 0, 5])
    start(state, wrench, before, memory, trim, i, goal, drift, hover, rules, key_of(i, b, draws[i], 2, rules.seed),
          key_of(i, b, draws[i], 3, rules.seed))  # fmt: skip
    put4(action, i, 0, rules.rest)
    n = see(policy, critic, state, wrench, goals, normals, i, which, 0, wp.vec3(0.0), wp.randi(rng, 0, NORMALS), rules)
    for k in range(rules.history):
        put4(policy, i, n + 4 * k, rules.rest)


@wp.func
def applied(given: wp.array2d(dtype=float), i: int):
    """The action inside its bounds; zero for what is not a number."""
    a = wp.vec4(0.0)
    for j in range(4):
        x = given[i, j]
        a[j] = wp.where(x == x, wp.clamp(x, -1.0, 1.0), 0.0)
    return a


@wp.func
def settle(episode: wp.array2d(dtype=float), counts: wp.array2d(dtype=float), i: int, length: float, inside: bool,
           good: bool, far: float, rules: Rules):  # fmt: skip
    """The results of an episode that ended."""
    error = wp.where(good, far, rules.far)
    episode[i, 0] = counts[i, 0]
    episode[i, 1] = length
    episode[i, 2] = wp.where(inside, 1.0, 0.0)
    episode[i, 3] = error
    episode[i, 4] = wp.where(counts[i, 2] > 0.0, wp.sqrt(counts[i, 1] / counts[i, 2]), error)
    episode[i, 5] = wp.where(good, 0.0, 1.0)


@wp.func
def watch(
    policy: wp.array2d(dtype=float), critic: wp.array2d(dtype=float), seen: wp.array2d(dtype=float),
    state: wp.array2d(dtype=float), wrench: wp.array2d(dtype=float), goals: wp.array3d(dtype=float),
    normals: wp.array(dtype=float), i: int, variant: int, age: int, error: wp.vec3, a: wp.vec4, at: int, rules: Rules,
):  # fmt: skip
    """The period's observation: what `see` sees, the integral and the history of the row before moved on."""
    area = wp.vec3(0.0)
    if rules.integral > 0.0:
        for j in range(3):
            area[j] = wp.clamp(seen[i, 18 + j] + rules.period * error[j], -rules.integral, rules.integral)
    n = see(policy, critic, state, wrench, goals, normals, i, variant, age, area, at, rules)
    for k in range(4 * (rules.history - 1)):
        policy[i, n + k] = seen[i, n + 4 + k]
    put4(policy, i, n + 4 * (rules.history - 1), a)


@wp.kernel
def period(
    state: wp.array2d(dtype=float), params: wp.array2d(dtype=float), wrench: wp.array2d(dtype=float),
    before: wp.array2d(dtype=float), memory: wp.array2d(dtype=float), trim: wp.array2d(dtype=float),
    nominal: wp.array(dtype=float), ranges: wp.array2d(dtype=float), goals: wp.array3d(dtype=float),
    normals: wp.array(dtype=float), variant: wp.array(dtype=int), age: wp.array(dtype=int), draws: wp.array(dtype=int),
    counts: wp.array2d(dtype=float), action: wp.array2d(dtype=float), given: wp.array2d(dtype=float),
    limit: wp.array(dtype=wp.int64), length: wp.array(dtype=wp.int64), seen: wp.array2d(dtype=float),
    policy: wp.array2d(dtype=float), critic: wp.array2d(dtype=float), final_policy: wp.array2d(dtype=float),
    final_critic: wp.array2d(dtype=float), reward: wp.array(dtype=float), terminated: wp.array(dtype=bool),
    truncated: wp.array(dtype=bool), episode: wp.array2d(dtype=float), hover: float, rules: Rules, body: d.Body,
    fw: d.Firmware,
):  # fmt: skip
    """One period; `seen` is the policy's row before, the other rows are written. counts: return, steady square, steady
    periods. Where an episode ends, the last observation goes to final_*."""
    i = wp.tid()
    a = applied(given, i)
    last = wp.vec4(action[i, 0], action[i, 1], action[i, 2], action[i, 3])
    act(state, params, wrench, before, memory, trim, i, a, rules, body, fw)
    put4(action, i, 0, a)
    now = age[i] + 1
    age[i] = now
    length[i] = length[i] + wp.int64(1)
    v = variant[i]

    error = row_of(state, i, 0) - wp.vec3(goals[v, now, 0], goals[v, now, 1], goals[v, now, 2])
    slip = row_of(state, i, 7) - wp.vec3(goals[v, now, 3], goals[v, now, 4], goals[v, now, 5])
    good = is_finite(state, i)
    inside = good and wp.max(wp.max(wp.abs(error[0]), wp.abs(error[1])), wp.abs(error[2])) <= rules.far
    timed = inside and length[i] >= limit[i]
    reward[i] = wp.where(inside, reward_of(state, i, error, slip, a, last, rules), 0.0)
    terminated[i] = not inside
    truncated[i] = timed
    counts[i, 0] = counts[i, 0] + reward[i]
    if now > rules.steady_from:
        counts[i, 1] = counts[i, 1] + wp.dot(error, error)
        counts[i, 2] = counts[i, 2] + 1.0
    if good:
        draws[i] = draws[i] + 1
        at = wp.randi(key_of(i, state.shape[0], draws[i], 4, rules.seed), 0, NORMALS)
        watch(policy, critic, seen, state, wrench, goals, normals, i, v, now, error, a, at, rules)
    if timed or not inside:
        settle(episode, counts, i, float(length[i]), inside, good, wp.length(error), rules)
        length[i] = wp.int64(0)
        if good:
            copy_row(policy, final_policy, i)
            copy_row(critic, final_critic, i)
        renew(state, params, wrench, before, memory, trim, nominal, ranges, goals, normals, variant, age, draws, counts,
              action, policy, critic, i, hover, rules)  # fmt: skip
        if not good:
            copy_row(policy, final_policy, i)
            copy_row(critic, final_critic, i)
