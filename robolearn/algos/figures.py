"""What a learner has to tell of its updates since it told last."""

from __future__ import annotations

from torch import Tensor

ACTOR = "actor"
"""Figures whose name begins so come with the actor's updates only."""


class Figures:
    """Sums, on the device that learns."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.updates, self.of_actor, self.steps = 0, 0, 0
        """Of the critics, of the actor, and the environment steps that they were made for."""
        self.seconds = 0.0

    def add(self, figures: dict[str, Tensor]) -> None:
        for key, value in figures.items():
            self.sums[key] = self.sums[key] + value if key in self.sums else value.clone()

    def means(self) -> dict[str, float]:
        """With updates a second and updates a step."""
        counts = {k: self.of_actor if k.startswith(ACTOR) else self.updates for k in self.sums}
        rate = self.updates / self.seconds if self.seconds else 0.0
        means = {k: float(v) / counts[k] for k, v in self.sums.items()}
        return means | {"updates_per_s": rate, "update_ratio": self.updates / max(1, self.steps)}
