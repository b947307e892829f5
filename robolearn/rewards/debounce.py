"""Success that is said once is noise; success that is said again and again is success."""

from __future__ import annotations

import torch
from torch import Tensor


class Debounce:
    """True where at least `k` of the last `n` steps of the episode were hits, of those after its first that was none.

    The latter: what says success from the first sight on (an object left at the goal, a covered camera, a frozen
    picture) has not seen it happen.
    """

    def __init__(self, k: int, n: int, num_envs: int, device: torch.device | str = "cpu"):
        self.k = k
        self._recent = torch.zeros(num_envs, n, dtype=torch.bool, device=device)
        self._armed = torch.zeros(num_envs, dtype=torch.bool, device=device)

    def reset(self, mask: Tensor, hit: Tensor) -> None:
        """Environments `mask` (B,) begin anew; `hit` (B,) is what their first observation says."""
        self._recent = self._recent & ~mask[:, None]
        self._armed = torch.where(mask, ~hit, self._armed)

    def __call__(self, hit: Tensor) -> Tensor:
        """(B,) bool -> (B,) bool."""
        self._armed = self._armed | ~hit
        self._recent = torch.cat((self._recent[:, 1:], (hit & self._armed)[:, None]), dim=1)
        return self._recent.sum(1) >= self.k


def debounced(hits: Tensor, first: Tensor, k: int, n: int) -> Tensor:
    """As `Debounce` over the steps of one episode: hits (T,), and () of its first observation -> (T,)."""
    memory = Debounce(k, n, 1, hits.device)
    memory.reset(torch.ones(1, dtype=torch.bool, device=hits.device), first.reshape(1))
    return torch.cat([memory(hit.reshape(1)) for hit in hits])
