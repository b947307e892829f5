"""Learning from windows: both modes of two-mode data, exact resumption with the same order of the data, bad input."""

import os
import signal
import threading
import time
from dataclasses import replace

import pytest
import torch
from chunk_samples import SMALL_CAMERA, InMemory, step_spec
from safetensors.torch import save_file

from robolearn import bundle, registry
from robolearn.algos import bc, diffusion
from robolearn.algos.bc import BCCfg
from robolearn.algos.diffusion import DiffusionCfg
from robolearn.algos.imitation import ema_decay, learning_rate, require_compiler
from robolearn.bundle import Bundle
from robolearn.config import ConfigError
from robolearn.loops import checkpoint
from robolearn.loops.log import read_metrics
from robolearn.loops.offline import OfflineTrainer, Order
from robolearn.loops.online import LearningDiverged
from robolearn.robots.franka import FRANKA

CPU = torch.device("cpu")
SHAPE = {"horizon": 8, "execute": 4}
TINY = {
    "channels": (16, 32),
    "level_dim": 16,
    "noise_levels": 50,
    "learning_rate": 2e-3,
    "warmup": 20,
    "ema_power": 0.7,
}
CAMERA = {"image_crop": (20, 20), "image_widths": (16, 32), "image_blocks": 1, "image_features": 8}


def two_modes(n: int = 512) -> InMemory:
    """Around an obstacle on the left or on the right, half of the demonstrations each; the state is no hint."""
    generator = torch.Generator().manual_seed(0)
    side = torch.randint(2, (n, 1, 1), generator=generator) * 2.0 - 1.0
    path = 0.6 * torch.sin(torch.linspace(0.4, 2.7, 8))[None, :, None]
    noise = 0.03 * torch.randn(n, 8, 1, generator=generator)
    state = torch.randn(n, 2, 3, generator=generator)
    return InMemory(observation__policy=state, action=torch.cat((side * path + noise, noise), dim=-1))


def learner(cfg, source, updates: int, camera: bool = False, seed: int = 0):
    torch.manual_seed(99 + seed)  # nothing may depend on it
    generator = torch.Generator().manual_seed(seed)
    spec = step_spec(camera=camera)
    return registry.build(cfg, spec=spec, source=source, total_updates=updates, device=CPU, generator=generator)


def train(folder, cfg, source, updates: int, stop: int = 0, **given):
    """To the end, or to `stop` updates, as if killed after the checkpoint there; goes on where a checkpoint is."""
    folder.mkdir(exist_ok=True)
    trainer = OfflineTrainer(learner(cfg, source, updates), source, 64, given.pop("seed", 0), folder, 1e9, **given)
    if (folder / "checkpoints").exists():
        trainer.load_state_dict(checkpoint.read_newest(folder / "checkpoints"))
    if stop:
        trainer.algo.total_updates, final = stop, updates
        update = trainer.algo.update

        def at_its_rate(windows):
            trainer.algo.total_updates = final
            figures = update(windows)
            trainer.algo.total_updates = stop
            return figures

        trainer.algo.update = at_its_rate
    trainer.run()
    return trainer


def sides(policy) -> tuple[float, float]:
    """Shares of 400 drawn actions, in the middle of the path, that go left and right clearly."""
    policy.generator = torch.Generator().manual_seed(5)
    policy.reset(torch.ones(400, dtype=torch.bool))
    obs = {"policy": torch.randn(400, 3, generator=torch.Generator().manual_seed(6))}
    action = torch.stack([policy.act(obs) for _ in range(4)])[3, :, 0]
    return float((action < -0.45).float().mean()), float((action > 0.45).float().mean())


