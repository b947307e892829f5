# mypy: ignore-errors
# Warp reads the annotations of its kernels as types of its own, and int(0) as a variable.
# ruff: noqa: UP018
"""A whole control period of a flight task in one kernel: command, physics, reward, ends, reset, observation.

The same as SimEnv with the torch terms of sim/tasks/flight, to which a test compares it. A row of `policy` is position
error (3), rotation matrix (9), velocity error (3), rates (3), the position's integral (3, if wanted), the goal's
acceleration and positions ahead (3 + 3 preview, if wanted), and the last actions (4 history); a row of `critic` the
same without noise, integral and actions, then the disturbance (6) and rotor speeds (4).
"""

import warp as wp

from sim.vehicles import dynamics as d
from sim.vehicles.starts import Rules, disturb, draw_params, key_of, start

wp.set_module_options({"enable_backward": False, "fast_math": True})

TABLE = 1 << 16
NORMALS = wp.constant(TABLE)
RETURN, LENGTH, SUCCESS, ERROR, STEADY, DIVERGED, EPISODE = 0, 1, 2, 3, 4, 5, 6
"""Columns of `episode` (B, EPISODE), meaningful where an episode ended."""
Seen = wp.types.vector(length=18, dtype=float)
Goal = wp.types.vector(length=9, dtype=float)
Hidden = wp.types.vector(length=10, dtype=float)
Results = wp.types.vector(length=EPISODE, dtype=float)

# The arrays' types by name: signatures stay readable.
Rows = wp.array(dtype=d.Row)
Vehicles = wp.array(dtype=d.Parameters)
Wrenches = wp.array(dtype=d.Wrench)
Memories = wp.array(dtype=d.Memory)
Vec4s = wp.array(dtype=wp.vec4)
Vec3s = wp.array(dtype=wp.vec3)
Vec2s = wp.array(dtype=wp.vec2)
Floats2d = wp.array2d(dtype=float)
Vec3s2d = wp.array2d(dtype=wp.vec3)
Vec4s2d = wp.array2d(dtype=wp.vec4)
Goals = wp.array2d(dtype=Goal)
Sights = wp.array(dtype=Seen)
Secrets = wp.array(dtype=Hidden)
Ints = wp.array(dtype=int)
Longs = wp.array(dtype=wp.int64)
Floats = wp.array(dtype=float)
Flags = wp.array(dtype=bool)
Outcomes = wp.array(dtype=Results)


@wp.func
def act(s: d.Row, par: d.Parameters, wrench: d.Wrench, before: wp.vec4, memory: d.Memory, trim: wp.vec2, a: wp.vec4,
        rules: Rules, body: d.Body, fw: d.Firmware):  # fmt: skip
    """The physics of a period with action a: state, command in force and firmware's memory afterwards."""
    out = s
    aim = before
    m = memory
    if rules.attitude == 0:
        speeds = rules.half_speed * (a + wp.vec4(1.0, 1.0, 1.0, 1.0))
        for _k in range(rules.substeps):
            out = d.integrate(out, par, wrench, speeds, body, rules.dt)
    else:
        wait = wp.min(int(par[14]), rules.substeps - 1)
        for k in range(rules.substeps):
            if k == wait:
                aim = wp.cw_mul(rules.scale, a) + wp.vec4(trim[0], trim[1], 0.0, rules.weight)
            turns, m = d.firmware_step(out, m, aim, body, fw, rules.dt)
            out = d.integrate(out, par, wrench, turns, body, rules.dt)
    return out, aim, m


@wp.func
def reward_of(s: d.Row, seen: Seen, a: wp.vec4, last: wp.vec4, rules: Rules):
    error = wp.vec3(seen[0], seen[1], seen[2])
    slip = wp.vec3(seen[12], seen[13], seen[14])
    squared = wp.dot(error, error)
    off = a - rules.rest
    change = a - last
    return (
        rules.alive
        + rules.position_squared * squared
        + rules.position * wp.sqrt(squared + 1.0e-8)
        + rules.tilt * (1.0 - s[6] * s[6])
        + rules.velocity * wp.dot(slip, slip)
        + rules.action * wp.dot(off, off)
        + rules.action_change * wp.dot(change, change)
    )


@wp.func
def is_finite(s: d.Row):
    most = float(0.0)
    for j in range(13):
        most += wp.abs(s[j])
    return most < 1.0e3


@wp.func
def features(s: d.Row, goal: Goal):
    """Position error, rotation matrix row by row, velocity error, rates."""
    q = d.rotation_of(s)
    x = d.turn(q, wp.vec3(1.0, 0.0, 0.0))
    y = d.turn(q, wp.vec3(0.0, 1.0, 0.0))
    z = d.thrust_axis(q)
    return Seen(s[0] - goal[0], s[1] - goal[1], s[2] - goal[2], x[0], y[0], z[0], x[1], y[1], z[1], x[2], y[2], z[2],
                s[7] - goal[3], s[8] - goal[4], s[9] - goal[5], s[10], s[11], s[12])  # fmt: skip


