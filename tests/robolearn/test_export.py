"""Exported policies act as the policy does, for any batch size, or are not written."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robolearn import bundle, export
from robolearn.cli import _world, main
from robolearn.errors import ConfigError
from robolearn.policies.base import Policy
from robolearn.policies.gaussian import GaussianPolicy
from robolearn.robots.cartpole import CARTPOLE
from robolearn.spec import ActionSpec, Field, ObservationSpec, PolicySpec, TermSpec, from_dict

VECTOR = TermSpec(Field("position", (3,), "m", "base"), "joint_pos")
IMAGE = TermSpec(Field("camera", (8, 6, 3), kind="image", dtype="uint8"), "camera")
ACTION = ActionSpec("joint_position", ("a", "b"), "rad")
CONFIG: dict[str, Any] = {"hidden": [16], "activation": "elu", "initial_std": 1.0, "min_std": 0.1}


def spec(*terms: TermSpec) -> PolicySpec:
    return PolicySpec("arm", 30.0, ObservationSpec({"policy": terms}, {"policy": 2}), ACTION)


class Seeing(Policy):
    """Reads a vector and an image; a whole-number difference of the image must survive the export."""

    kind = "seeing"

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        light = obs["policy/camera"].float().mean((1, 2, 3)) / 255.0
        return torch.stack((light, obs["policy"].tanh().mean(1)), dim=1)


class Forgetful(Policy):
    """A constant that the tracer burns in: right when traced, wrong afterwards."""

    kind = "forgetful"

    def act(self, obs: dict[str, Tensor]) -> Tensor:
        self.calls = getattr(self, "calls", 0) + 1
        return obs["policy"][:, :2] * 0.0 + self.calls


@pytest.fixture
def gaussian() -> GaussianPolicy:
    torch.manual_seed(0)
    policy = GaussianPolicy(spec(VECTOR), CONFIG)
    policy.mean[-1].weight.data.normal_()  # type: ignore[union-attr,operator]
    return policy


@pytest.mark.parametrize("format", export.FORMATS)
def test_gaussian_acts_the_same(gaussian: GaussianPolicy, tmp_path: Path, format: str) -> None:
    path = tmp_path / "policy.file"
    assert export.export(gaussian, path, format) <= 1e-5
    _, load = export.FORMATS[format]
    obs = {"policy": torch.linspace(-3, 3, 30).reshape(5, 6)}
    torch.testing.assert_close(load(path)(obs), gaussian.act(obs), atol=1e-5, rtol=0)
    assert [p.name for p in tmp_path.iterdir()] == ["policy.file"]


@pytest.mark.parametrize("format", export.FORMATS)
def test_images_keep_their_key_and_type(tmp_path: Path, format: str) -> None:
    path = tmp_path / "policy.file"
    export.export(Seeing(spec(VECTOR, IMAGE), {}), path, format)
    obs = {"policy": torch.zeros(3, 6), "policy/camera": torch.full((3, 8, 6, 3), 51, dtype=torch.uint8)}
    torch.testing.assert_close(export.FORMATS[format][1](path)(obs), torch.tensor([[0.2, 0.0]] * 3))


def test_onnx_names_its_tensors_and_carries_the_specification(gaussian: GaussianPolicy, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    export.export(gaussian, tmp_path / "p.onnx", "onnx")
    model = onnx.load(tmp_path / "p.onnx")
    assert [i.name for i in model.graph.input] == ["policy"]
    assert [o.name for o in model.graph.output] == ["action"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    about = {p.key: p.value for p in model.metadata_props}
    assert from_dict(PolicySpec, json.loads(about["policy_spec"])) == gaussian.spec
    assert about["rate_hz"] == "30"


def test_a_file_that_differs_is_refused_and_removed(tmp_path: Path) -> None:
    with pytest.raises(export.ExportError, match="differ by"):
        export.export(Forgetful(spec(VECTOR), {}), tmp_path / "p.pt2", "torch")
    assert list(tmp_path.iterdir()) == []


def test_difference_sees_extreme_values_and_nan() -> None:
    fields = {"policy": Field("policy", (1,))}

    def clipped(obs: dict[str, Tensor]) -> Tensor:
        return obs["policy"].clamp(-1e5, 1e5)

    assert export.largest_difference(lambda o: o["policy"], clipped, fields) == 900_000.0
    assert not export.largest_difference(lambda o: o["policy"] / 0.0 * 0.0, clipped, fields) <= 1e-5


def test_export_prints_nothing(gaussian: GaussianPolicy, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    export.export(gaussian, tmp_path / "p.onnx", "onnx")
    assert capfd.readouterr() == ("", "")


# --- the command -------------------------------------------------------------------------------------------


def test_a_bundle_alone_is_evaluated_as_its_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("mujoco")
    run, packed, scores = tmp_path / "run", tmp_path / "moved" / "policy.zip", tmp_path / "scores.json"
    words = ["task=cartpole", "num_envs=8", "total_steps=300", "eval_episodes=0", "task.episode_length_s=0.5"]
    words += ["task.randomize.mass=[0.8,1.2]", "backend.threads=1", "algo.hidden=[8]", f"run_dir={run}"]
    assert main.main(["train", *words]) == 0
    packed.parent.mkdir()
    assert main.main(["export", f"run={run}", "format=bundle", f"out={tmp_path / 'policy.onnx'}"]) == 2
    assert "out must be a .zip file" in capsys.readouterr().err
    assert main.main(["export", f"run={run}", "format=bundle", f"out={packed}"]) == 0

    _, whole, _ = _world.load_run(str(run))
    found = {}
    for source in (run, run / "bundle", packed):
        path, cfg, _ = _world.load_run(str(source))
        assert (path, cfg) == (source, whole) and cfg.task.randomize.mass == (0.8, 1.2)
        assert main.main(["evaluate", f"run={source}", "episodes=4", f"json={scores}"]) == 0
        found[source] = json.loads(scores.read_text())
    assert [found[s].pop("run") for s in found] == [str(s) for s in found]
    assert found[run] == found[run / "bundle"] == found[packed]


def test_a_bundle_without_the_configuration_of_a_training_is_refused(tmp_path: Path) -> None:
    policy = GaussianPolicy(spec(VECTOR), CONFIG)
    path = bundle.save(tmp_path / "b.zip", bundle.Bundle(policy, CARTPOLE, {"seed": 1}))
    with pytest.raises(ConfigError, match=r"b\.zip has no configuration of this version's training: 'task'"):
        _world.load_run(str(path))
