"""Learning results over seeds, each in two engines: `python -m benchmarks.results [experiment ...] [key=value ...]`.

Each (row, seed) is trained by the command line in a process of its own, timed from the outside (interpreter start,
imports and model building included, the evaluations not). Its final checkpoint is evaluated on fresh episodes in the
engine of the training and in a second one, in each of the row's cases; flight rows have the geometric controller
beside them. Rows that learn from data get their episodes recorded first, once for all seeds; the first seed's network
is tried with several samplers on the same episodes. Rows that correct a base policy, or learn from what another row's
policy did, have that row trained first, seed by seed. What is done is kept under `results/` and not repeated; an
interrupted training is resumed. At the end the tables in docs/results.md are rewritten from what is there.

`seeds=`, `episodes=` and `second_episodes=` are of all chosen rows; a row is chosen by its name or its experiment's.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.result_rows import DATA, ROWS, Row
from robolearn import config
from robolearn.data.read import Episodes
from robolearn.errors import ConfigError
from robolearn.loops.evaluate import wilson
from robolearn.loops.log import read_metrics
from robolearn.paths import share_dir

FOLDER = Path("results")
SECOND = "pybullet"
SETTINGS = ("seeds", "episodes", "second_episodes")
PLAN = ("p50", "p95", "p99")
Scores = dict[str, Any]

# --- measuring ----------------------------------------------------------------------------------------------


def robolearn(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "robolearn.cli.main", *words], check=True)


def collect(name: str) -> Path:
    """A set of episodes; one that is whole is left as it is."""
    out = FOLDER / "data" / name
    robolearn("collect", *DATA[name], f"out={out}")
    return out


def successes(name: str, seed: int) -> Path:
    """Of a row's policy: 500 episodes, for who learns from them."""
    row, out = named(name), FOLDER / "data" / f"{name}_seed{seed}"
    who = (DATA[row.data][0], f"policy=run:{trained(row, seed)}", "keep=success")
    robolearn("collect", *who, "episodes=500", f"seed={seed}", f"out={out}")
    return out


def named(name: str) -> Row:
    return next(r for r in ROWS if r.label == name)


def _folder(row: Row, seed: int) -> Path:
    return FOLDER / row.label.replace(" ", "_") / f"seed{seed}"


def trained(row: Row, seed: int) -> Path:
    """The folder of a row's run, which is trained unless it is."""
    folder = _folder(row, seed)
    train(row, seed, folder)
    return folder


def sources(row: Row, seed: int) -> list[str]:
    """What a row is trained with, made unless it is there."""
    words = [f"data.path={collect(row.data)}"] if row.data else []
    words += [f"data.path={successes(row.teacher, seed)}"] if row.teacher else []
    words += [f"person.critic={trained(named(row.critic), 0)}"] if row.critic else []
    return words + ([f"residual.base={trained(named(row.base), seed)}"] if row.base else [])


def train(row: Row, seed: int, folder: Path) -> dict[str, Any]:
    """Train one seed, unless it is; seconds, or None where it was interrupted."""
    done = folder / "wall.json"
    if not done.exists():
        given = sources(row, seed)
        started = any((folder / "checkpoints").glob("*.safetensors"))
        if not started:
            shutil.rmtree(folder, ignore_errors=True)  # killed before its first checkpoint
        fresh = (f"experiment={row.experiment}", f"seed={seed}", "eval_episodes=0", f"run_dir={folder}", *given,
                 *row.training)  # fmt: skip
        start = time.monotonic()
        robolearn("train", *((f"resume={folder}",) if started else fresh))
        done.write_text(json.dumps({"wall_s": None if started else time.monotonic() - start}))
    return dict(json.loads(done.read_text()))


