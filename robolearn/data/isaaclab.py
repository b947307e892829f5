"""HDF5 of Isaac Lab's recorder (`isaaclab.utils.datasets`): see `robolearn.data.hdf5`, which reads it.

Written as its own handler does: gzip, no next_obs, `success` as an attribute where the set has next.success, one row of
`initial_state`, nested `states`, so that its replay and Mimic scripts find their fields if the set came from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robolearn.data import hdf5
from robolearn.data.hdf5 import load as load
from robolearn.data.read import Episodes


def save(episodes: Episodes, target: Path, ids: Sequence[int] | None = None) -> int:
    """See `hdf5.save`."""
    return hdf5.save(episodes, target, ids, hdf5.ISAAC_LAB)
