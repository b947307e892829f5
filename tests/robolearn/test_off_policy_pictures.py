"""Off-policy learners that see: what is kept of a map, encoders that are trained or frozen, several cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from chunk_samples import step_spec
from safetensors.torch import save_file
from torch import Tensor

from robolearn import export
from robolearn.algos.off_policy import OffPolicy
from robolearn.algos.sac import SAC, SACCfg
from robolearn.algos.td3 import TD3, TD3Cfg
from robolearn.bundle import Bundle, load, save
from robolearn.errors import ConfigError
from robolearn.loops.threads import one_thread
from robolearn.nets.vision import PictureEncoder, ResNet, SpatialEmbeddings
from robolearn.robots.franka import FRANKA
from robolearn.spec import Field, ObservationSpec, PolicySpec, TermSpec

KINDS = {"td3": (TD3, TD3Cfg), "sac": (SAC, SACCfg)}
POOLINGS = pytest.mark.parametrize("pooling", ["keypoints", "embeddings"])
SMALL = {"hidden": (16,), "batch": 32, "capacity": 300, "warmup_steps": 10**6, "image_widths": (8, 16),
         "image_features": 8, "image_crop": (20, 20)}  # fmt: skip


def two_cameras() -> PolicySpec:
    """A vector of three numbers, and two pictures of 24 x 24."""
    pictures = [TermSpec(Field(n, (24, 24, 3), kind="image", dtype="uint8"), "command") for n in ("front", "wrist")]
    spec = step_spec()
    return replace(spec, observation=ObservationSpec({"policy": (*spec.observation.groups["policy"], *pictures)}))


def make(algo: str = "td3", spec: PolicySpec | None = None, **given: Any) -> OffPolicy:
    kind, cfg = KINDS[algo]
    generator = torch.Generator().manual_seed(0)
    return kind(cfg(**(SMALL | given)), spec or two_cameras(), 1, torch.device("cpu"), generator)


def scene(left: bool, generator: torch.Generator) -> dict[str, Tensor]:
    """A bright square in the left or the right half of the wrist's picture; the other camera sees noise."""
    front, wrist = (torch.randint(60, (1, 24, 24, 3), generator=generator, dtype=torch.uint8) for _ in range(2))
    column = int(torch.randint(3, 5, (), generator=generator)) + (0 if left else 12)
    wrist[:, 9:14, column : column + 5] = 255
    return {"policy": torch.zeros(1, 3), "policy/front": front, "policy/wrist": wrist}


def lived(algo: OffPolicy, steps: int = 60) -> OffPolicy:
    """Episodes of one step: 1 where the square is left."""
    generator = torch.Generator().manual_seed(1)
    over, no = torch.tensor([True]), torch.tensor([False])
    for _ in range(steps):
        left = bool(torch.rand((), generator=generator) < 0.5)
        obs = scene(left, generator)
        algo.begin(0, obs)
        action = 2.0 * torch.rand(1, 2, generator=generator) - 1.0
        algo.receive(0, action, torch.tensor([float(left)]), over, no, obs, no)
    return algo


def learned(algo: OffPolicy, updates: int) -> OffPolicy:
    with one_thread():
        for _ in range(updates):
            algo.learn()
    return algo


def same_numbers(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- maps ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("size", [(20, 20), (21, 37), (64, 84), (97, 128)])
def test_the_size_of_a_map_is_known_beforehand(stages: int, size: tuple[int, int]) -> None:
    net = ResNet((4,) * stages, 1)
    assert net.map_size(*size) == net(torch.zeros(1, 3, *size)).shape[2:]


def test_embeddings_are_sums_under_masks() -> None:
    """Two channels, two masks each: 1 * 1 + 4 * 1 = 5 and 2 * -1 = -2; then 5 * 0.5 = 2.5 and 7 * 2 = 14."""
    made = SpatialEmbeddings(2, (2, 2), 2)
    masks = [
        [[[1.0, 0.0], [0.0, 1.0]], [[0.5, 0.0], [0.0, 0.0]]],
        [[[0.0, -1.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 0.0]]],
    ]
    with torch.no_grad():
        made.masks.copy_(torch.tensor(masks))
    seen = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]])
    assert made(seen).tolist() == [[5.0, 2.5, -2.0, 14.0]]


