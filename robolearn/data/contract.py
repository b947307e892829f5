"""What a set of episodes of a task holds, so that its numbers mean the same to whoever learns from it.

| column | of a step | |
|---|---|---|
| `observation.state` | the vector of the group `policy`, before the action | float32 |
| `observation.images.NAME` | the picture `policy/NAME`, before the action | video |
| `action` | what was commanded, in the policy's units, inside the action's bounds | float32 |
| `action.applied` | what the robot's limits left of it | float32 |
| `next.reward`, `next.terminated`, `next.truncated` | what came of it | float32, bool, bool |
| `next.success` | at an episode's last step whether it succeeded; before that false | bool |
| `strategy` | the number of the way in which an expert does it | int64 |
| `origin` | seed, and number of the attempt with it: another collection goes on after it | int64 |
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from robolearn.data.layout import DataError, Feature
from robolearn.data.read import Episodes
from robolearn.errors import unknown
from robolearn.nets.encoder import observed
from robolearn.spec import ActionSpec, ObservationSpec, PolicySpec, differences, from_dict, stepwise, to_dict

log = logging.getLogger(__name__)
GROUP = "policy"
STATE, IMAGES, SUCCESS = "observation.state", "observation.images.", "next.success"


def column_of(key: str) -> str:
    """Of a key of the observation dictionary: `policy`, or `policy/NAME` for a picture."""
    group, _, name = key.partition("/")
    if group != GROUP:
        raise DataError(f"only the group {GROUP} is recorded, not {key}")
    return IMAGES + name if name else STATE


def rate_hz(rate: float) -> float:
    """Without the rounding of 1 / (n dt)."""
    return round(rate, 6)


def features(spec: PolicySpec, strategies: bool = False) -> dict[str, Feature]:
    """The columns of the table above; `strategy` where the recorded one has them."""
    step = {f"next.{k}": Feature("bool", (1,)) for k in ("terminated", "truncated", "success")}
    names, size = spec.action.names, (spec.action.dim,)
    out = {column_of(k): _observation(spec.observation, k, s) for k, s in observed(spec.observation).items()}
    out |= {k: Feature("float32", size, names, spec.action.unit) for k in ("action", "action.applied")}
    out |= {"next.reward": Feature("float32", (1,))} | step
    out |= {"strategy": Feature("int64", (1,))} if strategies else {}
    return out | {"origin": Feature("int64", (2,), ("seed", "attempt"))}


def _observation(spec: ObservationSpec, key: str, shape: tuple[int, ...]) -> Feature:
    return Feature("float32", shape, element_names(spec)) if key == GROUP else Feature("video", shape)


def element_names(spec: ObservationSpec) -> tuple[str, ...]:
    """Of every number of the vector `policy`: `joint_pos[3]`, of earlier frames `joint_pos[3]@-1`."""
    frames, out = spec.history.get(GROUP, 1), list[str]()
    for frame in range(frames):
        for term in spec.terms(GROUP):
            if term.field.kind == "vector":
                for old in range(term.history):
                    age = (frames - 1 - frame) + (term.history - 1 - old)
                    ends = [""] if term.field.size == 1 else [f"[{i}]" for i in range(term.field.size)]
                    out += [f"{term.field.name}{end}" + (f"@-{age}" if age else "") for end in ends]
    if len(set(out)) < len(out):  # a group's history of a term with a history: frames overlap
        return tuple(f"{i}:{name}" for i, name in enumerate(out))
    return tuple(out)


def about(spec: PolicySpec, task: str) -> dict[str, Any]:
    """For `Writer(about=)`: what the numbers mean."""
    step = stepwise(spec)
    return {"observation": to_dict(_of_policy(step.observation)), "action": to_dict(step.action), "task": task}


def _of_policy(spec: ObservationSpec) -> ObservationSpec:
    return ObservationSpec({GROUP: spec.terms(GROUP)}, {k: v for k, v in spec.history.items() if k == GROUP})


def require(episodes: Episodes, spec: PolicySpec, task: str = "") -> None:
    """Raise DataError, with both, where rate, robot, shapes or meaning of the numbers differ from `spec`; what the
    recorder did not say is not compared. Another `task` with the same numbers is reported."""
    said, info = episodes.info.about, episodes.info
    wanted = {k: f for k, f in features(spec).items() if k == "action" or k.startswith("observation.")}
    if missing := [k for k in wanted if k not in info.features]:
        raise DataError(f"{episodes.root}: {unknown('column', missing[0], list(info.features))}")
    pairs: list[tuple[str, Any, Any]] = [("rate_hz", rate_hz(float(info.fps)), rate_hz(spec.rate_hz))]
    pairs += [("robot", info.robot, spec.robot)] if info.robot else []
    pairs += [(k, _kind(info.features[k]), _kind(f)) for k, f in wanted.items()]
    step = stepwise(spec)
    pairs += _meanings(episodes, said, {"observation": _of_policy(step.observation), "action": step.action})
    found = [d for path, a, b in pairs for d in differences(a, b, path)]
    if found:
        raise DataError(f"{episodes.root} does not fit {task or 'this policy'} (data != here): {'; '.join(found)}")
    if task and said.get("task", task) != task:
        log.warning("%s was recorded in the task %s, not %s", episodes.root, said["task"], task)


def _kind(feature: Feature) -> str:
    return f"{feature.dtype} {feature.shape}"


def _meanings(episodes: Episodes, said: Mapping[str, Any], here: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    kinds: dict[str, Any] = {"observation": ObservationSpec, "action": ActionSpec}
    out = []
    for name, cls in kinds.items():
        if name not in said:
            log.warning("%s does not say what its %s means; only rate and shapes are compared", episodes.root, name)
            continue
        try:
            out.append((name, from_dict(cls, said[name]), here[name]))
        except (ValueError, TypeError) as error:
            raise DataError(f"{episodes.root}: what meta/info.json says of {name} is not ours: {error}") from None
    return out


def chosen(episodes: Episodes, first: int = 0, only_success: bool = False) -> list[int]:
    """The ids of the first so many episodes (0 for all), of the successful ones if asked. DataError if there are not
    so many."""
    ids = episodes.ids
    if only_success:
        if SUCCESS not in episodes.info.features:
            raise DataError(f"{episodes.root} has no column {SUCCESS}, so it is not known which episodes succeeded")
        ids = [e for e in ids if bool(episodes.episode(e)[SUCCESS].any())]
    if len(ids) < max(1, first):
        kind = "successful episodes" if only_success else "episodes"
        raise DataError(f"{episodes.root} has {len(ids)} {kind}, {max(1, first)} are asked for")
    return ids[:first] if first else ids
