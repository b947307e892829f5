"""Samplers recover a Gaussian data set, whose optimal denoiser is known in closed form; no network is involved."""

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from robolearn.errors import ConfigError
from robolearn.policies.noise import NoiseProcess, alphas_cumprod
from robolearn.policies.samplers import SAMPLERS, Streaming, ladder, sampler

HORIZON, EXECUTE, CORRELATION = 8, 2, 0.8
TIME = torch.arange(HORIZON, dtype=torch.float64)
COVARIANCE = 0.25 * CORRELATION ** (TIME[:, None] - TIME).abs()  # of a stationary first-order process
MEAN = torch.tensor([0.4, -0.3], dtype=torch.float64)  # of each action's two numbers, which are independent
LOW = torch.linalg.cholesky(COVARIANCE)
N = 10_000


def process(levels: int = 100, clip: float = 0.0) -> NoiseProcess:
    return NoiseProcess(alphas_cumprod(levels), clip)


def optimal(signal: torch.Tensor, noise: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """E[clean | x] of the data set, x = signal * clean + noise * standard normal; signal, noise (H,), x (B, H, 2)."""
    spread = signal[:, None] * COVARIANCE * signal + torch.diag(noise**2)
    gain = torch.linalg.solve(spread, signal[:, None] * COVARIANCE).T
    return MEAN + torch.einsum("ij,bjk->bik", gain, x.double() - signal[:, None] * MEAN)


def epsilon_of(p: NoiseProcess):
    """The optimal estimate of the noise at any levels, those of a streaming buffer too."""

    def denoise(x, level):
        index = (level[0] * p.levels).round().long() - 1
        alpha = p.alphas.double()[index + 1].expand(HORIZON)
        signal, noise = alpha.sqrt(), (1.0 - alpha).clamp_min(1e-12).sqrt()
        return ((x - signal[:, None] * optimal(signal, noise, x)) / noise[:, None]).float()

    return denoise


def velocity(x, level):
    share = level[0].double().expand(HORIZON)
    clean = optimal(1.0 - share, share, x)
    return ((x.double() - clean) / share[:, None].clamp_min(1e-12)).float()


def chunks(made, denoise, count: int, seed: int = 0) -> list[torch.Tensor]:
    """`count` chunks after one another, each (N, H, 2)."""
    generator = torch.Generator().manual_seed(seed)
    buffer, out = made.start(denoise, torch.zeros(N, HORIZON, 2), generator), []
    for _ in range(count):
        chunk, buffer = made.advance(denoise, buffer, generator)
        out.append(chunk)
    return out


def differences(actions: torch.Tensor) -> tuple[float, float]:
    """Of mean and covariance over time from the data set's; actions (N, n, 2)."""
    n = actions.shape[1]
    flat = actions.double()
    mean_error = (flat.mean(0) - MEAN).abs().max()
    centred = flat - flat.mean(0)
    covariance = torch.einsum("bik,bjl->kilj", centred, centred) / len(flat)
    across = covariance[0][:, 1].abs().max()
    same = max(((covariance[k, :, k] - COVARIANCE[:n, :n]).abs().max()) for k in range(2))
    return float(mean_error), float(max(across, same))


@pytest.mark.parametrize(
    ("config", "levels", "tolerance"),
    [
        ({"name": "ddpm"}, 100, (0.02, 0.03)),
        ({"name": "ddpm"}, 400, (0.02, 0.015)),  # what is left is the size of the steps
        ({"name": "ddim", "steps": 100}, 100, (0.02, 0.02)),
        ({"name": "ddim", "steps": 16}, 100, (0.06, 0.055)),  # its first level is not all noise, as everywhere
        ({"name": "ddim", "steps": 50, "eta": 1.0}, 100, (0.02, 0.045)),
        ({"name": "flow", "steps": 100}, 100, (0.02, 0.02)),
        ({"name": "flow", "steps": 10}, 100, (0.02, 0.08)),
    ],
    ids=str,
)
def test_mean_and_covariance_are_recovered(config, levels, tolerance):
    p = process(levels)
    made = sampler(config, p, HORIZON, EXECUTE)
    denoise = velocity if config["name"] == "flow" else epsilon_of(p)
    mean_error, covariance_error = differences(chunks(made, denoise, 1)[0])
    assert mean_error < tolerance[0]
    assert covariance_error < tolerance[1]


@pytest.mark.parametrize(
    ("steps", "eta", "tolerance"), [(100, 1.0, (0.02, 0.03)), (100, 0.0, (0.02, 0.02)), (16, 0.0, (0.06, 0.055))]
)
def test_streaming_recovers_mean_and_covariance_of_the_first_and_of_later_chunks(steps, eta, tolerance):
    p = process()
    out = chunks(Streaming(p, HORIZON, EXECUTE, steps=steps, eta=eta), epsilon_of(p), 6)
    for chunk in (out[0], out[5]):
        mean_error, covariance_error = differences(chunk[:, :EXECUTE])
        assert mean_error < tolerance[0]
        assert covariance_error < tolerance[1]
    # The buffer carries on what earlier chunks decided: across a border independent chunks would be 0.2 away. Not
    # exact: what has left the buffer is not seen any more.
    assert differences(torch.cat([c[:, :EXECUTE] for c in out[4:]], dim=1))[1] < 0.09


def test_streaming_from_zeros_begins_too_narrow_and_recovers():
    """The paper's start conditions the first chunk on actions that nobody chose; a whole buffer later it is gone."""
    p = process()
    out = chunks(Streaming(p, HORIZON, EXECUTE, 100, 1.0, start="zeros"), epsilon_of(p), 5)
    assert differences(out[0][:, :EXECUTE])[1] > 0.1
    assert differences(out[4][:, :EXECUTE])[1] < 0.02


# --- by hand -----------------------------------------------------------------------------------------------------


def test_the_noise_ladder_of_streaming():
    made = Streaming(process(), 16, 8, steps=100)
    assert made.waiting() == [49, 99] and made.calls == 50
    assert made._levels(0, torch.zeros(2, 16, 1)).tolist() == [[49] * 8 + [99] * 8] * 2
    assert made._levels(49, torch.zeros(1, 16, 1)).tolist() == [[0] * 8 + [50] * 8]
    assert made._levels(50, torch.zeros(1, 16, 1)).tolist() == [[-1] * 8 + [49] * 8]  # clean; the next one's place
    few = Streaming(process(), 16, 4, steps=16)
    assert few.calls == 4 and few.waiting() == [3, 7, 11, 15]
    assert few._levels(0, torch.zeros(1, 16, 1))[0, ::4].tolist() == [18, 43, 68, 93]
    assert few._levels(3, torch.zeros(1, 16, 1))[0, ::4].tolist() == [0, 25, 50, 75]


def test_the_ladder_of_training():
    made = Streaming(process(), 16, 8, steps=100, one_level=0.0)
    levels = made.training_levels(4000, torch.device("cpu"), torch.Generator().manual_seed(0))
    assert (levels[:, :8] == levels[:, :1]).all() and (levels[:, 8:] == levels[:, 8:9]).all()
    assert (levels[:, 8] - levels[:, 0] == 50).all()  # N / h apart
    assert sorted(set(levels[:, 0].tolist())) == list(range(50))
    mixed = Streaming(process(), 16, 8, steps=100).training_levels(
        4000, torch.device("cpu"), torch.Generator().manual_seed(0)
    )
    same = (mixed == mixed[:, :1]).all(1)
    assert 0.17 < same.float().mean() < 0.23
    assert sorted(set(mixed[same, 0].tolist())) == list(range(100))


def test_a_buffer_moves_up_and_noise_follows():
    p = process()
    made, denoise = Streaming(p, HORIZON, EXECUTE, 100), epsilon_of(p)
    buffer = torch.randn(3, HORIZON, 2, generator=torch.Generator().manual_seed(1))
    chunk, after = made.advance(denoise, buffer, torch.Generator().manual_seed(2))
    assert torch.equal(after[:, :-EXECUTE], chunk[:, EXECUTE:])
    fresh = torch.randn(3, EXECUTE, 2, generator=torch.Generator().manual_seed(2))
    assert torch.equal(after[:, -EXECUTE:], fresh)


@pytest.mark.parametrize("clip", [0.0, 1.0])
@pytest.mark.parametrize("level", [99, 60, 1, 0])
def test_a_step_is_that_of_diffusers(level, clip):
    generator = torch.Generator().manual_seed(level)
    x, eps = (torch.randn(4, HORIZON, 2, generator=generator) for _ in range(2))
    p, at = process(clip=clip), torch.full((4, 1), level)
    common = {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2", "clip_sample": clip > 0}
    ddpm = DDPMScheduler(variance_type="fixed_small", **common)
    mean = ddpm.step(eps, level, x, generator=torch.Generator().manual_seed(5)).prev_sample
    same = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(p.step(x, eps, at, at - 1, 1.0, same), mean, rtol=1e-4, atol=1e-4)
    ddim = DDIMScheduler(set_alpha_to_one=True, **common)
    ddim.set_timesteps(100)
    theirs = ddim.step(eps, level, x, eta=0.0, use_clipped_model_output=True).prev_sample
    torch.testing.assert_close(p.step(x, eps, at, at - 1, 0.0, None), theirs, rtol=1e-4, atol=1e-4)


def test_positions_without_a_step_stay():
    p, x = process(), torch.randn(2, HORIZON, 2)
    at = torch.tensor([[-1] * 4 + [50] * 4] * 2)
    out = p.step(x, torch.randn_like(x), at, torch.tensor([[-1] * 4 + [49] * 4] * 2), 1.0, torch.randn_like(x))
    assert torch.equal(out[:, :4], x[:, :4]) and not torch.isclose(out[:, 4:], x[:, 4:]).all(dim=2).any()


def test_corruption_has_the_levels_that_it_tells():
    p, generator = process(), torch.Generator().manual_seed(0)
    clean = torch.randn(50, HORIZON, 2, generator=generator)
    for name in ("ddim", "streaming"):
        noisy, level, target = sampler({"name": name}, p, HORIZON, EXECUTE).corrupt(clean, generator)
        alpha = p.alphas[(level * 100).round().long()][..., None]
        torch.testing.assert_close(noisy, alpha.sqrt() * clean + (1 - alpha).sqrt() * target)
    noisy, level, target = sampler({"name": "flow"}, p, HORIZON, EXECUTE).corrupt(clean, generator)
    torch.testing.assert_close(noisy - level[..., None] * target, clean, rtol=1e-4, atol=1e-5)


def test_ladders():
    assert ladder(100, 4) == [0, 25, 50, 75] and ladder(5, 5) == [0, 1, 2, 3, 4]
    with pytest.raises(ConfigError, match="1 to 100 steps, not 101"):
        ladder(100, 101)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "ddimm"}, "did you mean ddim"),
        ({"name": "ddpm", "steps": 5}, "ddpm has no setting steps; there is temperature"),
        ({"name": "ddim", "eta": float("nan")}, r"eta must be in \[0, 1\], got nan"),
        ({"name": "streaming", "steps": 10}, r"multiple of the executed actions \(2\), and steps \(10\)"),
        ({"name": "streaming", "start": "zero"}, "did you mean zeros"),
        ({"name": "flow", "steps": 0}, "at least 1 step"),
    ],
    ids=str,
)
def test_bad_settings_get_one_clear_error(config, message):
    with pytest.raises(ConfigError, match=message):
        sampler(config, process(), HORIZON, EXECUTE)
    assert set(SAMPLERS) == {"ddpm", "ddim", "streaming", "flow"}


