"""Policy bundles: everything a robot needs to run a policy, in a folder or a .zip.

`bundle.json` holds the specification (names, shapes, units, frames, rate), the robot, how to build the policy, the
resolved configuration, the git revision and the scores; `weights.safetensors` holds the parameters and the normaliser.
Loading needs torch, numpy and the safetensors reader; no simulator, no ROS, no configuration library.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import zipfile
import zlib
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from robolearn.errors import UserError
from robolearn.policies.base import Policy, build
from robolearn.spec import PolicySpec, RobotSpec, differences, from_dict, stepwise, to_dict

FORMAT = 1
ABOUT, WEIGHTS = "bundle.json", "weights.safetensors"
KEYS = ("kind", "policy", "spec", "robot", "config", "scores", "git_revision", "created", "weights_sha256")


class BundleError(UserError):
    """A bundle is truncated, foreign, or made for something else; the message says which and what differs."""


@dataclass(frozen=True)
class Bundle:
    policy: Policy
    robot: RobotSpec
    config: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    git_revision: str = "unknown"
    created: str = ""

    @property
    def spec(self) -> PolicySpec:
        return self.policy.spec

    def require(self, robot: RobotSpec, spec: PolicySpec | None = None) -> None:
        """Raise BundleError, naming every differing field, unless the bundle fits this robot (and specification, of
        which chunks and memory are the policy's own affair)."""
        found = differences(self.robot, robot, "robot")
        found += differences(stepwise(self.spec), stepwise(spec), "spec") if spec is not None else []
        if found:
            raise BundleError("the bundle does not fit (bundle != here): " + "; ".join(found))

    def require_hardware(self) -> None:
        """Raise BundleError if the policy reads what only a simulator knows."""
        privileged = self.spec.observation.privileged()
        if privileged:
            raise BundleError(f"the policy needs privileged observations {privileged}; it cannot run on hardware")


def save(path: Path, bundle: Bundle) -> Path:
    """Write a folder, or one file if the name ends in .zip. An existing .zip is replaced whole; in a folder the
    weights are replaced first, and a kill before bundle.json follows leaves what `load` refuses by its checksum.
    Raises BundleError, naming the tensor, for weights that are not finite."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in bundle.policy.state_dict().items()}
    broken = [k for k, v in tensors.items() if not v.isfinite().all()]
    if broken:
        raise BundleError(f"the policy is not finite in {', '.join(broken)}: nothing is written to {path}")
    weights = save_tensors(tensors)
    about = {
        "format": FORMAT,
        "kind": bundle.policy.kind,
        "policy": bundle.policy.config,
        "spec": to_dict(bundle.spec),
        "robot": to_dict(bundle.robot),
        "config": bundle.config,
        "scores": bundle.scores,
        "git_revision": bundle.git_revision,
        "created": bundle.created or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
    }
    text = json.dumps(about, indent=1, allow_nan=True).encode()
    if path.suffix == ".zip":
        part = path.with_suffix(".part")
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(ABOUT, text)
            archive.writestr(WEIGHTS, weights)
        part.replace(path)
        return path
    path.mkdir(parents=True, exist_ok=True)
    for name, data in ((WEIGHTS, weights), (ABOUT, text)):
        part = path / (name + ".part")
        part.write_bytes(data)
        part.replace(path / name)
    return path


def load(path: Path, device: str = "cpu") -> Bundle:
    """Read a bundle. Raises BundleError with one clear reason."""
    text, weights = _read(Path(path))
    try:
        about = json.loads(text)
        version = about["format"]
    except (ValueError, KeyError, TypeError):
        raise BundleError(f"{path} is not a policy bundle: {ABOUT} is not ours") from None
    if version != FORMAT:
        raise BundleError(f"{path} has bundle format {version}; this version reads {FORMAT}")
    missing = [k for k in KEYS if k not in about]
    if missing:
        raise BundleError(f"{path} is not complete: {ABOUT} lacks {', '.join(missing)}")
    if hashlib.sha256(weights).hexdigest() != about["weights_sha256"]:
        raise BundleError(f"{path}: {WEIGHTS} is truncated or was changed (its checksum differs)")
    try:
        policy = build(about["kind"], from_dict(PolicySpec, about["spec"]), about["policy"])
        policy.load_state_dict(load_tensors(weights))
        robot = from_dict(RobotSpec, about["robot"])
    except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
        raise BundleError(f"{path} does not fit this version: {error}") from error
    policy.eval().to(device)
    return Bundle(policy, robot, about["config"], about["scores"], about["git_revision"], about["created"])


def _read(path: Path) -> tuple[bytes, bytes]:
    try:
        if path.is_dir():
            return (path / ABOUT).read_bytes(), (path / WEIGHTS).read_bytes()
        with zipfile.ZipFile(path) as archive:
            return archive.read(ABOUT), archive.read(WEIGHTS)
    except FileNotFoundError as error:
        raise BundleError(f"{path} is not a policy bundle: {error.filename} does not exist") from None
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, RuntimeError, OSError, EOFError) as error:
        raise BundleError(f"{path} is not a policy bundle, or is truncated: {error}") from None


def git_revision(folder: Path) -> str:
    """Revision of the source tree, with `-dirty` if it has changes; `unknown` outside git."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()
