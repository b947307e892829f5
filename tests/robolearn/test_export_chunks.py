"""Exported chunked policies: histories and noise in, the chunk of the policy out."""

import itertools
import json

import pytest
import torch
from chunk_samples import SMALL_CAMERA, InMemory, chunk_spec, diffusion, gaussian
from torch import Tensor

from robolearn import bundle, export
from robolearn.bundle import Bundle
from robolearn.cli import main
from robolearn.export_chunks import Planning
from robolearn.policies.base import build
from robolearn.policies.noise import alphas_cumprod
from robolearn.policies.residual import ResidualPolicy, correction_spec
from robolearn.robots.franka import FRANKA

SAMPLERS = [  # torch.export is much the faster
    ("torch", {"name": "ddpm"}),
    ("onnx", {"name": "ddim", "steps": 2}),
    ("torch", {"name": "ddim", "steps": 2, "eta": 0.5}),
    ("torch", {"name": "flow", "steps": 3}),
]
STREAMING = {"name": "streaming", "steps": 4}


@pytest.fixture(autouse=True)
def _seed():
    """Of some random weights the network makes more of a rounding than an export may."""
    torch.manual_seed(0)


def quick(sampler: dict):
    """Few levels and one resolution: the exporter takes its time for every call of the network."""
    config = diffusion(chunk_spec(8, 4), {"name": "ddim", "steps": 4}).config | {"sampler": sampler}
    small = {"network": {"name": "unet", "channels": [8], "level_dim": 8}, "alphas_cumprod": alphas_cumprod(4)}
    return build("diffusion", chunk_spec(8, 4), config | small)


def fitted(policy):
    data = InMemory(observation__policy=3 * torch.randn(50, 2, 3) + 1, action=torch.rand(50, 8, 2) - 0.7)
    policy.fit_normalizers(data.statistics())
    return policy.eval()


def written(policy, tmp_path, format: str = "onnx"):
    path = tmp_path / f"p{export.SUFFIXES[format]}"
    export.export(policy, path, format)
    return path, export.FORMATS[format][1](path)


def history(batch: int, camera: bool = False) -> dict[str, Tensor]:
    obs = {"policy": 3 * torch.randn(batch, 2, 3) + 1}
    return obs | ({"policy/wrist": torch.randint(256, (batch, 2, 24, 24, 3), dtype=torch.uint8)} if camera else {})


def planned(policy, obs: dict[str, Tensor]) -> Tensor:
    """By the way of the control loop: observe what is in the history, then plan."""
    batch = len(obs["policy"])
    policy.reset(torch.ones(batch, dtype=torch.bool))
    for t in range(2):
        policy.observe({k: v[:, t] for k, v in obs.items()})
    return policy.chunk(torch.arange(batch))


def test_behaviour_cloning_from_state_and_camera(tmp_path):
    policy = fitted(gaussian(chunk_spec(8, 4, camera=True), SMALL_CAMERA))
    policy.mean[-1].weight.data.normal_()
    _, load = written(policy, tmp_path)
    for batch in (1, 3):
        obs = history(batch, camera=True)
        torch.testing.assert_close(load(obs), planned(policy, obs), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("format", "sampler"), SAMPLERS, ids=str)
def test_every_sampler_plans_what_the_policy_plans_from_the_same_noise(tmp_path, format, sampler, monkeypatch):
    policy = fitted(quick(sampler))
    _, load = written(policy, tmp_path, format)
    draws = {"ddpm": 5, "ddim": 3 if "eta" in sampler else 1, "flow": 1}[sampler["name"]]
    noise, obs = torch.randn(3, draws, 8, 2), history(3)
    told = load(obs | {"noise": noise})
    handed = iter([*noise.unbind(1), torch.zeros(3, 8, 2)])  # the last is for the next chunk
    monkeypatch.setattr("robolearn.policies.samplers._noise", lambda like, generator: next(handed))
    torch.testing.assert_close(told, planned(policy, obs), rtol=0, atol=1e-4)
    assert next(handed, None) is None


