"""Ensembles against networks one by one, histograms against the values they stand for, and the fine normaliser."""

import math

import pytest
import torch
from torch import Tensor, nn

from robolearn.errors import ConfigError
from robolearn.nets.ensemble import Ensemble
from robolearn.nets.histogram import Histogram
from robolearn.nets.mlp import ACTIVATIONS, Normalizer, normalizer
from robolearn.nets.normalize import FineNormalizer

SIZES = (4, 8, 6, 2)


def moved(ensemble: Ensemble) -> Ensemble:
    """No bias at 0 and no gain at 1: every parameter matters."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in ensemble.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return ensemble


def one_by_one(ensemble: Ensemble, member: int, activation: str) -> nn.Sequential:
    """A network of torch's own layers, from a member's slices."""
    layers: list[nn.Module] = []
    for i, (weight, bias) in enumerate(zip(ensemble.weights, ensemble.biases, strict=True)):
        linear = nn.Linear(*weight.shape[1:])
        linear.load_state_dict({"weight": weight[member].T, "bias": bias[member, 0]})
        layers.append(linear)
        if i < len(ensemble.weights) - 1:
            if len(ensemble.gains):
                norm = nn.LayerNorm(weight.shape[2])
                norm.load_state_dict({"weight": ensemble.gains[i][member, 0], "bias": ensemble.shifts[i][member, 0]})
                layers.append(norm)
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "each its own"])
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_an_ensemble_is_its_members_one_by_one(activation, layer_norm, own):
    """Outputs, and gradients of weights and biases; in double precision, for they are summed in another order."""
    ensemble = moved(Ensemble(3, SIZES, activation, layer_norm)).double()
    x = torch.randn(3, 5, 4).double() if own else torch.randn(5, 4).double()
    nets = [one_by_one(ensemble, e, activation).double() for e in range(3)]
    said = ensemble(x)
    expected = torch.stack([net(x[e] if own else x) for e, net in enumerate(nets)])
    assert said.shape == (3, 5, 2)
    torch.testing.assert_close(said, expected)
    (said**2).sum().backward()
    (expected**2).sum().backward()
    for e, net in enumerate(nets):
        linears = [layer for layer in net if isinstance(layer, nn.Linear)]
        for weight, bias, linear in zip(ensemble.weights, ensemble.biases, linears, strict=True):
            torch.testing.assert_close(weight.grad[e].T, linear.weight.grad)
            torch.testing.assert_close(bias.grad[e, 0], linear.bias.grad)
        norms = [layer for layer in net if isinstance(layer, nn.LayerNorm)]
        for gain, shift, norm in zip(ensemble.gains, ensemble.shifts, norms, strict=True):
            torch.testing.assert_close(gain.grad[e, 0], norm.weight.grad)
            torch.testing.assert_close(shift.grad[e, 0], norm.bias.grad)


def test_layer_norm_is_there_only_if_asked():
    assert [len(Ensemble(2, SIZES, "relu", asked).gains) for asked in (True, False)] == [2, 0]


def test_members_begin_differently():
    """And each orthogonally, with gain sqrt 2."""
    ensemble = Ensemble(4, (6, 6), "relu")
    weight = ensemble.weights[0].detach()
    assert all(not torch.allclose(weight[a], weight[b], atol=0.1) for a in range(4) for b in range(a))
    for member in weight:
        torch.testing.assert_close(member @ member.T, 2.0 * torch.eye(6), atol=1e-5, rtol=0)


def test_an_unknown_activation_names_the_nearest():
    with pytest.raises(ConfigError, match="no activation 'rleu'; did you mean relu"):
        Ensemble(2, SIZES, "rleu")


# --- histograms ----------------------------------------------------------------------------------------------


def test_the_mean_of_a_target_is_its_value():
    """Bins of 0.1: to a hundredth of one, at the ends too, for there are bins beyond them."""
    histogram = Histogram(-1.0, 4.0, 50)
    inside = torch.linspace(-1.0, 4.0, 500)
    back = histogram.value(histogram.target(inside).clamp_min(1e-30).log())
    assert float((back - inside).abs().max()) < 0.001


def test_a_value_by_hand():
    """Two bins, of middles 1 and 3, and three beyond each end."""
    histogram = Histogram(0.0, 4.0, 8)
    assert histogram.value(torch.zeros(8)).item() == pytest.approx(2.0)
    logits = torch.full((8,), -1e9)
    logits[3:5] = torch.tensor([0.0, 3.0])
    assert histogram.value(logits.log_softmax(-1)).item() == pytest.approx(1 + 2 / (1 + 2.718282**-3))
    with pytest.raises(ConfigError, match="at least 8 bins, got 7"):
        Histogram(0.0, 1.0, 7)


@pytest.mark.parametrize("value", [-1.0, -0.97, 0.0, 3.99, 4.0])
def test_a_target_sums_to_one_also_at_the_ends(value):
    target = Histogram(-1.0, 4.0, 50).target(torch.tensor(value))
    assert target.shape == (50,) and float(target.min()) >= 0.0
    assert float(target.sum()) == pytest.approx(1.0, abs=1e-5)


def test_the_loss_is_least_where_the_logits_are_right():
    """There it is the target's entropy, and its gradient vanishes."""
    histogram, value = Histogram(0.0, 1.0, 10), torch.tensor([0.33, 0.9])
    target = histogram.target(value)
    right = target.clamp_min(1e-12).log().requires_grad_()
    least = histogram.loss(right, value)
    torch.testing.assert_close(least, torch.special.entr(target).sum(-1))
    (grad,) = torch.autograd.grad(least.sum(), right)
    assert float(grad.abs().max()) < 1e-6
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = right.detach() + 0.5 * torch.randn(2, 10, generator=generator)
        assert bool((histogram.loss(other, value) > least).all())


