"""The networks of chunked policies: what they see, and what they do not."""

import pytest
import torch
from safetensors.torch import save_file

from robolearn.errors import ConfigError
from robolearn.nets.denoiser import denoiser
from robolearn.nets.encoder import ObservationEncoder
from robolearn.nets.vision import PictureEncoder, ResNet, SpatialSoftmax, crop
from robolearn.spec import Field, ObservationSpec, TermSpec

NETS = [
    {"name": "unet", "channels": [16, 32, 64], "level_dim": 16},
    {"name": "transformer", "width": 32, "layers": 2, "heads": 2},
]


@pytest.mark.parametrize("config", NETS, ids=lambda c: c["name"])
def test_one_level_for_all_is_the_same_level_everywhere(config):
    net = denoiser(config, 3, 16, 2, 5)
    x, features = torch.randn(4, 16, 3), torch.randn(4, 2, 5)
    level = torch.rand(4, 1)
    torch.testing.assert_close(net(x, level, features), net(x, level.expand(4, 16), features), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", NETS, ids=lambda c: c["name"])
def test_every_input_counts_and_rows_do_not_meet(config):
    net = denoiser(config, 3, 16, 2, 5).double()
    x, level, features = torch.randn(2, 16, 3), torch.rand(2, 16), torch.randn(2, 2, 5)
    x, level, features = (t.double().requires_grad_() for t in (x, level, features))
    out = net(x, level, features)
    assert out.shape == (2, 16, 3)
    for grad in torch.autograd.grad(out[0].square().sum(), (x, level, features)):
        assert (grad[0] != 0).all()
        assert (grad[1] == 0).all()


def test_a_causal_transformer_does_not_look_ahead():
    net = denoiser(NETS[1] | {"causal": True}, 3, 8, 2, 5).double()
    x = torch.randn(1, 8, 3).double().requires_grad_()
    out = net(x, torch.rand(1, 8).double(), torch.randn(1, 2, 5).double())
    (grad,) = torch.autograd.grad(out[0, 3].sum(), x)
    assert (grad[0, :4] != 0).all() and (grad[0, 4:] == 0).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "unett"}, "did you mean unet"),
        ({"name": "unet", "chanels": [8]}, "network unet: .*chanels"),
        ({"name": "unet", "channels": [8] * 6}, "multiple of 32, not 16"),
        ({"name": "unet", "channels": [12]}, "multiples of groups"),
        ({"name": "transformer", "width": 30}, "multiple of network.heads"),
    ],
    ids=str,
)
def test_bad_networks_get_one_clear_error(config, message):
    with pytest.raises(ValueError, match=message):
        denoiser(config, 3, 16, 2, 5)


# --- pictures ----------------------------------------------------------------------------------------------------


def test_spatial_softmax_finds_a_bright_spot():
    made = SpatialSoftmax(1, 1)
    torch.nn.init.constant_(made.points.weight, 50.0)
    x = torch.zeros(2, 1, 5, 9)
    x[0, 0, 4, 0], x[1, 0, 1, 6] = 1.0, 1.0
    torch.testing.assert_close(made(x), torch.tensor([[-1.0, 1.0], [0.5, -0.5]]))


