# mypy: ignore-errors
# Warp reads the annotations of its kernels as types of its own.
"""A quadrotor's rigid body, rotors and firmware, as Warp functions and two kernels.

Frames: world ENU, body FLU. A row of `state` (B, STATE) is position (3), quaternion xyzw (4), velocity (3, world), body
rates (3), rotor speeds (4), flying time (1). Rotors are first order towards a set-point that is constant over a step,
so their speeds within it are exact; the body is integrated by RK4 (classical) with them.
"""

import warp as wp

wp.set_module_options({"enable_backward": False, "fast_math": True})

POSITION, ROTATION, VELOCITY, RATES, ROTORS, CLOCK, STATE = 0, 3, 7, 10, 13, 17, 18
MASS, INERTIA, INVERSE, THRUST, TORQUE, UP, DOWN, DRAG, SAG, DELAY, PARAMS = 0, 1, 4, 7, 8, 9, 10, 11, 13, 14, 15
"""Columns of `params` (B, PARAMS): mass; inertia (3) and its inverse (3); scale of the thrust; torque per thrust; the
share of the way to the set-point that is left after half a step, spinning up and down; drag per rotor speed (xy, z);
scale of the sag; link delay in steps."""
FIRMWARE = 8
"""Columns of `firmware` (B, FIRMWARE): integrals of roll and pitch (deg s) and of the three rates (deg); last rates
(deg/s)."""
Row = wp.types.vector(length=STATE, dtype=float)
Parameters = wp.types.vector(length=PARAMS, dtype=float)
Memory = wp.types.vector(length=FIRMWARE, dtype=float)
Wrench = wp.types.vector(length=6, dtype=float)
"""Rows travel through the functions as values: one address each to compute."""
DEG = wp.constant(57.29577951308232)
FULL = wp.constant(65535.0)
NEAR = wp.constant(0.1)
"""Height (m) below which the ground is looked for."""


@wp.struct
class Body:
    """What all copies of a vehicle share."""

    x: wp.vec4  # of the rotors, m
    y: wp.vec4
    spin: wp.vec4  # sign of the reaction torque
    curve: wp.vec3  # thrust = curve[0] + curve[1] speed + curve[2] speed^2, N and rad/s
    max_speed: float
    sag_rate: float  # share of the speed lost per second of flight
    sag_load: float  # and at full thrust
    full_thrust: float
    gravity: float
    feet: float  # height of the base above the ground when it stands, m; negative: no ground
    stiffness: float  # of one foot, N/m per kg
    damping: float  # N s/m per kg


@wp.struct
class Firmware:
    """Gains in the firmware's own units: degrees, and counts of 65,535 for the motors."""

    angle: wp.vec3  # kp, ki, limit of the integral
    rate: wp.vec4  # kp, ki, kd, limit
    yaw: wp.vec3  # kp, ki, limit
    speed_offset: float  # rotor speed = offset + slope counts, rad/s
    speed_slope: float


@wp.func
def thrust_axis(q: wp.vec4):
    """Third column of the rotation matrix."""
    return wp.vec3(
        2.0 * (q[0] * q[2] + q[3] * q[1]), 2.0 * (q[1] * q[2] - q[3] * q[0]), 1.0 - 2.0 * (q[0] * q[0] + q[1] * q[1])
    )


@wp.func
def turn(q: wp.vec4, v: wp.vec3):
    """Body to world."""
    u = wp.vec3(q[0], q[1], q[2])
    t = 2.0 * wp.cross(u, v)
    return v + q[3] * t + wp.cross(u, t)


@wp.func
def turn_back(q: wp.vec4, v: wp.vec3):
    """World to body."""
    return turn(wp.vec4(-q[0], -q[1], -q[2], q[3]), v)


@wp.func
def spin_rate(q: wp.vec4, w: wp.vec3):
    """dq/dt for body rates w."""
    return 0.5 * wp.vec4(
        q[3] * w[0] + q[1] * w[2] - q[2] * w[1],
        q[3] * w[1] + q[2] * w[0] - q[0] * w[2],
        q[3] * w[2] + q[0] * w[1] - q[1] * w[0],
        -(q[0] * w[0] + q[1] * w[1] + q[2] * w[2]),
    )


@wp.func
def thrusts(speed: wp.vec4, curve: wp.vec3, scale: float):
    t = curve[2] * wp.cw_mul(speed, speed) + curve[1] * speed
    return scale * (t + wp.vec4(curve[0], curve[0], curve[0], curve[0]))


@wp.func
def moments(t: wp.vec4, body: Body, torque: float):
    return wp.vec3(wp.dot(body.y, t), -wp.dot(body.x, t), torque * wp.dot(body.spin, t))


@wp.func
def total(t: wp.vec4):
    return t[0] + t[1] + t[2] + t[3]


