"""The demo's page: one HTML file with plots, film and tables; it loads nothing and follows light and dark."""

from __future__ import annotations

import base64
import html
import inspect
import json
import platform
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from robolearn import config, registry
from robolearn.cli import _plots, _world
from robolearn.loops.evaluate import summarize
from robolearn.loops.log import read_metrics
from robolearn.loops.threads import usable_cores
from robolearn.spec import Field, PolicySpec

if TYPE_CHECKING:
    from robolearn.bundle import Bundle

EMBED_BYTES = 8_000_000
STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5b6675; --line: #dfe4ea; --card: #fff;
  --page: #f3f5f8; --good: #1f8f57; --accent: #2f6fc4 }
@media (prefers-color-scheme: dark) { :root { --ink: #e7ebf0; --soft: #9aa6b5; --line: #2c3440;
  --card: #181d25; --page: #10141a; --good: #4cc38a; --accent: #6ea8f0 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif }
main { max-width: 1040px; margin: 0 auto; padding: 44px 20px 60px }
h1 { font-size: 30px; line-height: 1.25; margin: 0 0 14px; letter-spacing: -.01em }
h2 { font-size: 19px; margin: 0 0 12px }
h3 { font-size: 15px; margin: 16px 0 6px }
p { margin: 0 0 10px }
.soft, figcaption { color: var(--soft) }
figcaption, .small { font-size: 14px }
section, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px }
section { padding: 22px 24px; margin-top: 18px }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px;
  margin-top: 22px }
.card { padding: 14px 18px }
.card b { display: block; font-size: 27px; line-height: 1.3; font-weight: 650 }
.card.good b { color: var(--good) }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 10px 26px }
video, svg { width: 100%; height: auto; display: block }
video { border-radius: 8px }
figure { margin: 0 }
figcaption { margin-top: 8px }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: 14px; margin-top: 6px }
th { text-align: left; font-weight: 600; color: var(--soft) }
td, th { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top }
tr:last-child td { border-bottom: 0 }
td.n { font-variant-numeric: tabular-nums; white-space: nowrap }
pre { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; background: var(--page); overflow-x: auto;
  border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; margin: 8px 0 0 }
