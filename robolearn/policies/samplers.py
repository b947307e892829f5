"""Samplers of action chunks, behind one interface.

A sampler keeps a buffer (B, H, A) between two chunks: `start` makes it where an episode begins, `advance` takes the
next chunk out of it. For samplers that begin anew with every chunk the buffer is the noise they begin with. All is in
normalised units. `ddpm`, `ddim` and `streaming` draw from the same network, `flow` needs one of its own.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robolearn.errors import ConfigError, unknown
from robolearn.policies.noise import NoiseProcess
from robolearn.registry import claim

SAMPLERS: dict[str, type[Sampler]] = {}
Denoise = Callable[[Tensor, Tensor], Tensor]
"""Noisy chunk (B, H, A) and noise level (B, H) or (B, 1) in [0, 1] -> the network's estimate (B, H, A)."""


class Corrupted(NamedTuple):
    """What a network is trained on: a noisy chunk, its levels in [0, 1], and what it should say."""

    noisy: Tensor
    level: Tensor
    target: Tensor


class Drawn:
    """Noise (B, n, H, A) that was drawn before, in place of a generator: for graphs, which have none."""

    def __init__(self, noise: Tensor):
        self._left = iter(noise.unbind(1))

    def take(self, like: Tensor) -> Tensor:
        """The next one, cut to the length of `like` (B, h, A)."""
        return next(self._left)[:, : like.shape[1]]


Random = torch.Generator | Drawn | None
"""Where a sampler's noise comes from; None is torch's own generator."""


class Sampler(ABC):
    """`horizon` actions a chunk, of which `execute` are run. `calls` is the number of network calls a chunk.

    Settings of every sampler are its keyword arguments. `temperature` in [0, 1] scales all noise that chunks are drawn
    from (low-temperature sampling, Ajay et al. 2023): below 1 chunks keep to what is likely, which is what precise work
    needs of a network that learned from trembling hands; at 0 equal observations give equal chunks.
    """

    kind = ""
    objective = "epsilon"
    """What the network estimates: the noise, or the velocity of a flow."""
    calls: int

    def __init__(self, process: NoiseProcess, horizon: int, execute: int, temperature: float = 1.0):
        self.process, self.horizon, self.execute = process, horizon, execute
        self.temperature = _share("temperature", temperature)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.kind:
            claim(SAMPLERS, "sampler", cls.kind, cls)

    @property
    def usable(self) -> int:
        """How many actions of a chunk, from the first, are free of noise."""
        return self.horizon

    @abstractmethod
    def corrupt(self, clean: Tensor, generator: torch.Generator | None = None) -> Corrupted:
        """Clean chunks (B, H, A) -> a training example."""

    def start(self, denoise: Denoise, like: Tensor, generator: Random = None) -> Tensor:
        """The buffer of environments that begin an episode, of the shape and device of `like` (B, H, A)."""
        return self.draw(like, generator)

    def draw(self, like: Tensor, generator: Random) -> Tensor:
        """Noise for a chunk, at the sampler's temperature."""
        return self.temperature * _noise(like, generator)

    @abstractmethod
    def advance(self, denoise: Denoise, buffer: Tensor,
                generator: Random = None) -> tuple[Tensor, Tensor]:  # fmt: skip
        """The next chunk (B, H, A), of which at least the first `execute` actions are clean, and the next buffer."""


def sampler(config: dict[str, Any], process: NoiseProcess, horizon: int, execute: int) -> Sampler:
    """`config["name"]` with the rest as settings. ConfigError for a name or setting that there is not."""
    settings = dict(config)
    name = settings.pop("name", "")
    if name not in SAMPLERS:
        raise ConfigError(unknown("sampler", name, tuple(sorted(SAMPLERS))))
    allowed = [p for p in inspect.signature(SAMPLERS[name]).parameters if p not in ("process", "horizon", "execute")]
    wrong = sorted(settings.keys() - set(allowed))
    if wrong:
        raise ConfigError(f"sampler {name} has no setting {', '.join(wrong)}; there is {', '.join(allowed) or 'none'}")
    return SAMPLERS[name](process, horizon, execute, **settings)


def _noise(like: Tensor, generator: Random) -> Tensor:
    if isinstance(generator, Drawn):
        return generator.take(like)
    return torch.randn(like.shape, generator=generator, device=like.device)


