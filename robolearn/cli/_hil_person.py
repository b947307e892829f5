"""A simulated person beside a twin: watches its episodes, takes over by the joystick's messages, says how they end, and
puts the objects back in between. Beside a real robot they do nothing."""

from __future__ import annotations

import dataclasses
import logging
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from real import ros
from real.connection import LATCHED, NEWEST, SENSED, Header, JointReader, JointState, Numbers, PoseStamped, String
from real.env import RESETTING, RUNNING, WAITING
from real.goals import Goals
from real.pipeline import numbers_of
from real.site import Site
from real.teleop.messages import NONE, JoyCfg
from robolearn import config
from robolearn.config import ConfigError
from robolearn.kinematics import Chain
from robolearn.spec import PolicySpec, RobotSpec
from robolearn.state import ObjectState, RobotState, SceneState

log = logging.getLogger(__name__)
Joy = ros.interface("sensor_msgs/msg/Joy")
JOY_HZ, AXES, BUTTONS = 50.0, 8, 11
NEAR_RAD, PLACED_M = 0.1, 0.02
LET_GO_S, IN_VAIN_S = 0.6, 1.5
"""Hands off the device after an attempt to take over that has led to nothing for so long."""
SOURCE = "env"


class Sight:
    """The true state of the twin, as its topics tell it, for whoever needs to see what a policy may not."""

    def __init__(self, node: Any, site: Site, robot: RobotSpec, objects: tuple[str, ...]):
        self.robot, self.objects = robot, objects
        self.now_s = lambda: 1e-9 * float(node.get_clock().now().nanoseconds)
        self.reader = JointReader(site.wire_names(), robot, site.profile.limits.future_s)
        self.goals = Goals(torch.tensor(site.base), site.profile.base_frame, site.frame)
        self._before: dict[str, ObjectState] = {}
        self._chain = Chain(robot.urdf, robot.ee_link, robot.joint_names)
        self._arm = self.reader.columns(robot.arm_joints)
        self._fingers = self.reader.columns(robot.gripper_joints)
        self._kp = torch.tensor(robot.of("kp", robot.gripper_joints))
        self._target: Tensor | None = None
        gripper = site.profile.gripper
        for topic in {site.profile.state_topic, *([gripper.state_topic] if gripper and gripper.state_topic else [])}:
            node.create_subscription(JointState, topic, lambda m: self.reader(m, self.now_s()), SENSED)
        node.create_subscription(JointState, "guard/target", self._on_target, NEWEST)
        for name in objects:
            put = partial(self._on_object, name)
            node.create_subscription(PoseStamped, f"objects/{name}", put, SENSED)

    def _on_target(self, message: Any) -> None:
        if len(message.position) == len(self._arm):
            self._target = torch.tensor(message.position, dtype=torch.float32)

    def _on_object(self, name: str, message: Any) -> None:
        self.goals.set_object(name, message, self.now_s())

    def clear(self, oldest_s: float) -> bool:
        """Whether everything was seen within so long."""
        stamps = [self.reader.latest.stamp_s, *(float(o.stamp_s) for o in self.goals.objects.values())]
        whole = len(self.goals.objects) == len(self.objects)
        return whole and self.now_s() - min(stamps) <= oldest_s

    def states(self, commands: dict[str, Tensor]) -> tuple[RobotState, SceneState]:
        """As a simulated world has them; call it once a period, for objects' speeds are since the last time."""
        latest = self.reader.latest
        at, speed, effort = (torch.tensor(v, dtype=torch.float32) for v in (latest.position, latest.velocity,
                                                                            latest.effort))  # fmt: skip
        target = at.clone()
        if self._target is not None and (self._target - at[self._arm]).abs().max() < NEAR_RAD:
            target[self._arm] = self._target
        target[self._fingers] += effort[self._fingers] / self._kp  # as hard as it presses
        still = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]), torch.zeros(1, 6)
        robot = RobotState(torch.tensor([latest.stamp_s], dtype=torch.float64), at[None], speed[None], effort[None],
                           target[None], *still, self._chain)  # fmt: skip
        objects = {name: self._moving(name, now) for name, now in self.goals.objects.items()}
        self._before = objects
        return robot, SceneState(objects, commands=dict(commands))

    def _moving(self, name: str, now: ObjectState) -> ObjectState:
        before = self._before.get(name, now)
        dt = float(now.stamp_s - before.stamp_s)
        if not dt > 0.0:
            return before
        vel = torch.cat(((now.pose[:, :3] - before.pose[:, :3]) / dt, torch.zeros(1, 3)), dim=1)
        return dataclasses.replace(now, vel=vel)