def test_streaming_hands_its_buffer_on(tmp_path):
    """Three chunks after one another, from the first buffer that the file's own figures tell."""
    onnx = pytest.importorskip("onnx")
    policy = fitted(quick(STREAMING | {"start": "zeros"}))
    path, load = written(policy, tmp_path)
    model = onnx.load(path)
    about = {p.key: p.value for p in model.metadata_props}
    assert [i.name for i in model.graph.input] == ["policy", "noise", "buffer"]
    assert [o.name for o in model.graph.output] == ["action", "next_buffer"]
    assert (about["observation_steps"], about["network_calls"]) == ("2", "2")
    alphas = policy.process.alphas  # levels 0 to 3, after clean: the parts wait at 1 and 3
    std = torch.tensor(json.loads(about["first_buffer_std"]))
    torch.testing.assert_close(std, (1 - alphas[[2] * 4 + [4] * 4]).sqrt())
    held = sum(onnx.numpy_helper.to_array(i).nbytes for i in model.graph.initializer)
    assert held < 1.1 * sum(4 * p.numel() for p in policy.parameters()) + 10_000  # once, for all calls
    generator = torch.Generator().manual_seed(0)
    policy.generator = torch.Generator().manual_seed(0)
    obs = [history(2) for _ in range(3)]
    buffer = torch.randn(2, 8, 2, generator=generator) * std[:, None]
    for seen in obs:
        fresh = torch.randn(2, 4, 2, generator=generator)
        action, buffer = load(seen | {"noise": torch.cat((fresh, fresh), 1)[:, None], "buffer": buffer})
        for t in range(2):
            policy.observe({k: v[:, t] for k, v in seen.items()})
        torch.testing.assert_close(action[:, :4], policy.chunk(torch.arange(2))[:, :4], rtol=0, atol=1e-4)
        torch.testing.assert_close(buffer, policy._buffer, rtol=0, atol=1e-4)


def test_a_transformer_with_pictures(tmp_path):
    config = diffusion(chunk_spec(8, 4, camera=True), {"name": "ddim", "steps": 2}, SMALL_CAMERA).config
    net = {"name": "transformer", "width": 16, "layers": 1, "heads": 2}
    policy = fitted(build("diffusion", chunk_spec(8, 4, camera=True), config | {"network": net}))
    _, load = written(policy, tmp_path, "torch")
    inputs = history(3, camera=True) | {"noise": torch.randn(3, 1, 8, 2)}
    torch.testing.assert_close(load(inputs), Planning(policy)(inputs), rtol=0, atol=1e-4)