def _uniform_level(clean: Tensor, levels: int, generator: torch.Generator | None) -> Tensor:
    return torch.randint(levels, (len(clean), 1), generator=generator, device=clean.device)


def _level(value: int, like: Tensor) -> Tensor:
    return torch.full_like(like[:, :1, 0], value, dtype=torch.long)  # len() would fix the batch of an exported graph


class Ddim(Sampler):
    """Song et al. 2021: `steps` calls down evenly spaced levels. `eta` 0 is deterministic after the first noise, 1 as
    random as DDPM."""

    kind = "ddim"

    def __init__(self, process: NoiseProcess, horizon: int, execute: int, steps: int = 16, eta: float = 0.0,
                 temperature: float = 1.0):  # fmt: skip
        super().__init__(process, horizon, execute, temperature)
        self.ladder, self.eta = ladder(process.levels, steps), _share("eta", eta)
        self.calls = steps

    def corrupt(self, clean: Tensor, generator: torch.Generator | None = None) -> Corrupted:
        level = _uniform_level(clean, self.process.levels, generator)
        noise = _noise(clean, generator)
        return Corrupted(self.process.noisy(clean, noise, level), self.process.share(level), noise)

    def advance(self, denoise: Denoise, buffer: Tensor,
                generator: Random = None) -> tuple[Tensor, Tensor]:  # fmt: skip
        chunk = self.clean(denoise, buffer, generator)
        return chunk, self.draw(chunk, generator)

    def clean(self, denoise: Denoise, x: Tensor, generator: Random) -> Tensor:
        """All levels down, from pure noise (B, H, A)."""
        for at, to in zip(reversed(self.ladder), reversed([-1, *self.ladder[:-1]]), strict=True):
            level = _level(at, x)
            noise = self.draw(x, generator) if self.eta else None
            x = self.process.step(x, denoise(x, self.process.share(level)), level, _level(to, x), self.eta, noise)
        return x


class Ddpm(Ddim):
    """Ho et al. 2020: one call a noise level."""

    kind = "ddpm"

    def __init__(self, process: NoiseProcess, horizon: int, execute: int, temperature: float = 1.0):
        super().__init__(process, horizon, execute, process.levels, 1.0, temperature)