summary { cursor: pointer; color: var(--accent); margin-top: 12px }
"""


def write(path: Path, run: Path, out: Path) -> None:
    """Make the page of a finished run in `run`, with what the demo wrote to `out`."""
    _, cfg, packed = _world.load_run(str(run))
    rows = {k: torch.tensor(v) for k, v in json.loads((out / "episodes.json").read_text())["rows"].items()}
    metrics, scores = read_metrics(run), summarize(rows)
    seconds = max(packed.scores["train_seconds"], metrics[-1]["time/seconds"])
    parts = [
        _opening(cfg, packed, scores, seconds),
        _film(out / "film.mp4"),
        _task(cfg.task.name),
        _learning(metrics),
        _errors(cfg, rows, scores),
        _time(metrics, seconds),
        _contract(packed),
        _machine(cfg, packed),
        _next(run, out, cfg),
    ]
    title = f"{cfg.task.name}: {100 * scores['success']:.1f} % success"
    part = path.with_suffix(".part")
    part.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style>'
        f"<main>{''.join(parts)}</main></html>"
    )
    part.replace(path)


# --- parts -----------------------------------------------------------------------------------------------


def _opening(cfg: Any, packed: Bundle, scores: dict[str, Any], seconds: float) -> str:
    low, high = 100 * scores["success_low"], 100 * scores["success_high"]
    success = f"{100 * scores['success']:.1f} %"
    cards = [
        ("good", success, f"success, 95 % interval {low:.1f} to {high:.1f} %"),
        ("", _duration(seconds), "training, start-up included"),
        ("", f"{packed.scores['train_steps']:,}", f"environment steps in {cfg.num_envs} environments"),
        ("", f"{100 * scores['clip_rate']['mean']:.1f} %", "of the commands were cut back by the robot's limits"),
    ]
    shown = "".join(
        f'<div class="card {kind}"><b>{value}</b><span class="soft small">{text}</span></div>'
        for kind, value, text in cards
    )
    return (
        f"<h1>In {_duration(seconds)} on {usable_cores()} CPU cores, {cfg.algo.name.upper()} learned "
        f"{cfg.task.name} from nothing: the policy succeeds in {success} of {scores['episodes']} fresh "
        "episodes.</h1>"
        f'<div class="cards">{shown}</div>'
    )


def _task(name: str) -> str:
    told = "".join(f"<h3>{html.escape(k)}</h3><p>{html.escape(v)}</p>" for k, v in _description(name).items())
    return f"<section><h2>The task</h2>{told}</section>"


def _film(path: Path) -> str:
    data = path.read_bytes()
    source = path.name
    if len(data) <= EMBED_BYTES:
        source = "data:video/mp4;base64," + base64.b64encode(data).decode()
    return (
        f'<section><h2>The policy at work</h2><figure><video src="{source}" controls autoplay muted loop '
        "playsinline></video><figcaption>Fresh episodes in real time. A border is green while the task's "
        "condition of success holds.</figcaption></figure></section>"
    )


def _learning(metrics: list[dict[str, float]]) -> str:
    return (
        f"<section><h2>Learning</h2>{_plots.curves(metrics)}"
        '<p class="soft small">Mean of the training episodes that ended in each iteration, exploration '
        "included; the bold line is a moving average.</p></section>"
    )


def _errors(cfg: Any, rows: dict[str, torch.Tensor], scores: dict[str, Any]) -> str:
    """A histogram of every metric that has a unit, the return and the clip rate; and the table of all."""
    plots = "".join(
        f"<figure>{_plots.histogram(name, rows[name].tolist(), limit(cfg.task, name))}</figure>"
        for name in rows
        if _plots.metric(name)[1] or name in ("return", "clip_rate")
    )
    table = _table(
        ("at the end of an episode", "median", "mean", "95th percentile"),
        [_score_row(name, scores[name]) for name in rows if name != "success"],
    )
    return f'<section><h2>Episodes</h2><div class="pair">{plots}</div>{table}</section>'


def _score_row(name: str, score: dict[str, float]) -> tuple[str, ...]:
    title, unit, factor = _plots.metric(name)
    return (title, *(f"{score[k] * factor:.3g} {unit}" for k in ("median", "mean", "p95")))


def limit(task: Any, metric: str) -> float | None:
    """The task's setting `success_THING_UNIT` for the metric `THING..._UNIT`."""
    for name, value in vars(task).items():
        stem, _, unit = name.removeprefix("success_").rpartition("_")
        if name.startswith("success_") and stem and metric.startswith(stem) and metric.endswith("_" + unit):
            return float(value)
    return None


def _time(metrics: list[dict[str, float]], seconds: float) -> str:
    collect, update = (sum(r[f"time/{k}_s"] for r in metrics) for k in ("collect", "update"))
    parts = {"simulate and act": collect, "learn": update}
    parts["start-up"] = max(0.0, seconds - collect - update)
    told = ", ".join(f"{name} {value:.1f} s" for name, value in parts.items())
    rate = metrics[-1]["step"] / max(collect + update, 1e-9)
    return (
        f'<section><h2>Where the time went</h2>{_plots.shares(parts)}<p class="soft small">{told}. '
        f"{rate:,.0f} environment steps a second, learning included.</p></section>"
    )


