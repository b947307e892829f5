"""A policy as one file for computers without this package (ONNX, torch.export), checked against it."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from robolearn import optional
from robolearn.errors import UserError
from robolearn.policies.base import Policy
from robolearn.spec import Field, to_dict

OUTPUT = "action"
TOLERANCE = 1e-5
BATCHES = (1, 7, 256)
EXTREMES = (0.0, 1e-30, 1.0, -1.0, 1e3, -1e3, 1e6, -1e6)
Obs = dict[str, Tensor]


class ExportError(UserError):
    """The file would not do what the policy does; it was removed."""


class _Acting(nn.Module):
    """`act` as `forward`, with the observation's keys as the names of the inputs."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = policy

    def forward(self, obs: Obs) -> Tensor:
        return self.policy.act(obs)


def export(policy: Policy, path: Path, format: str) -> float:
    """Write `path`, load it back, return the largest difference of an action; ExportError above TOLERANCE."""
    policy = policy.eval().to("cpu")
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    write, load = FORMATS[format]
    try:
        with _quiet():
            write(policy, part)
            worst = largest_difference(policy.act, load(part), inputs(policy))
        if not worst <= TOLERANCE:
            raise ExportError(f"the {format} file's actions differ by {worst:.2g} (at most {TOLERANCE:g} is allowed)")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return worst


def inputs(policy: Policy) -> dict[str, Field]:
    """What `act` reads: the policy group's vector and its images, as fields of their key's name."""
    spec = policy.spec.observation
    kinds = {f"policy/{t.field.name}": t.field for t in spec.terms("policy") if t.field.kind != "vector"}
    shapes = {k: s for k, s in spec.shapes().items() if k.partition("/")[0] == "policy"}
    return {k: Field(k, s, dtype=kinds[k].dtype if k in kinds else "float32") for k, s in shapes.items()}


def sample(fields: dict[str, Field], batch: int, generator: torch.Generator) -> Obs:
    """Random observations: standard normal vectors, uniform bytes."""
    return {k: _random((batch, *f.shape), f.dtype, generator) for k, f in fields.items()}


def _random(shape: tuple[int, ...], dtype: str, generator: torch.Generator) -> Tensor:
    if dtype == "uint8":
        return torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    return torch.randn(shape, generator=generator)


def largest_difference(act: Callable[[Obs], Tensor], other: Callable[[Obs], Tensor],
                       fields: dict[str, Field]) -> float:  # fmt: skip
    """Over random observations of several batch sizes and constant, extreme ones; NaN if either gives NaN."""
    generator = torch.Generator().manual_seed(0)
    tried = [sample(fields, batch, generator) for batch in BATCHES]
    for value in EXTREMES:
        tried.append({k: _constant(f, value) for k, f in fields.items()})
    with torch.inference_mode():
        return float(torch.stack([(act(obs) - other(obs)).abs().max() for obs in tried]).max())


def _constant(field: Field, value: float) -> Tensor:
    inside = min(max(value, 0.0), 255.0) if field.dtype == "uint8" else value
    return torch.full((2, *field.shape), inside).to(getattr(torch, field.dtype))


# --- formats ---------------------------------------------------------------------------------------------


def _captured(policy: Policy) -> torch.export.ExportedProgram:
    fields = inputs(policy)
    example = sample(fields, 2, torch.Generator().manual_seed(1))
    free = {"obs": {k: {0: torch.export.Dim("batch")} for k in fields}}
    try:
        return torch.export.export(_Acting(policy), (example,), dynamic_shapes=free)
    except Exception as error:  # whatever the tracer met in the policy
        raise ExportError(f"torch.export cannot trace policy '{policy.kind}': {str(error).splitlines()[0]}") from error


def _write_torch(policy: Policy, path: Path) -> None:
    torch.export.save(_captured(policy), path, extra_files={"policy_spec.json": spec_json(policy)})


def _load_torch(path: Path) -> Callable[[Obs], Tensor]:
    return torch.export.load(path).module()


def _write_onnx(policy: Policy, path: Path) -> None:
    optional.load("onnxscript", "export")
    onnx = optional.load("onnx", "export")
    program = torch.onnx.export(
        _captured(policy), dynamo=True, input_names=list(inputs(policy)), output_names=[OUTPUT], verbose=False
    )
    assert program is not None
    model = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    about = {"policy_spec": spec_json(policy), "kind": policy.kind, "robot": policy.spec.robot}
    onnx.helper.set_model_props(model, about | {"rate_hz": f"{policy.spec.rate_hz:g}", "units": policy.spec.units})
    onnx.save(model, str(path))


def _load_onnx(path: Path) -> Callable[[Obs], Tensor]:
    runtime = optional.load("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda obs: torch.from_numpy(session.run([OUTPUT], {k: v.numpy() for k, v in obs.items()})[0])


FORMATS = {"onnx": (_write_onnx, _load_onnx), "torch": (_write_torch, _load_torch)}
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def spec_json(policy: Policy) -> str:
    """The PolicySpec: names, shapes, units, frames and the rate."""
    return json.dumps(to_dict(policy.spec))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters print and warn about their own affairs."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