class Streaming(Ddim):
    """Streaming Diffusion Policy (Hoeg et al. 2024): the noise level rises along the buffer, so that a chunk takes
    `steps * execute / horizon` calls.

    Of the h = horizon / execute parts of the buffer, part i waits at level ladder[steps (i + 1) / h - 1]. Every call
    takes every part one level down, until the first is clean; it leaves, the others move up, pure noise follows. What
    has left is not seen any more: the next part knows of it by what it had become, and by the observation.
    `start` is how an episode begins: `zeros` noises zero actions to these levels, as the paper does; `denoised` first
    draws a whole chunk, for `steps` calls more, so that the first actions are as good as the later ones.
    `one_level` is the share of the training examples that have one level for all positions, as ddpm and ddim need.
    """

    kind = "streaming"

    def __init__(self, process: NoiseProcess, horizon: int, execute: int, steps: int = 16, eta: float = 0.0,
                 start: str = "denoised", one_level: float = 0.2, temperature: float = 1.0):  # fmt: skip
        super().__init__(process, horizon, execute, steps, eta, temperature)
        self.parts = horizon // execute
        if horizon % execute or steps % self.parts:
            raise ConfigError(f"streaming needs a horizon ({horizon}) that is a multiple of the executed actions "
                              f"({execute}), and steps ({steps}) that are a multiple of horizon / execute")  # fmt: skip
        if start not in ("denoised", "zeros"):
            raise ConfigError(unknown("start of streaming", start, ("denoised", "zeros")))
        self.start_by, self.one_level = start, _share("one_level", one_level)
        self.calls = steps // self.parts

    @property
    def usable(self) -> int:
        return self.execute

    def waiting(self) -> list[int]:
        """The index into the ladder (steps,) of every part of the waiting buffer."""
        return [self.calls * (i + 1) - 1 for i in range(self.parts)]

    def waiting_noise(self) -> Tensor:
        """(H,): the standard deviation of the noise at every position of the waiting buffer."""
        like = torch.zeros(1, self.horizon, 1, device=self.process.alphas.device)
        drawn = torch.full_like(like, self.temperature)
        return self.process.noisy(like, drawn, self._levels(0, like))[0, :, 0]

    def training_levels(self, batch: int, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """(B, H): floor(N (i + 1) / h) - 1 - j for part i, with j in [0, N / h) the same for a row; for a share
        `one_level` of the rows one level in [0, N) everywhere."""
        n, h = self.process.levels, self.parts
        base = torch.tensor([n * (i + 1) // h - 1 for i in range(h)], device=device).repeat_interleave(self.execute)
        down = torch.randint(n // h, (batch, 1), generator=generator, device=device)
        same = torch.randint(n, (batch, 1), generator=generator, device=device)
        chosen = torch.rand(batch, 1, generator=generator, device=device) < self.one_level
        return torch.where(chosen, same.expand(-1, self.horizon), base - down)

    def corrupt(self, clean: Tensor, generator: torch.Generator | None = None) -> Corrupted:
        level = self.training_levels(len(clean), clean.device, generator)
        noise = _noise(clean, generator)
        return Corrupted(self.process.noisy(clean, noise, level), self.process.share(level), noise)

    def start(self, denoise: Denoise, like: Tensor, generator: Random = None) -> Tensor:
        clean = torch.zeros_like(like)
        if self.start_by == "denoised":
            clean = self.clean(denoise, self.draw(like, generator), generator)
        level = self._levels(0, like)
        return self.process.noisy(clean, self.draw(like, generator), level)

    def _levels(self, down: int, like: Tensor) -> Tensor:
        """(B, H): of every position after `down` calls."""
        ladder = [-1, *self.ladder]
        levels = torch.tensor([ladder[i - down + 1] for i in self.waiting()], device=like.device)
        return levels.repeat_interleave(self.execute).expand(like.shape[0], -1)

    def advance(self, denoise: Denoise, buffer: Tensor,
                generator: Random = None) -> tuple[Tensor, Tensor]:  # fmt: skip
        x = buffer
        for down in range(self.calls):
            level, to = self._levels(down, x), self._levels(down + 1, x)
            noise = self.draw(x, generator) if self.eta else None
            x = self.process.step(x, denoise(x, self.process.share(level)), level, to, self.eta, noise)
        rest = x[:, self.execute :]
        return x, torch.cat((rest, self.draw(x[:, : self.execute], generator)), dim=1)


class Flow(Sampler):
    """Flow matching along straight lines (Lipman et al. 2023; Liu et al. 2023): `steps` Euler steps from noise to the
    chunk. The level is the share of noise, drawn uniformly in training; the network's estimate is noise less chunk."""

    kind = "flow"
    objective = "velocity"

    def __init__(self, process: NoiseProcess, horizon: int, execute: int, steps: int = 10, temperature: float = 1.0):
        super().__init__(process, horizon, execute, temperature)
        if steps < 1:
            raise ConfigError(f"flow needs at least 1 step, got {steps}")
        self.calls = steps

    def corrupt(self, clean: Tensor, generator: torch.Generator | None = None) -> Corrupted:
        level = torch.rand(len(clean), 1, generator=generator, device=clean.device)
        noise = _noise(clean, generator)
        velocity = noise - clean
        return Corrupted(clean + level[..., None] * velocity, level, velocity)

    def advance(self, denoise: Denoise, buffer: Tensor,
                generator: Random = None) -> tuple[Tensor, Tensor]:  # fmt: skip
        x = buffer
        for i in range(self.calls):
            level = torch.full_like(x[:, :1, 0], 1.0 - i / self.calls)
            x = x - denoise(x, level) / self.calls
        return x, self.draw(x, generator)


def ladder(levels: int, steps: int) -> list[int]:
    """`steps` levels, evenly spaced from 0 up. With few steps the highest has some signal left, for which pure noise is
    taken all the same: at the very last level a network cannot tell the clean chunk from its own error."""
    if not 1 <= steps <= levels:
        raise ConfigError(f"a process of {levels} noise levels can be sampled in 1 to {levels} steps, not {steps}")
    return [i * levels // steps for i in range(steps)]


def _share(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} must be in [0, 1], got {value}")
    return value
