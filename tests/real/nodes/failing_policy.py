"""The policy node with one more kind of policy: `failing`, whose tenth chunk of an episode cannot be planned."""

from __future__ import annotations

import torch
from torch import Tensor

from real.nodes.policy import main
from robolearn.policies.gaussian_chunk import GaussianChunkPolicy


class FailingPolicy(GaussianChunkPolicy):
    kind = "failing"
    planned = 0

    def reset(self, mask: Tensor) -> None:
        super().reset(mask)
        self.planned = 0

    def plan(self, obs: dict[str, Tensor], rows: Tensor) -> Tensor:
        self.planned += 1
        if self.planned == 10:
            raise RuntimeError("the network met a number it did not like")
        return super().plan(obs, rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    raise SystemExit(main())
