"""What a person says of single steps: the next version of the label that classifiers are trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from robolearn.data import labels, layout
from robolearn.data.labels import Label
from robolearn.data.layout import DataError
from robolearn.data.read import Episodes
from robolearn.rewards.frames import LABEL

Marks = Mapping[int, Mapping[bool, Sequence[int]]]
"""By episode: steps that show success, and steps that do not."""


def mark(episodes: Episodes, marks: Marks) -> Label:
    """Where nothing was said before, what is not marked shows no success. DataError for a step that there is not."""
    known = newest(episodes)
    for episode, kinds in marks.items():
        length = episodes.length(episode)
        for done, steps in kinds.items():
            if outside := [s for s in steps if not 0 <= s < length]:
                raise DataError(f"episode {episode} has {length} steps, and no {outside[0]}")
            known[episode][list(steps)] = done
    said = {str(e): {("yes" if d else "no"): layout.spans(s) for d, s in kinds.items()} for e, kinds in marks.items()}
    about = {"by": "correction", "of": "the observation of its own row", "marks": said}
    return labels.write(episodes.root, LABEL, known, about)


def newest(episodes: Episodes) -> dict[int, np.ndarray]:
    """(T,) bool of every episode of the set, which may be written into."""
    values = {e: np.zeros(row["length"], dtype=bool) for e, row in enumerate(episodes.rows)}
    if versions := labels.versions(episodes.root).get(LABEL):
        found = labels.read(episodes.root, LABEL, versions[-1])[1]
        values |= {e: v[:, 0].astype(bool).copy() for e, v in found.items()}
    return values