def test_crops():
    rows, columns = torch.meshgrid(torch.arange(10), torch.arange(20), indexing="ij")
    x = (100 * rows + columns).expand(64, 3, 10, 20) + 10_000 * torch.arange(64)[:, None, None, None]
    middle = crop(x, (4, 6))
    assert torch.equal(middle, x[..., 3:7, 7:13])
    random = crop(x, (4, 6), torch.Generator().manual_seed(0))
    corner = random[:, 0, 0, 0] - 10_000 * torch.arange(64)
    assert torch.equal(random - random[..., :1, :1], middle - middle[..., :1, :1])  # whole, and of its own row
    assert len(corner.unique()) > 30
    assert corner.min() >= 0 and (corner % 100).max() <= 14 and (corner // 100).max() <= 6
    with pytest.raises(ValueError, match="10x20 cannot be cropped to 11x20"):
        crop(x, (11, 20))


def spec() -> ObservationSpec:
    state = TermSpec(Field("state", (4,)), "last_action")
    camera = TermSpec(Field("wrist", (24, 24, 3), kind="image", dtype="uint8"), "command")
    return ObservationSpec({"policy": (state, camera), "critic": (TermSpec(Field("all", (9,)), "last_action"),)})


SMALL = {"crop": [20, 20], "widths": [16, 32], "blocks": 1, "features": 8, "points": 4}


def test_an_encoder_reads_state_and_pictures_of_every_step():
    made = ObservationEncoder(spec(), SMALL).eval()
    obs = {"policy": torch.randn(3, 2, 4), "policy/wrist": torch.randint(256, (3, 2, 24, 24, 3), dtype=torch.uint8)}
    out = made(obs)
    assert out.shape == (3, 2, 12) == (3, 2, made.dim)
    changed = {k: v.clone() for k, v in obs.items()}
    changed["policy/wrist"][1, 1] = 255 - changed["policy/wrist"][1, 1]
    moved = (made(changed) != out).any(-1)
    assert moved.tolist() == [[False, False], [False, True], [False, False]]


def test_random_crops_are_for_training():
    made = ObservationEncoder(spec(), SMALL)
    obs = {"policy": torch.zeros(1, 2, 4), "policy/wrist": torch.randint(256, (1, 2, 24, 24, 3), dtype=torch.uint8)}

    def twice() -> bool:
        return torch.equal(*(made(obs, torch.Generator().manual_seed(s)) for s in (1, 2)))

    assert not made.train() or not twice()
    assert made.eval() and twice()


def test_the_pictures_of_a_row_are_cropped_at_the_same_place():
    made = ObservationEncoder(spec(), SMALL).train()
    picture = torch.randint(256, (8, 1, 24, 24, 3), dtype=torch.uint8)
    obs = {"policy": torch.zeros(8, 2, 4), "policy/wrist": picture.expand(-1, 2, -1, -1, -1)}
    out = made(obs, torch.Generator().manual_seed(0))
    torch.testing.assert_close(out[:, 0], out[:, 1])
    obs["policy/wrist"] = picture[:1].expand(8, 2, -1, -1, -1)
    out = made(obs, torch.Generator().manual_seed(0))
    assert len(out[:, 0].unique(dim=0)) > 4  # rows at places of their own


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(ConfigError, match=r"encoder.crop \(20, 25\) is larger than policy/wrist, which is \(24, 24\)"):
        ObservationEncoder(spec(), SMALL | {"crop": [20, 25]})


def test_a_depth_picture_is_refused():
    depth = ObservationSpec({"policy": (TermSpec(Field("depth", (8, 8), kind="depth"), "command"),)})
    with pytest.raises(ConfigError, match=r"not policy/depth \(depth\)"):
        ObservationEncoder(depth, {})
    with pytest.raises(ConfigError, match="no setting croop; there are"):
        ObservationEncoder(spec(), {"croop": None})


def test_pretrained_weights_of_a_usual_resnet_18(tmp_path):
    source, made = ResNet(), PictureEncoder(8, None, (64, 128, 256, 512), 2, 4)
    others = {"fc.weight": torch.zeros(1000, 512), "bn1.running_mean": torch.zeros(64)}
    save_file(source.state_dict() | others, tmp_path / "r18.safetensors")
    assert source.state_dict()["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1)
    made.backbone.load_weights(tmp_path / "r18.safetensors")
    assert torch.equal(made.backbone.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    with pytest.raises(ConfigError, match=r"does not fit.* bn1.bias.* more"):
        ResNet((32, 64)).load_weights(tmp_path / "r18.safetensors")
    (tmp_path / "r18.pth").write_text("pickled")
    with pytest.raises(ConfigError, match=r"no safetensors file.*convert it"):
        made.backbone.load_weights(tmp_path / "r18.pth")
