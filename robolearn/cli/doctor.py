"""What this machine has, and the command that brings what it lacks.

usage: robolearn doctor [timeout_s=SECONDS]

Each line is tried for real, in a process of its own: packages are imported, a frame is rendered, plugins are
loaded. The exit code is 1 if something required is missing or broken; the rest is for what it says only.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from robolearn import config
from robolearn.cli import _options, _probes
from robolearn.cli._options import option
from robolearn.cli._probes import BROKEN, OK, Child, Finding
from robolearn.cli._table import table

REQUIRED = "required"
BASE = ("hydra", "numpy", "rich", "safetensors", "tensorboard")
CHILDREN = 4


@dataclass
class DoctorCfg:
    timeout_s: float = option(20.0, "after which a line counts as broken")

    def __post_init__(self) -> None:
        if not self.timeout_s > 0.0:
            raise ValueError(f"timeout_s must be above 0, got {self.timeout_s}")


@dataclass(frozen=True)
class Probe:
    section: str
    name: str
    check: Callable[[], Finding]

    def run(self) -> Finding:
        """What it found; a check that fails itself is a finding, too."""
        try:
            return self.check()
        except Exception as error:
            return Finding(BROKEN, f"the check failed: {type(error).__name__}: {error}")


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(DoctorCfg)}"


def main(argv: list[str]) -> int:
    options = config.parse(DoctorCfg, argv)
    probes = all_probes(Child(options.timeout_s))
    with ThreadPoolExecutor(CHILDREN) as pool:
        findings = list(pool.map(Probe.run, probes))
    print(report(probes, findings))
    wrong = [p.name for p, f in zip(probes, findings, strict=True) if p.section == REQUIRED and f.mark != OK]
    print(f"\nnot usable before this is mended: {', '.join(wrong)}" if wrong else "\nwhat is required is there")
    return 1 if wrong else 0


def report(probes: list[Probe], findings: list[Finding]) -> str:
    """An aligned table with a heading a section."""
    rows = [
        (f"  {f.mark}", p.name, shorten(f.detail), f"-> {f.fix}" if f.fix and f.mark != OK else "")
        for p, f in zip(probes, findings, strict=True)
    ]
    lines, section = [], ""
    for probe, line in zip(probes, table(rows).splitlines(), strict=True):
        if probe.section != section:
            lines.append(probe.section)
        section = probe.section
        lines.append(line)
    return "\n".join(lines)


def shorten(text: str, width: int = 76) -> str:
    """On one line; what is cut is the middle."""
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 33]}...{text[-30:]}"


def all_probes(child: Child) -> list[Probe]:
    """In the order of the report."""
    return [
        Probe(REQUIRED, "python", _probes.python),
        *(Probe(REQUIRED, name, partial(_probes.ours, name)) for name in ("robolearn", "sim", "real")),
        Probe(REQUIRED, "configs", _probes.configs),
        Probe(REQUIRED, "torch", partial(_probes.torch, child)),
        *(Probe(REQUIRED, name, _package(child, name)) for name in BASE),
        Probe("machine", "processor", _probes.processor),
        Probe("machine", "gpu", partial(_probes.gpu, child)),
        *_engines(child),
        Probe("autopilots", "betaflight", partial(_probes.betaflight, _fix("betaflight"))),
        Probe("rendering (one is enough)", "egl", partial(_probes.rendering, child, "egl", "EGL", "libegl1")),
        Probe("rendering (one is enough)", "osmesa",
              partial(_probes.rendering, child, "osmesa", "OSMesa", "libosmesa6")),
        Probe("video", "av", _package(child, "av", "report")),
        Probe("report", "matplotlib", _package(child, "matplotlib", "report")),
        *(Probe("data", n, _package(child, n, "data")) for n in ("pyarrow", "h5py")),
        *(Probe("export", n, _package(child, n, "export")) for n in ("onnx", "onnxruntime", "onnxscript")),
        Probe("ROS 2 (one is enough)", "rclpy", partial(_probes.rclpy, child)),
        Probe("ROS 2 (one is enough)", "cyclonedds", partial(_probes.cyclonedds, child)),
        *(Probe("perception", n, _package(child, n, "vision")) for n in ("cv2", "open3d")),
        Probe("teleoperation", "pyspacemouse", _package(child, "pyspacemouse", "teleop")),
        *(Probe("operator's page", n, _package(child, n, "page")) for n in ("fastapi", "uvicorn", "websockets")),
        Probe("operator's page", "chromium", _probes.browser),
        Probe("devices", "gamepad", partial(_probes.devices, "/dev/input/js*", "input")),
        Probe("devices", "spacemouse", _probes.spacemouse),
        Probe("devices", "camera", partial(_probes.devices, "/dev/video*", "video")),
        *(Probe("plugins", p.name, partial(_probes.plugin, child, p)) for p in config.plugins()),
    ]  # fmt: skip


def _engines(child: Child) -> list[Probe]:
    warp = _fix("warp")
    return [
        Probe("engines", "mujoco", _package(child, "mujoco", "mujoco")),
        Probe("engines", "mujoco-warp", partial(_probes.same_versions, "mujoco", "mujoco-warp", warp)),
        Probe("engines", "warp", _package(child, "warp", "warp")),
        Probe("engines", "pybullet", _package(child, "pybullet", "bullet")),
        Probe("engines", "isaaclab", partial(_probes.installed, "isaaclab", _fix("isaaclab"))),
    ]


def _package(child: Child, name: str, extra: str = "") -> Callable[[], Finding]:
    return partial(_probes.package, child, name, _fix(extra))


def _fix(extra: str) -> str:
    return f"pip install 'robolearn[{extra}]'" if extra else _probes.ALONE