def test_a_pooling_has_a_name() -> None:
    with pytest.raises(ConfigError, match=r"embedings.*embeddings"):
        PictureEncoder(8, None, (8,), 1, 4, pooling="embedings", picture=(24, 24))
    with pytest.raises(ValueError, match=r"algo\.image_pooling.*embeddings"):
        TD3Cfg(image_pooling="embedings")


# --- learning ------------------------------------------------------------------------------------------------


@POOLINGS
@pytest.mark.parametrize("algo", ["td3", "sac"])
def test_values_are_learned_from_one_of_two_cameras(algo: str, pooling: str) -> None:
    learner = learned(lived(make(algo, image_pooling=pooling, critic_rate=3e-3)), 60)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        worth = [[float(learner.value(scene(left, generator), torch.zeros(1, 2))) for _ in range(10)]
                 for left in (True, False)]  # fmt: skip
    assert min(worth[0]) > 0.7 and max(worth[1]) < 0.3


@POOLINGS
def test_frozen_encoders_stay_and_what_follows_them_learns(tmp_path: Path, pooling: str) -> None:
    weights = ResNet((8, 16), 1).state_dict()
    save_file(weights, tmp_path / "resnet.safetensors")
    given = {"image_weights": str(tmp_path / "resnet.safetensors"), "image_pooling": pooling}

    def encoders(algo: OffPolicy) -> list[PictureEncoder]:
        return [e for e in algo.policy.encoders.values() if isinstance(e, PictureEncoder)]

    for encoder, stays in (("frozen", True), ("trained", False)):
        learner = lived(make(encoder=encoder, **given))
        heads = [[p.detach().clone() for p in e.head.parameters()] for e in encoders(learner)]
        assert len(heads) == 2 and all(
            torch.equal(v, weights[k]) for e in encoders(learner) for k, v in e.backbone.state_dict().items()
        )
        learned(learner, 2)
        same = [torch.equal(v, weights[k]) for e in encoders(learner) for k, v in e.backbone.state_dict().items()]
        assert all(same) if stays else not all(same)
        for before, encoder_now in zip(heads, encoders(learner), strict=True):
            assert not same_numbers(before, list(encoder_now.head.parameters()))


def test_what_cannot_be_frozen_or_loaded_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"algo\.encoder=frozen needs algo\.image_weights"):
        TD3Cfg(encoder="frozen")
    with pytest.raises(ValueError, match=r"algo\.encoder: .*frozen"):
        TD3Cfg(encoder="froze")
    save_file(ResNet((8, 16), 1).state_dict(), tmp_path / "resnet.safetensors")
    path = str(tmp_path / "resnet.safetensors")
    with pytest.raises(ConfigError, match=r"the task shows none: choose task\.cameras"):
        make(spec=step_spec(), image_weights=path)
    with pytest.raises(ConfigError, match="does not fit the ResNet"):
        make(image_widths=(8, 32), image_weights=path)


# --- bundles -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gripper", ["continuous", "discrete"])
def test_embeddings_survive_bundle_and_export(tmp_path: Path, gripper: str) -> None:
    pytest.importorskip("onnxruntime")
    spec = two_cameras()
    if gripper == "discrete":
        hand = {"gripper": {"joints": list(FRANKA.gripper_joints), "closed": [0.0] * 2, "open": [0.04] * 2}}
        names = (*spec.action.names, "gripper")
        spec = replace(spec, action=replace(spec.action, names=names, params=hand))
    policy = make(spec=spec, image_pooling="embeddings", gripper=gripper).policy.eval()
    generator = torch.Generator().manual_seed(3)
    seen = [scene(k < 5, generator) for k in range(10)]
    obs = {k: torch.cat([s[k] for s in seen]) for k in seen[0]}
    save(tmp_path / "bundle", Bundle(policy, FRANKA))
    assert torch.equal(load(tmp_path / "bundle").policy.act(obs), policy.act(obs))
    assert export.export(policy, tmp_path / "policy.onnx", "onnx") <= export.TOLERANCE