def evaluate(file: Path, *words: str) -> Scores:
    """Scores of an evaluation, unless they are there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        robolearn("evaluate", *words, f"json={part}")
        part.replace(file)
    return dict(json.loads(file.read_text()))


def run(row: Row, seed: int) -> dict[str, Any]:
    """One seed: seconds of training, and scores by case, those of the second engine beside the first's."""
    folder = trained(row, seed)
    found: dict[str, Any] = train(row, seed, folder)
    if row.base:
        found["base"] = evaluate(folder / "scores_of_base.json", f"run={trained(named(row.base), seed)}",
                                 f"episodes={row.episodes}")  # fmt: skip
    return found | {"scores": both_engines(row, folder, (f"run={folder}",), first=not seed)}


def both_engines(row: Row, folder: Path, who: tuple[str, ...], first: bool = True) -> dict[str, tuple[Scores, Scores]]:
    """By case. Of several samplers only the row's own is tried in the second engine, whose scores then stand at all,
    and with other seeds than the first."""

    def scores(case: str, episodes: int, *engine: str) -> Scores:
        parts = [*engine, *filter(None, [case.replace(" ", "_")])] or ["own"]  # scores.json is the training's
        file = "_".join(["scores", *parts]).replace("backend=", "")
        return evaluate(folder / f"{file}.json", *who, f"episodes={episodes}", *engine, *row.cases[case])

    def other(case: str) -> Scores:
        return scores(row.samplers[0] if row.table == "imitation" else case, row.second_episodes, f"backend={SECOND}")

    cases = row.cases if first or row.table != "imitation" else row.samplers[:1]
    return {c: (scores(c, row.episodes), other(c)) for c in cases}


def baseline(row: Row) -> dict[str, tuple[Scores, Scores]]:
    """The geometric controller's scores in a flight task."""
    return both_engines(row, FOLDER / f"geometric_{row.task}", ("policy=geometric", f"task={row.task}"))


# --- tables -------------------------------------------------------------------------------------------------


def arms(found: dict[Row, list[dict[str, Any]]]) -> str:
    names = ["experiment", "engine", "seeds at threshold", "success, % (range)", f"success in {SECOND}, % (range)",
             "training, s (range)", "median errors", "commands clipped, %"]  # fmt: skip
    return _table(names, [_arm(row, results) for row, results in found.items()])


def _arm(row: Row, results: list[dict[str, Any]]) -> list[str]:
    first, second = ([r["scores"][""][k] for r in results] for k in range(2))
    good = sum(s["success"] >= row.threshold for s in first)
    errors = [
        f"{key.rsplit('_', 2)[0]} {statistics.mean(s[key]['median'] for s in first):.2g} {key.rsplit('_', 1)[1]}"
        for key in first[0]
        if key.endswith(("_m", "_rad"))
    ]
    counted = f"{good} of {len(first)} at {100 * row.threshold:g} %"
    clip = statistics.mean(s["clip_rate"]["mean"] for s in first)
    cells = [row.label, first[0]["backend"], counted, _rates(first), _rates(second), _walls(results)]
    return [*cells, ", ".join(errors), f"{100 * clip:.0f}"]


def flights(found: dict[Row, list[dict[str, Any]]]) -> str:
    """A line a case, the baseline's after the task's last."""
    names = ["experiment", "case", "seeds at threshold", "success, % (range)", f"success in {SECOND}, % (range)",
             "steady RMS error, m (range)", f"in {SECOND}, m (range)", "training, s (range)"]  # fmt: skip
    lines: list[list[str]] = []
    tasks = [row.task for row in found]
    for k, (row, results) in enumerate(found.items()):
        for case in row.cases:
            first, second = ([r["scores"][case][i] for r in results] for i in range(2))
            good = sum(s["success"] >= row.threshold for s in first)
            counted = f"{good} of {len(first)} at {100 * row.threshold:g} %"
            lines.append([row.label, case, counted, *_flown(first, second), _walls(results)])
        if row.task not in tasks[k + 1 :]:
            lines += [
                [f"geometric on {row.task}", case, "", *_flown([a], [b]), ""] for case, (a, b) in baseline(row).items()
            ]
    return _table(names, lines)