def test_one_target_serves_an_ensemble():
    histogram, value = Histogram(0.0, 1.0, 10), torch.rand(6)
    logits = torch.randn(3, 6, 10)
    expected = torch.stack([histogram.loss(member, value) for member in logits])
    assert histogram.loss(logits, value).shape == (3, 6)
    torch.testing.assert_close(histogram.loss(logits, value), expected)


# --- the fine normaliser -------------------------------------------------------------------------------------


def crowded(n: int = 4000, seed: int = 0) -> Tensor:
    """Nineteen of twenty within millimetres of 0.5, the rest anywhere within a metre of it."""
    generator = torch.Generator().manual_seed(seed)
    near = 0.002 * torch.randn(n, 1, generator=generator)
    far = 2.0 * torch.rand(n, 1, generator=generator) - 1.0
    return 0.5 + torch.where(torch.rand(n, 1, generator=generator) < 0.95, near, far)


def test_a_millimetre_in_the_middle_is_seen():
    """A deviation hides it: with one of 0.13 m, a millimetre is 0.008."""
    fine, plain = FineNormalizer(1), Normalizer(1)
    for net in (fine, plain):
        net.update(crowded())
    pair = torch.tensor([[0.5], [0.501]])
    gap, hidden = (float((net(pair)[1] - net(pair)[0]).detach()) for net in (fine, plain))
    assert 0.0 < hidden < 0.01 and gap > 20 * hidden
    out = fine(crowded(seed=1))
    assert float(out.std()) == pytest.approx(1.0, abs=0.1) and float(out.mean()) == pytest.approx(0.0, abs=0.1)


def test_order_is_kept_far_away_and_outliers_are_bounded():
    fine = FineNormalizer(1)
    fine.update(crowded())
    out = fine(torch.tensor([[-1e6], [-0.5], [0.4], [0.5], [0.6], [1.4], [1e6]])).flatten()
    assert bool((out.diff() > 0).all()) and float(out.abs().max()) == 5.0


def test_the_first_updates_are_averaged_and_later_ones_change_nothing():
    """Constant batches of 1, 2, ..., 20: the centre is their mean, 10.5."""
    fine = FineNormalizer(1)
    for k in range(1, FineNormalizer.BATCHES + 1):
        fine.update(torch.full((10, 1), float(k)))
    assert fine.centre.item() == pytest.approx(10.5, abs=1e-4)
    before = {k: v.clone() for k, v in fine.state_dict().items()}
    fine.update(100.0 + torch.randn(10, 1))
    assert all(torch.equal(v, before[k]) for k, v in fine.state_dict().items())
    assert fine.count.item() == FineNormalizer.BATCHES


def test_what_was_constant_is_shifted_and_not_made_sensitive():
    """A drawer that nobody opened before the first update may be opened later."""
    fine = FineNormalizer(1)
    fine.update(torch.full((100, 1), 0.3))
    assert fine(torch.tensor([[0.3], [0.31]])).flatten().tolist() == pytest.approx([0.0, math.asinh(0.01)], abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1000.0])
def test_a_constant_element_does_not_blow_up(value):
    """Nor is its neighbour touched; a float's last bit is no signal."""
    data = torch.cat((torch.full((4000, 1), value), crowded()), dim=1)
    fine, alone = FineNormalizer(2), FineNormalizer(1)
    for _ in range(3):
        fine.update(data)
        alone.update(data[:, 1:])
    out = fine(data)
    assert bool(out.isfinite().all()) and float(out[:, 0].abs().max()) < 0.01
    torch.testing.assert_close(out[:, 1:], alone(data[:, 1:]))
    bit = torch.nextafter(data[:1], data[:1] + 1.0)
    assert float((fine(bit) - out[:1])[0, 0].abs()) < 0.1


def test_an_element_that_hardly_ever_moves_is_seen_when_it_does():
    """Nine of ten values are the same: the percentiles are, too."""
    data = torch.zeros(1000, 1)
    data[::10] = torch.linspace(-1.0, 1.0, 100)[:, None]
    fine = FineNormalizer(1)
    fine.update(data)
    out = fine(torch.tensor([[-1.0], [0.0], [1.0]])).flatten()
    assert bool(out.isfinite().all()) and bool((out.diff() > 1.0).all())


def test_normalizers_are_found_by_name():
    assert isinstance(normalizer("fine", 2), FineNormalizer) and isinstance(normalizer("running", 2), Normalizer)
    with pytest.raises(ConfigError, match=r"algo\.normalizer: no normaliser 'fin'; did you mean fine"):
        normalizer("fin", 2)