def _contract(packed: Bundle) -> str:
    """What the policy reads and commands."""
    spec: PolicySpec = packed.spec
    terms = [_field_row(t.field, t.privileged) for t in spec.observation.terms("policy")]
    action = spec.action
    worth = [f"{s:g}" for s in action.scale] or [""] * action.dim
    actions = [(n, action.unit, action.frame, w) for n, w in zip(action.names, worth, strict=True)]
    history = spec.observation.history.get("policy", 1)
    return (
        f"<section><h2>What a robot needs to run it</h2><p>The bundle is for robot <b>{spec.robot}</b> at "
        f"{spec.rate_hz:g} Hz; {spec.units}; quaternions {spec.quaternion}; {spec.world_frame}. A robot that "
        "differs in any field is refused, and the field named.</p>"
        f"<h3>Observation: {spec.observation.dim('policy')} numbers, history {history}</h3>"
        + _table(("term", "shape", "unit", "frame", "only in simulation"), terms)
        + f"<h3>Action: {action.function}, in [{action.low:g}, {action.high:g}]</h3>"
        + _table(("name", "unit", "frame", "an action of one means"), actions)
        + "</section>"
    )


def _field_row(field: Field, privileged: bool) -> tuple[str, ...]:
    shape = " × ".join(map(str, field.shape))
    return field.name, shape, field.unit, field.frame, "yes" if privileged else "no"


def _machine(cfg: Any, packed: Bundle) -> str:
    engine = registry.entry("backend", cfg.backend.name).value
    facts = [
        ("processor", f"{_cpu()}, {usable_cores()} cores"),
        ("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        ("torch", torch.__version__),
        ("engine", f"{cfg.backend.name} {_version(engine)}"),
        ("seed", str(cfg.seed)),
        ("revision", packed.git_revision),
        ("made", packed.created),
    ]
    yaml = html.escape(config.to_yaml(cfg))
    return (
        f"<section><h2>Machine and configuration</h2>{_table((), facts)}<details><summary>The whole "
        f"configuration</summary><pre>{yaml}</pre></details></section>"
    )


def _next(run: Path, out: Path, cfg: Any) -> str:
    called = Path(sys.argv[0])  # .venv/bin/robolearn, where that is how it was called
    robolearn = str(called) if called.name == "robolearn" else "robolearn"
    experiment = json.loads((out / "demo.json").read_text())["experiment"]
    commands = [
        f"{robolearn} evaluate run={run} episodes=1000 video=grid.mp4",
        f"{robolearn} play run={run}",
        f"{robolearn} export run={run} format=torch",
        f"{robolearn} train experiment={experiment} seed={cfg.seed + 1}",
        f"{Path(robolearn).with_name('tensorboard')} --logdir {run}",
    ]
    files = [
        (f"{run}/bundle", "the policy bundle: weights.safetensors (parameters and normaliser), bundle.json "
         "(specification, robot, configuration, scores, revision)"),
        (f"{out}/policy.onnx", "the same policy for computers without torch, specification inside"),
        (f"{run}", "config.yaml, metrics.jsonl, TensorBoard events, checkpoints"),
    ]  # fmt: skip
    return (
        f"<section><h2>Go on from here</h2><pre>{html.escape(chr(10).join(commands))}</pre><h3>Files</h3>"
        f"{_table((), files)}</section>"
    )


# --- bits ------------------------------------------------------------------------------------------------


def _description(task: str) -> dict[str, str]:
    """The `## heading` sections of the task's docstring."""
    text = (inspect.getdoc(registry.entry("task", task).value) or "").replace("+-", "±")
    parts = re.split(r"^## (.+)$", text, flags=re.M)[1:]
    return {k.strip(): " ".join(v.split()) for k, v in zip(parts[::2], parts[1::2], strict=True)}


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _table(head: tuple[str, ...], rows: list[Any]) -> str:
    titles = "".join(f"<th>{html.escape(t)}</th>" for t in head)
    body = "".join(f"<tr>{''.join(_cell(*pair) for pair in enumerate(row))}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{titles}</tr>{body}</table></div>'


def _cell(column: int, value: Any) -> str:
    kind = ' class="n"' if column == 0 else ""
    return f"<td{kind}>{html.escape(str(value))}</td>"


def _cpu() -> str:
    """Model name, where the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found[1] if found else platform.processor() or "unknown"


def _version(engine: type) -> str:
    """Of the package that the engine's module is named after."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(engine.__module__.rpartition(".")[2])
    except PackageNotFoundError:
        return ""
