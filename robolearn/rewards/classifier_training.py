"""How a success classifier is made from labelled episodes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.data.read import Episodes
from robolearn.nets.normalize import FixedNormalizer, statistics_of
from robolearn.nets.vision import PictureEncoder
from robolearn.rewards import frames as labelled
from robolearn.rewards import scores
from robolearn.rewards.base import RewardError
from robolearn.rewards.classifier import Classifier, ClassifierCfg
from robolearn.rewards.frames import Frames

log = logging.getLogger(__name__)
EVERY = 50
"""Updates between two reports."""
TEMPERATURES = torch.linspace(0.5, 5.0, 46)
"""Where few episodes hold no mistake the smallest wins, and must not make everything certain."""


def fit(cfg: ClassifierCfg, sets: Sequence[Episodes], seed: int, device: str,
        progress: Callable[[int, dict[str, float]], None]) -> tuple[Classifier, dict[str, Any]]:  # fmt: skip
    """Trained on some of the episodes, its threshold and temperature chosen on others, judged on the rest. The figures
    say which were which. RewardError if no threshold has the precision that is asked for."""
    keys = cfg.observed or tuple(labelled.keys_of(sets[0]))
    found = labelled.load(sets, keys)
    parts = labelled.divide(found, (cfg.choose_share, cfg.held_out_share), seed)
    torch.manual_seed(seed)
    made = Classifier(cfg, labelled.shapes_of(sets[0], keys)).to(device)
    prepare(made, found, found.of(parts["train"]))
    optimise(made, found, found.of(parts["train"]), seed, progress)
    calibrate(made, found, found.of(parts["choose"]))
    return made, {
        "held_out": judged(made, found, parts["held_out"]),
        "choose": judged(made, found, parts["choose"]),
        "episodes": {p: [f"{root}:{n}" for root, n in (found.names[e] for e in es)] for p, es in parts.items()},
        "label_versions": found.versions,
        "seed": seed,
    }


def prepare(made: Classifier, found: Frames, rows: Tensor) -> None:
    """Pretrained weights into the encoders, the spread of the data into the normalisers. DataError where nothing, or
    everything, of what is trained on is success."""
    for camera in made.cameras.values():
        assert isinstance(camera, PictureEncoder)
        if made.cfg.weights:
            camera.backbone.load_weights(made.cfg.weights)
            camera.backbone.requires_grad_(False)
    for key in made.vectors:
        normalizer = made.normalizers[key]
        assert isinstance(normalizer, FixedNormalizer)
        normalizer.fit(statistics_of(found.observed[key][rows]), key)
    share = found.done[rows].float().mean()
    if not 0.0 < share < 1.0:
        raise RewardError(f"{100 * float(share):.0f} % of the steps to train with show success; both kinds are needed: "
                          "record episodes of the other kind")  # fmt: skip
    made.log_odds.fill_(float(share.logit()))


def optimise(made: Classifier, found: Frames, rows: Tensor, seed: int,
             progress: Callable[[int, dict[str, float]], None]) -> None:  # fmt: skip
    """Adam on batches of which half show success, as rare as it may be."""
    cfg, device = made.cfg, made.device
    generator = torch.Generator().manual_seed(seed)
    crops = torch.Generator(device).manual_seed(seed)
    kinds = [rows[found.done[rows] == kind] for kind in (True, False)]
    optimiser = torch.optim.Adam([p for p in made.parameters() if p.requires_grad], cfg.learning_rate)
    half, loss_of = cfg.batch // 2, nn.BCEWithLogitsLoss()
    target = torch.cat((torch.ones(half), torch.zeros(half))).to(device)
    made.train()
    for update in range(1, cfg.updates + 1):
        drawn = torch.cat([k[torch.randint(len(k), (half,), generator=generator)] for k in kinds])
        batch = {k: found.observed[k][drawn].to(device) for k in made.needs.observed}
        logits = made.logits(batch, crops)
        loss = loss_of(logits, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if update % EVERY == 0 or update == cfg.updates:
            right = ((logits > 0) == (target > 0.5)).float().mean()
            progress(update, {"loss": loss.item(), "accuracy": float(right)})
    made.eval()


def calibrate(made: Classifier, found: Frames, rows: Tensor) -> None:
    """The temperature under which what happened is likeliest, and the threshold of the wanted precision."""
    observed, done = {k: v[rows] for k, v in found.observed.items()}, found.done[rows]
    tried = made.evidence(observed).cpu()[:, None] / TEMPERATURES + made.log_odds.cpu()
    target = done[:, None].float().expand_as(tried)
    losses = nn.functional.binary_cross_entropy_with_logits(tried, target, reduction="none").mean(0)
    made.temperature.fill_(float(TEMPERATURES[losses.argmin()]))
    if made.cfg.threshold:
        return
    chosen = scores.choose_threshold(
        made.probability(observed).cpu(), done, made.cfg.precision, made.cfg.least_threshold
    )
    if chosen is None:
        raise RewardError(
            f"no threshold reaches a precision of {made.cfg.precision} on the episodes kept for choosing it: record "
            "more, train longer (reward.updates), or ask for less (reward.precision)"
        )
    made.cfg = replace(made.cfg, threshold=chosen)


def judged(made: Classifier, found: Frames, episodes: Sequence[int]) -> dict[str, Any]:
    """Scores of single steps on these episodes."""
    rows = found.of(episodes)
    probability = made.probability({k: v[rows] for k, v in found.observed.items()}).cpu()
    curve = [part.tolist() for part in scores.curve(probability, found.done[rows])]
    return scores.summary(probability, found.done[rows], made.cfg.threshold) | {"curve": curve}
