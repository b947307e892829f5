"""The demo's page: one HTML file with plots, films and tables for every robot; it loads nothing."""

from __future__ import annotations

import base64
import html
import inspect
import json
import platform
import re
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robolearn import config, registry
from robolearn.cli import _deploy_report, _fly_report, _page, _plots, _sysid_trial, _world
from robolearn.loops.evaluate import summarize
from robolearn.loops.log import read_metrics
from robolearn.loops.threads import usable_cores
from robolearn.spec import ObservationSpec, PolicySpec, TermSpec

EMBED_BYTES = 8_000_000
TWIN_FILM = "twin.mp4"
PACKAGES = {"quadrotor": "warp-lang", "mujoco_warp": "mujoco-warp"}
"""Whose version is told of an engine, where that is not the package of its own name."""


class Part:
    """What the demo left in an experiment's folder."""

    def __init__(self, folder: Path):
        self.folder, self.run = folder, folder / "run"
        self.experiment: str = json.loads((folder / "demo.json").read_text())["experiment"]
        _, self.cfg, self.packed = _world.load_run(str(self.run))
        self.metrics = read_metrics(self.run)
        self.rows = {e.stem.removeprefix("episodes_"): _rows(e) for e in folder.glob("episodes_*.json")}
        self.rows = {e: self.rows[e] for e in sorted(self.rows, key=lambda e: e != self.cfg.backend.name)}
        self.scores = {engine: summarize(rows) for engine, rows in self.rows.items()}
        self.engines = list(self.scores)
        self.deployed, self.flown = _deploy_report.read(folder), _fly_report.read(folder)
        if self.deployed:
            self.scores[_deploy_report.NAME] = summarize(self.deployed.rows)
        self.seconds = max(self.packed.scores["train_seconds"], self.metrics[-1]["time/seconds"])

    @property
    def task(self) -> str:
        return str(self.cfg.task.name)

    @cached_property
    def shown(self) -> list[str]:
        """The metrics worth a histogram: those with a unit, the return, and the clip rate where limits acted."""
        named = {"return": True, "clip_rate": self.happened("clip_rate")}
        return [name for name in next(iter(self.rows.values())) if named.get(name, bool(_plots.metric(name)[1]))]

    def happened(self, metric: str) -> bool:
        """Whether it was other than zero in any episode."""
        return any(bool(rows[metric].any()) for rows in self.rows.values() if metric in rows)

    @property
    def headline(self) -> str | None:
        """The error that is told first: the steady one, where there is one."""
        errors = [name for name in self.shown if _plots.metric(name)[1]]
        return next((name for name in errors if name.startswith("steady")), next(iter(errors), None))


def _rows(path: Path) -> dict[str, Tensor]:
    return {k: torch.tensor(v) for k, v in json.loads(path.read_text())["rows"].items()}


def write(path: Path, folders: Sequence[Path]) -> None:
    """Make the page of finished experiments."""
    parts = [Part(folder) for folder in folders]
    title = ", ".join(f"{p.task}: {_first(p)} success" for p in parts)
    _page.write(path, title, "".join([_opening(parts), *map(_part, parts), _machine(parts), _next(parts)]))


def _part(part: Part) -> str:
    shown = (
        _film(part.folder / "film.mp4"),
        _task(part.task),
        _learning(part.metrics),
        _engines(part),
        _episodes(part),
        _deployed(part),
        _sysid_trial.section(part.folder, part.engines[-1]),
        _time(part.metrics, part.seconds),
        _contract(part.packed.spec),
    )
    return f'<h2 class="robot" id="{part.experiment}">{part.task}</h2>{"".join(shown)}'


# --- the opening -------------------------------------------------------------------------------------------


