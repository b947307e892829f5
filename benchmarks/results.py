"""Learning results over seeds: `python -m benchmarks.results [experiment ...] [seeds=5] [episodes=500]`.

Each (experiment, seed) is trained by the command line in a process of its own, timed from the outside (interpreter
start, imports and model building included, the evaluation not), and the final checkpoint is evaluated on 500 fresh
episodes. What is done is kept under `results/` and not repeated; an interrupted training is resumed. At the end the
table in docs/results.md is rewritten from what is there.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from robolearn import config
from robolearn.paths import share_dir

FOLDER = Path("results")
START, END = "<!-- results: begin -->", "<!-- results: end -->"


def robolearn(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "robolearn.cli.main", *words], check=True)


def run(experiment: str, seed: int, episodes: int) -> dict[str, Any]:
    """Train and evaluate one seed, unless its result is there."""
    folder = FOLDER / experiment / f"seed{seed}"
    done = folder / "result.json"
    if done.exists():
        return json.loads(done.read_text())
    started = (folder / "checkpoints").exists()
    target = f"resume={folder}" if started else f"run_dir={folder}"
    words = [target] if started else [f"experiment={experiment}", f"seed={seed}", "eval_episodes=0", target]
    start = time.monotonic()
    robolearn("train", *words)
    wall = time.monotonic() - start
    robolearn("evaluate", f"run={folder}", f"episodes={episodes}", f"json={folder / 'scores.json'}")
    result = json.loads((folder / "scores.json").read_text()) | {"wall_s": None if started else wall}
    done.write_text(json.dumps(result, indent=1))
    return result


def row(experiment: str, results: list[dict[str, Any]]) -> str:
    success = [100 * r["success"] for r in results]
    good = sum(s >= 98.0 for s in success)
    walls = [r["wall_s"] for r in results if r["wall_s"] is not None]
    errors = [
        f"{key.rsplit('_', 2)[0]} {statistics.mean(r[key]['median'] for r in results):.2g} {key.rsplit('_', 1)[1]}"
        for key in results[0]
        if key.endswith(("_m", "_rad"))
    ]
    clip = statistics.mean(r["clip_rate"]["mean"] for r in results)
    seconds = f"{statistics.mean(walls):.0f} ({min(walls):.0f} to {max(walls):.0f})" if walls else "resumed"
    rate = f"{statistics.mean(success):.1f} ({min(success):.1f} to {max(success):.1f})"
    cells = [experiment, results[0]["backend"], f"{good} of {len(results)}", rate, seconds, ", ".join(errors)]
    return f"| {' | '.join(cells)} | {100 * clip:.0f} |"


def table(by_experiment: dict[str, list[dict[str, Any]]]) -> str:
    names = ["experiment", "engine", "seeds at 98 %", "success, % (range)", "training, s (range)", "median errors"]
    head = f"| {' | '.join(names)} | commands clipped, % |\n{'|---' * (len(names) + 1)}|"
    return "\n".join([head, *(row(e, r) for e, r in by_experiment.items())])


def main() -> None:
    words = dict(w.split("=") for w in sys.argv[1:] if "=" in w)
    chosen = [w for w in sys.argv[1:] if "=" not in w] or sorted(config.experiments())
    seeds, episodes = int(words.get("seeds", 5)), int(words.get("episodes", 500))
    found = {e: [run(e, s, episodes) for s in range(seeds)] for e in chosen}
    text = table(found)
    print(text)
    page = share_dir() / "docs" / "results.md"
    before, _, rest = page.read_text().partition(START)
    page.write_text(f"{before}{START}\n{text}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
