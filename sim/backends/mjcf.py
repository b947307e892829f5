"""A SceneCfg as a MuJoCo model, for every engine that reads one (MuJoCo C, mujoco-warp)."""

from __future__ import annotations

import logging
import math
import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np

from robolearn.config import ConfigError
from robolearn.optional import lazy
from robolearn.paths import resolve
from robolearn.spec import RobotSpec
from sim.backends import looks, urdf
from sim.scene import Box, Boxes, CameraCfg, ContactSensorCfg, Cylinder, ObjectCfg, RobotCfg, SceneCfg, Sphere

mujoco = lazy("mujoco", extra="mujoco")
GROUND, ROBOT, OBJECT = -1, 0, 1
"""Geom priorities: of two bodies in contact the higher one's friction counts, of two equals the larger."""
STIFF_FRICTION = 10.0
"""Friction's stiffness over the normal force's, and an elliptic cone with it: with MuJoCo's defaults a held cube creeps
2.6 mm/s through the fingers, with these 0.2."""
log = logging.getLogger(__name__)


def wxyz(xyzw: Any) -> list[float]:
    """Quaternion to MuJoCo's order."""
    return [xyzw[3], xyzw[0], xyzw[1], xyzw[2]]


def compile_scene(scene: SceneCfg, visual: bool = False) -> Any:
    """MjModel with bodies and joints named `asset/link`, one actuator a driven joint and one effort sensor a
    joint, in RobotSpec.joint_names' order. Self-resets on divergence are off: the environment decides.
    `visual` adds what pictures need and nothing that moves: the state is the same."""
    looks.choose_gl()
    _hear_warnings()
    spec = mujoco.MjSpec()
    spec.option.timestep = scene.physics_dt_s
    spec.option.cone, spec.option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, STIFF_FRICTION
    spec.option.gravity = [0.0, 0.0, -scene.gravity_mps2]
    spec.option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    if scene.ground:
        plane = mujoco.mjtGeom.mjGEOM_PLANE
        spec.worldbody.add_geom(name="ground", type=plane, size=[0, 0, 1], priority=GROUND)
    if visual:
        looks.add_looks(spec, scene.ground)
    for name, robot in scene.robots.items():
        _add_robot(spec, name, robot, visual)
    for name, thing in scene.objects.items():
        body = _add_object(spec, name, thing)
        for decal in thing.decals if visual else ():
            looks.add_decal(body, decal)
    for name, sensor in scene.contact_sensors.items():
        _add_contact_sensor(spec, name, sensor)
    for name, camera in scene.cameras.items():
        _add_camera(spec, name, camera)
    try:
        return spec.compile()
    except ValueError as error:  # a moving link without mass, a mesh that cannot be read
        raise ConfigError(f"MuJoCo refuses the scene: {' '.join(str(error).split())}") from error


def _hear_warnings() -> None:
    """MuJoCo's warnings to our log, each kind once; else it writes a file into the working directory."""
    if mujoco.get_mju_user_warning() is None:
        heard: set[str] = set()

        def hear(text: str) -> None:
            kind = text.partition(" Time =")[0]
            if kind not in heard:
                heard.add(kind)
                log.warning("MuJoCo: %s", text)

        mujoco.set_mju_user_warning(hear)


def _add_robot(spec: Any, name: str, cfg: RobotCfg, visual: bool) -> None:
    robot = cfg.spec
    child = mujoco.MjSpec.from_string(_urdf(robot, visual))
    frame = spec.worldbody.add_frame(pos=list(cfg.pose[:3]), quat=wxyz(cfg.pose[3:]))
    bodies = {body.name for body in child.bodies}
    for pair in urdf.apart(urdf.prepared(robot), robot.contact_exclude):  # MuJoCo lets neighbours of a fixed base touch
        if bodies.issuperset(pair):
            child.add_exclude(bodyname1=pair[0], bodyname2=pair[1])
    for body in child.bodies[1:]:
        body.gravcomp = 1.0 if robot.gravity_compensation else 0.0
    if robot.quadrotor is not None:  # drawn only: MuJoCo flies no quadrotors
        child.body(robot.base_link).add_freejoint(name=robot.base_link)
    for i, joint in enumerate(() if robot.quadrotor else robot.joint_names):
        _drive(child, robot, i, joint)
    if visual:
        looks.paint(child)
    spec.attach(child, prefix=f"{name}/", frame=frame)


def _urdf(robot: RobotSpec, visual: bool) -> str:
    """The prepared URDF with the compiler settings that we rely on."""
    root = urdf.prepared(robot)
    settings = {"strippath": "false", "fusestatic": "false", "balanceinertia": "true"}
    settings["discardvisual"] = "false" if visual else "true"
    ElementTree.SubElement(ElementTree.SubElement(root, "mujoco"), "compiler", settings)
    return ElementTree.tostring(root, encoding="unicode")


