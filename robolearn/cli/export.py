"""Write a policy as one file: ONNX or torch.export, checked to act the same, or the whole bundle as a .zip.

usage: robolearn export run=RUN [format=onnx|torch|bundle] [out=FILE] [sampler=ddim steps=16]

RUN is a run's folder, a bundle (folder or .zip), or `last`. A bundle holds all that evaluate, play and robots need
(`run=policy.zip`). In the others, inputs are the observation's keys (`policy`), the output is `action`, the
batch size is free. Of a policy that plans chunks the file holds the plan: histories (batch, observation_steps,
...) and the sampler's `noise` in, a chunk out, of which `spec.action.execute` actions are run
(docs/diffusion.md). Of a residual policy it is its base's plan, and FILE_correction beside it is run in every
period: the observation and `base_action` in, `action` out. The specification (names, units, frames, rate) is
inside: ONNX metadata `policy_spec`, torch extra file `policy_spec.json`. The file is loaded back and compared
with the policy before it gets its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robolearn import config
from robolearn.cli import _chunks, _options, _world
from robolearn.cli._options import MISSING, option
from robolearn.errors import ConfigError


@dataclass
class ExportCfg:
    run: str = option(MISSING, "a run's folder, a bundle, or last")
    format: str = option("onnx", "of the file", ("onnx", "torch", "bundle"))
    out: str = option("", "file to write; in the run's folder if not given")
    sampler: str = option("", "of a diffusion policy: ddim, streaming ...; the one it was trained with if not given")
    steps: int = option(
        0, "of that sampler, from noise to a chunk; the policy's own, or the sampler's default, if not given"
    )


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(ExportCfg)}"


def main(argv: list[str]) -> int:
    options = config.parse(ExportCfg, argv)
    _options.check_choices(options)
    from robolearn import bundle, export, runs

    source, packed = runs.load_bundle(options.run)
    suffix = (export.SUFFIXES | {"bundle": ".zip"})[options.format]
    _chunks.use_sampler(packed.policy, options.sampler, options.steps)
    path = Path(options.out) if options.out else _world.beside(source) / f"policy{suffix}"
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {path} does not exist")
    if options.format == "bundle":
        if path.suffix != suffix:
            raise ConfigError(f"out must be a {suffix} file, got {path}")
        bundle.save(path, packed)
        print(f"{options.format:22} {path} ({path.stat().st_size / 1024:.0f} KiB)")
        return 0
    worst = export.export(packed.policy, path, options.format)
    for written in export.paths(packed.policy, path):
        print(f"{options.format:22} {written} ({written.stat().st_size / 1024:.0f} KiB)")
    print(f"{'largest difference':22} {worst:.2g} over random and extreme observations, several batch sizes")
    return 0