def test_schedules():
    assert len(alphas_cumprod(100)) == 100
    with pytest.raises(ValueError, match="no noise schedule 'cosine'"):
        alphas_cumprod(100, "cosine")
    with pytest.raises(ValueError, match="must fall"):
        NoiseProcess([0.5, 0.6])


@pytest.mark.parametrize("name", ["ddpm", "ddim", "streaming", "flow"])
def test_half_the_temperature_draws_half_the_spread_about_the_same_mean(name):
    """The optimal estimate of a Gaussian is linear, so all that is drawn is a linear map of the noise."""
    p = process()
    denoise = velocity if name == "flow" else epsilon_of(p)
    steps = {} if name == "ddpm" else {"steps": 100}
    warm, cool = (
        chunks(sampler({"name": name, "temperature": t, **steps}, p, HORIZON, EXECUTE), denoise, 1)[0][:, :EXECUTE]
        for t in (1.0, 0.5)
    )
    torch.testing.assert_close(cool.std(0), 0.5 * warm.std(0), rtol=0.02, atol=0.0)
    torch.testing.assert_close(cool.mean(0), warm.mean(0), rtol=0.0, atol=0.02)


def test_without_temperature_equal_observations_give_equal_chunks():
    p = process()
    chunk = chunks(sampler({"name": "ddim", "steps": 16, "temperature": 0.0}, p, HORIZON, EXECUTE), epsilon_of(p), 1)[0]
    assert torch.equal(chunk[0], chunk[1])
    with pytest.raises(ConfigError, match="temperature must be in"):
        sampler({"name": "ddim", "temperature": 1.5}, p, HORIZON, EXECUTE)