@wp.func
def hidden(s: d.Row, wrench: d.Wrench, rules: Rules):
    """Disturbance and rotor speeds in their units."""
    f = 1.0 / rules.force_unit
    t = 1.0 / rules.torque_unit
    r = 0.5 / rules.half_speed
    return Hidden(wrench[0] * f, wrench[1] * f, wrench[2] * f, wrench[3] * t, wrench[4] * t, wrench[5] * t,
                  s[13] * r, s[14] * r, s[15] * r, s[16] * r)  # fmt: skip


@wp.func
def applied(given: wp.vec4):
    """The action inside its bounds; zero for what is not a number."""
    a = wp.vec4(0.0)
    for j in range(4):
        x = given[j]
        a[j] = wp.where(x == x, wp.clamp(x, -1.0, 1.0), 0.0)
    return a


@wp.func
def accumulate(area: wp.vec3, error: wp.vec3, rules: Rules):
    """The clamped integral of the position error."""
    most = wp.vec3(rules.integral, rules.integral, rules.integral)
    return wp.max(-most, wp.min(most, area + rules.period * error))


@wp.func
def pick(i: int, draws: int, seed: int):
    """A row of the table of normals: a multiplicative hash, which costs less than a generator."""
    mixed = wp.uint32(i) * wp.uint32(2654435761) + wp.uint32(draws) * wp.uint32(2246822519) + wp.uint32(seed)
    mixed = (mixed ^ (mixed >> wp.uint32(15))) * wp.uint32(2246822519)
    return int((mixed ^ (mixed >> wp.uint32(13))) % wp.uint32(NORMALS))


@wp.func
def settle(count: wp.vec3, length: float, error: float, inside: bool, good: bool, rules: Rules):
    """The results of an episode that ended."""
    far = wp.where(good, error, rules.far)
    rms = wp.where(count[2] > 0.0, wp.sqrt(count[1] / count[2]), far)
    return Results(count[0], length, wp.where(inside, 1.0, 0.0), far, rms, wp.where(good, 0.0, 1.0))


@wp.func
def look_ahead(ahead: Vec3s2d, critic_ahead: Vec3s2d,
               goals: Goals, i: int, variant: int, age: int, s: d.Row, rules: Rules):  # fmt: skip
    """The goal's acceleration, and its positions to come as seen from here."""
    goal = goals[variant, age]
    now = wp.vec3(goal[6], goal[7], goal[8])
    ahead[i, 0] = now
    critic_ahead[i, 0] = now
    for k in range(rules.preview):
        later = goals[variant, wp.min(age + (k + 1) * rules.stride, goals.shape[1] - 1)]
        seen = wp.vec3(later[0] - s[0], later[1] - s[1], later[2] - s[2])
        ahead[i, 1 + k] = seen
        critic_ahead[i, 1 + k] = seen


@wp.func
def remember(history: Vec4s2d, last: Vec4s2d, i: int, a: wp.vec4, rules: Rules):
    """The action after those of the `last` row, whose oldest is forgotten."""
    for k in range(rules.history - 1):
        history[i, k] = last[i, k + 1]
    history[i, rules.history - 1] = a


@wp.func
def copy_row(a: Floats2d, b: Floats2d, i: int):
    for j in range(a.shape[1]):
        b[i, j] = a[i, j]


@wp.func
def renew(
    state: Rows, params: Vehicles, wrench: Wrenches, before: Vec4s, memory: Memories, trim: Vec2s, nominal: Vehicles,
    ranges: Floats2d, goals: Goals, normals: Sights, variant: Ints, age: Ints, draws: Ints, counts: Vec3s,
    action: Vec4s, sight: Sights, area: Vec3s, ahead: Vec3s2d, history: Vec4s2d, truth: Sights, critic_ahead: Vec3s2d,
    secret: Secrets, i: int, noise: Seen, hover: float, rules: Rules,
):  # fmt: skip
    """A new episode in row i, and its first observation."""
    draws[i] = draws[i] + 1
    b = state.shape[0]
    rng = key_of(i, b, draws[i], 0, rules.seed)
    which = wp.randi(rng, 0, goals.shape[0])
    variant[i] = which
    age[i] = 0
    counts[i] = wp.vec3(0.0)
    goal = goals[which, 0]
    s = start(wp.vec3(goal[0], goal[1], goal[2]), wp.vec3(goal[3], goal[4], goal[5]), hover, rules,
              key_of(i, b, draws[i], 2, rules.seed), key_of(i, b, draws[i], 3, rules.seed))  # fmt: skip
    state[i] = s
    params[i] = draw_params(params[i], nominal[0], ranges, key_of(i, b, draws[i], 1, rules.seed))
    wrench[i] = disturb(rules, key_of(i, b, draws[i], 5, rules.seed))
    trim[i] = wp.vec2(rules.trim * wp.randn(rng), rules.trim * wp.randn(rng))
    before[i] = wp.vec4(0.0, 0.0, 0.0, rules.weight)
    memory[i] = d.Memory(0.0, 0.0, 0.0, 0.0, 0.0, d.DEG * s[10], d.DEG * s[11], d.DEG * s[12])
    action[i] = rules.rest
    seen = features(s, goal)
    truth[i] = seen
    sight[i] = seen + wp.cw_mul(noise, normals[wp.randi(rng, 0, NORMALS)])
    secret[i] = hidden(s, wrench[i], rules)
    if rules.integral > 0.0:
        area[i] = wp.vec3(0.0)
    if rules.preview >= 0:
        look_ahead(ahead, critic_ahead, goals, i, which, 0, s, rules)
    for k in range(rules.history):
        history[i, k] = rules.rest


