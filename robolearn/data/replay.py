"""What was experienced, for off-policy learning: transitions in rings, one a lane, without a frame twice.

A lane is an environment's stream of frames: an episode's observations one after another, the last of them (which
`final_obs` told) included, then the next episode's. A transition is a frame that has an action; what it led to is the
frame after it, always of the same episode. So n steps are a walk along the lane that ends with the episode, or where
the lane's newest frame is: no next observation comes from another episode, and nothing is bootstrapped across a
fragment's edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from robolearn.env import Obs
from robolearn.errors import ConfigError

TRIES = 16
"""Draws for a frame that has an action, before the newest transition is taken."""
Batch = dict[str, Tensor]


class Replay:
    """`capacity` frames over `lanes` lanes; observations by key with their shape and dtype, pictures as uint8."""

    def __init__(self, capacity: int, lanes: int, shapes: Mapping[str, tuple[int, ...]],
                 dtypes: Mapping[str, torch.dtype], action_dim: int, device: torch.device | str = "cpu"):  # fmt: skip
        self.lanes, self.length, self.device = lanes, capacity // lanes, torch.device(device)
        if self.length < 3:
            raise ConfigError(
                f"a replay of {capacity} frames for {lanes} environments holds no episode; make it larger"
            )
        n = lanes * self.length

        def room(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
            return torch.zeros(n, *shape, dtype=dtype, device=self.device)

        self.frames = {k: room(s, dtypes.get(k, torch.float32)) for k, s in shapes.items()}
        self.action, self.reward = room((action_dim,), torch.float32), room((), torch.float32)
        self.acted, self.terminated = room((), torch.bool), room((), torch.bool)
        self.human = room((), torch.bool)
        """Whose action it was."""
        self.episode, self.t = room((), torch.long), room((), torch.long)
        self.head = torch.zeros(lanes, dtype=torch.long, device=self.device)
        """The slot of each lane's newest frame."""
        self.filled = torch.zeros_like(self.head)
        """Slots of each lane that hold a frame."""
        self.open = torch.zeros(lanes, dtype=torch.bool, device=self.device)
        self.episodes = torch.zeros((), dtype=torch.long, device=self.device)
        self.newest = torch.zeros((), dtype=torch.long, device=self.device)
        """The row of a transition that was written last."""
        self._lane = torch.arange(lanes, device=self.device)

    def __len__(self) -> int:
        """Transitions."""
        return int(self.acted.sum())

    # --- writing ----------------------------------------------------------------------------------------------------

    def begin(self, obs: Obs, mask: Tensor | None = None) -> None:
        """The first frames of episodes in the lanes `mask` (B,), or all; `obs` (B, ...)."""
        lanes = self._lane if mask is None else mask.nonzero().flatten()
        number = self.episodes + torch.arange(len(lanes), device=self.device)
        self.episodes = self.episodes + len(lanes)
        self._move(lanes)
        self._put(obs, lanes, number, torch.zeros_like(lanes))

    def add(self, action: Tensor, reward: Tensor, terminated: Tensor, truncated: Tensor, final_obs: Obs,
            obs: Obs | None = None, human: Tensor | None = None, lanes: Tensor | None = None) -> None:  # fmt: skip
        """What came of `action` (B, A), a person's where `human` (B,), at the newest frames: `final_obs`, and where
        that ended an episode `obs` begins the next one (without it, `begin` has to). Of all lanes, or of `lanes`
        (B,). ValueError for a lane that has not begun."""
        lanes = self._lane if lanes is None else lanes
        if not bool(self.open[lanes].all()):
            raise ValueError("a lane's episode has not begun")
        at = lanes * self.length + self.head[lanes]
        done = terminated | truncated
        self.action[at], self.reward[at] = action, reward
        self.terminated[at], self.acted[at], self.newest = terminated, True, at[-1]
        if human is not None:
            self.human[at] = human
        number, t = self.episode[at], self.t[at] + 1
        self._move(lanes)
        self._put(final_obs, lanes, number, t)
        if obs is None:
            self.open[lanes] = ~done
        elif bool(done.any()):
            self.begin(obs, done)

    def cut(self, mask: Tensor) -> None:
        """A fragment ends in the lanes `mask` (B,), as by a time limit: what follows is another episode, which has to
        begin."""
        self.open = self.open & ~mask

    def blame(self, mask: Tensor, reward: float) -> None:
        """Set the reward of the transitions that led to the newest frames of the lanes `mask` (B,); an episode's first
        frame blames nobody."""
        at = self._lane * self.length + self.head
        before = self._lane * self.length + (self.head - 1) % self.length
        led = mask & (self.t[at] > 0)
        self.reward[before] = torch.where(led, reward, self.reward[before])

    def add_episode(self, obs: Obs, action: Tensor, reward: Tensor, terminated: Tensor, lane: int = 0) -> None:
        """A whole one, (T, ...) each. Where its last step is not `terminated`, what it led to is not known: it is the
        end of the transition before it, as of one that was cut off."""
        if len(action) + 1 > self.length:
            raise ConfigError(f"an episode of {len(action)} steps does not fit a replay's lane of {self.length}")
        number, n = self.episodes, len(action)
        self.episodes = self.episodes + 1
        known = n if bool(terminated[-1]) else n - 1
        if not known:
            return
        start = int(self.head[lane]) + 1 if int(self.filled[lane]) else 0
        slots = lane * self.length + (start + torch.arange(known + 1, device=self.device)) % self.length
        last = [*range(n), n - 1][: known + 1]  # nothing is read of what follows a terminated step
        for key, frames in self.frames.items():
            frames[slots] = obs[key][last].to(self.device)
        self.episode[slots], self.t[slots] = number, torch.arange(known + 1, device=self.device)
        for own, values in ((self.action, action), (self.reward, reward), (self.terminated, terminated)):
            own[slots[:-1]] = values[:known].to(self.device)
        self.human[slots] = True
        self.acted[slots] = True
        self.acted[slots[-1]] = False
        self.newest = slots[-2]
        self.head[lane] = (start + known) % self.length
        self.filled[lane] = min(self.length, int(self.filled[lane]) + known + 1)
        self.open[lane] = False

    def _move(self, lanes: Tensor) -> None:
        self.head[lanes] = torch.where(self.filled[lanes] > 0, (self.head[lanes] + 1) % self.length, self.head[lanes])
        self.filled[lanes] = (self.filled[lanes] + 1).clamp_max(self.length)

    def _put(self, obs: Obs, lanes: Tensor, number: Tensor, t: Tensor) -> None:
        at = lanes * self.length + self.head[lanes]
        for key, frames in self.frames.items():
            frames[at] = obs[key] if len(lanes) == len(obs[key]) else obs[key][lanes]
        self.episode[at], self.t[at] = number, t
        self.acted[at], self.terminated[at], self.human[at] = False, False, False
        self.open[lanes] = True

    # --- reading ----------------------------------------------------------------------------------------------------

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Rows (count,) of transitions, each as likely as any other. No wait for a GPU."""
        edges = self.filled.cumsum(0)
        draws = torch.rand(TRIES, count, generator=generator, device=self.device, dtype=torch.float64)
        numbers = (draws * edges[-1]).long()
        lane = torch.searchsorted(edges, numbers, right=True).clamp_max(self.lanes - 1)
        rows = lane * self.length + numbers - (edges - self.filled)[lane]
        good = self.acted[rows]
        first = good.float().argmax(0)  # of the tries
        row = rows.gather(0, first[None])[0]
        return torch.where(self.acted[row], row, self.newest)

    def of_person(self) -> Tensor:
        """Rows of all transitions that were a person's."""
        return (self.acted & self.human).nonzero().flatten()

    def _after(self, row: Tensor, by: int = 1) -> Tensor:
        lane = row // self.length
        return lane * self.length + (row - lane * self.length + by) % self.length

    def before(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The transitions (B,) that led to these, and where there is one, (B,) bool: not at an episode's beginning, nor
        where it was overwritten."""
        at = self._after(rows, -1)
        return at, self.acted[at] & (self.episode[at] == self.episode[rows]) & (self.t[at] == self.t[rows] - 1)

    def path(self, rows: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """From the transitions `rows` (B,) up to `steps` further within the episode: rows (steps + 1, B), the last of
        which is the frame that they led to; and which of the steps were made, (steps, B) bool."""
        at, alive = [rows], [torch.ones_like(rows, dtype=torch.bool)]
        for _ in range(steps):
            at.append(torch.where(alive[-1], self._after(at[-1]), at[-1]))
            alive.append(alive[-1] & self.acted[at[-1]])  # an episode's last frame has no action
        return torch.stack(at), torch.stack(alive[:-1])

    def gather(self, rows: Tensor, steps: int, gamma: float) -> Batch:
        """Of the transitions `rows` (B,): `obs/KEY`, `action`, `reward` (the discounted sum of up to `steps` rewards),
        `discount` (what a value of `next/KEY` counts: gamma to the number of steps, 0 after a terminated one), and
        `human`, whose action it was."""
        total, discount = torch.zeros_like(self.reward[rows]), torch.ones_like(self.reward[rows])
        path, made = self.path(rows, steps)
        for at, alive in zip(path[:-1], made, strict=True):
            total = total + torch.where(alive, discount * self.reward[at], 0.0)
            discount = torch.where(alive, torch.where(self.terminated[at], 0.0, gamma * discount), discount)
        out = {f"obs/{k}": v[rows] for k, v in self.frames.items()} | {
            f"next/{k}": v[path[-1]] for k, v in self.frames.items()
        }
        whole = {"action": self.action[rows], "human": self.human[rows], "reward": total, "discount": discount}
        return out | whole

    def sample(self, count: int, generator: torch.Generator, steps: int = 1, gamma: float = 0.99) -> Batch:
        return self.gather(self.draw(count, generator), steps, gamma)

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Of the slots that were ever filled."""
        most = int(self.filled.max())
        slots = {k: self._lanes(v)[:, :most] for k, v in self._all().items()}
        return {"shape": [self.lanes, self.length], "slots": slots,
                "head": self.head, "filled": self.filled, "open": self.open, "episodes": self.episodes,
                "newest": self.newest}  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["shape"] != [self.lanes, self.length]:
            raise ValueError(f"the replay has {state['shape']} lanes and slots, now it is {[self.lanes, self.length]}")
        for key, own in self._all().items():
            saved = state["slots"][key]
            self._lanes(own)[:, : saved.shape[1]] = saved.to(self.device)
        for name in ("head", "filled", "open", "episodes", "newest"):
            setattr(self, name, state[name].to(self.device))

    def _lanes(self, flat: Tensor) -> Tensor:
        return flat.view(self.lanes, self.length, *flat.shape[1:])

    def _all(self) -> dict[str, Tensor]:
        names = ("action", "reward", "acted", "terminated", "human", "episode", "t")
        return self.frames | {n: getattr(self, n) for n in names}