@wp.func
def feet(p: wp.vec3, q: wp.vec4, v: wp.vec3, w: wp.vec3, body: Body):
    """Force (world) and torque (body), per kg, of the eight corners of a box on the plane z = 0: four feet under the
    rotors and, for one that lies on its back, as many above. Spring and damper; friction is viscous up to 0.8 of the
    pressure, so that a push F creeps at F / (m natural frequency)."""
    force = wp.vec3(0.0)
    torque = wp.vec3(0.0)
    for j in range(8):
        arm = wp.vec3(body.x[j % 4], body.y[j % 4], wp.where(j < 4, -body.feet, body.feet))
        at = p + turn(q, arm)
        if at[2] < 0.0:
            speed = v + turn(q, wp.cross(w, arm))
            press = wp.max(0.0, -body.stiffness * at[2] - body.damping * speed[2])
            slide = wp.sqrt(speed[0] * speed[0] + speed[1] * speed[1]) + 1.0e-6
            grip = wp.min(0.8 * press, body.damping * slide) / slide
            push = wp.vec3(-grip * speed[0], -grip * speed[1], press)
            force += push
            torque += wp.cross(arm, turn_back(q, push))
    return force, torque


@wp.func
def outside(p: wp.vec3, q: wp.vec4, v: wp.vec3, w: wp.vec3, speed: float, mass: float, drag: wp.vec2, body: Body):
    """Force (world) and torque (body) of air and ground; rotor drag is linear in velocity and rotor speed
    (Foerster 2015)."""
    force = wp.vec3(0.0)
    torque = wp.vec3(0.0)
    if drag[0] + drag[1] > 0.0:
        u = turn_back(q, v)
        force += turn(q, -speed * wp.vec3(drag[0] * u[0], drag[0] * u[1], drag[1] * u[2]))
    if body.feet >= 0.0 and p[2] < 0.1:
        push, twist = feet(p, q, v, w, body)
        force += mass * push
        torque += mass * twist
    return force, torque


@wp.func
def rotor_step(target: wp.vec4, speed: wp.vec4, up: float, down: float):
    """Rotor speeds half a step and a whole step later: exact, the set-point being constant."""
    left = wp.vec4(
        wp.where(target[0] > speed[0], up, down),
        wp.where(target[1] > speed[1], up, down),
        wp.where(target[2] > speed[2], up, down),
        wp.where(target[3] > speed[3], up, down),
    )
    half = target + wp.cw_mul(left, speed - target)
    return half, target + wp.cw_mul(left, half - target)


@wp.struct
class Load:
    """What acts on the body, besides air and ground."""

    lift: float  # total thrust per mass
    torque: wp.vec3  # of the rotors, and from outside
    speed: float  # sum of the rotor speeds


@wp.func
def load_of(rotors: wp.vec4, body: Body, mass: float, lift: float, kappa: float, twist: wp.vec3):
    t = thrusts(rotors, body.curve, lift)
    out = Load()
    out.lift = total(t) / mass
    out.torque = moments(t, body, kappa) + twist
    out.speed = total(rotors)
    return out


@wp.func
def free(q: wp.vec4, w: wp.vec3, load: Load, pull: wp.vec3, inertia: wp.vec3, inverse: wp.vec3):
    """Acceleration (world), quaternion rate and angular acceleration (body); `pull` is the acceleration by gravity and
    disturbance."""
    spin = wp.cw_mul(inverse, load.torque - wp.cross(w, wp.cw_mul(inertia, w)))
    return load.lift * thrust_axis(q) + pull, spin_rate(q, w), spin


@wp.func
def blend(a: wp.vec3, b: wp.vec3, c: wp.vec3, d: wp.vec3):
    """The slope that RK4 takes."""
    return (a + 2.0 * (b + c) + d) / 6.0


@wp.func
def fly(
    p: wp.vec3, q: wp.vec4, v: wp.vec3, w: wp.vec3, first: Load, mid: Load, last: Load, pull: wp.vec3,
    inertia: wp.vec3, inverse: wp.vec3, dt: float,
):  # fmt: skip
    """A step of RK4 in vacuum, far from the ground: position, velocity, quaternion and body rates after it."""
    h = 0.5 * dt
    a1, q1, w1 = free(q, w, first, pull, inertia, inverse)
    a2, q2, w2 = free(q + h * q1, w + h * w1, mid, pull, inertia, inverse)
    a3, q3, w3 = free(q + h * q2, w + h * w2, mid, pull, inertia, inverse)
    a4, q4, w4 = free(q + dt * q3, w + dt * w3, last, pull, inertia, inverse)
    turned = q + (dt / 6.0) * (q1 + 2.0 * (q2 + q3) + q4)
    return (
        p + dt * v + (dt * dt / 6.0) * (a1 + a2 + a3),
        turned,
        v + dt * blend(a1, a2, a3, a4),
        w + dt * blend(w1, w2, w3, w4),
    )