def _drive(child: Any, robot: RobotSpec, i: int, name: str) -> None:
    """Joint limits, and the PD law as an affine actuator: gain (ctrl) - kp q - kd qd, clipped per joint."""
    joint, effort = child.joint(name), robot.effort_limit[i]
    joint.armature = 0.0
    if math.isfinite(robot.lower[i]) or math.isfinite(robot.upper[i]):
        joint.range, joint.limited = [max(robot.lower[i], -1e6), min(robot.upper[i], 1e6)], True
    if effort > 0.0:
        joint.actfrcrange, joint.actfrclimited = [-effort, effort], True
        joint.actgravcomp = robot.gravity_compensation
        actuator = child.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.gaintype, actuator.biastype = mujoco.mjtGain.mjGAIN_FIXED, mujoco.mjtBias.mjBIAS_AFFINE
        actuator.gainprm[0] = control_gain(robot.kp[i], robot.kd[i])
        actuator.biasprm[1], actuator.biasprm[2] = -robot.kp[i], -robot.kd[i]
    child.add_sensor(
        name=f"effort/{name}", type=mujoco.mjtSensor.mjSENS_JOINTACTFRC,
        objtype=mujoco.mjtObj.mjOBJ_JOINT, objname=name,
    )  # fmt: skip


def control_gain(kp: float, kd: float) -> float:
    """What one unit of `ctrl` is worth: position targets for kp > 0, else velocity targets, else effort."""
    return kp or kd or 1.0


def _add_object(spec: Any, name: str, cfg: ObjectCfg) -> Any:
    """Its body."""
    body = spec.worldbody.add_body(name=name, pos=list(cfg.pose[:3]), quat=wxyz(cfg.pose[3:]))
    if not cfg.fixed:
        body.add_freejoint(name=name)
    shape = cfg.shape
    if isinstance(shape, Boxes):
        volume = sum(math.prod(size) for size, _ in shape.parts)
        for k, (size, centre) in enumerate(shape.parts):
            geom = _surface(body, f"{name}/{k}", cfg, cfg.mass_kg * math.prod(size) / volume)
            geom.type, geom.size, geom.pos = mujoco.mjtGeom.mjGEOM_BOX, [s / 2 for s in size], list(centre)
        return body
    geom = _surface(body, name, cfg, cfg.mass_kg)
    if isinstance(shape, Box):
        geom.type, geom.size = mujoco.mjtGeom.mjGEOM_BOX, [s / 2 for s in shape.size_m]
    elif isinstance(shape, Sphere):
        geom.type, geom.size = mujoco.mjtGeom.mjGEOM_SPHERE, [shape.radius_m, 0, 0]
    elif isinstance(shape, Cylinder):
        geom.type, geom.size = mujoco.mjtGeom.mjGEOM_CYLINDER, [shape.radius_m, shape.length_m / 2, 0]
    else:
        spec.add_mesh(name=name, file=str(resolve(shape.path)), scale=[shape.scale] * 3)
        geom.type, geom.meshname = mujoco.mjtGeom.mjGEOM_MESH, name
    return body


def _surface(body: Any, name: str, cfg: ObjectCfg, mass_kg: float) -> Any:
    geom = body.add_geom(name=name, rgba=list(cfg.rgba), mass=mass_kg, priority=OBJECT)
    geom.friction = [cfg.friction, 0.005, 0.0001]
    return geom


def _add_contact_sensor(spec: Any, name: str, cfg: ContactSensorCfg) -> None:
    """Net force, world frame, over all contacts of the body with `other` or with anything."""
    force, net = 1 << int(mujoco.mjtConDataField.mjCONDATA_FORCE), 3
    sensor = spec.add_sensor(
        name=f"contact/{name}", type=mujoco.mjtSensor.mjSENS_CONTACT,
        objtype=mujoco.mjtObj.mjOBJ_BODY, objname=cfg.body, intprm=[force, net, 1],
    )  # fmt: skip
    if cfg.other is not None:
        sensor.reftype, sensor.refname = mujoco.mjtObj.mjOBJ_BODY, cfg.other


def _add_camera(spec: Any, name: str, cfg: CameraCfg) -> None:
    parent = spec.worldbody if cfg.link is None else spec.body(cfg.link)
    camera = parent.add_camera(name=name, pos=list(cfg.eye_m), fovy=cfg.fov_deg)
    camera.alt.type = mujoco.mjtOrientation.mjORIENTATION_XYAXES
    camera.alt.xyaxes = look_at(np.array(cfg.eye_m), np.array(cfg.target_m))


def look_at(eye: np.ndarray, target: np.ndarray) -> list[float]:
    """MuJoCo camera axes (x right, y up; it looks along -z) for a camera at eye with world z up."""
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    if np.linalg.norm(right) < 1e-6:  # straight down: the image's up is then world y
        right = np.array([1.0, 0.0, 0.0])
    right /= np.linalg.norm(right)
    return [*right, *np.cross(back, right)]
