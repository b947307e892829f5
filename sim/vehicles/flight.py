"""Flight tasks at full speed: an Env whose whole period is one kernel (sim/vehicles/period.py)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import warp as wp
from torch import Tensor

from robolearn.actions import Commander
from robolearn.config import ConfigError, build, unknown
from robolearn.env import Extras, Obs
from robolearn.registry import entry
from robolearn.spec import PolicySpec
from robolearn.state import put_tensors, tensors_of
from sim.backends.base import BackendCfg
from sim.backends.quadrotor import Quadrotor
from sim.tasks.flight.base import FlightCfg, FlightTask
from sim.vehicles import period, starts

DRAWN = ("mass", "inertia", "thrust", "reaction_torque", "spin_up", "spin_down", "drag", "sag", "link_delay")
NOISE = ("position_error", "rotation", "velocity", "rates")
PARTS = ("state", "params_of", "wrench", "before", "memory")


def lacks(task: FlightCfg) -> list[str]:
    """What of the configuration the kernel does not know; SimEnv then runs the task."""
    cfg = task.randomize
    asked = {
        "observation_delay": cfg.observation_delay != (0, 0),
        "action_delay": cfg.action_delay != (0, 0),
        "observation_dropout": cfg.observation_dropout > 0.0,
        "push_force_n": cfg.push_force_n > 0.0,
        "observation_noise": bool(set(cfg.observation_noise) - set(NOISE)),
        "params": bool(set(cfg.params) - set(DRAWN)),
    }
    return [name for name, wanted in asked.items() if wanted]


class FusedFlight:
    """Fulfils `robolearn.env.Env` as SimEnv does, to which a test compares it; random numbers differ."""

    def __init__(self, task: FlightCfg, backend: BackendCfg, num_envs: int, device: str = "cpu", seed: int = 0,
                 trace_dir: Path | None = None):  # fmt: skip
        """`trace_dir` is there for the contract: divergences are counted, not traced."""
        if num_envs < 1:
            raise ConfigError(f"num_envs must be at least 1, got {num_envs}")
        self.num_envs, self.device, self.cfg = num_envs, torch.device(device), task
        self.task: FlightTask = build(task)
        self.robot = self.task.robot
        self.physics_dt, self.step_dt = task.physics_dt_s, task.step_dt_s
        self.max_episode_length_s = task.episode_length_s
        self.max_episode_length = round(task.episode_length_s / task.step_dt_s)
        self.observation_spec, self.action_spec = self.task.observation_spec(), self.task.action_spec()
        self.backend: Quadrotor = entry("backend", backend.name).value(
            backend, self.task.scene(), num_envs, self.device, seed
        )
        self.commander = Commander(self.action_spec, self.robot, num_envs, self.step_dt, self.device)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.task.setup(self.backend, self.generator)
        self.seed, self.common_step_counter = seed, 0
        self._allocate()
        self._rules = self._make_rules(seed)
        self._launches: list[Any] = []

    def _allocate(self) -> None:
        b, device = self.num_envs, self.device
        dims = {g: self.observation_spec.dim(g) for g in ("policy", "critic")}

        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self._obs = [{g: zeros(b, n) for g, n in dims.items()} for _ in range(2)]  # in turns
        self._final = {g: zeros(b, n) for g, n in dims.items()}
        self._action, self._given, self._trim, self._counts = (zeros(b, n) for n in (4, 4, 2, 3))
        self._variant, self._age, self._draws = (zeros(b, dtype=torch.int32) for _ in range(3))
        self._reward, self._episode = zeros(b), zeros(b, period.EPISODE)
        self._terminated, self._truncated = (zeros(b, dtype=torch.bool) for _ in range(2))
        self.episode_length_buf = zeros(b, dtype=torch.long)
        self.episode_limit_buf = torch.full_like(self.episode_length_buf, self.max_episode_length)
        self._no_clips = zeros(b)
        self._normals = torch.randn(period.TABLE + 18, generator=torch.Generator().manual_seed(0)).to(device)
        self._nominal, self._ranges = self.backend._nominal, torch.tensor(list(self._bounds()), device=device)
        self._goals = self._goal_table().contiguous()
        self._turn = 0

    def _bounds(self) -> Iterator[tuple[float, float]]:
        """(low, high) of each drawn parameter's scale; negative where it stays."""
        for name in DRAWN:
            bounds = getattr(self.cfg.randomize, name)
            yield (-1.0, -1.0) if bounds == (1.0, 1.0) else bounds

    def _goal_table(self) -> Tensor:
        """(variants, periods, 9)."""
        steps = self.max_episode_length + 2
        return getattr(self.task, "table", self.task.goal[:1, None].expand(1, steps, 9))

    # --- the contract ---------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, Extras]:
        """`options` is there for the contract; simulation has none."""
        if seed is not None:
            self.seed, self.common_step_counter = seed, 0
            self._rules.seed = seed
            self._draws.zero_()
            self._launches.clear()
        self.common_step_counter += 1
        self.episode_length_buf.zero_()
        obs = self._obs[self._turn]
        arrays = [*self._world(), *(wp.from_torch(t) for t in (self._action, obs["policy"], obs["critic"]))]
        wp.launch(period.begin, self.num_envs, [*arrays, self.task.vehicle.hover_speed_radps, self._rules],
                  device=self._on())  # fmt: skip
        return dict(obs), {"log": {}}

    def step(self, action: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]:
        """What is returned is valid until the step after the next."""
        if action.shape != (self.num_envs, 4):
            raise ValueError(f"the action must be ({self.num_envs}, 4), got {tuple(action.shape)}")
        self.common_step_counter += 1
        self._given.copy_(action)
        self._turn = 1 - self._turn
        if not self._launches:
            self._launches = [self._record(k) for k in range(2)]
        self._launches[self._turn].launch()
        obs, results = self._obs[self._turn], self._episode.unbind(1)
        names = ("return", "length", "success", "position_error_m", "steady_error_m", "diverged")
        episode = dict(zip(names, results, strict=True)) | {"clip_rate": self._no_clips}
        final = FinalObs(obs, self._final, self._terminated | self._truncated)
        extras = {"applied_action": self._action, "log": {}, "episode": episode, "final_obs": final}
        return dict(obs), self._reward.clone(), self._terminated.clone(), self._truncated.clone(), extras

    def close(self) -> None:
        self.backend.close()

    def policy_spec(self) -> PolicySpec:
        """What a policy for this environment must agree with."""
        return PolicySpec(self.robot.name, 1.0 / self.step_dt, self.observation_spec, self.action_spec)

    def state_dict(self) -> dict[str, Any]:
        """All that the following steps depend on."""
        parts = {n: getattr(self.backend, n).clone() for n in PARTS}
        obs = {f"{k}.{g}": t.clone() for k, o in enumerate(self._obs) for g, t in o.items()}
        own = {k: v.clone() for k, v in tensors_of(self).items()}
        counters = {"seed": self.seed, "common_step_counter": self.common_step_counter, "turn": self._turn}
        return {"backend": parts, "obs": obs, "own": own, "counters": counters}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in PARTS:
            getattr(self.backend, name).copy_(state["backend"][name])
        for key, value in state["obs"].items():
            turn, _, group = key.partition(".")
            self._obs[int(turn)][group].copy_(value)
        put_tensors(self, {k: v.clone() for k, v in state["own"].items()})
        counters = state["counters"]
        self.seed, self.common_step_counter = counters["seed"], counters["common_step_counter"]
        self._turn, self._rules.seed = counters["turn"], counters["seed"]
        self._launches.clear()

    # --- the kernel -----------------------------------------------------------------------------------------

    def _world(self) -> list[Any]:
        """The arrays that `begin` and `period` share."""
        engine = self.backend
        tensors = [engine.state, engine.params_of, engine.wrench, engine.before, engine.memory, self._trim,
                   self._nominal, self._ranges, self._goals, self._normals, self._variant, self._age, self._draws,
                   self._counts]  # fmt: skip
        return [wp.from_torch(t) for t in tensors]

    def _record(self, turn: int) -> Any:
        """The launch that reads observation 1 - turn and writes observation `turn`."""
        now, before = self._obs[turn], self._obs[1 - turn]
        tensors = [
            self._action, self._given, self.episode_limit_buf, self.episode_length_buf, before["policy"],
            now["policy"], now["critic"], self._final["policy"], self._final["critic"], self._reward, self._terminated,
            self._truncated, self._episode,
        ]  # fmt: skip
        engine = self.backend
        firmware = engine.firmware or period.d.Firmware()
        inputs = [*self._world(), *(wp.from_torch(t) for t in tensors), self.task.vehicle.hover_speed_radps,
                  self._rules, engine.body, firmware]  # fmt: skip
        stream = None
        if self.device.type != "cpu":
            stream = wp.stream_from_torch(torch.cuda.current_stream(self.device))
        return wp.launch(period.period, self.num_envs, inputs, device=self._on(), record_cmd=True, stream=stream)

    def _on(self) -> Any:
        return wp.device_from_torch(self.device)

    def _make_rules(self, seed: int) -> Any:
        task, cfg, rules, noise = self.task, self.cfg, starts.Rules(), self.cfg.randomize.observation_noise
        attitude = cfg.action == "attitude"
        rules.attitude, rules.half_speed = int(attitude), 0.5 * task.vehicle.max_speed_radps
        rules.weight = 9.81 * task.vehicle.mass_kg
        rules.scale, rules.rest = wp.vec4(*self.action_spec.scale), wp.vec4(*self.commander.rest.tolist())
        rules.dt, rules.substeps, rules.period = cfg.physics_dt_s, cfg.decimation, cfg.step_dt_s
        rules.noise = wp.vec4(*(noise.get(n, 0.0) for n in NOISE))
        rules.integral, rules.history = cfg.integral_limit_ms, cfg.action_history
        rules.preview, rules.stride = getattr(cfg, "preview", -1), getattr(task, "stride", 1)
        rules.far, rules.steady_from = cfg.far_m, task._steady_from
        rules.start = wp.vec4(cfg.start_position_m, cfg.start_velocity_mps, cfg.start_rates_radps, cfg.start_tilt_rad)
        rules.level, rules.seed = cfg.level_start, seed
        rules.force, rules.torque = cfg.randomize.disturbance_force_n, cfg.randomize.disturbance_torque_nm
        rules.trim = cfg.randomize.actuator_trim if attitude else 0.0
        rules.force_unit, rules.torque_unit = 0.05 * rules.weight, 0.0001 * rules.weight
        terms = ("alive", "position_squared", "position", "tilt", "velocity", "action", "action_change")
        for name in cfg.weights:
            if name not in terms:
                raise ConfigError(unknown("reward term", name, list(terms)))
        for name in terms:
            setattr(rules, name, cfg.weights.get(name, 1.0) * cfg.step_dt_s)
        return rules


class FinalObs(dict[str, Tensor]):
    """The observations before the reset, (B, n) by group, put together when they are read."""

    def __init__(self, obs: Obs, final: Obs, done: Tensor):
        super().__init__(obs)
        self._obs, self._final, self._done = obs, final, done[:, None]

    def __getitem__(self, group: str) -> Tensor:
        return torch.where(self._done, self._final[group], self._obs[group])

    def items(self):
        return ((k, self[k]) for k in self)

    def values(self):
        return (self[k] for k in self)
