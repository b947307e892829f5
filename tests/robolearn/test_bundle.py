"""Bundles: everything survives the round trip, and what is damaged or foreign gets one clear error."""

import dataclasses
import json
import subprocess
import sys
import zipfile

import pytest
import torch

from robolearn import bundle
from robolearn.bundle import Bundle, BundleError
from robolearn.errors import ConfigError
from robolearn.policies.base import POLICIES
from robolearn.policies.gaussian import GaussianPolicy
from robolearn.robots.franka import FRANKA
from robolearn.spec import ActionSpec, Field, ObservationSpec, PolicySpec, TermSpec


def make(privileged: bool = False) -> Bundle:
    terms = (
        TermSpec(Field("joint_pos", (7,), "rad", "joint"), "joint_pos", {"joints": [0], "offset": [0.5]}),
        TermSpec(Field("force", (3,), "N", "world"), "command", {"name": "force"}, privileged=privileged),
    )
    action = ActionSpec("joint_position_delta", FRANKA.arm_joints, "rad", scale=(0.04,) * 7)
    spec = PolicySpec("franka", 30.0, ObservationSpec({"policy": terms}, {"policy": 2}), action)
    policy = GaussianPolicy(spec, {"hidden": [8], "activation": "elu", "initial_std": 0.5, "min_std": 0.05})
    policy.normalizer.update(torch.randn(50, 20) * 3 + 1)
    torch.nn.init.normal_(policy.mean[-1].weight)
    return Bundle(policy, FRANKA, {"seed": 3}, {"success": 0.98, "nan": float("nan")}, "abc123")


@pytest.mark.parametrize("name", ["folder", "file.zip"])
def test_round_trip(tmp_path, name):
    original = make()
    loaded = bundle.load(bundle.save(tmp_path / name, original))
    obs = {"policy": torch.randn(5, 20)}
    torch.testing.assert_close(loaded.policy.act(obs), original.policy.act(obs), rtol=0, atol=0)
    assert loaded.spec == original.spec
    assert loaded.robot == FRANKA
    assert loaded.config == {"seed": 3}
    assert loaded.scores["success"] == 0.98
    assert loaded.git_revision == "abc123"
    assert loaded.created


def test_loading_needs_no_simulator_no_hydra_no_ros(tmp_path):
    bundle.save(tmp_path / "b", make())
    code = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"hydra", "omegaconf", "mujoco", "pybullet", "rclpy", "sim", "real", "yaml"}}:
            raise ImportError("blocked " + name)
sys.meta_path.insert(0, Block())
import torch
from pathlib import Path
from robolearn import bundle
loaded = bundle.load(Path({str(tmp_path / "b")!r}))
print(tuple(loaded.policy.act({{"policy": torch.zeros(1, 20)}}).shape))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "(1, 7)", done.stderr


def truncate(path, n):
    path.write_bytes(path.read_bytes()[:n])


def edit(path, change):
    about = json.loads((path / "bundle.json").read_text())
    change(about)
    (path / "bundle.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: truncate(b / "weights.safetensors", 40), "truncated"),
        (lambda b: truncate(b / "bundle.json", 100), "not a policy bundle"),
        (lambda b: (b / "weights.safetensors").unlink(), "does not exist"),
        (lambda b: (b / "bundle.json").write_text('{"format": 99}'), "format 99"),
        (lambda b: (b / "bundle.json").write_text("[1, 2]"), "not a policy bundle"),
        (lambda b: edit(b, lambda about: [about.pop(k) for k in ("config", "scores")]), "lacks config, scores"),
        (lambda b: edit(b, lambda about: about["spec"]["observation"].update(groups=[])), "groups: expected an object"),
        (lambda b: edit(b, lambda about: about.update(policy=None)), "does not fit"),
        (
            lambda b: edit(b, lambda about: about.update(kind="fortune")),
            "no policy kind 'fortune'; there are .*gaussian",
        ),
    ],
)
def test_a_damaged_folder_is_one_clear_error(tmp_path, damage, message):
    damage(bundle.save(tmp_path / "b", make()))
    with pytest.raises(BundleError, match=message):
        bundle.load(tmp_path / "b")


def test_a_truncated_or_foreign_zip_is_one_clear_error(tmp_path):
    path = bundle.save(tmp_path / "b.zip", make())
    truncate(path, 500)
    with pytest.raises(BundleError, match="truncated"):
        bundle.load(path)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "hello")
    with pytest.raises(BundleError, match="not a policy bundle"):
        bundle.load(tmp_path / "other.zip")


def test_a_changed_byte_in_a_zip_is_one_clear_error_or_harmless(tmp_path):
    path = bundle.save(tmp_path / "b.zip", make())
    whole, refused = path.read_bytes(), 0
    for i in range(0, len(whole), 3):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :])
        try:
            bundle.load(path)
        except BundleError:
            refused += 1
    assert refused > 0.9 * len(range(0, len(whole), 3))  # what remains are times and attributes


@pytest.mark.parametrize("name", ["folder", "file.zip"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, name):
    diverged = make()
    with torch.no_grad():
        diverged.policy.mean[0].weight[3, 2] = float("nan")
    with pytest.raises(BundleError, match=r"not finite in mean\.0\.weight:"):
        bundle.save(tmp_path / name, diverged)
    assert list(tmp_path.iterdir()) == []


def test_two_policies_of_one_kind_are_refused():
    assert type("GaussianPolicy", (GaussianPolicy,), {"kind": "", "__module__": "abstract"}).kind not in POLICIES
    with pytest.raises(ConfigError, match=r"two policy kinds are called 'gaussian': in robolearn.*and in elsewhere"):
        type("GaussianPolicy", (GaussianPolicy,), {"__module__": "elsewhere"})
    assert POLICIES["gaussian"] is GaussianPolicy


def test_weights_that_do_not_fit_the_specification_are_refused(tmp_path):
    path = bundle.save(tmp_path / "b", make())
    about = json.loads((path / "bundle.json").read_text())
    about["policy"]["hidden"] = [9]
    (path / "bundle.json").write_text(json.dumps(about))
    with pytest.raises(BundleError, match="size mismatch"):
        bundle.load(path)


def test_another_robot_is_refused_with_every_differing_field():
    other = dataclasses.replace(FRANKA, name="panda2", max_rate_hz=500.0)
    with pytest.raises(BundleError) as caught:
        make().require(other)
    assert "robot.name: 'franka' != 'panda2'" in str(caught.value)
    assert "robot.max_rate_hz: 1000.0 != 500.0" in str(caught.value)
    make().require(FRANKA)


def test_privileged_observations_refuse_hardware():
    make().require_hardware()
    with pytest.raises(BundleError, match="force"):
        make(privileged=True).require_hardware()