@pytest.mark.parametrize("sampler", ["streaming", "flow"])
def test_a_tiny_network_draws_both_modes(tmp_path, sampler):
    """And nothing between; the network that was trained for streaming does so by DDIM and DDPM too."""
    net = {"network": "transformer", "width": 32, "layers": 2, "heads": 2}
    cfg = DiffusionCfg(**SHAPE, **TINY, **net, sampler=sampler, steps=10)
    policy = train(tmp_path, cfg, two_modes(), 600).algo.policy
    others = [{"name": "ddim", "steps": 10}, {"name": "ddpm"}] if sampler == "streaming" else []
    for config in [{}, *others]:
        if config:
            policy.use_sampler(**config)
        left, right = sides(policy)
        assert 0.25 < left < 0.75 and 0.25 < right < 0.75, (config, left, right)
        assert left + right > 0.9, (config, left, right)


def test_a_gaussian_goes_between_the_modes_and_knows_it(tmp_path):
    trainer = train(
        tmp_path, BCCfg(**SHAPE, learning_rate=1e-2, warmup=10, hidden=(32,), ema_power=0.7), two_modes(), 300
    )
    assert sides(trainer.algo.policy) == (0.0, 0.0)
    spread = trainer.algo.policy.log_std.exp()[3] * trainer.algo.policy.action_normalizer.spread
    assert 0.5 < float(spread[0]) < 0.7 and float(spread[1]) < 0.1


def test_a_gaussian_fits_what_the_state_tells(tmp_path):
    """Both steps of the history: the action is their difference."""
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(512, 2, 3, generator=generator).clamp(-2, 2)
    action = (0.2 * (state[:, 1:, :2] - state[:, :1, :2])).expand(-1, 8, -1)
    source = InMemory(observation__policy=state, action=action)
    cfg = BCCfg(**SHAPE, learning_rate=3e-3, warmup=10, hidden=(64,), ema_power=0.7)
    policy = train(tmp_path, cfg, source, 400).algo.policy
    for row in range(2):
        policy.observe({"policy": state[:, row]})
    error = (policy.chunk(torch.arange(512)) - action).abs().mean()
    assert float(error) < 0.05 * float(action.abs().mean())


# --- the order of the data, and resumption -----------------------------------------------------------------------


def test_every_epoch_is_a_shuffle_of_all_windows():
    order = Order(10, 3, 7)
    epochs = [torch.cat([order.at(3 * e + i) for i in range(3)]) for e in range(3)]
    assert all(len(e.unique()) == 9 for e in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(Order(10, 3, 7).at(7), order.at(7))  # without what came before
    assert not torch.equal(Order(10, 3, 8).at(7), order.at(7))
    assert len(Order(2, 64, 0).at(5)) == 2


def flat(folder) -> dict:
    return checkpoint.flatten(checkpoint.read_newest(folder / "checkpoints"))[0]


@pytest.mark.parametrize("cfg", [DiffusionCfg(**SHAPE, **TINY, sampler="streaming", steps=10),
                                 BCCfg(**SHAPE, warmup=5)], ids=lambda c: c.name)  # fmt: skip
def test_resuming_equals_never_having_stopped(tmp_path, cfg):
    """Weights, their average, optimiser, noise: bit by bit, in the middle of an epoch and of a figures' interval."""
    source = two_modes(200)
    train(tmp_path / "whole", cfg, source, 40, log_every=7)
    train(tmp_path / "half", cfg, source, 40, stop=17, log_every=7)
    resumed = train(tmp_path / "half", cfg, source, 40, log_every=7)
    whole, again = flat(tmp_path / "whole"), flat(tmp_path / "half")
    assert resumed.algo.updates == 40 and whole.keys() == again.keys() and len(whole) > 10
    assert [k for k in whole if not torch.equal(whole[k], again[k])] == []
    rows = read_metrics(tmp_path / "half")
    assert [r["step"] for r in rows] == [7, 14, 17, 21, 28, 35, 40]
    last = read_metrics(tmp_path / "whole")[-1]
    assert rows[-1]["learn/loss"] == last["learn/loss"] and last["learn/learning_rate"] < 0.1 * cfg.learning_rate
    if cfg.name == "diffusion":
        assert last["learn/loss"] < 0.6 < rows[0]["learn/loss"]  # the U-Net learns: 1 is no knowledge of the noise


def test_another_order_is_refused(tmp_path):
    source, cfg = two_modes(100), BCCfg(**SHAPE)
    train(tmp_path, cfg, source, 5)
    with pytest.raises(ValueError, match=r"'seed': 0.* now .*'seed': 1"):
        train(tmp_path, cfg, source, 5, seed=1)


def test_an_interrupt_ends_after_the_update_with_a_checkpoint(tmp_path):
    def stop() -> None:
        while not (tmp_path / "metrics.jsonl").exists():
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=stop)
    waiting.start()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, BCCfg(**SHAPE), two_modes(100), 10**6)
    waiting.join()
    state = checkpoint.read_newest(tmp_path / "checkpoints")
    assert state["algo"]["updates"] == read_metrics(tmp_path)[-1]["step"] > 0


