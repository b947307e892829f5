"""The simulated Env: a task on an engine, B copies at once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robolearn import config
from robolearn.actions import Commander
from robolearn.env import Extras, Obs
from robolearn.kinematics import Chain
from robolearn.observation import START, ObservationMemory, ObservationTerms, reads_start
from robolearn.spec import PolicySpec, columns
from robolearn.state import RobotState, SceneState, put_tensors, tensors_of
from sim import randomize, trace
from sim.backends.base import Backend, BackendCfg
from sim.cameras import observed
from sim.looks import neutral
from sim.scene import SceneCfg
from sim.task import ActionState, Task, TaskCfg


class SimEnv:
    """Fulfils `robolearn.env.Env`. A period is: command through the limits, delay, physics, state, rewards
    and ends, final observation, masked reset, observation."""

    def __init__(self, task: TaskCfg, backend: BackendCfg, num_envs: int, device: str = "cpu", seed: int = 0,
                 trace_dir: Path | None = None):  # fmt: skip
        if num_envs < 1:
            raise config.ConfigError(f"num_envs must be at least 1, got {num_envs}")
        self.num_envs, self.device, self.cfg = num_envs, torch.device(device), task
        self.generator = torch.Generator(self.device)
        self.reset_generator = torch.Generator(self.device)
        self._seed(seed)
        self.task: Task = config.build(task)
        self.robot = self.task.robot
        self.physics_dt, self.step_dt = task.physics_dt_s, task.step_dt_s
        self.max_episode_length_s = task.episode_length_s
        self.max_episode_length = round(task.episode_length_s / task.step_dt_s)
        self.observation_spec, self.action_spec = self.task.observation_spec(), self.task.action_spec()
        self.backend: Backend = config.build(
            backend, scene=self._scene(), num_envs=num_envs, device=self.device, seed=seed
        )
        with ExitStack() as stack:
            stack.callback(self.backend.close)  # its processes and GL contexts, if what follows is refused
            self.cameras = self._observed()
            self._build_pipeline()
            self.task.setup(self.backend, self.generator)
            self.trace = trace.Recorder(self, trace_dir)
            self.diverged_count = torch.zeros((), device=self.device)
            self._weights = self._reward_weights()
            stack.pop_all()

    def _scene(self) -> SceneCfg:
        """The task's scene, with what the randomisation changes declared."""
        scene = self.task.scene()
        declared = tuple((self.task.asset, p) for p in self.cfg.randomize.params)
        return replace(scene, randomized=tuple(dict.fromkeys(scene.randomized + declared)))

    def _observed(self) -> tuple[str, ...]:
        """Cameras whose pictures are observed. ConfigError for pictures or looks that the engine does not have."""
        cameras = observed(self.observation_spec, self.backend)
        randomize.refuse_looks(self.backend, self.cfg.randomize.looks, cameras)
        return cameras

    def _build_pipeline(self) -> None:
        b, device, cfg = self.num_envs, self.device, self.cfg.randomize
        flies = self.robot.quadrotor is not None
        self.chain = None if flies else Chain(self.robot.urdf, self.robot.ee_link, self.robot.joint_names, device)
        self.terms = ObservationTerms(self.observation_spec, device)
        self.memory = ObservationMemory(self.observation_spec, b, device, self.step_dt)
        self.commander = Commander(self.action_spec, self.robot, b, self.step_dt, device)
        self.sensor = randomize.Sensor(self.observation_spec, cfg, b, self.generator)
        self.pushes = randomize.Pushes(cfg, b, self.generator)
        self._arm = columns(self.robot.arm_ids)
        self._driven = columns([self.robot.joint_names.index(n) for n in self.commander.joints])
        self._delay = randomize.Delay(cfg.action_delay, b, self.action_spec.dim, device)
        self._rest, self._rest_target = (torch.tensor(values, device=device) for values in self.task.rest())
        self._spread = torch.tensor([n not in self.robot.gripper_joints for n in self.robot.joint_names], device=device)
        self._target = self._rest_target.expand(b, -1).clone()
        self._trim = torch.zeros(b, len(self.robot.arm_ids), device=device)
        self._action = self.commander.rest.repeat(b, 1)
        self._disturbance = torch.zeros(b, 6, device=device)
        still = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0], device=device)
        self._start = still.repeat(b, 1) if reads_start(self.observation_spec) else None
        self.episode_length_buf = torch.zeros(b, dtype=torch.long, device=device)
        self.episode_limit_buf = torch.full_like(self.episode_length_buf, self.max_episode_length)
        self._return = torch.zeros(b, device=device)
        self._clips = torch.zeros(b, device=device)

    # --- the contract ---------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, Extras]:
        """`options` is there for the contract; simulation has none."""
        if seed is not None:
            self._seed(seed)
        self.common_step_counter += 1
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self._reset(everyone)
        robot, scene = self._states()
        scene.sensors |= self._pictures(range(self.num_envs))
        frames = self.terms.frames(robot, scene, self._action)
        self.terms.check(frames)
        return self.memory.push(self.sensor(frames)), {"log": {}}

    def step(self, action: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]:
        if action.shape != (self.num_envs, self.action_spec.dim):
            raise ValueError(f"the action must be ({self.num_envs}, {self.action_spec.dim}), got {tuple(action.shape)}")
        self.common_step_counter += 1
        action = torch.nan_to_num(action, 0.0, self.action_spec.high, self.action_spec.low)
        previous = self._action
        commanded, self._action = self._command(action)
        before = self.backend.get_state()
        self.trace.add(before, action)
        self.backend.step(self.cfg.decimation)
        diverged = self._recover(before)
        self.episode_length_buf = self.episode_length_buf + 1
        self.task.advance(self.backend)

        robot, scene = self._states()
        scene.sensors |= self._pictures(range(self.num_envs))
        terms = self.task.rewards(robot, scene, ActionState(commanded, self._action, previous))
        weighted = torch.stack(tuple(terms.values())) * self._weights
        reward = torch.where(diverged, 0.0, weighted.sum(0) * self.step_dt)
        terminated = self.task.terminated(robot, scene) | diverged
        truncated = (self.episode_length_buf >= self.episode_limit_buf) & ~terminated
        self._return = self._return + reward
        done = terminated | truncated
        extras = self._extras(robot, scene, diverged)
        extras["log"] |= dict(zip((f"reward/{k}" for k in terms), weighted.mean(1).unbind(), strict=True))

        frames = self.terms.frames(robot, scene, self._action)
        obs = final_obs = self.memory.push(self.sensor(frames))
        ended = done.nonzero().flatten()  # a GPU waits here, and for the test in _recover
        if len(ended):
            obs = self._restart(frames, final_obs, done, ended)
        return obs, reward, terminated, truncated, extras | {"final_obs": final_obs}

    def states(self) -> tuple[RobotState, SceneState]:
        """The true state of all, as terms read it; valid until the next step. For experts, not for policies."""
        return self._states()

    @property
    def applied_action(self) -> Tensor:
        """(B, A) that reached the robots in the last period."""
        return self._action

    def close(self) -> None:
        self.backend.close()

    def policy_spec(self) -> PolicySpec:
        """What a policy for this environment must agree with."""
        return PolicySpec(self.robot.name, 1.0 / self.step_dt, self.observation_spec, self.action_spec)

    def state_dict(self) -> dict[str, Any]:
        """All that the following steps depend on: loaded, the same actions give the same rollout, to the
        bit."""
        return {
            "backend": {
                "state": self.backend.get_state(),
                "params": self.backend.params(),
                "looks": self.backend.looks(),
            },
            "task": self.task.state_dict(),
            "memory": self.memory.state_dict(),
            "generator": self.generator.get_state(),
            "random": {"seed": self.seed, "common_step_counter": self.common_step_counter},
            "parts": {n: {k: v.clone() for k, v in tensors_of(p).items()} for n, p in self._parts().items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        everyone = torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        self.backend.set_state(state["backend"]["state"])
        for name, scale in state["backend"].get("params", {}).items():
            asset, _, param = name.partition(".")
            self.backend.set_param(asset, param, scale, everyone)
        looks = state["backend"].get("looks", {})
        for name in self.backend.looks().keys() | looks.keys():
            self.backend.set_look(name, looks[name] if name in looks else neutral(name, self.num_envs), everyone)
        self.task.load_state_dict(state.get("task", {}))  # a checkpoint drops empty branches
        self.memory.load_state_dict(state["memory"])
        self.generator.set_state(state["generator"].cpu())
        self.seed, self.common_step_counter = state["random"]["seed"], state["random"]["common_step_counter"]
        for name, part in self._parts().items():
            put_tensors(part, {k: v.clone() for k, v in state["parts"].get(name, {}).items()})

    def _parts(self) -> dict[str, Any]:
        return {
            "env": self, "limits": self.commander.last, "delay": self._delay, "pushes": self.pushes,
            "sensor": self.sensor, "sensor_delay": self.sensor.delay,
        } | self.sensor.parts()  # fmt: skip

    def _reward_weights(self) -> Tensor:
        """(terms, 1), in the order in which the task gives them."""
        still = ActionState(self._action, self._action, self._action)
        robot, scene = self._states()
        scene.sensors |= self._pictures(range(self.num_envs))
        terms = self.task.rewards(robot, scene, still)
        for name in self.cfg.weights:
            if name not in terms:
                raise config.ConfigError(config.unknown("reward term", name, list(terms)))
        weights = [self.cfg.weights.get(name, 1.0) for name in terms]
        return torch.tensor(weights, device=self.device)[:, None]

    # --- the parts of a period ------------------------------------------------------------------------------

    def _command(self, action: Tensor) -> tuple[Tensor, Tensor]:
        """Send the delayed action's command to the engine; that action, and what reached the robot of it."""
        delayed = self._delay(action).clamp(self.action_spec.low, self.action_spec.high)
        command = self.commander(delayed)
        self._clips = self._clips + command.clipped
        self._send(command.target)
        if self.cfg.randomize.push_force_n:
            both = self.pushes() + self._disturbance * float(self.robot.ee_link == self.robot.base_link)
            self.backend.apply_wrench(self.task.asset, self.robot.ee_link, both)
        return delayed, command.applied_action

    def _send(self, target: Tensor) -> None:
        """The command's target (B, n) to the engine, with the actuators' errors."""
        backend, asset, mode = self.backend, self.task.asset, self.commander.mode
        if mode == "position":
            self._target[:, self._driven] = target
            sent = self._target
            if self.cfg.randomize.actuator_trim:
                sent = sent.clone()
                sent[:, self._arm] += self._trim
            backend.write_targets(asset, position=sent)
        elif mode == "effort":
            effort = torch.zeros_like(self._target)
            effort[:, self._driven] = target
            backend.write_targets(asset, effort=effort)
        elif mode == "velocity":
            backend.write_targets(asset, velocity=target)
        else:
            backend.write_attitude(asset, target + self._trim)

    def _recover(self, before: Tensor) -> Tensor:
        """Environments whose physics diverged, put back to the state before; they end without reward."""
        diverged = ~self.backend.finite()
        if bool(diverged.any()):
            self.diverged_count = self.diverged_count + diverged.sum()
            self.trace.dump(diverged)
            self.backend.set_state(before, diverged)
            self._stand(~self.backend.finite())
        return diverged

    def _stand(self, mask: Tensor) -> None:
        """Put robots at rest where not even the state before was finite, until the reset that follows."""
        if bool(mask.any()):
            rest = self._rest.expand(self.num_envs, -1)
            self.backend.write_joints(self.task.asset, rest, torch.zeros_like(rest), mask)
            if self.robot.quadrotor is not None:
                start = torch.tensor(self.backend.scene.robots[self.task.asset].pose, device=self.device)
                still = torch.zeros(self.num_envs, 6, device=self.device)
                self.backend.write_pose(self.task.asset, start.expand(self.num_envs, 7), still, mask)

    def _states(self) -> tuple[RobotState, SceneState]:
        asset, backend = self.task.asset, self.backend
        robot = RobotState(
            stamp_s=backend.time_s, joint_pos=backend.joint_pos(asset), joint_vel=backend.joint_vel(asset),
            joint_effort=backend.joint_effort(asset), joint_target=self._target,
            root_pose=backend.pose(asset), root_vel=backend.velocity(asset),
            chain=self.chain,
        )  # fmt: skip
        scene = self.task.scene_state(backend)
        if self.robot.quadrotor is not None:
            scene.sensors["disturbance"] = self._disturbance
        if self._start is not None:
            scene.commands[START] = self._start
        return robot, scene

    def _pictures(self, envs: Sequence[int]) -> dict[str, Tensor]:
        """What the observed cameras see now in these environments, (n, H, W, 3) uint8 by name."""
        return self.backend.images(self.cameras, envs) if self.cameras else {}

    def _extras(self, robot: RobotState, scene: SceneState, diverged: Tensor) -> Extras:
        length = self.episode_length_buf.float()
        episode = {k: v.float() for k, v in self.task.metrics(robot, scene).items()}
        episode["success"] = episode["success"] * ~diverged
        episode["diverged"] = diverged.float()
        episode |= {"return": self._return, "length": length, "clip_rate": self._clips / length}
        log = {"diverged": self.diverged_count.clone()}
        return {"applied_action": self._action, "log": log, "episode": episode}

    def _restart(self, frames: dict[str, Tensor], final_obs: Obs, done: Tensor, ended: Tensor) -> Obs:
        """Reset and observe anew the environments that are done (mask, and indices); the observation of
        all."""
        self._reset(done)
        robot, scene = self._states()
        robot, scene = robot.rows(ended), scene.rows(ended)
        scene.sensors |= self._pictures(ended.tolist())
        anew = self.terms.frames(robot, scene, self._action[ended])
        frames = {k: v.index_copy(0, ended, anew[k]) for k, v in frames.items()}
        obs = self.memory.push(self.sensor(frames, done, self.reset_generator), done)
        return {k: v.index_copy(0, ended, obs[k][ended]) for k, v in final_obs.items()}

    def _seed(self, seed: int) -> None:
        self.seed, self.common_step_counter = seed, 0
        self.generator.manual_seed(seed)

    def _reset(self, mask: Tensor) -> None:
        """Draws depend on the seed and the period alone: one environment's end changes no other's numbers."""
        generator = self.reset_generator.manual_seed(self.seed * 1_000_003 + self.common_step_counter)
        cfg, asset, shape = self.cfg.randomize, self.task.asset, self._target.shape
        randomize.draw_params(self.backend, asset, cfg, mask, generator)
        spread = randomize.uniform(shape, -cfg.initial_joint_pos, cfg.initial_joint_pos, generator)
        speed = randomize.uniform(shape, -cfg.initial_joint_vel, cfg.initial_joint_vel, generator)
        start = self._rest + spread * self._spread
        self.backend.write_joints(asset, start, speed, mask)
        row = mask[:, None]
        target = start + (self._rest_target - self._rest)
        self._target = torch.where(row, target, self._target)
        if cfg.actuator_trim:
            trim = torch.randn(self._trim.shape, generator=generator, device=self.device) * cfg.actuator_trim
            if self.commander.mode == "attitude":
                trim[:, 2:] = 0.0
            self._trim = torch.where(row, trim, self._trim)
        if cfg.disturbed:
            drawn = randomize.draw_disturbance(cfg, self.num_envs, generator)
            self._disturbance = torch.where(row, drawn, self._disturbance)
            self.backend.apply_wrench(asset, self.robot.base_link, self._disturbance)
        self.commander.reset(mask, target[:, self._driven])
        self._delay.reset(mask, generator)
        self.sensor.reset(mask, generator)
        self.pushes.reset(mask)
        self.memory.reset(mask)
        self._action = torch.where(row, self.commander.rest, self._action)
        self.episode_length_buf = self.episode_length_buf * ~mask
        self._return, self._clips = self._return * ~mask, self._clips * ~mask
        self.task.reset(self.backend, mask, generator)
        randomize.draw_looks(self.backend, cfg.looks, self.cameras, mask, generator)
        self.backend.forward()
        if self._start is not None and self.chain is not None:
            self._start = torch.where(row, self.chain.pose(self.backend.joint_pos(asset)), self._start)