class TwinPerson:
    """`person` is of robolearn/hil/simulated.py, with the task's scripted expert as their hand."""

    def __init__(self, node: Any, site: Site, cfg: Any, spec: PolicySpec, world: Any):
        """`world` is a simulated one of the task, which draws starts. ConfigError for a person who looks at what the
        policy would do, and for a task without an expert."""
        if getattr(config.entry("person", cfg.person.name).value, "watches", False):
            raise ConfigError(f"person={cfg.person.name} watches what the policy would do, which no topic tells; "
                              "beside a twin: person=late or at_random")  # fmt: skip
        self.node, self.world, self.spec, self.task = node, world, spec, world.task
        scene = self.task.scene()
        objects = tuple(n for n, o in scene.objects.items() if not o.fixed)
        self.sight = Sight(node, site, world.robot, objects)
        generator = torch.Generator().manual_seed(cfg.seed + 3)
        expert = self.task.expert(1, world.device, cfg.person.noise, generator)
        if cfg.person.strategy:
            expert.keep_to(cfg.person.strategy)
        self.states: tuple[RobotState, SceneState]
        self.hand = expert
        self.person = config.build(cfg.person, hand=self, num_envs=1, dt=1.0 / spec.rate_hz, device=world.device,
                                   generator=generator, value=None)  # fmt: skip
        full = (cfg.tool_mps,) * 3 + (cfg.tool_radps,) * 3
        self._share = spec.rate_hz * torch.tensor(spec.action.scale[:6]) / torch.tensor(full)
        self._joy_cfg, self._say = JoyCfg(), (torch.zeros(6), frozenset[str]())
        self.phase, self.owner, self._placed, self._vain_s, self._rest_s = "", "", False, 0.0, 0.0
        self.starts: dict[str, Tensor] = {}
        self.commands: dict[str, Tensor] = {}
        self.episodes, self.successes = 0, 0
        self._warned = False
        self._wire()

    def _wire(self) -> None:
        node, spec = self.node, self.spec
        numbers = numbers_of(spec.observation)
        self._joy = node.create_publisher(Joy, self._joy_cfg.topic, NEWEST)
        self._places = {n: node.create_publisher(PoseStamped, f"twin/place/{n}", NEWEST) for n in self.sight.objects}
        self._draw()
        self._goals = {n: node.create_publisher(Numbers if n in numbers else PoseStamped, n, LATCHED)
                       for n in self.commands}  # fmt: skip
        node.create_subscription(String, f"{SOURCE}/phase", self._on_phase, LATCHED)
        node.create_subscription(String, "teleop/owner", lambda m: setattr(self, "owner", m.data), LATCHED)
        node.create_timer(1.0 / spec.rate_hz, self.tick)
        node.create_timer(1.0 / JOY_HZ, self._speak)

    # --- the hand of the person -----------------------------------------------------------------------------

    def reset(self, mask: Tensor) -> None:
        self.hand.reset(mask)

    def take_over(self, mask: Tensor) -> None:
        self.hand.join(mask, *self.states)

    def act(self) -> Tensor:
        return self.hand.act(*self.states)

    # --- an episode -----------------------------------------------------------------------------------------

    def _on_phase(self, message: Any) -> None:
        if message.data == self.phase:
            return
        self.phase = message.data
        if self.phase == RUNNING:
            self.person.reset(torch.ones(1, dtype=torch.bool))
            self._placed, self._vain_s, self._rest_s, self.episodes = False, 0.0, 0.0, self.episodes + 1

    @torch.no_grad()
    def tick(self) -> None:
        """Once a period of the policy."""
        if not self.node.count_subscribers("twin/place"):
            self._say = (torch.zeros(6), frozenset())
            if not self._warned:
                log.warning("there is no twin here, and a real robot is for real people: nothing is done")
            self._warned = True
        elif self.phase == RUNNING:
            self._watch()
        elif self.phase in (RESETTING, WAITING):
            self._tidy()
        else:
            self._say = (torch.zeros(6), frozenset())

    def _watch(self) -> None:
        if not self.sight.clear(0.5):
            self._say = (torch.zeros(6), frozenset())
            return
        self.states = self.sight.states(self.commands)
        if bool(self.task.metrics(*self.states)["success"]):
            self._end("success")
        elif bool(self.task.terminated(*self.states)):
            self._end("failure")
        else:
            self._help()

    def _end(self, word: str) -> None:
        """Said until the episode is over."""
        pressed = self._say[1]
        if word not in pressed:
            self.successes += word == "success"
            log.info("%s; %d of %d episodes succeeded", word, self.successes, self.episodes)
        self._say = (torch.zeros(6), (pressed & {"take", "open", "close"}) | {word})  # what is held must not fall

    def _help(self) -> None:
        dt = 1.0 / self.spec.rate_hz
        acting, action = self.person.act({}, torch.zeros(1, self.spec.action.dim))
        self._rest_s = max(0.0, self._rest_s - dt)
        if not bool(acting) or self._rest_s > 0.0:
            self._say = (torch.zeros(6), frozenset({"release"} if "take" in self._say[1] else ()))
            return
        self._vain_s = 0.0 if self.owner else self._vain_s + dt
        if self._vain_s > IN_VAIN_S:
            log.warning("the teleop node does not give the arm: hands off, and once more")
            self._vain_s, self._rest_s = 0.0, LET_GO_S
        grip = {1.0: "open", -1.0: "close"}[math.copysign(1.0, float(action[0, -1]))] if action.shape[1] > 6 else "take"
        self._say = ((action[0, :6] * self._share).clamp(-1.0, 1.0), frozenset({"take", grip}))

    # --- between two ----------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        """Objects at a new start; when they are seen there, the scene is as it should be. Once more until then."""
        if not self._placed:
            self._draw()
            self._placed = True
        there = [self._is_there(name, pose) for name, pose in self.starts.items()]
        done = all(there) and self.sight.clear(0.5)
        if not done:
            for name, pose in self.starts.items():
                self._places[name].publish(self._pose_message(pose))
        for name, value in self.commands.items():
            out = self._goals[name]
            values = value[0].tolist()
            out.publish(Numbers(data=values) if len(values) != 7 else self._pose_message(value[0]))
        self._say = (torch.zeros(6), frozenset({"reset"} if done and self.phase == WAITING else ()))

    def _is_there(self, name: str, pose: Tensor) -> bool:
        seen = self.sight.goals.objects.get(name)
        return seen is not None and bool((seen.pose[0, :3] - pose[:3]).norm() < PLACED_M)

    def _draw(self) -> None:
        """Where the next episode starts, as the task draws it."""
        self.world.reset()
        scene = self.task.scene_state(self.world.backend)
        self.starts = {n: scene.objects[n].pose[0].clone() for n in self.sight.objects}
        self.commands = {n: v.clone() for n, v in scene.commands.items()}

    def _pose_message(self, pose: Tensor) -> Any:
        message = PoseStamped(header=Header(frame_id=self.sight.goals.base_frame))
        place, turn = message.pose.position, message.pose.orientation
        place.x, place.y, place.z, turn.x, turn.y, turn.z, turn.w = pose.tolist()
        return message

    def _speak(self) -> None:
        cfg, (twist, pressed) = self._joy_cfg, self._say
        axes, buttons = [0.0] * AXES, [0] * BUTTONS
        for share, sign, k in zip(twist.tolist(), cfg.signs, cfg.axes, strict=True):
            if share and k != NONE:  # what the device's dead zone takes away is added before
                axes[k] = sign * math.copysign(cfg.dead_zone + (1.0 - cfg.dead_zone) * abs(share), share)
        for word in pressed:
            buttons[getattr(cfg, word)] = 1
        self._joy.publish(Joy(axes=axes, buttons=buttons))