@wp.func
def touched(
    p: wp.vec3, q: wp.vec4, v: wp.vec3, w: wp.vec3, load: Load, pull: wp.vec3, mass: float, inertia: wp.vec3,
    inverse: wp.vec3, drag: wp.vec2, body: Body,
):  # fmt: skip
    """As `free`, with air and ground."""
    accel, turning, spin = free(q, w, load, pull, inertia, inverse)
    force, torque = outside(p, q, v, w, load.speed, mass, drag, body)
    return accel + force / mass, turning, spin + wp.cw_mul(inverse, torque)


@wp.func
def fly_low(
    p: wp.vec3, q: wp.vec4, v: wp.vec3, w: wp.vec3, first: Load, mid: Load, last: Load, pull: wp.vec3, m: float,
    inertia: wp.vec3, inverse: wp.vec3, drag: wp.vec2, body: Body, dt: float,
):  # fmt: skip
    """As `fly`, in air or near the ground."""
    h = 0.5 * dt
    a1, q1, w1 = touched(p, q, v, w, first, pull, m, inertia, inverse, drag, body)
    v2 = v + h * a1
    a2, q2, w2 = touched(p + h * v, q + h * q1, v2, w + h * w1, mid, pull, m, inertia, inverse, drag, body)
    v3 = v + h * a2
    a3, q3, w3 = touched(p + h * v2, q + h * q2, v3, w + h * w2, mid, pull, m, inertia, inverse, drag, body)
    v4 = v + dt * a3
    a4, q4, w4 = touched(p + dt * v3, q + dt * q3, v4, w + dt * w3, last, pull, m, inertia, inverse, drag, body)
    turned = q + (dt / 6.0) * (q1 + 2.0 * (q2 + q3) + q4)
    return (
        p + dt * v + (dt * dt / 6.0) * (a1 + a2 + a3),
        turned,
        v + dt * blend(a1, a2, a3, a4),
        w + dt * blend(w1, w2, w3, w4),
    )


@wp.func
def rotation_of(s: Row):
    return wp.vec4(s[3], s[4], s[5], s[6])


@wp.func
def rates_of(s: Row):
    return wp.vec3(s[10], s[11], s[12])


@wp.func
def integrate(s: Row, par: Parameters, wrench: Wrench, command: wp.vec4, body: Body, dt: float):
    """The state one step later; the rotors are on their way to `command` (rad/s)."""
    p = wp.vec3(s[0], s[1], s[2])
    q = rotation_of(s)
    v = wp.vec3(s[7], s[8], s[9])
    w = rates_of(s)
    r = wp.vec4(s[13], s[14], s[15], s[16])
    m = par[0]
    inertia = wp.vec3(par[1], par[2], par[3])
    inverse = wp.vec3(par[4], par[5], par[6])
    lift = par[7]
    kappa = par[8]
    drag = wp.vec2(par[11], par[12])
    target = command
    if par[13] > 0.0:
        full = total(thrusts(r, body.curve, lift)) / (lift * body.full_thrust)
        target *= wp.max(0.0, 1.0 - par[13] * (body.sag_rate * s[17] + body.sag_load * full))
    r1, r2 = rotor_step(target, r, par[9], par[10])
    twist = wp.vec3(wrench[3], wrench[4], wrench[5])
    if wp.dot(twist, twist) > 0.0:
        twist = turn_back(q, twist)
    pull = wp.vec3(wrench[0], wrench[1], wrench[2]) / m - wp.vec3(0.0, 0.0, body.gravity)
    first = load_of(r, body, m, lift, kappa, twist)
    mid = load_of(r1, body, m, lift, kappa, twist)
    last = load_of(r2, body, m, lift, kappa, twist)
    if drag[0] + drag[1] > 0.0 or (body.feet >= 0.0 and p[2] < NEAR):
        p, q, v, w = fly_low(p, q, v, w, first, mid, last, pull, m, inertia, inverse, drag, body, dt)
    else:
        p, q, v, w = fly(p, q, v, w, first, mid, last, pull, inertia, inverse, dt)
    q = wp.normalize(q)
    return Row(p[0], p[1], p[2], q[0], q[1], q[2], q[3], v[0], v[1], v[2], w[0], w[1], w[2],
               r2[0], r2[1], r2[2], r2[3], s[17] + dt)  # fmt: skip