def test_too_many_calls_are_refused_with_the_remedy(tmp_path):
    policy = fitted(diffusion(chunk_spec(8, 4), {"name": "flow", "steps": 33}))
    with pytest.raises(export.ExportError, match=r"calls the network 33 times a chunk.*at most 32.*with steps=16"):
        export.export(policy, tmp_path / "p.onnx", "onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_with_another_sampler(tmp_path, capsys):
    packed, out = tmp_path / "b.zip", tmp_path / "p.pt2"
    bundle.save(packed, Bundle(fitted(quick({"name": "ddpm"})), FRANKA))
    words = ["export", f"run={packed}", "format=torch", f"out={out}"]
    assert main.main([*words, "sampler=ddim", "steps=2"]) == 0
    inputs = history(2) | {"noise": torch.randn(2, 1, 8, 2)}
    assert export.FORMATS["torch"][1](out)(inputs).shape == (2, 8, 2)
    assert main.main([*words, "sampler=flow"]) == 2
    assert "trained for the sampler ddpm; flow cannot use it" in capsys.readouterr().err
    bundle.save(packed, Bundle(fitted(gaussian(chunk_spec(8, 4))), FRANKA))
    assert main.main([*words, "steps=2"]) == 2
    assert "this is gaussian_chunk" in capsys.readouterr().err


def test_other_steps_keep_the_samplers_own_settings(tmp_path):
    packed, out = tmp_path / "b.zip", tmp_path / "other.zip"
    bundle.save(packed, Bundle(fitted(quick(STREAMING | {"start": "zeros", "eta": 0.5})), FRANKA))
    assert main.main(["export", f"run={packed}", "format=bundle", f"out={out}", "steps=2"]) == 0
    told = bundle.load(out).policy.config["sampler"]
    assert told == {"name": "streaming", "steps": 2, "start": "zeros", "eta": 0.5, "temperature": 1.0}


def residual(base) -> ResidualPolicy:
    """With a head that has learned something."""
    spec = correction_spec(base.spec, 0.3)
    about = {"hidden": [16], "activation": "relu", "normalizer": "running", "stochastic": True}
    head = build("squashed", spec, about | {"pictures": SMALL_CAMERA})
    torch.nn.init.normal_(head.net[-1].weight)
    return ResidualPolicy.of(base, head, 0.3).eval()


@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_a_residual_policy_is_a_plan_and_a_correction(tmp_path, format):
    policy = residual(fitted(quick({"name": "ddim", "steps": 2})))
    path, plan = written(policy, tmp_path, format)
    beside = tmp_path / f"p_correction{path.suffix}"
    assert sorted(tmp_path.iterdir()) == sorted([path, beside])
    assert about_of(path, format)["correction"] == beside.name
    inputs = history(3) | {"noise": torch.randn(3, 1, 8, 2)}
    torch.testing.assert_close(plan(inputs), Planning(policy.base)(inputs), rtol=0, atol=1e-4)
    obs, base = {"policy": torch.randn(3, 3)}, 2 * torch.rand(3, 2) - 1
    told = export.FORMATS[format][1](beside)(obs | {"base_action": base})
    torch.testing.assert_close(told, policy.correct(obs, base), rtol=0, atol=1e-5)
    assert (told - base).abs().max() > 0.05  # it does something


def about_of(path, format: str) -> dict[str, str]:
    if format == "onnx":
        return {p.key: p.value for p in pytest.importorskip("onnx").load(path).metadata_props}
    extra = {"about.json": ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra["about.json"])


def test_a_correction_sees_pictures(tmp_path):
    policy = residual(fitted(gaussian(chunk_spec(8, 4, camera=True), SMALL_CAMERA)))
    written(policy, tmp_path, "torch")
    obs = {k: v[:, 0] for k, v in history(3, camera=True).items()}
    inputs = obs | {"base_action": torch.zeros(3, 2)}
    told = export.FORMATS["torch"][1](tmp_path / "p_correction.pt2")(inputs)
    torch.testing.assert_close(told, policy.correct(obs, torch.zeros(3, 2)), rtol=0, atol=1e-5)


def test_without_its_correction_the_plan_is_not_kept(tmp_path, monkeypatch):
    policy = residual(fitted(gaussian(chunk_spec(8, 4))))
    calls = itertools.count()
    monkeypatch.setattr(policy, "correct", lambda obs, base: base + next(calls))  # the file's is a constant
    with pytest.raises(export.ExportError, match="file's actions differ by"):
        export.export(policy, tmp_path / "p.pt2", "torch")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_both_files_and_a_bundle_with_another_sampler(tmp_path, capsys):
    packed, other = tmp_path / "b.zip", tmp_path / "other.zip"
    bundle.save(packed, Bundle(residual(fitted(quick({"name": "ddpm"}))), FRANKA))
    words = [f"run={packed}", "sampler=ddim", "steps=2"]
    assert main.main(["export", *words, "format=torch", f"out={tmp_path / 'p.pt2'}"]) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'p.pt2'} (" in said and f"{tmp_path / 'p_correction.pt2'} (" in said
    assert main.main(["export", *words, "format=bundle", f"out={other}"]) == 0
    told = bundle.load(other).policy.base.config["sampler"]
    assert told == {"name": "ddim", "steps": 2, "temperature": 1.0}
