"""Least squares over a log cut into windows, by an engine that replays many candidates at once.

Multiple shooting: each window starts from its own state, which is estimated with the parameters (its first measurement
is one of the residuals), so that neither errors of the model accumulate nor noise of a start is taken for dynamics. One
batch gives the prediction and its derivatives: the candidate, one per parameter and one per element of the start moved
by a step; starts are then eliminated window by window (Schur complement). Steps are Levenberg-Marquardt's.

Intervals hold jointly: all true values are inside with 95 % (Sidak). They are the wider of two: of independent noise,
and of the scatter of the gradient between windows (a sandwich, Student's t), which residuals that are correlated within
a window, noise or a model that is not quite right, do not fool.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Protocol

import torch
from torch import Tensor

CONFIDENCE = 0.95
VAGUE = 0.35
"""A parameter whose standard error is this share of what was known before is not identifiable."""
FLAT = 0.05
"""A step that changes the sum of squares, in units of the noise's variance, by less than this is the last."""
FIRST, MOST = 5, 15
"""Steps of each try, and of the one that is finished."""
Progress = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Parameter:
    name: str
    unit: str
    nominal: float
    low: float
    high: float
    """What is thought possible."""
    step: float
    """Of the difference that is its derivative; of its logarithm where `log`."""
    log: bool = False
    """Estimated as a logarithm: for scales."""

    def inner(self, value: float) -> float:
        return math.log(value) if self.log else value

    def outer(self, value: float) -> float:
        return math.exp(value) if self.log else value

    @property
    def spread(self) -> float:
        """Standard deviation before anything was measured, in inner units."""
        return (self.inner(self.high) - self.inner(self.low)) / 4.0


class Replay(Protocol):
    """A log, cut into W windows of L rows with M channels; starts have S elements, P parameters are sought."""

    parameters: tuple[Parameter, ...]
    channels: tuple[str, ...]
    counted: Tensor
    """(L, M) bool: which residuals count."""
    start_step: Tensor
    """(S,) of the differences."""
    start_spread: Tensor
    """(S,) standard deviation of a start about its first guess: large where it is measured."""
    signal: Tensor
    """(W, L, M) as measured."""
    tries: int
    """Descents, the first from what is nominal: more where there are local minima."""

    def errors(self, theta: Tensor, offset: Tensor) -> Tensor:
        """Predicted less measured (C, W, L, M) for C candidates theta (C, P) with starts moved by offset (C, W, S)."""
        ...


@dataclass(frozen=True)
class Estimate:
    parameter: Parameter
    value: float
    low: float
    high: float
    identifiable: bool

    @property
    def at_edge(self) -> bool:
        """It was sought as far as its range goes, and may lie beyond; zero is an end of its own."""
        ends = [end for end in (self.parameter.low, self.parameter.high) if end != 0.0]
        return self.identifiable and any(math.isclose(self.value, end, rel_tol=1e-6) for end in ends)


@dataclass(frozen=True)
class Fit:
    estimates: tuple[Estimate, ...]
    noise: dict[str, float]
    """Standard deviation of the residuals by channel."""
    before: Tensor
    """(W, L, M) predicted with the nominal values."""
    after: Tensor

    def __getitem__(self, name: str) -> Estimate:
        return next(e for e in self.estimates if e.parameter.name == name)


@dataclass
class Point:
    """A candidate with its derivatives. x (P,) are inner values; noise (M,)."""

    x: Tensor
    offset: Tensor
    error: Tensor
    by_x: Tensor
    by_start: Tensor


@dataclass
class Normal:
    """Normal equations after elimination of the starts."""

    hessian: Tensor
    scores: Tensor
    """(W, P) gradient by window."""
    gradient: Tensor
    back: Tensor
    """(W, S, P) and `rest` (W, S): start's step = -(rest + back @ step of x)."""
    rest: Tensor