@wp.kernel
def step_rotors(
    state: wp.array(dtype=Row), params: wp.array(dtype=Parameters), wrench: wp.array(dtype=Wrench),
    command: wp.array(dtype=wp.vec4), body: Body, dt: float, n: int,
):  # fmt: skip
    """n steps of `dt` with rotor speeds (B, 4) as command."""
    i = wp.tid()
    target = command[i]
    for j in range(4):
        target[j] = wp.clamp(target[j], 0.0, body.max_speed)
    s = state[i]
    for _k in range(n):
        s = integrate(s, params[i], wrench[i], target, body, dt)
    state[i] = s


@wp.func
def roll_pitch(q: wp.vec4):
    """Roll and pitch (deg) of the z-y-x Euler angles."""
    roll = wp.atan2(2.0 * (q[3] * q[0] + q[1] * q[2]), 1.0 - 2.0 * (q[0] * q[0] + q[1] * q[1]))
    pitch = wp.asin(wp.clamp(2.0 * (q[3] * q[1] - q[2] * q[0]), -1.0, 1.0))
    return DEG * roll, DEG * pitch


@wp.func
def counts_of(thrust: float, body: Body, fw: Firmware):
    """Motor counts for a quarter of the collective thrust, by the nominal curve."""
    each = wp.max(0.0, 0.25 * thrust - body.curve[0])
    root = wp.sqrt(body.curve[1] * body.curve[1] + 4.0 * body.curve[2] * each)
    speed = (root - body.curve[1]) / (2.0 * body.curve[2])
    return wp.clamp((speed - fw.speed_offset) / fw.speed_slope, 0.0, FULL)


@wp.func
def area(memory: float, error: float, limit: float, dt: float):
    """The clamped integral."""
    return wp.clamp(memory + error * dt, -limit, limit)


@wp.func
def firmware_step(s: Row, memory: Memory, command: wp.vec4, body: Body, fw: Firmware, dt: float):
    """Rotor set-points (rad/s) for roll, pitch (rad), yaw rate (rad/s) and thrust (N), and the memory afterwards: the
    Crazyflie firmware's cascade of an attitude and a rate PID, and its mixer for a cross. Without thrust motors stop
    and the integrals are reset."""
    counts = counts_of(command[3], body, fw)
    rate = DEG * rates_of(s)
    out = wp.vec4(0.0)
    after = Memory(0.0, 0.0, 0.0, 0.0, 0.0, rate[0], rate[1], rate[2])
    if counts > 0.0:
        roll, pitch = roll_pitch(rotation_of(s))
        off = wp.vec3(DEG * command[0] - roll, DEG * command[1] - pitch, DEG * command[2] - rate[2])
        after[0] = area(memory[0], off[0], fw.angle[2], dt)
        after[1] = area(memory[1], off[1], fw.angle[2], dt)
        over = wp.vec2(
            fw.angle[0] * off[0] + fw.angle[1] * after[0] - rate[0],
            fw.angle[0] * off[1] + fw.angle[1] * after[1] - rate[1],
        )
        after[2] = area(memory[2], over[0], fw.rate[3], dt)
        after[3] = area(memory[3], over[1], fw.rate[3], dt)
        after[4] = area(memory[4], off[2], fw.yaw[2], dt)
        x = fw.rate[0] * over[0] + fw.rate[1] * after[2] - fw.rate[2] * (rate[0] - memory[5]) / dt
        y = fw.rate[0] * over[1] + fw.rate[1] * after[3] - fw.rate[2] * (rate[1] - memory[6]) / dt
        z = fw.yaw[0] * off[2] + fw.yaw[1] * after[4]
        for j in range(4):
            mixed = counts + 0.5 * wp.sign(body.y[j]) * x - 0.5 * wp.sign(body.x[j]) * y + body.spin[j] * z
            mixed = wp.clamp(mixed, 0.0, FULL)
            speed = wp.where(mixed > 0.0, fw.speed_offset + fw.speed_slope * mixed, 0.0)
            out[j] = wp.min(speed, body.max_speed)
    return out, after


@wp.kernel
def step_attitude(
    state: wp.array(dtype=Row), params: wp.array(dtype=Parameters), wrench: wp.array(dtype=Wrench),
    command: wp.array(dtype=wp.vec4), before: wp.array(dtype=wp.vec4), memory: wp.array(dtype=Memory), body: Body,
    fw: Firmware, dt: float, n: int,
):  # fmt: skip
    """n steps of `dt` with roll, pitch (rad), yaw rate (rad/s) and thrust (N) as command (B, 4), which arrives after
    the link's delay; until then, and from step to step, `before` is in force."""
    i = wp.tid()
    par = params[i]
    wait = wp.min(int(par[14]), n - 1)
    aim = before[i]
    s = state[i]
    m = memory[i]
    for k in range(n):
        if k == wait:
            aim = command[i]
        speeds, m = firmware_step(s, m, aim, body, fw, dt)
        s = integrate(s, par, wrench[i], speeds, body, dt)
    state[i] = s
    memory[i] = m
    before[i] = aim