def test_data_with_nan_end_with_an_error_and_no_checkpoint(tmp_path):
    source = two_modes(100)
    statistics = source.statistics()
    source.statistics = lambda: statistics
    source.tensors["action"][17, 3, 0] = float("nan")
    with pytest.raises(LearningDiverged, match="Look for NaN in the data"):
        train(tmp_path, BCCfg(**SHAPE), source, 20)
    assert not (tmp_path / "checkpoints").exists()
    with pytest.raises(ValueError, match=r"action is not finite in elements \[0\]"):
        train(tmp_path, BCCfg(**SHAPE), InMemory(**{"observation.policy": torch.zeros(100, 2, 3)} | {
            "action": source.tensors["action"]}), 20)  # fmt: skip


# --- the parts ---------------------------------------------------------------------------------------------------


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate(u, 110, 2.0, 10) for u in range(111)]
    assert rates[0] == 2.0 / 11 and rates[10] == 2.0 and rates[60] == pytest.approx(1.0) and rates[110] == 0.0
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)


def test_the_average_forgets_less_and_less():
    assert ema_decay(0, 0.75, 0.9999) == 0.0
    assert ema_decay(15, 0.75, 0.9999) == pytest.approx(1 - 16**-0.75) == pytest.approx(0.875)
    assert ema_decay(10**9, 0.75, 0.9999) == 0.9999


def test_the_policy_is_the_average_of_the_weights():
    source = two_modes(64)
    algo = learner(BCCfg(**SHAPE, learning_rate=1e-2, warmup=0), source, 100)
    windows, expected = source.windows(torch.arange(64)), None
    for update in range(3):
        algo.update(windows)
        now, keep = algo.learner.mean[0].weight.detach().clone(), ema_decay(update, 0.75, 0.9999)
        expected = now if expected is None else keep * expected + (1 - keep) * now
    torch.testing.assert_close(algo.policy.mean[0].weight, expected)
    assert not torch.equal(algo.policy.mean[0].weight, now)