def _opening(parts: list[Part]) -> str:
    told = " and ".join(f"{html.escape(p.task)} in {_page.duration(p.seconds)}" for p in parts)
    others = dict.fromkeys(engine for p in parts for engine in p.engines[1:])
    checked = f", and checked in {' and '.join(others)}, where they never trained" if others else ""
    checked += f", and {_deploy_report.NAME}" if any(p.deployed or p.flown for p in parts) else ""
    cards = "".join(
        f'<h3 class="part"><a href="#{p.experiment}">{html.escape(p.task)}</a></h3><div class="cards">{_cards(p)}</div>'
        for p in parts
    )
    return f"<h1>Learned from nothing on {usable_cores()} CPU cores: {told}{checked}.</h1>{cards}"


def _cards(part: Part) -> str:
    cards = []
    for engine, s in part.scores.items():
        where = f"in {engine}" if engine in part.engines else engine
        text = f"success {where}, 95 % interval {_interval(s)}, {s['episodes']} episodes"
        text += "; it was not trained there" if engine in part.engines[1:] else ""
        cards.append(("good" if s["success"] >= 0.9 else "", _percent(s["success"]), text))
    if part.headline:
        title, unit, factor = _plots.metric(part.headline)
        medians = [f"{part.scores[e][part.headline]['median'] * factor:.3g} {unit}" for e in part.engines]
        cards.append(
            (
                "",
                medians[0].replace(" degrees", "°"),
                f"median {title}" + "".join(f"; {m} in the second engine" for m in medians[1:]),
            )
        )
    if part.flown:
        mine, theirs = 1e3 * _fly_report.rmse_m(part.flown), 1e3 * _simulated_m(part)
        cards.append(
            ("", f"{mine:.0f} mm", f"RMS error {_deploy_report.NAME}; {theirs:.0f} mm in the engine of the training")
        )
    steps = f"{part.packed.scores['train_steps']:,} steps in {part.cfg.num_envs} environments"
    cards.append(("", _page.duration(part.seconds), f"training, building the world included: {steps}"))
    return "".join(
        f'<div class="card {kind}"><b>{value}</b><span class="soft small">{text}</span></div>'
        for kind, value, text in cards
    )


def _first(part: Part) -> str:
    return _percent(next(iter(part.scores.values()))["success"])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _interval(score: dict[str, Any]) -> str:
    return f"{100 * score['success_low']:.1f} to {100 * score['success_high']:.1f} %"


# --- a robot's part ----------------------------------------------------------------------------------------


def _film(path: Path) -> str:
    return (
        f"<section><h2>The policy at work</h2><figure>{_video(path)}<figcaption>Fresh episodes in real time. A border "
        "is green while the task's condition of success holds.</figcaption></figure></section>"
    )


def _video(path: Path) -> str:
    data = path.read_bytes()
    source = f"{path.parent.name}/{path.name}"
    if len(data) <= EMBED_BYTES:
        source = "data:video/mp4;base64," + base64.b64encode(data).decode()
    return f'<video src="{source}" controls autoplay muted loop playsinline></video>'


def _task(name: str) -> str:
    told = "".join(f"<h3>{html.escape(k)}</h3><p>{html.escape(v)}</p>" for k, v in _description(name).items())
    return f"<section><h2>The task</h2>{told}</section>"


def _description(task: str) -> dict[str, str]:
    """The `## heading` sections of the task's docstring."""
    text = (inspect.getdoc(registry.entry("task", task).value) or "").replace("+-", "±").replace("`", "")
    parts = re.split(r"^## (.+)$", text, flags=re.M)[1:]
    return {k.strip(): " ".join(v.split()) for k, v in zip(parts[::2], parts[1::2], strict=True)}


def _learning(metrics: list[dict[str, float]]) -> str:
    return (
        f"<section><h2>Learning</h2>{_plots.curves(metrics)}"
        '<p class="soft small">Mean of the training episodes that ended in each iteration, exploration '
        "included; the bold line is a moving average.</p></section>"
    )


def _engines(part: Part) -> str:
    """Success in each engine beside the other."""
    found = {e: (s["success"], s["success_low"], s["success_high"]) for e, s in part.scores.items()}
    rows = [(e, s["episodes"], _percent(s["success"]), _interval(s)) for e, s in part.scores.items()]
    return (
        f"<section><h2>Success in each engine{_also(part)}</h2>{_plots.intervals(found)}"
        + _page.table(("engine", "episodes", "success", "95 % interval (Wilson)"), rows)
        + f'<p class="soft small">Trained in {part.cfg.backend.name} only.</p></section>'
    )


