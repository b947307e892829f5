"""The rules that keep the code apart, read from the syntax trees; each is shown to catch what it forbids."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("robolearn", "sim", "real")
FILES_PER_RULE = 400, 60  # lines of a file, lines of a function

# Lowest first: a module may import its own layer and those below. A bundle rebuilds its policy, so policies
# (modules made of nets) lie below it; the registry and the errors lie below everything that registers itself.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "paths", "optional", "memory"),
    ("registry", "config"),
    ("arrays", "rotations"),
    ("spec",),
    ("robots", "urdf", "kinematics"),
    ("state", "limits", "trajectories", "pointcloud"),
    ("observation", "actions", "env", "nets"),
    ("policies",),
    ("bundle", "export", "export_chunks", "data"),
    ("runs",),
    ("rewards", "vlm"),
    ("algos",),
    ("loops", "hil", "distributed"),
    ("cli",),
)
LAYER = {name: i for i, names in enumerate(LAYERS) for name in names}

# Who may import what, by file pattern; everybody else must not.
ALLOWED: dict[str, tuple[str, ...]] = {
    "hydra": ("robolearn/config.py",),
    "omegaconf": ("robolearn/config.py",),
    **dict.fromkeys(("rclpy", "cyclonedds"), ("real/ros/*",)),
    "rosbags": ("real/ros/*", "real/recording/*"),
    "mujoco": (
        "sim/backends/mj*.py",
        "sim/backends/mujoco*.py",
        "sim/backends/looks.py",
        "robolearn/cli/play.py",
    ),
    "warp": ("sim/backends/mujoco_warp*.py", "sim/backends/quadrotor.py", "sim/vehicles/*"),
    "mujoco_warp": ("sim/backends/mujoco_warp*.py",),
    "pybullet": ("sim/backends/pybullet*.py", "sim/backends/bullet*.py"),
    "isaaclab": ("sim/backends/isaaclab*.py",),
    **dict.fromkeys(("cv2", "open3d"), ("real/perception/*",)),
    **dict.fromkeys(("grpc", "google"), ("robolearn/distributed/*",)),
    **dict.fromkeys(("pyspacemouse", "easyhid"), ("real/teleop/spacemouse.py",)),
    **dict.fromkeys(("fastapi", "uvicorn"), ("real/page/server.py",)),
    "diffusers": ("robolearn/policies/noise.py",),  # a bundle holds the schedule: robots need no diffusers
    "newton": ("sim/backends/isaaclab*.py", "sim/backends/newton*.py"),
    **dict.fromkeys(("torchvision", "timm", "open_clip", "lerobot", "pickle", "cPickle", "dill", "joblib"), ()),
}
LOADERS = ("lazy", "load", "import_module", "__import__")
MEETING_PLACES = (  # where sim and real may meet
    "robolearn/cli/*",
    "real/nodes/twin_arm.py",
    "real/nodes/twin_drone.py",
    "real/nodes/camera_scene.py",
)


@dataclass(frozen=True)
class Source:
    """One Python file; `path` is relative to the repository, with forward slashes."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def package(self) -> str:
        return self.path.partition("/")[0]

    def within(self, *patterns: str) -> bool:
        return any(fnmatch(self.path, pattern) for pattern in patterns)


def sources() -> list[Source]:
    found = (p for name in PACKAGES for p in sorted((ROOT / name).rglob("*.py")))
    return [Source(p.relative_to(ROOT).as_posix(), p.read_text()) for p in found]


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, also inside functions, under TYPE_CHECKING and by `optional`."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{_base(source, node)}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node) in LOADERS:
            yield from ((node.lineno, str(a.value)) for a in node.args[:1] if isinstance(a, ast.Constant))