@wp.kernel
def begin(
    state: Rows, params: Vehicles, wrench: Wrenches, before: Vec4s, memory: Memories, trim: Vec2s, nominal: Vehicles,
    ranges: Floats2d, goals: Goals, normals: Sights, variant: Ints, age: Ints, draws: Ints, counts: Vec3s,
    action: Vec4s, sight: Sights, area: Vec3s, ahead: Vec3s2d, history: Vec4s2d, truth: Sights, critic_ahead: Vec3s2d,
    secret: Secrets, noise: Seen, hover: float, rules: Rules,
):  # fmt: skip
    """Every environment anew."""
    renew(state, params, wrench, before, memory, trim, nominal, ranges, goals, normals, variant, age, draws, counts,
          action, sight, area, ahead, history, truth, critic_ahead, secret, wp.tid(), noise, hover, rules)  # fmt: skip


@wp.kernel
def period(
    state: Rows, params: Vehicles, wrench: Wrenches, before: Vec4s, memory: Memories, trim: Vec2s, nominal: Vehicles,
    ranges: Floats2d, goals: Goals, normals: Sights, variant: Ints, age: Ints, draws: Ints, counts: Vec3s,
    action: Vec4s, sight: Sights, area: Vec3s, ahead: Vec3s2d, history: Vec4s2d, truth: Sights, critic_ahead: Vec3s2d,
    secret: Secrets, noise: Seen, hover: float, rules: Rules, body: d.Body, fw: d.Firmware, given: Vec4s,
    limit: Longs, length: Longs, last_area: Vec3s, last_history: Vec4s2d, policy: Floats2d, critic: Floats2d,
    final_policy: Floats2d, final_critic: Floats2d, reward: Floats, terminated: Flags, truncated: Flags,
    episode: Outcomes,
):  # fmt: skip
    """One period. `given` is cleaned in place: it is then what reached the robot. `sight`, `area`, `ahead`, `history`
    are the parts of a row of `policy`, `truth`, `critic_ahead` and `secret` of `critic`; `last_*` are the policy's of
    the period before. counts: return, steady square, steady periods. Where an episode ends, the last observation goes
    to final_*."""
    i = wp.tid()
    a = applied(given[i])
    given[i] = a
    s, aim, m = act(state[i], params[i], wrench[i], before[i], memory[i], trim[i], a, rules, body, fw)
    now = age[i] + 1
    seen = features(s, goals[variant[i], now])
    error = wp.vec3(seen[0], seen[1], seen[2])
    good = is_finite(s)
    inside = good and wp.max(wp.max(wp.abs(seen[0]), wp.abs(seen[1])), wp.abs(seen[2])) <= rules.far
    length[i] = length[i] + wp.int64(1)
    timed = inside and length[i] >= limit[i]
    earned = wp.where(inside, reward_of(s, seen, a, action[i], rules), 0.0)
    reward[i] = earned
    terminated[i] = not inside
    truncated[i] = timed
    square = wp.where(good, wp.dot(error, error), 0.0)
    steady = wp.where(good and now > rules.steady_from, 1.0, 0.0)
    count = counts[i] + wp.vec3(earned, steady * square, steady)
    if good:
        draws[i] = draws[i] + 1
        truth[i] = seen
        sight[i] = seen + wp.cw_mul(noise, normals[pick(i, draws[i], rules.seed)])
        secret[i] = hidden(s, wrench[i], rules)
        if rules.integral > 0.0:
            area[i] = accumulate(last_area[i], error, rules)
        if rules.preview >= 0:
            look_ahead(ahead, critic_ahead, goals, i, variant[i], now, s, rules)
        remember(history, last_history, i, a, rules)
    if timed or not inside:
        episode[i] = settle(count, float(length[i]), wp.sqrt(square), inside, good, rules)
        length[i] = wp.int64(0)
        if good:
            copy_row(policy, final_policy, i)
            copy_row(critic, final_critic, i)
        renew(state, params, wrench, before, memory, trim, nominal, ranges, goals, normals, variant, age, draws, counts,
              action, sight, area, ahead, history, truth, critic_ahead, secret, i, noise, hover, rules)  # fmt: skip
        if not good:
            copy_row(policy, final_policy, i)
            copy_row(critic, final_critic, i)
    else:
        state[i] = s
        if rules.attitude > 0:
            before[i] = aim
            memory[i] = m
        age[i] = now
        action[i] = a
        counts[i] = count
