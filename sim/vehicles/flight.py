"""Flight tasks at full speed: an Env whose whole period is one kernel (sim/vehicles/period.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
from robolearn.state import tensors_of
from sim.backends.base import BackendCfg
from sim.backends.quadrotor import Quadrotor
from sim.tasks.flight.base import FlightCfg, FlightTask
from sim.vehicles import period, starts

DRAWN = ("mass", "inertia", "thrust", "reaction_torque", "spin_up", "spin_down", "drag", "sag", "link_delay")
NOISE = {"position_error": 3, "rotation": 9, "velocity": 3, "rates": 3}
PARTS = ("state", "params_of", "wrench", "before", "memory")


def lacks(task: FlightCfg) -> list[str]:
    """What of the configuration the kernel does not know; SimEnv then runs the task."""
    cfg = task.randomize
    asked = {
        "observation_delay": cfg.observation_delay != (0, 0),
        "action_delay": cfg.action_delay != (0, 0),
        "observation_dropout": cfg.observation_dropout > 0.0,
        "push_force_n": cfg.push_force_n > 0.0,
        "looks": bool(cfg.looks.kinds),
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
        flags = torch.bool
        self._ends = [(zeros(b), zeros(b, dtype=flags), zeros(b, dtype=flags)) for _ in range(2)]  # in turns
        self._episode = zeros(b, period.EPISODE)
        names = ("return", "length", "success", "position_error_m", "steady_error_m", "diverged")
        self._results = dict(zip(names, self._episode.unbind(1), strict=True)) | {"clip_rate": zeros(b)}
        self.episode_length_buf = zeros(b, dtype=torch.long)
        self.episode_limit_buf = torch.full_like(self.episode_length_buf, self.max_episode_length)
        normals = torch.randn(period.TABLE + 18, generator=torch.Generator().manual_seed(0)).to(device)
        overlapping = normals.as_strided((period.TABLE, 18), (1, 1))
        ranges = torch.tensor(list(self._bounds()), device=device)
        self._tables = self.backend._nominal[None], ranges, self._goal_table().contiguous(), overlapping  # constant
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
        wp.launch(period.begin, self.num_envs, self._world(obs), device=self._on(), stream=self.backend.stream())
        return dict(obs), {"log": {}}

    def step(self, action: Tensor) -> tuple[Obs, Tensor, Tensor, Tensor, Extras]:
        """What is returned is valid until the step after the next; extras until the next."""
        if action.shape != (self.num_envs, 4):
            raise ValueError(f"the action must be ({self.num_envs}, 4), got {tuple(action.shape)}")
        self.common_step_counter += 1
        self._given.copy_(action)
        self._turn = 1 - self._turn
        if not self._launches:
            self._launches = [self._record(k) for k in range(2)]
        self._launches[self._turn].launch(self.backend.stream())
        obs, (reward, terminated, truncated) = self._obs[self._turn], self._ends[self._turn]
        final = FinalObs(obs, self._final, terminated, truncated)
        extras = {"applied_action": self._given, "log": {}, "episode": dict(self._results), "final_obs": final}
        return dict(obs), reward, terminated, truncated, extras

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
        for name, value in state["own"].items():  # into the same memory: the launches know it
            getattr(self, name).copy_(value)
        counters = state["counters"]
        self.seed, self.common_step_counter = counters["seed"], counters["common_step_counter"]
        self._turn, self._rules.seed = counters["turn"], counters["seed"]
        self._launches.clear()

    # --- the kernel -----------------------------------------------------------------------------------------

    def _world(self, obs: Obs) -> list[Any]:
        """What `begin` and `period` share, to write observation `obs`."""
        engine, kinds = self.backend, period.d
        nominal, ranges, goals, normals = self._tables
        typed = [
            (engine.state, kinds.Row), (engine.params_of, kinds.Parameters), (engine.wrench, kinds.Wrench),
            (engine.before, wp.vec4), (engine.memory, kinds.Memory), (self._trim, wp.vec2),
            (nominal, kinds.Parameters), (ranges, wp.float32), (goals, period.Goal),
            (normals, period.Seen), (self._variant, wp.int32), (self._age, wp.int32), (self._draws, wp.int32),
            (self._counts, wp.vec3), (self._action, wp.vec4),
        ]  # fmt: skip
        arrays = [wp.from_torch(t, dtype=k) for t, k in typed]
        numbers = [self._noise(), self.task.vehicle.hover_speed_radps, self._rules]
        return [*arrays, *self._policy_parts(obs["policy"]), *self._critic_parts(obs["critic"]), *numbers]

    def _policy_parts(self, rows: Tensor) -> list[Any]:
        """Sight, integral, what is ahead, and history: views of the policy's rows."""
        cfg, at = self.cfg, 18
        integral = rows[:, at : at + 3]
        at += 3 if cfg.integral_limit_ms else 0
        ahead = self._ahead(rows, at)
        history = rows[:, -4 * cfg.action_history :].unflatten(1, (cfg.action_history, 4))
        return [
            wp.from_torch(rows[:, :18], dtype=period.Seen), wp.from_torch(integral, dtype=wp.vec3),
            wp.from_torch(ahead, dtype=wp.vec3), wp.from_torch(history, dtype=wp.vec4),
        ]  # fmt: skip

    def _critic_parts(self, rows: Tensor) -> list[Any]:
        return [
            wp.from_torch(rows[:, :18], dtype=period.Seen), wp.from_torch(self._ahead(rows, 18), dtype=wp.vec3),
            wp.from_torch(rows[:, -10:], dtype=period.Hidden),
        ]  # fmt: skip

    def _ahead(self, rows: Tensor, at: int) -> Tensor:
        n = 1 + getattr(self.cfg, "preview", 0)  # without a preview nothing is written there
        return rows[:, at : at + 3 * n].unflatten(1, (n, 3))

    def _noise(self) -> Any:
        noise = self.cfg.randomize.observation_noise
        return period.Seen(*(noise.get(name, 0.0) for name, n in NOISE.items() for _ in range(n)))

    def _record(self, turn: int) -> Any:
        """The launch that reads observation 1 - turn and writes observation `turn`."""
        now, before, engine = self._obs[turn], self._obs[1 - turn], self.backend
        _, last_area, _, last_history = self._policy_parts(before["policy"])
        firmware = engine.firmware or period.d.Firmware()
        rows = [now["policy"], now["critic"], self._final["policy"], self._final["critic"], *self._ends[turn]]
        inputs = [
            *self._world(now), engine.body, firmware, wp.from_torch(self._given, dtype=wp.vec4),
            wp.from_torch(self.episode_limit_buf), wp.from_torch(self.episode_length_buf), last_area, last_history,
            *(wp.from_torch(t) for t in rows), wp.from_torch(self._episode, dtype=period.Results),
        ]  # fmt: skip
        return wp.launch(period.period, self.num_envs, inputs, device=self._on(), record_cmd=True)

    def _on(self) -> Any:
        return wp.device_from_torch(self.device)

    def _make_rules(self, seed: int) -> Any:
        task, cfg, rules = self.task, self.cfg, starts.Rules()
        attitude = cfg.action == "attitude"
        rules.attitude, rules.half_speed = int(attitude), 0.5 * task.vehicle.max_speed_radps
        rules.weight = 9.81 * task.vehicle.mass_kg
        rules.scale, rules.rest = wp.vec4(*self.action_spec.scale), wp.vec4(*self.commander.rest.tolist())
        rules.dt, rules.substeps, rules.period = cfg.physics_dt_s, cfg.decimation, cfg.step_dt_s
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


class FinalObs(Mapping[str, Tensor]):
    """The observations before the reset, (B, n) by group, put together when they are read."""

    def __init__(self, obs: Obs, final: Obs, terminated: Tensor, truncated: Tensor):
        self._obs, self._final, self._ends = obs, final, (terminated, truncated)

    def __getitem__(self, group: str) -> Tensor:
        done = self._ends[0] | self._ends[1]
        return torch.where(done[:, None], self._final[group], self._obs[group])

    def __iter__(self) -> Iterator[str]:
        return iter(self._obs)

    def __len__(self) -> int:
        return len(self._obs)