def _flown(first: list[Scores], second: list[Scores]) -> list[str]:
    return [_rates(first), _rates(second), _rms(first), _rms(second)]


def _rms(scores: list[Scores]) -> str:
    """Of the successful episodes; mean and range over seeds."""
    found = [s["steady_error_m"]["rms"] for s in scores if s["steady_error_m"]["rms"] is not None]
    return _spread(found, ".3f")


def imitations(found: dict[Row, list[dict[str, Any]]]) -> str:
    """A line a sampler."""
    names = ["experiment", "sampler", "episodes", "success, % (range)", f"success in {SECOND}, % (range)",
             "training, s (range)", "network calls for the actions run", "plan, ms (p50, p95, p99)"]  # fmt: skip
    lines: list[list[str]] = []
    for row, results in found.items():
        for case in row.cases:
            first, second = ([r["scores"][case][i] for r in results if case in r["scores"]] for i in range(2))
            chunk, elsewhere = first[0]["chunk"], _rates(second) if case == row.samplers[0] else ""
            plan = ", ".join(f"{statistics.mean(s['chunk']['plan_ms'][p] for s in first):.3g}" for p in PLAN)
            calls = f"{chunk['calls_per_chunk']} for {chunk['execute']}"
            name = f"{chunk['sampler']} (own)" if case == "own" else case
            lines.append([row.label, name, str(_episodes(row)), _rates(first), elsewhere, _walls(results), calls, plan])
    return _table(names, lines)


def residuals(found: dict[Row, list[dict[str, Any]]]) -> str:
    """A line a row; of each seed its base and what it became."""
    names = ["experiment", "seeds at threshold", "success of the base, %", "success, % (interval)",
             f"success in {SECOND}, % (range)", "environment steps", "training, s (range)",
             "commands clipped, %"]  # fmt: skip
    lines = []
    for row, results in found.items():
        first, second = ([r["scores"][""][k] for r in results] for k in range(2))
        good = sum(s["success"] >= row.threshold for s in first)
        base = ", ".join(f"{100 * r['base']['success']:.1f}" for r in results if "base" in r) or "no base"
        each = ", ".join(f"{100 * s['success']:.1f}" for s in first) + f" ({_interval(first)})"
        steps = {r.get("train_steps", 0) for r in (_own_scores(row, k) for k in range(len(results)))}
        shown = " to ".join(f"{n:,}" for n in sorted({min(steps), max(steps)})) if max(steps) else "data only"
        clip = statistics.mean(s["clip_rate"]["mean"] for s in first)
        counted = f"{good} of {len(first)} at {100 * row.threshold:g} %"
        lines.append([row.label, counted, base, each, _rates(second), shown, _walls(results), f"{100 * clip:.0f}"])
    return _table(names, lines)


def people(found: dict[Row, list[dict[str, Any]]]) -> str:
    """A line a row. The person's share is of the last tenth of the steps; lengths are medians."""
    names = ["experiment", "seeds at threshold", "success alone, % (interval)", f"success in {SECOND}, % (range)",
             "the person's share of the steps at the end, %", "steps of an episode (of a demonstration)",
             "environment steps", "training, s (range)"]  # fmt: skip
    lines = []
    for row, results in found.items():
        first, second = ([r["scores"][""][k] for r in results] for k in range(2))
        good = sum(s["success"] >= row.threshold for s in first)
        each = ", ".join(f"{100 * s['success']:.0f}" for s in first) + f" ({_interval(first)})"
        share = ", ".join(f"{100 * _helped(row, k):.0f}" for k in range(len(results)))
        length = f"{statistics.mean(s['length']['median'] for s in first):.0f} ({_demonstrated(row):.0f})"
        lines.append([row.label, f"{good} of {len(first)} at {100 * row.threshold:g} %", each, _rates(second), share,
                      length, f"{_own_scores(row, 0)['train_steps']:,}", _walls(results)])  # fmt: skip
    return _table(names, lines)