def _also(part: Part) -> str:
    return f" and {_deploy_report.NAME}" if part.deployed else ""


def _deployed(part: Part) -> str:
    film, lines = part.folder / TWIN_FILM, f" {_fly_report.LINES}" if part.flown else ""
    caption = f"<figcaption>What the simulated robot did, in real time.{lines}</figcaption>"
    shown = f"<figure>{_video(film)}{caption}</figure>" if film.is_file() else ""
    if part.flown:
        return _fly_report.section(part.flown, _simulated_m(part), shown)
    if not part.deployed:
        return ""
    score, period_ms = part.scores[_deploy_report.NAME], 1e3 / part.packed.spec.rate_hz
    return _deploy_report.section(part.deployed, score, period_ms, shown)


def _simulated_m(part: Part) -> float:
    """RMS error in the engine of the training."""
    return float(part.rows[part.engines[0]]["steady_error_m"].double().square().mean().sqrt())


def _episodes(part: Part) -> str:
    """Histograms, and the table of all metrics in every engine."""
    plots = "".join(
        f"<figure>{_plots.histogram(name, _values(part, name), limit(part.cfg.task, name))}</figure>"
        for name in part.shown
    )
    names = [name for name in next(iter(part.rows.values())) if name != "success" and part.happened(name)]
    rows = [_score_row(engine, name, s[name]) for name in names for engine, s in part.scores.items() if name in s]
    table = _page.table(("at the end of an episode", "engine", "median", "mean", "95th percentile", "RMS of the "
                         "successful"), rows)  # fmt: skip
    return f'<section><h2>Episodes</h2><div class="pair">{plots}</div>{table}</section>'


def _values(part: Part, name: str) -> dict[str, list[float]]:
    return {engine: rows[name].tolist() for engine, rows in part.rows.items() if name in rows}


def _score_row(engine: str, name: str, score: dict[str, float]) -> tuple[str, ...]:
    title, unit, factor = _plots.metric(name)
    numbers = (score[k] for k in ("median", "mean", "p95", *(["rms"] if unit else [])))
    return (title, engine, *("" if x is None else f"{x * factor:.3g} {unit}" for x in numbers))


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
    parts["building the world"] = max(0.0, seconds - collect - update)
    told = ", ".join(f"{name} {value:.1f} s" for name, value in parts.items())
    rate = metrics[-1]["step"] / max(collect + update, 1e-9)
    return (
        f'<section><h2>Where the time went</h2>{_plots.shares(parts)}<p class="soft small">{told}. '
        f"{rate:,.0f} environment steps a second, learning included.</p></section>"
    )


def _contract(spec: PolicySpec) -> str:
    """What the policy reads and commands."""
    terms = [_term_row(t) for t in spec.observation.terms("policy")]
    action = spec.action
    worth = [f"{s:.4g}" for s in action.scale] or [""] * action.dim
    units = action.unit.split(", ") if action.unit.count(", ") == action.dim - 1 else [action.unit] * action.dim
    actions = list(zip(action.names, units, [action.frame] * action.dim, worth, strict=True))
    return (
        f"<section><h2>What a robot needs to run it</h2><p>The bundle is for robot <b>{spec.robot}</b> at "
        f"{spec.rate_hz:g} Hz; {spec.units}; quaternions {spec.quaternion}; {spec.world_frame}. A robot that "
        "differs in any field is refused, and the field named.</p>"
        f"<h3>{_observation_title(spec.observation)}</h3>"
        + _page.table(("term", "shape", "unit", "frame", "what of it", "only in simulation"), terms)
        + f"<h3>Action: {action.function}, in [{action.low:g}, {action.high:g}]</h3>"
        + _page.table(("name", "unit", "frame", "an action of one adds"), actions)
        + "</section>"
    )


