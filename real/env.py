"""The Env of one real robot: the contract of simulation over the robot's topics, behind the guard.

What is different is in the contract: batch 1; `step` lasts until the period is over and says how old what it saw is;
`extras["applied_action"]` is what the guard let through; it never resets itself: an episode that ends, or a guard that
takes authority away, leaves `extras["awaiting_reset"]`, and `reset` brings the arm back along its limits, after what
real/resets.py says of the scene. `SOURCE/phase` (std_msgs/String, latched) tells which of PHASES it is in.

A person who takes over (docs/teleop.md) ends no episode: `extras["intervened"]` says who acted, `proposed` what the
policy wanted. They may say that the task is done, has failed, or shall begin anew; an operator who pauses (on the page,
docs/hil.md) ends the episode, and no other one begins before they resume.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from real import ros
from real.connection import LATCHED, NEWEST, String, Trigger
from real.link import Lack, Link, RobotError
from real.nodes.authority import PEOPLE
from real.pipeline import Pipeline
from real.progress import Progress
from real.resets import ResetPolicy, Scripted
from real.site import Site
from real.way import Stuck, Way
from robolearn.actions import Command
from robolearn.env import Extras, Obs
from robolearn.limits import TargetState, limit_target
from robolearn.spec import PolicySpec
from robolearn.state import RobotState, SceneState

Judge = Callable[[RobotState, SceneState], tuple[Tensor, Tensor, dict[str, Tensor]]]
"""Reward (1,), terminated (1,) and metrics of what is seen."""


def never() -> bool:
    return False


def no_judge(robot: RobotState, scene: SceneState) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Reward zero, never over: for those who label later."""
    return torch.zeros(1), torch.zeros(1, dtype=torch.bool), {}


Joy, Bool = ros.interface("sensor_msgs/msg/Joy"), ros.interface("std_msgs/msg/Bool")
PHASES = RESETTING, WAITING, RUNNING, OVER = "resetting", "waiting", "running", "over"
"""The arm or the scene is brought back; a person does that and says when; an episode; its end."""
PAUSED = "the operator has paused: resume on the page"
ANSWER_S = 1.0
"""In which a guard that is there answers."""
LOOK_S = 0.1
"""Between two looks at whether it shall end."""
PASSED_RAD, SLOWER = 0.03, 4.0
"""Of a way back: how near to a point the next one is gone for, and how much longer it may take than the way there."""
THERE_RAD, OPEN_M = 0.02, 5e-3
"""How near a joint of the arm, and of a gripper, has to come to its start."""
GRIPPER, TOLD = 6, ("success", "failure", "reset")
"""Of `teleop/action` and `page/action`: the axis that is the gripper, and the buttons after the first, which says
whether they are in control."""


class Told:
    """What a person says beside moving the arm, until it is read."""

    def __init__(self, node: Any, people: tuple[str, ...]):
        """Of these sources; each has an own topic, lest one's silence looks like the other's button let go."""
        self.gripper = 0.0
        """-1 closes, +1 opens: what was said last; 0 before."""
        self._reached = 0.0
        self.paused = False
        self._pressed: set[str] = set()
        self._held: dict[str, set[str]] = {}
        for source in people:
            node.create_subscription(Joy, f"{source}/action", partial(self._hear, source), NEWEST)
        node.create_subscription(Bool, "page/paused", lambda m: setattr(self, "paused", bool(m.data)), LATCHED)

    def _hear(self, source: str, message: Any) -> None:
        if len(message.axes) <= GRIPPER or len(message.buttons) <= len(TOLD):
            return
        gripper = float(message.axes[GRIPPER])
        self.gripper = gripper if 0.0 < abs(gripper) <= 1.0 else self.gripper
        held = {name for name, down in zip(TOLD, message.buttons[1:], strict=False) if down}
        self._pressed |= held - self._held.get(source, set())
        self._held[source] = held

    def begin(self, gripper: float) -> None:
        """An episode, with the hand there."""
        self.gripper, self._reached = 0.0, gripper

    def reached(self, human: bool, sent: float) -> float:
        """The gripper's number that reached the hand in a step: the one that was `sent`, or what the person has said
        since they took over; as long as they say nothing, what was before."""
        if not human:
            self._reached, self.gripper = sent, 0.0
        elif self.gripper:
            self._reached = self.gripper
        return self._reached

    def read(self) -> set[str]:
        """What was pressed since the last time, of TOLD."""
        pressed, self._pressed = self._pressed, set()
        return pressed