class Estimator:
    def __init__(self, replay: Replay, seed: int = 0, starts: int = 200):
        """`starts` random candidates are looked at, where the replay asks for more than one try."""
        self.replay, self.starts, self.tries = replay, starts, replay.tries
        self.generator = torch.Generator().manual_seed(seed)
        ps = replay.parameters
        self.prior = torch.tensor([p.spread for p in ps], dtype=torch.float64)
        self.centre = torch.tensor([p.inner(p.nominal) for p in ps], dtype=torch.float64)
        self.low = torch.tensor([p.inner(p.low) for p in ps], dtype=torch.float64)
        self.high = torch.tensor([p.inner(p.high) for p in ps], dtype=torch.float64)
        self.windows, self.rows, self.size = len(replay.signal), replay.signal.shape[1], len(replay.start_step)

    @property
    def candidates(self) -> int:
        """In one batch."""
        return 1 + len(self.prior) + self.size

    def __call__(self, progress: Progress = lambda done, figures: None) -> Fit:
        """`progress` is told of steps done out of `steps`."""
        origin = self._look(self.centre, torch.zeros(self.windows, self.size, dtype=torch.float64))
        noise, found = self._first_noise(), []
        for k, start in enumerate(self._first_guesses(origin, noise)):
            found.append(self._descend(start, FIRST, partial(_later, progress, k * FIRST)))
        best = min(found, key=lambda point: float(self._noise(point).log() @ self.replay.counted.sum(0).double()))
        point = self._descend(best, MOST, partial(_later, progress, self.tries * FIRST))
        progress(self.steps, {})
        return self._result(origin, point)

    @property
    def steps(self) -> int:
        return self.tries * FIRST + MOST

    def _descend(self, point: Point, most: int, progress: Progress) -> Point:
        """At most so many steps downhill."""
        damping, worse = 1e-3, 0
        for done in range(1, most + 1):
            noise = self._noise(point)
            tried = self._look(*self._step(point, self._normal(point, noise), damping))
            old, new = self._cost(point, noise), self._cost(tried, noise)
            progress(done, {"residual": float(self._noise(point).log().mean().exp())})
            if new <= old:
                point, damping, worse = tried, max(damping / 10.0, 1e-6), 0
            else:
                damping, worse = max(0.3, 10.0 * damping), worse + 1
            if abs(old - new) < FLAT or worse == 4:
                break
        return point

    # --- evaluation -----------------------------------------------------------------------------------------

    def _errors(self, x: Tensor, offset: Tensor) -> Tensor:
        theta = torch.stack([_outer(p, c) for p, c in zip(self.replay.parameters, x.unbind(1), strict=True)], dim=1)
        error = self.replay.errors(theta, offset).double()
        return torch.nan_to_num(error, 1e6, 1e6, -1e6).clamp(-1e6, 1e6) * self.replay.counted

    def _look(self, x: Tensor, offset: Tensor) -> Point:
        steps = torch.tensor([p.step for p in self.replay.parameters], dtype=torch.float64)
        steps = torch.where(x + steps > self.high, -steps, steps)
        starts, n = self.replay.start_step.double(), self.candidates
        moved, moved_start = x.repeat(n, 1), offset.repeat(n, 1, 1)
        moved[1 : 1 + len(x)] += torch.diag(steps)
        moved_start[1 + len(x) :] += torch.diag(starts)[:, None, :]
        error = self._errors(moved, moved_start).flatten(2)
        base, by_x, by_start = error[0], error[1 : 1 + len(x)] - error[0], error[1 + len(x) :] - error[0]
        return Point(
            x, offset, base, (by_x / steps[:, None, None]).permute(1, 2, 0),
            (by_start / starts[:, None, None]).permute(1, 2, 0),
        )  # fmt: skip

    def _first_guesses(self, origin: Point, noise: Tensor) -> list[Point]:
        """What is nominal, and the best of random candidates, which keep the measured starts."""
        zero = torch.zeros(self.candidates, self.windows, self.size, dtype=torch.float64)
        xs, costs = [], []
        for _ in range(math.ceil(self.starts / self.candidates) if self.tries > 1 else 0):
            spread = torch.randn(self.candidates, len(origin.x), generator=self.generator, dtype=torch.float64)
            xs.append((self.centre + self.prior * spread).clamp(self.low, self.high))
            costs.append(self._start_cost(self._errors(xs[-1], zero).flatten(2), noise))
        if not xs:
            return [origin]
        best = torch.cat(costs).argsort()[: self.tries - 1]
        return [origin, *(self._look(x, zero[0]) for x in torch.cat(xs)[best])]

    def _start_cost(self, error: Tensor, noise: Tensor) -> Tensor:
        """(C,) robust: starts are noisy still."""
        return ((error / self._flat(noise)) ** 2).clamp_max(1e4).mean((1, 2)).sqrt()

    # --- noise ----------------------------------------------------------------------------------------------

    def _flat(self, noise: Tensor) -> Tensor:
        return noise.repeat(self.rows)

    def _first_noise(self) -> Tensor:
        """(M,) from second differences, and at least a fiftieth of the signal's deviation."""
        signal = self.replay.signal.double()
        rough = signal.diff(dim=1).diff(dim=1).flatten(0, 1).std(0) / math.sqrt(6.0)
        return torch.maximum(rough, signal.flatten(0, 1).std(0) / 50.0).clamp_min(1e-9)

    def _count(self) -> int:
        return self.windows * int(self.replay.counted.sum())

    def _noise(self, point: Point) -> Tensor:
        square = (point.error**2).unflatten(1, (self.rows, -1)).sum((0, 1))
        count = self.windows * self.replay.counted.sum(0)
        free = self._count() / max(1, self._count() - self.windows * self.size - len(point.x))
        return (square / count * free).sqrt().clamp_min(1e-9)

    # --- algebra --------------------------------------------------------------------------------------------

    def _cost(self, point: Point, noise: Tensor) -> float:
        prior = ((point.x - self.centre) / self.prior) ** 2
        starts = (point.offset / self.replay.start_spread.double()) ** 2
        return float(((point.error / self._flat(noise)) ** 2).sum() + prior.sum() + starts.sum())

    def _normal(self, point: Point, noise: Tensor) -> Normal:
        weight, spread = 1.0 / self._flat(noise), self.replay.start_spread.double()
        e, jx, js = point.error * weight, point.by_x * weight[:, None], point.by_start * weight[:, None]
        ss = js.mT @ js + torch.diag(spread**-2)
        gs = (js.mT @ e[..., None]).squeeze(-1) + point.offset / spread**2
        solved = torch.linalg.solve(ss, torch.cat((js.mT @ jx, gs[..., None]), dim=2))
        back, rest = solved[..., :-1], solved[..., -1]
        cross = jx.mT @ js
        scores = (jx.mT @ e[..., None]).squeeze(-1) - (cross @ rest[..., None]).squeeze(-1)
        hessian = (jx.mT @ jx - cross @ back).sum(0) + torch.diag(self.prior**-2)
        return Normal(hessian, scores, scores.sum(0) + (point.x - self.centre) / self.prior**2, back, rest)

    def _step(self, point: Point, normal: Normal, damping: float) -> tuple[Tensor, Tensor]:
        """Next x and offset; a parameter at its bound that would leave it stays."""
        outward = torch.where(normal.gradient > 0.0, point.x <= self.low, point.x >= self.high)
        free = (~outward).nonzero().flatten()
        inner = normal.hessian[free][:, free]
        step = torch.zeros_like(point.x)
        step[free] = -torch.linalg.solve(inner + damping * torch.diag(inner.diag()), normal.gradient[free])
        x = (point.x + step.clamp(-self.prior, self.prior)).clamp(self.low, self.high)
        share = 1.0 / (1.0 + damping)  # starts are damped as well
        return x, point.offset - share * normal.rest - normal.back @ (x - point.x)

    def _result(self, origin: Point, point: Point) -> Fit:
        noise = self._noise(point)
        normal = self._normal(point, noise)
        covariance = torch.linalg.inv(normal.hessian)
        centred = normal.scores - normal.scores.mean(0)
        scatter = covariance @ (centred.mT @ centred) @ covariance * self.windows / (self.windows - 1)
        z, t = quantiles(len(point.x), self.windows - 1)
        error = covariance.diag().sqrt()
        half = torch.maximum(z * error, t * scatter.diag().sqrt())
        estimates = tuple(
            self._estimate(p, *row)
            for p, *row in zip(self.replay.parameters, point.x.tolist(), half.tolist(),
                               (half / z / self.prior).tolist(), strict=True)
        )  # fmt: skip
        shape = self.replay.signal.shape
        before, after = (self.replay.signal + p.error.reshape(shape) for p in (origin, point))
        return Fit(estimates, dict(zip(self.replay.channels, noise.tolist(), strict=True)), before, after)

    def _estimate(self, p: Parameter, x: float, half: float, ignorance: float) -> Estimate:
        low, high = (p.outer(min(max(x + side, p.inner(p.low)), p.inner(p.high))) for side in (-half, half))
        return Estimate(p, p.outer(x), low, high, ignorance < VAGUE)


def _later(progress: Progress, before: int, done: int, figures: dict[str, float]) -> None:
    progress(before + done, figures)


def _outer(parameter: Parameter, x: Tensor) -> Tensor:
    return x.exp() if parameter.log else x


def quantiles(parameters: int, freedom: int) -> tuple[float, float]:
    """Of the normal and of Student's distribution: so many standard errors hold all parameters with CONFIDENCE."""
    each = CONFIDENCE ** (1.0 / parameters)
    z = NormalDist().inv_cdf(0.5 + 0.5 * each)
    # Cornish and Fisher's expansion in 1 / freedom
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return z, t
