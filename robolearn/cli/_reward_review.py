"""One key a mistake: the person is shown what the classifier and the label disagree about, and says who is right."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from robolearn.cli import _keys

if TYPE_CHECKING:
    from robolearn.data.read import Episodes
    from robolearn.rewards.classifier import Classifier

YES, NO, SKIP, END = "y", "n", "s", "q"
ASK = f"success? {YES} yes, {NO} no, {SKIP} skip, {END} end: "
Span = tuple[int, int, int, bool]
"""Episode, first and last step, and what the classifier says."""


def review(source: Classifier, episodes: Episodes, min_step: int, screen: Any = None) -> str:
    """Writes one new version of the label with all answers; what was done, in words."""
    from robolearn.rewards import corrections

    out, found = screen or sys.stderr, disputes(source, episodes, min_step)
    marks: dict[int, dict[bool, list[int]]] = {}
    asked = 0
    with _keys.Keys() as keys:
        for number, span in enumerate(found, 1):
            _show(source, episodes, span, f"{number} of {len(found)}", out)
            answer = keys.one_of((YES, NO, SKIP, END))
            if answer == END:
                break
            asked += 1
            if answer != SKIP:
                kinds = marks.setdefault(span[0], {True: [], False: []})
                kinds[answer == YES] += range(span[1], span[2] + 1)
    if not marks:
        return f"{episodes.root}: {len(found)} places, {asked} looked at, nothing to change"
    label = corrections.mark(episodes, marks)
    return f"{episodes.root}: {len(found)} places, {asked} looked at; {label} is what the next training learns from"


def disputes(source: Classifier, episodes: Episodes, min_step: int) -> list[Span]:
    """Places where classifier and label differ, neighbouring steps together, in the order of the set."""
    from robolearn.rewards import corrections, frames

    known, out = corrections.newest(episodes), list[Span]()
    for episode in episodes.ids:
        seen = frames.observations(episodes, episode, source.needs.observed)
        said = (source.probability(seen) >= source.cfg.threshold).tolist()
        for step, (says, label) in enumerate(zip(said, known[episode].tolist(), strict=True)):
            if says == label or step < min_step:
                continue
            last = out[-1] if out else None
            if last is not None and last[0] == episode and last[2] == step - 1 and last[3] == says:
                out[-1] = (episode, last[1], step, says)
            else:
                out.append((episode, step, step, says))
    return out


def _show(source: Classifier, episodes: Episodes, span: Span, count: str, out: Any) -> None:
    from robolearn.data.contract import column_of

    episode, first, last, says = span
    for key in source.pictures:
        picture = episodes.pictures(column_of(key), episode, [(first + last) // 2])[0].numpy()
        out.write(f"{key}\n{_keys.blocks(picture)}")
    verdict = "success" if says else "no success"
    out.write(
        f"{count}: episode {episode}, steps {first} to {last}; the classifier says {verdict}, the label not\n{ASK}"
    )
    out.flush()
