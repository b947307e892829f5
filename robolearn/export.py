"""A policy as one file for computers without this package (ONNX, torch.export), checked against it.

A policy of single actions becomes its `act`; one that plans chunks becomes its `plan`, whose noise is an input: see
robolearn.export_chunks. A residual policy becomes two files, as its base plans now and then and is corrected in every
period.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from robolearn import optional
from robolearn.errors import UserError
from robolearn.export_chunks import Planning
from robolearn.policies.base import Policy
from robolearn.policies.chunked import ChunkedPolicy
from robolearn.policies.residual import BASE, ResidualPolicy
from robolearn.spec import Field, to_dict

OUTPUT = "action"
TOLERANCE, CHUNK_TOLERANCE = 1e-5, 1e-4  # many calls of a network add up their roundings
BATCHES = (1, 7, 256)
EXTREMES = (0.0, 1e-30, 1.0, -1.0, 1e3, -1e3, 1e6, -1e6)
CHUNK_BATCHES, CHUNK_EXTREMES = (1, 5), (0.0, 1.0, -1.0)
Obs = dict[str, Tensor]
Call = Callable[[Obs], Tensor | tuple[Tensor, ...]]


class ExportError(UserError):
    """The file would not do what the policy does; it was removed."""


class _Acting(nn.Module):
    """`act` as `forward`, with the observation's keys as the names of the inputs."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy, self.fields, self.outputs = policy, inputs(policy), [OUTPUT]
        self.about = dict[str, str]()

    def forward(self, obs: Obs) -> Tensor:
        return self.policy.act(obs)


class _Correcting(_Acting):
    """The observation's keys and `base_action` (B, A) -> `action` (B, A)."""

    policy: ResidualPolicy

    def __init__(self, policy: ResidualPolicy):
        super().__init__(policy)
        self.fields = self.fields | {BASE: Field(BASE, (policy.spec.action.dim,))}

    def forward(self, obs: Obs) -> Tensor:
        return self.policy.correct(obs, obs[BASE])


def paths(policy: Policy, path: Path) -> list[Path]:
    """The files of an export to `path`."""
    beside = path.with_name(f"{path.stem}_correction{path.suffix}")
    return [path, beside] if isinstance(policy, ResidualPolicy) else [path]


def graphs(policy: Policy, path: Path) -> list[_Acting | Planning]:
    """The modules that become the files `paths`; a plan tells the name of its correction. ExportError as of `graph`."""
    if not isinstance(policy, ResidualPolicy):
        return [graph(policy)]
    plan = graph(policy.base)
    plan.about |= {"correction": paths(policy, path)[1].name}
    return [plan, _Correcting(policy)]


def graph(policy: Policy) -> _Acting | Planning:
    """The module that becomes the file. ExportError if there is none for this policy."""
    if not isinstance(policy, ChunkedPolicy):
        return _Acting(policy)
    try:
        return Planning(policy)
    except ValueError as error:
        raise ExportError(f"policy '{policy.kind}' cannot be exported: {error}") from None


def export(policy: Policy, path: Path, format: str) -> float:
    """Write `paths`, load them back, return the largest difference of an output; ExportError above the tolerance."""
    written = paths(policy, path)
    parts = [p.with_name(f"{p.stem}.part{p.suffix}") for p in written]
    made = graphs(policy.eval().to("cpu"), path)
    try:
        worst = max(_written(m, p, format) for m, p in zip(made, parts, strict=True))
        for part, whole in zip(parts, written, strict=True):
            part.replace(whole)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return worst


def _written(made: _Acting | Planning, path: Path, format: str) -> float:
    """The largest difference of an output; ExportError above the tolerance."""
    chunks = isinstance(made, Planning)
    allowed = CHUNK_TOLERANCE if chunks else TOLERANCE
    tried = (CHUNK_BATCHES, CHUNK_EXTREMES) if chunks else (BATCHES, EXTREMES)
    write, load = FORMATS[format]
    with _quiet():
        write(made, path)
        worst = largest_difference(made, load(path), made.fields, *tried)
    if not worst <= allowed:
        raise ExportError(f"the {format} file's actions differ by {worst:.2g} (at most {allowed:g} is allowed)")
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


def largest_difference(act: Call, other: Call, fields: dict[str, Field], batches: Sequence[int] = BATCHES,
                       extremes: Sequence[float] = EXTREMES) -> float:  # fmt: skip
    """Over random observations of several batch sizes and constant, extreme ones; NaN if either gives NaN."""
    generator = torch.Generator().manual_seed(0)
    tried = [sample(fields, batch, generator) for batch in batches]
    for value in extremes:
        tried.append({k: _constant(f, value) for k, f in fields.items()})
    with torch.inference_mode():
        pairs = [(_flat(act(obs)), _flat(other(obs))) for obs in tried]
        return float(torch.stack([(a - b).abs().max() for a, b in pairs]).max())


def _flat(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    return torch.cat([t.flatten() for t in (out if isinstance(out, tuple) else (out,))])


def _constant(field: Field, value: float) -> Tensor:
    inside = min(max(value, 0.0), 255.0) if field.dtype == "uint8" else value
    return torch.full((2, *field.shape), inside).to(getattr(torch, field.dtype))


# --- formats ---------------------------------------------------------------------------------------------


def _captured(made: _Acting | Planning) -> torch.export.ExportedProgram:
    example = sample(made.fields, 2, torch.Generator().manual_seed(1))
    free = ({k: {0: torch.export.Dim("batch")} for k in made.fields},)
    try:
        return torch.export.export(made, (example,), dynamic_shapes=free)
    except Exception as error:  # whatever the tracer met in the policy
        reason = str(error).splitlines()[0]
        raise ExportError(f"torch.export cannot trace policy '{made.policy.kind}': {reason}") from error


def _write_torch(made: _Acting | Planning, path: Path) -> None:
    about = {"policy_spec.json": spec_json(made.policy), "about.json": json.dumps(made.about)}
    torch.export.save(_captured(made), path, extra_files=about)


def _load_torch(path: Path) -> Call:
    return torch.export.load(path).module()


def _write_onnx(made: _Acting | Planning, path: Path) -> None:
    optional.load("onnxscript", "export")
    onnx = optional.load("onnx", "export")
    policy = made.policy
    program = torch.onnx.export(
        _captured(made), dynamo=True, input_names=list(made.fields), output_names=made.outputs, verbose=False
    )
    assert program is not None
    model = program.model_proto
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in model.graph.node:  # where in our source each came from: more bytes than a small policy's weights
        node.ClearField("metadata_props")
    about = made.about | {"policy_spec": spec_json(policy), "kind": policy.kind, "robot": policy.spec.robot}
    onnx.helper.set_model_props(model, about | {"rate_hz": f"{policy.spec.rate_hz:g}", "units": policy.spec.units})
    onnx.save(model, str(path))


def _load_onnx(path: Path) -> Call:
    runtime = optional.load("onnxruntime", "export")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def call(obs: Obs) -> Tensor | tuple[Tensor, ...]:
        out = tuple(torch.from_numpy(a) for a in session.run(None, {k: v.numpy() for k, v in obs.items()}))
        return out if len(out) > 1 else out[0]

    return call


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