def test_the_same_seed_gives_the_same_network():
    source = two_modes(64)
    one, same, other = (
        learner(DiffusionCfg(**SHAPE, **TINY), source, 1, seed=s).policy.state_dict() for s in (0, 0, 1)
    )
    assert all(torch.equal(one[k], same[k]) for k in one) and any(not torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(("cfg", "mask"), [(BCCfg(**SHAPE, mask_padding=True), True), (BCCfg(**SHAPE), False)])
def test_padding_counts_unless_it_is_masked(cfg, mask):
    source = two_modes(64)
    algo = learner(cfg, source, 10)
    windows = source.windows(torch.arange(64)) | {"mask": torch.zeros(64, 8, dtype=torch.bool)}
    assert (float(algo.update(windows)["gradient"]) == 0.0) == mask


def test_a_compiled_training_is_the_same_training():
    try:
        require_compiler(CPU)
    except ConfigError as error:
        pytest.skip(str(error))
    source = two_modes(64)
    cfg = BCCfg(**SHAPE, hidden=(16,), learning_rate=1e-2, warmup=0)
    plain, compiled = learner(cfg, source, 10), learner(replace(cfg, compile=True), source, 10)
    for _ in range(3):
        figures = [float(a.update(source.windows(torch.arange(64)))["loss"]) for a in (plain, compiled)]
        assert figures[0] == pytest.approx(figures[1], abs=1e-5)
    assert plain.state_dict()["learner"].keys() == compiled.state_dict()["learner"].keys()
    assert compiled.learner.mean._compiled_call_impl is not None and plain.learner.mean._compiled_call_impl is None


def test_a_missing_compiler_is_told_with_the_remedy(monkeypatch):
    def without(function):
        raise RuntimeError("no working C++ compiler\nand a page of more")

    monkeypatch.setattr(torch, "compile", without)
    with pytest.raises(ConfigError, match=r"for cpu \(no working C\+\+ compiler\); install .* algo.compile=false"):
        learner(BCCfg(**SHAPE, compile=True), two_modes(64), 1)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_pictures_and_pretrained_weights(tmp_path, bfloat16):
    """One update through the picture encoder, whose weights came from a file, and a bundle of what came out."""
    source = InMemory(
        observation__policy=torch.randn(16, 2, 3), action=torch.rand(16, 8, 2),
        **{"observation.policy/wrist": torch.randint(256, (16, 2, 24, 24, 3), dtype=torch.uint8)},
    )  # fmt: skip
    cfg = DiffusionCfg(**SHAPE, **TINY, **CAMERA)
    before = learner(cfg, source, 3, camera=True, seed=3).policy.encoder.cameras["policy:wrist"].backbone
    save_file(before.state_dict(), tmp_path / "weights.safetensors")
    cfg = DiffusionCfg(
        **SHAPE, **TINY, **CAMERA, image_weights=str(tmp_path / "weights.safetensors"), bfloat16=bfloat16
    )
    algo = learner(cfg, source, 3, camera=True)
    mine = algo.policy.encoder.cameras["policy:wrist"].backbone
    assert torch.equal(mine.conv1.weight, before.conv1.weight)
    figures = algo.update(source.windows(torch.arange(16)))
    assert 0.0 < float(figures["loss"]) < 10.0 and float(figures["gradient"]) > 0.0
    assert not torch.equal(mine.conv1.weight, before.conv1.weight)
    assert algo.policy.encoder.cameras["policy:wrist"].size == tuple(SMALL_CAMERA["crop"])
    (tmp_path / "weights.safetensors").unlink()  # a bundle does not ask for it
    loaded = bundle.load(bundle.save(tmp_path / "b", Bundle(algo.policy, FRANKA))).policy
    obs = {"policy": torch.zeros(1, 3), "policy/wrist": torch.zeros(1, 24, 24, 3, dtype=torch.uint8)}
    for policy in (loaded, algo.policy):
        policy.generator = torch.Generator().manual_seed(0)
    assert torch.equal(loaded.act(obs), algo.policy.act(obs))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiffusionCfg(sampler="ddimm"), "algo.sampler: .*did you mean ddim"),
        (lambda: DiffusionCfg(network="unett"), "algo.network: .*did you mean unet"),
        (lambda: DiffusionCfg(steps=101), "algo.steps must be from 1 to algo.noise_levels, got 101"),
        (lambda: DiffusionCfg(execute=17), "execute at most the horizon"),
        (lambda: BCCfg(learning_rate=float("nan")), "algo.learning_rate must be finite"),
        (lambda: BCCfg(min_std=0.0), "algo.min_std must be above 0"),
        (lambda: BCCfg(activation="rellu"), "did you mean relu"),
        (lambda: BCCfg(image_crop=(3,)), "a height and a width"),
        (lambda: BCCfg(ema_max=1.0), r"ema_max must be in \[0, 1\)"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_no_window_at_all_is_said_so():
    source = InMemory(observation__policy=torch.zeros(0, 2, 3), action=torch.zeros(0, 8, 2))
    with pytest.raises(ConfigError, match="not one window"):
        learner(BCCfg(**SHAPE), source, 1)
    entries = [registry.entry("algo", n) for n in registry.names("algo")]
    assert {bc.BehaviourCloning, diffusion.Diffusion} <= {e.value for e in entries if e.config.loop == "offline"}