class RobotEnv:
    """`node` is served by this object alone: while `step` and `reset` wait, and nowhere else."""

    num_envs = 1

    def __init__(self, node: Any, site: Site, spec: PolicySpec, judge: Judge = no_judge, episode_length_s: float = 60.0,
                 source: str = "env", people: tuple[str, ...] = PEOPLE, resets: ResetPolicy | None = None,
                 stopping: Callable[[], bool] = never):  # fmt: skip
        """`people`: sources whose authority is an intervention, not the end of the episode. `resets`: what becomes of
        the scene before the arm goes to its start; nothing if not given. `stopping`: whether somebody has told the
        process to end, which breaks a reset off, and lets a step finish."""
        self.people, self.told, self.stopping = people, Told(node, people), stopping
        self.node, self.site, self.judge, self.source = node, site, judge, source
        self.device = torch.device("cpu")
        self.robot, self.observation_spec, self.action_spec = site.robot, spec.observation, spec.action
        self._grips = "gripper" in self.action_spec.names
        self.pipeline, self.resets = Pipeline(spec, site.robot), resets or Scripted()
        self.link = Link(node, site, self.pipeline, source, self.resets.pipelines)
        self._phase = node.create_publisher(String, f"{source}/phase", LATCHED)
        self._said = ""
        self.pressed: set[str] = set()
        """By the person, of TOLD, since the last episode ended."""
        self.step_dt, self.physics_dt = self.pipeline.dt, 1.0 / site.profile.command_rate_hz
        self.progress = Progress(node, site.profile.robot, self.step_dt)
        self.max_episode_length_s = episode_length_s
        self.max_episode_length = round(episode_length_s / self.step_dt)
        self.episode_length_buf = torch.zeros(1, dtype=torch.long)
        self.common_step_counter = 0
        self._return, self._due_s, self._awaiting = torch.zeros(1), 0.0, True
        self.way = Way()

    # --- the contract ---------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, Extras]:
        """Have the scene reset, take authority, bring the arm to `options["joint_pos"]` (n,) of its arm, or its default
        posture, along its limits, and observe. `seed` is there for the contract. Extras hold what the person `told`
        since the last episode. Raises RobotError."""
        options = options or {}
        rest = torch.tensor(self.robot.of("default_joint_pos", self.robot.arm_joints))
        goal = torch.as_tensor(options.get("joint_pos", rest), dtype=torch.float32)
        self._awaiting = True
        try:
            self._bring(goal, float(options.get("timeout_s", 15.0)))
        except BaseException:
            self._give_back()
            raise
        told, self.pressed = tuple(sorted(self._hear_person())), set()
        target = self.link.standing()
        target[self.link.arm] = goal
        self.pipeline.reset(target)
        self.way.begin(target[self.link.arm])
        if self._grips:
            self.told.begin(self.pipeline.gripper())
        self.episode_length_buf.zero_()
        self._return, self._awaiting, self._due_s = torch.zeros(1), False, time.monotonic()
        obs = self.pipeline.observe(self.link.state(), self.link.goals.scene())
        self.say(RUNNING)
        return obs, {"log": {}, "awaiting_reset": False, "observation_age_s": self.link.age_s(), "told": told}

    def _bring(self, goal: Tensor, timeout_s: float) -> None:
        """The scene, and then the arm, to where an episode starts."""
        self._wait(lambda: not self.told.paused, 1.0, lambda: PAUSED)
        if self._said != WAITING:  # else it goes on with that
            self.say(RESETTING)
        self._see()
        self.resets(self)
        self.say(RESETTING)
        self._see()  # a person may have been at work for long, and a hand may be in the way still
        self.go(goal, timeout_s)

    def _see(self) -> None:
        self._wait(lambda: self.link.lack() is None, 5.0, lambda: (self.link.lack() or Lack("", "it came late")).text)

    def step(self, action: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]:
        """Propose, wait until the period is over, observe. Raises RobotError before a `reset`."""
        if action.shape != (1, self.action_spec.dim):
            raise ValueError(f"the action must be (1, {self.action_spec.dim}), got {tuple(action.shape)}")
        if self._awaiting:
            raise RobotError("the episode is over: call reset(), which moves the arm")
        command = self.pipeline.command(action.detach().float())
        late_s = max(0.0, time.monotonic() - self._due_s)
        missed = late_s > self.step_dt
        self._due_s = time.monotonic() if missed else self._due_s
        human = self.send(command, self._due_s)
        self._due_s += self.step_dt
        if self.link.reference is not None:
            self.pipeline.follow(self.link.reference)
        self.way.add(self.pipeline.target[0, self.link.arm])
        if self._grips:
            self.pipeline.action = self.pipeline.action.clone()
            self.pipeline.action[:, -1] = self.told.reached(human, float(self.pipeline.action[0, -1]))
        self.common_step_counter += 1
        self.episode_length_buf += 1
        obs, reward, terminated, truncated, extras = self._outcome(missed)
        self.progress(human, missed, self._awaiting, bool(extras["episode"]["success"]))
        return obs, reward, terminated, truncated, extras | {
            "intervened": torch.tensor([human]), "proposed": action, "late_s": late_s,
        }  # fmt: skip

    def end(self, success: bool) -> None:
        """Of the last step, says who judges from without: it was the episode's last one, and this came of it."""
        self._awaiting = True
        self.say(OVER)
        self.progress.end(success)

    def hold(self) -> None:
        """Give authority back: the arm stands, and waits for `reset`."""
        self._awaiting = True
        self.say(OVER)
        self._give_back()

    def _give_back(self) -> None:
        """Also where a person has it now, who would hand it back. Without an answer the guard is gone, or follows
        nobody who says nothing: either way the arm stands."""
        if self.link.owner not in (self.source, *self.people):
            return
        answer, until = self.link.release.call_async(Trigger.Request()), time.monotonic() + ANSWER_S
        while not answer.done() and time.monotonic() < until and ros.ok():
            ros.spin_once(self.node, timeout_sec=0.05)

    def close(self) -> None:
        """Give authority back."""
        self.hold()

    # --- what resets are made of ----------------------------------------------------------------------------

    def say(self, phase: str) -> None:
        """To whoever is beside the robot, where that is new."""
        if phase != self._said:
            self._phase.publish(String(data=phase))
        self._said = phase

    def take(self) -> None:
        """Authority, for what is no step of an episode."""
        self._call(self.link.take, patience_s=1.0)  # it may not have heard the robot yet
        self.link.owner = self.source

    def send(self, command: Command, begun_s: float) -> bool:
        """Propose, and wait until the period that began then is over; whether a person had the arm in some of it."""
        human = False
        for part in range(self.link.parts):
            human = human or self.link.owner in self.people
            if not human:
                self.link.propose(command, part)
            self._serve_until(begun_s + (part + 1) * self.link.proposal_s)
        return human or self.link.owner in self.people

    def listen(self, seconds: float) -> None:
        """For so long, or until it is told to end: what is said meanwhile is not lost."""
        until = time.monotonic() + seconds
        while not self.stopping() and (left := until - time.monotonic()) > 0.0:
            self._serve_until(time.monotonic() + min(left, LOOK_S))

    def serve(self, seconds: float) -> set[str]:
        """Listen for so long; all that the person has pressed since the last episode. Raises RobotError if the reset
        must not go on."""
        self._heed()
        self._serve_until(time.monotonic() + seconds)
        return self._hear_person()

    def forget(self, word: str) -> None:
        """What was pressed so far, of TOLD, counts no more."""
        self._hear_person().discard(word)

    def _heed(self) -> None:
        if self.stopping():
            raise RobotError("told to end")
        if self.told.paused:
            raise RobotError(PAUSED)

    def _hear_person(self) -> set[str]:
        self.pressed |= self.told.read()
        return self.pressed

    # --- a period -------------------------------------------------------------------------------------------

    def _outcome(self, missed: bool) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]:
        robot, scene = self.link.state(), self.link.goals.scene()
        reward, terminated, metrics = self.judge(robot, scene)
        silent = self.link.silence_s() > self.site.profile.limits.state_timeout_s  # a guard that was killed
        lost = self.link.owner not in (self.source, *self.people) or silent or self.link.lack() is not None
        told = self.told.read()
        if told & {"success", "failure"}:
            good = torch.tensor([float("success" in told)])
            reward, terminated, metrics = good, torch.ones_like(terminated), metrics | {"success": good}
        timed = self.episode_length_buf >= self.max_episode_length
        truncated = (timed | lost | self.told.paused | ("reset" in told)) & ~terminated
        self._return = self._return + reward
        self._awaiting = bool(terminated | truncated)
        if self._awaiting:
            self.say(OVER)
        obs = self.pipeline.observe(robot, scene)
        episode = metrics | {"return": self._return, "length": self.episode_length_buf.float()}
        episode.setdefault("success", torch.zeros(1))
        extras = {
            "final_obs": obs, "applied_action": self.pipeline.action, "log": {}, "episode": episode,
            "awaiting_reset": self._awaiting, "observation_age_s": self.link.age_s(), "deadline_missed": missed,
            "guard": self.link.guard_state,
        }  # fmt: skip
        return obs, reward, terminated, truncated, extras

    def go(self, goal: Tensor | None = None, timeout_s: float = 15.0) -> None:
        """Take authority, and go straight in joint space to joints (n,) of the arm, or its default posture, as fast as
        half of the limits allow; a gripper that actions move goes to its default on the way. Where the guard bars the
        straight way, back along the one on which the arm has come since the episode began. Raises RobotError."""
        self.take()
        until_s, robot, n = time.monotonic() + timeout_s, self.robot, len(self.link.arm)
        rest = torch.tensor(robot.of("default_joint_pos", self.pipeline.joints))
        wanted = rest if goal is None else torch.cat((goal, rest[n:]))
        columns = self.link.reader.columns(self.pipeline.joints)
        full = TargetState.at(self.link.standing()[columns][None])
        slow = self.pipeline.commander.limits.tightened(0.5, 0.5)
        ways, back, stuck = [wanted], False, Stuck()
        while not self._stands_at(wanted, columns):
            self._heed()
            if self.link.owner not in ("", self.source) or time.monotonic() > until_s:
                raise RobotError(
                    f"the arm did not come to its start posture; the guard is {self.link.guard_state}; "
                    "its log says what it holds back: move the arm free by a device or by hand"
                )
            at = self.link.standing()[columns]
            if not back:
                self.way.add(at[:n])  # each joint at its own pace: not the line between two points
            if not back and (wanted - at)[:n].abs().max() > THERE_RAD and stuck(at[:n]):
                ways, back = [*(torch.cat((point, rest[n:])) for point in self.way.back(at[:n])), wanted], True
                full, until_s = (
                    TargetState.at(at[None]),
                    time.monotonic() + timeout_s + SLOWER * len(ways) * self.step_dt,
                )
            while len(ways) > 1 and (ways[0] - at)[:n].abs().max() < PASSED_RAD:
                ways.pop(0)
            full, _ = limit_target(ways[0][None], full, slow, self.link.proposal_s)
            self.link.propose_joints(full.position[0])
            self._serve_until(time.monotonic() + self.link.proposal_s)

    def _stands_at(self, goal: Tensor, columns: list[int]) -> bool:
        """All joints of the columns (n,)."""
        latest, n = self.link.reader.latest, len(self.link.arm)
        away = abs(torch.tensor(latest.position)[columns] - goal)
        slow = abs(latest.velocity[self.link.arm]).max() < 0.02
        return bool(away[:n].max() < THERE_RAD and (away[n:] < OPEN_M).all() and slow)

    # --- waiting --------------------------------------------------------------------------------------------

    def _serve_until(self, time_s: float) -> None:
        """At least once, lest who is late hears nothing."""
        while True:
            left = time_s - time.monotonic()
            self._spin(max(0.0, left))
            if left <= 0.0:
                return

    def _wait(self, ready: Callable[[], bool], timeout_s: float, what: Callable[[], str]) -> None:
        until = time.monotonic() + timeout_s
        while not ready():
            if self.stopping():
                raise RobotError("told to end")
            if time.monotonic() > until:
                raise RobotError(f"{what()}, after {timeout_s:g} s")
            self._spin(0.05)

    def _spin(self, seconds: float) -> None:
        if not ros.ok():
            raise KeyboardInterrupt  # the signal that ROS took
        ros.spin_once(self.node, timeout_sec=seconds)

    def _call(self, client: Any, patience_s: float = 0.0) -> None:
        """Raises RobotError for a refusal that is the same after `patience_s`."""
        self._wait(client.service_is_ready, 5.0, lambda: f"no service {client.srv_name}: is the guard running?")
        until = time.monotonic() + patience_s
        while True:
            future = client.call_async(Trigger.Request())
            self._wait(future.done, 5.0, lambda: f"no answer of {client.srv_name}")
            answer = future.result()
            if answer.success:
                return
            if time.monotonic() > until:
                raise RobotError(f"the guard refused {client.srv_name}: {answer.message}")
            self._serve_until(time.monotonic() + 0.1)
