"""What a classifier gets right and wrong, for people."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn.cli import _plots
from robolearn.cli._table import table
from robolearn.data.layout import spans

if TYPE_CHECKING:
    from torch import Tensor

    from robolearn.data.read import Episodes
    from robolearn.rewards.base import RewardSource
    from robolearn.rewards.classifier import Classifier

PART = 22


def lines(scores: dict[str, Any]) -> list[tuple[str, str]]:
    of = f"of {scores['frames']} steps, {scores['done']} of which show success"
    return [("precision", f"{_percent(scores['precision'])}   {of}"), ("recall", _percent(scores["recall"])),
            ("calibration error", f"{scores['calibration_error']:.3f}   (expected, 10 bins)"),
            ("threshold", f"{scores['threshold']:.3f}")]  # fmt: skip


def _percent(share: float | None) -> str:
    return "none said or none there" if share is None else f"{100 * share:.1f} %"


def text(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{name:{PART}} {said}".rstrip() for name, said in rows)


def of_training(out: Path, source: RewardSource, figures: dict[str, Any]) -> str:
    counts = {part: len(found) for part, found in figures["episodes"].items()}
    kept = f"{counts['held_out']} episodes that nothing else has seen"
    rows = [("reward", f"{out} ({source.cfg.name}, {source.digest})"),
            ("episodes", ", ".join(f"{n} to {part}" for part, n in counts.items() if part != "held_out")),
            ("judged on", kept), *lines(figures["held_out"]), ("figures", f"{out / 'figures.png'}"),
            ("next", f'robolearn reward evaluate source={out} data="another set"')]  # fmt: skip
    return text(rows)


def evaluate(source: Classifier, sets: Sequence[Episodes], out: Path | None) -> str:
    """Scores of single steps over all sets; mistakes by episode, before and after debouncing."""
    import torch

    from robolearn.rewards import frames, scores

    probabilities, truths, rows = [], [], list[tuple[str, ...]]()
    for episodes in sets:
        told = frames.label_of(episodes)
        for episode in episodes.ids:
            seen = frames.observations(episodes, episode, source.needs.observed)
            probabilities.append(source.probability(seen).cpu())
            truths.append(told[episode])
            rows += _mistakes(source, episodes, episode, probabilities[-1], told[episode])
    found = scores.summary(torch.cat(probabilities), torch.cat(truths), source.cfg.threshold)
    found["curve"] = [c.tolist() for c in scores.curve(torch.cat(probabilities), torch.cat(truths))]
    if out is not None:
        plot(out, found)
    said = [*lines(found), *debounced_lines(source, probabilities, truths)]
    header = ("set", "episode", "says success wrongly at", "misses it at")
    wrong = table(rows, header) if rows else "no step is wrong"
    return f"{text(said)}\n\n{wrong}" + _remedy(rows)


def _mistakes(source: Classifier, episodes: Episodes, episode: int, probability: Tensor, done: Tensor
              ) -> list[tuple[str, ...]]:  # fmt: skip
    said = probability >= source.cfg.threshold
    wrong, missed = ((a & ~b).nonzero().flatten().tolist() for a, b in ((said, done), (done, said)))
    if not wrong and not missed:
        return []
    return [(str(episodes.root), str(episode), spans(wrong).replace(",", "") or "-",
             spans(missed).replace(",", "") or "-")]  # fmt: skip


def debounced_lines(source: Classifier, probabilities: Sequence[Tensor], truths: Sequence[Tensor]
                    ) -> list[tuple[str, str]]:  # fmt: skip
    """What a robot hears: K of the last N steps, by episode."""
    from robolearn.rewards.debounce import debounced

    right = false = won = 0
    late: list[int] = []
    for probability, done in zip(probabilities, truths, strict=True):
        hits = probability >= source.cfg.threshold
        said = debounced(hits, hits[0], source.cfg.k, source.cfg.n)
        won += bool(done.any())
        if bool(said.any()):
            first = int(said.nonzero()[0])
            good = bool(done[: first + 1].any())
            right, false = right + good, false + (not good)
            late += [first - int(done.nonzero()[0])] if good else []
    wait = f", {statistics.median(late):g} steps after it began (median)" if late else ""
    rule = f"{source.cfg.k} of {source.cfg.n} steps"
    return [
        ("episodes with success", f"{won} of {len(truths)}; told of {right}{wait}"),
        ("told of without", f"{false} of {len(truths)} episodes ({rule})"),
    ]


def _remedy(rows: Sequence[tuple[str, ...]]) -> str:
    wrong = [row for row in rows if row[2] != "-"]
    if not wrong:
        return ""
    root, episode, steps, _ = wrong[0]
    return (f"\n\nWhere the label is right, train with this set too. Where it is wrong (look: robolearn reward review, "
            f'or robolearn data view {root} episodes="{episode}"):\n'
            f'robolearn reward correct data={root} episode={episode} steps="{steps}" success=true')  # fmt: skip


def plot(path: Path, scores: dict[str, Any]) -> None:
    """Precision over recall with the threshold's place, and the share that is success over the probability."""
    from matplotlib import pyplot

    figure, [[left, right]] = _plots._figure(1, 2, 9.6, 3.6)
    precision, recall, _ = scores["curve"]
    left.plot([100 * r for r in recall], [100 * p for p in precision], color=_plots.BLUE, linewidth=2)
    if scores["precision"] is not None and scores["recall"] is not None:
        left.plot(100 * scores["recall"], 100 * scores["precision"], "o", color=_plots.RED,
                  label=f"threshold {scores['threshold']:.2f}")  # fmt: skip
        left.legend(frameon=False)
    left.set(xlabel="recall (%)", ylabel="precision (%)", xlim=(-2, 102), ylim=(-2, 102))
    said, true, count = zip(*scores["reliability"], strict=True)
    right.plot([0, 1], [0, 1], color=_plots.INK, linewidth=1, linestyle="--", alpha=0.6)
    right.plot(said, true, "o-", color=_plots.GREEN)
    for x, y, n in zip(said, true, count, strict=True):
        right.annotate(str(n), (x, y), textcoords="offset points", xytext=(4, -11), fontsize=8)
    right.set(xlabel="probability of success", ylabel="share that is (steps beside it)", ylim=(-0.04, 1.04))
    figure.tight_layout(pad=0.6)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