def _observation_title(spec: ObservationSpec) -> str:
    history = spec.history.get("policy", 1)
    return f"Observation: {spec.dim('policy')} numbers" + (f", history {history}" if history > 1 else "")


def _term_row(term: TermSpec) -> tuple[str, ...]:
    field, shape = term.field, " × ".join(map(str, term.field.shape))
    what = f"its integral, within ±{term.integral_limit:g}" if term.integral_limit else "now"
    if term.history > 1:
        what = f"the last {term.history}"
    return field.name, shape, field.unit, field.frame, what, "yes" if term.privileged else "no"


# --- the end -----------------------------------------------------------------------------------------------


def _machine(parts: list[Part]) -> str:
    engines = dict.fromkeys(engine for p in parts for engine in p.engines)
    about = parts[-1].packed
    facts = [
        ("processor", f"{_cpu()}, {usable_cores()} cores"),
        ("system", f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"),
        ("torch", torch.__version__),
        ("engines", ", ".join(f"{e} {_version(e)}".rstrip() for e in engines)),
        ("seed", str(parts[0].cfg.seed)),
        ("revision", about.git_revision),
        ("made", about.created),
    ]
    yaml = "".join(
        f"<details><summary>The whole configuration of {p.experiment}</summary>"
        f"<pre>{html.escape(config.to_yaml(p.cfg))}</pre></details>" for p in parts
    )  # fmt: skip
    return f"<section><h2>Machine and configuration</h2>{_page.table((), facts)}{yaml}</section>"


def _next(parts: list[Part]) -> str:
    called = Path(sys.argv[0])  # .venv/bin/robolearn, where that is how it was called
    robolearn = str(called) if called.name == "robolearn" else "robolearn"
    commands = [line for p in parts for line in _commands(robolearn, p)]
    commands.append(f"{Path(robolearn).with_name('tensorboard')} --logdir {parts[0].folder.parent}")
    files = [
        ("run/bundle", "the policy bundle: weights.safetensors (parameters and normaliser), bundle.json "
         "(specification, robot, configuration, scores, revision)"),
        ("policy.onnx", "the same policy for computers without torch, specification inside"),
        ("run", "config.yaml, metrics.jsonl, TensorBoard events, checkpoints"),
        ("episodes_ENGINE.json", "the results of every episode of an evaluation"),
        *([("sysid", "a log, what was identified from it, and the ranges to randomise with")]
          if any((p.folder / _sysid_trial.FILE).is_file() for p in parts) else []),
        *([(_deploy_report.FILE, "those through ROS 2, with latencies and the stop; what the nodes said: ros2_*.log")]
          if any(p.deployed or p.flown for p in parts) else []),
    ]  # fmt: skip
    folders = " and ".join(str(p.folder) for p in parts)
    return (
        f"<section><h2>Go on from here</h2><pre>{html.escape(chr(10).join(commands))}</pre>"
        f"<h3>Files in {html.escape(folders)}</h3>{_page.table((), files)}</section>"
    )


def _commands(robolearn: str, part: Part) -> list[str]:
    return [
        f"# {part.task}",
        *(f"{robolearn} evaluate run={part.run} backend={engine} episodes=1000" for engine in part.engines),
        *([f"{robolearn} launch deploy twin:=true run:={part.run}"] if part.deployed else []),
        f"{robolearn} play run={part.run}",
        f"{robolearn} export run={part.run} format=torch",
        f"{robolearn} train experiment={part.experiment} seed={part.cfg.seed + 1}",
    ]


def _cpu() -> str:
    """Model name, where the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    found = re.search(r"model name\s*:\s*(.+)", text)
    return found[1] if found else platform.processor() or "unknown"


def _version(engine: str) -> str:
    """Of the package that the engine comes from."""
    from importlib.metadata import PackageNotFoundError, version

    package = PACKAGES.get(engine, engine)
    try:
        return f"({package} {version(package)})" if package != engine else version(package)
    except PackageNotFoundError:
        return ""