def _base(source: Source, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parents = source.path.removesuffix(".py").split("/")[: -node.level]
    return ".".join([*parents, *filter(None, [node.module])])


def _called(node: ast.Call) -> str:
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


# --- the rules: a file's violations ------------------------------------------------------------------------


def arrows(source: Source) -> Iterator[str]:
    """robolearn/cli -> sim -> robolearn <- real."""
    reach = {"robolearn": {"robolearn"}, "sim": {"sim", "robolearn"}, "real": {"real", "robolearn"}}
    allowed = set(PACKAGES) if source.within(*MEETING_PLACES) else reach[source.package]
    for line, name in imports(source):
        root = name.partition(".")[0]
        if root in PACKAGES and root not in allowed:
            yield f"{source.path}:{line} imports {name}"
        if root in ("launch", "configs", "tests", "benchmarks"):
            yield f"{source.path}:{line} imports {name}, which is not a package"


def cli_is_the_top(source: Source) -> Iterator[str]:
    if not source.within("robolearn/cli/*"):
        for line, name in imports(source):
            if name.startswith("robolearn.cli"):
                yield f"{source.path}:{line} imports {name}"


def layers(source: Source) -> Iterator[str]:
    """Inside robolearn only downwards."""
    if source.package != "robolearn" or source.path == "robolearn/__init__.py":
        return
    mine = source.path.split("/")[1].removesuffix(".py")
    if mine not in LAYER:
        yield f"{source.path}: '{mine}' has no place in LAYERS"
        return
    for line, name in imports(source):
        other = name.split(".")[1] if name.startswith("robolearn.") else ""
        if other in LAYER and LAYER[other] > LAYER[mine]:
            yield f"{source.path}:{line} ({mine}) imports {name} ({other}), which is above it"


def foreign_packages(source: Source) -> Iterator[str]:
    for line, name in imports(source):
        allowed = ALLOWED.get(name.partition(".")[0])
        if allowed is not None and not source.within(*allowed):
            yield f"{source.path}:{line} imports {name}; only {allowed or 'nobody'} may"


def no_pickle(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = getattr(node.func.value, "id", "")
            if owner == "torch" and node.func.attr in ("save", "load"):
                yield f"{source.path}:{node.lineno} calls torch.{node.func.attr}"


def no_print(source: Source) -> Iterator[str]:
    if source.within("robolearn/cli/*"):
        return
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "pprint"):
            yield f"{source.path}:{node.lineno} prints"


def no_silence(source: Source) -> Iterator[str]:
    """No `except Exception: pass`, nor without a type, nor with `continue` or `...` in place of `pass`."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException")
            if broad and all(_says_nothing(s) for s in node.body):
                yield f"{source.path}:{node.lineno} swallows every error"


def _says_nothing(node: ast.stmt) -> bool:
    return isinstance(node, ast.Pass | ast.Continue) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    )


def no_utils(source: Source) -> Iterator[str]:
    if re.search(r"(^|/)_?(utils?|helpers?|misc|common)(_\w+)?(\.py$|/)", source.path):
        yield f"{source.path}: name it for what it does"


def small(source: Source) -> Iterator[str]:
    lines, of_function = FILES_PER_RULE
    count = len(source.text.splitlines())
    if count > lines:
        yield f"{source.path} has {count} lines"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > of_function:
                yield f"{source.path}:{node.lineno} {node.name} has {length} lines"


Rule = Callable[[Source], Iterator[str]]
RULES: list[Rule] = [
    arrows, cli_is_the_top, layers, foreign_packages, no_pickle, no_print, no_silence, no_utils, small,
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.__name__)
def test_rule_holds(rule: Rule) -> None:
    violations = [text for source in sources() for text in rule(source)]
    assert violations == []


# --- and each rule can fail --------------------------------------------------------------------------------

LONG = "def f():\n" + "    x = 1\n" * 60
VIOLATIONS = [
    (arrows, "robolearn/loops/a.py", "import sim.env"),
    (arrows, "robolearn/loops/a.py", "def f():\n    from real.ros import node"),
    (arrows, "sim/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import real"),
    (arrows, "real/nodes/guard.py", "from sim import env"),
    (arrows, "sim/a.py", "from ..real import x"),
    (arrows, "sim/a.py", "import tests.conftest"),
    (cli_is_the_top, "sim/a.py", "from robolearn.cli import main"),
    (cli_is_the_top, "robolearn/loops/a.py", "import robolearn.cli.train"),
    (layers, "robolearn/spec.py", "from robolearn import state"),
    (layers, "robolearn/policies/a.py", "from robolearn.bundle import load"),
    (layers, "robolearn/policies/a.py", "from ..algos import ppo"),
    (layers, "robolearn/algos/a.py", "import robolearn.loops.log"),
    (layers, "robolearn/novelty.py", ""),
    (foreign_packages, "robolearn/spec.py", "import hydra"),
    (foreign_packages, "robolearn/cli/train.py", "from omegaconf import OmegaConf"),
    (foreign_packages, "robolearn/a.py", "import rclpy.node"),
    (foreign_packages, "real/nodes/guard.py", "import rclpy"),
    (foreign_packages, "real/nodes/guard.py", "from cyclonedds.core import Qos"),
    (foreign_packages, "sim/env.py", "import mujoco"),
    (foreign_packages, "sim/env.py", "mujoco = lazy('mujoco', extra='mujoco')"),
    (foreign_packages, "sim/env.py", "m = optional.load('mujoco.rollout', 'mujoco')"),
    (foreign_packages, "sim/backends/mujoco.py", "import pybullet"),
    (foreign_packages, "sim/backends/mujoco.py", "import importlib\nimportlib.import_module('warp')"),
    (foreign_packages, "robolearn/data/a.py", "from torchvision import transforms"),
    (foreign_packages, "robolearn/data/a.py", "import pickle"),
    (foreign_packages, "robolearn/hil/a.py", "grpc = lazy('grpc', extra='distributed')"),
    (no_pickle, "robolearn/a.py", "import torch\ntorch.save(1, 'f')"),
    (no_pickle, "robolearn/a.py", "import torch\nx = torch.load('f')"),
    (no_print, "sim/a.py", "print('hello')"),
    (no_silence, "real/a.py", "try:\n    f()\nexcept Exception:\n    pass"),
    (no_silence, "real/a.py", "for i in x:\n    try:\n        f()\n    except:\n        continue"),
    (no_utils, "robolearn/utils.py", ""),
    (no_utils, "robolearn/data/utils/a.py", ""),
    (no_utils, "sim/_helpers.py", ""),
    (small, "sim/a.py", "x = 1\n" * 401),
    (small, "sim/a.py", LONG),
]
HARMLESS = [
    (arrows, "robolearn/cli/a.py", "import sim, real"),
    (arrows, "real/nodes/twin_arm.py", "import sim.env"),
    (layers, "robolearn/bundle.py", "from robolearn.policies import gaussian"),
    (foreign_packages, "robolearn/config.py", "import hydra"),
    (foreign_packages, "real/ros/dds.py", "from cyclonedds.core import Qos\nimport rosbags.typesys"),
    (foreign_packages, "sim/backends/mujoco.py", "mujoco = lazy('mujoco', extra='mujoco')"),
    (no_pickle, "robolearn/a.py", "json.load(f)"),
    (no_print, "robolearn/cli/a.py", "print('hello')"),
    (no_silence, "real/a.py", "try:\n    f()\nexcept Exception as e:\n    log.error(e)"),
    (no_silence, "real/a.py", "try:\n    f()\nexcept KeyError:\n    pass"),
    (no_utils, "robolearn/data/uncommon.py", ""),
    (small, "sim/a.py", "x = 1\n" * 400),
]


@pytest.mark.parametrize(("rule", "path", "text"), VIOLATIONS, ids=lambda v: getattr(v, "__name__", None))
def test_rule_catches(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) != []


@pytest.mark.parametrize(("rule", "path", "text"), HARMLESS, ids=lambda v: getattr(v, "__name__", None))
def test_rule_lets_pass(rule: Rule, path: str, text: str) -> None:
    assert list(rule(Source(path, text))) == []


# --- folders -----------------------------------------------------------------------------------------------


def packages_by_mistake(root: Path) -> list[str]:
    """`__init__.py` where none may be: these could be imported from the repository, but not elsewhere."""
    folders = ("launch", "configs", "tests")
    return [str(p.relative_to(root)) for name in folders for p in (root / name).rglob("__init__.py")]


def test_launch_configs_and_tests_are_not_packages() -> None:
    assert packages_by_mistake(ROOT) == []


def test_a_package_by_mistake_is_caught(tmp_path: Path) -> None:
    (tmp_path / "tests/sim").mkdir(parents=True)
    (tmp_path / "tests/sim/__init__.py").touch()
    assert packages_by_mistake(tmp_path) == ["tests/sim/__init__.py"]


def test_every_source_is_read() -> None:
    paths = {source.path for source in sources()}
    assert {"robolearn/config.py", "sim/env.py", "real/__init__.py"} <= paths