def _helped(row: Row, seed: int) -> float:
    """The person's share of the last tenth of a training's steps."""
    rows = read_metrics(_folder(row, seed))
    shares = [r["env/intervened"] for r in rows if "env/intervened" in r]
    return statistics.mean(shares[-max(1, len(shares) // 10) :])


def _demonstrated(row: Row) -> float:
    """Steps of the median demonstration."""
    return statistics.median(Episodes(FOLDER / "data" / row.data).lengths.tolist())


def _interval(scores: list[Scores]) -> str:
    """Wilson's, over all seeds' episodes."""
    count = sum(s["episodes"] for s in scores)
    low, high = wilson(sum(round(s["success"] * s["episodes"]) for s in scores), count)
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _own_scores(row: Row, seed: int) -> Scores:
    """Of the training itself."""
    return dict(json.loads((_folder(row, seed) / "scores.json").read_text()))


def _episodes(row: Row) -> int:
    """That it learns from."""
    return next(int(w.partition("=")[2]) for w in DATA[row.data] if w.startswith("episodes="))


def _rates(scores: list[Scores]) -> str:
    return _spread([100 * s["success"] for s in scores], ".2f" if scores[0]["episodes"] > 2000 else ".1f")


def _walls(results: list[dict[str, Any]]) -> str:
    return _spread([r["wall_s"] for r in results if r["wall_s"] is not None], ".0f", "resumed")


def _spread(values: list[float], digits: str, none: str = "none") -> str:
    if not values:
        return none
    mean = f"{statistics.mean(values):{digits}}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{digits}} to {max(values):{digits}})"


def _table(names: list[str], lines: list[list[str]]) -> str:
    rows = [names, ["---"] * len(names), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows).replace("| --- |", "|---|").replace(" --- ", "---")


def write(page: Path, kind: str, text: str) -> None:
    """Put a table between its markers. ConfigError without them."""
    start, end = f"<!-- {kind}: begin -->", f"<!-- {kind}: end -->"
    before, found, rest = page.read_text().partition(start)
    if not found or end not in rest:
        raise ConfigError(f"{page} lacks {start} ... {end}")
    page.write_text(f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}")


TABLES = {"results": arms, "flight": flights, "imitation": imitations, "residual": residuals, "people": people}

# --- the command --------------------------------------------------------------------------------------------


def chosen(names: list[str], settings: list[str]) -> list[Row]:
    """Rows by name or experiment, all without any. ConfigError for a name that no row has or a setting that is none."""
    values: dict[str, int] = {}
    for key, _, value in (s.partition("=") for s in settings):
        if key not in SETTINGS or not value.isdecimal() or not int(value):
            raise ConfigError(f"a setting is one of {', '.join(SETTINGS)} with a whole number, got '{key}={value}'")
        values[key] = int(value)
    for name in names:
        if not any(name in (r.label, r.experiment) for r in ROWS):
            raise ConfigError(config.unknown("row", name, [r.label for r in ROWS]))
    rows = [r for r in ROWS if not names or r.label in names or r.experiment in names]
    return [replace(r, **values) for r in rows]


def main() -> None:
    try:
        rows = chosen([w for w in sys.argv[1:] if "=" not in w], [w for w in sys.argv[1:] if "=" in w])
    except ConfigError as error:
        raise SystemExit(f"error: {error}") from None
    page = share_dir() / "docs" / "results.md"
    found = {row: [run(row, seed) for seed in range(row.seeds)] for row in rows}
    for kind, make in TABLES.items():
        mine = {row: r for row, r in found.items() if row.table == kind}
        if mine:
            text = make(mine)
            print(text)
            write(page, kind, text)


if __name__ == "__main__":
    main()
