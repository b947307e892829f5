"""Write a policy as one ONNX or torch.export file, and check that it acts the same.

usage: robolearn export run=RUN [format=onnx|torch] [out=FILE]

RUN is a run's folder, or `last`. Inputs are the observation's keys (`policy`), the output is `action`, the
batch size is free. The specification (names, units, frames, rate) is inside: ONNX metadata `policy_spec`,
torch extra file `policy_spec.json`. The file is loaded back and compared with the policy before it gets its
name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from robolearn import config
from robolearn.cli import _options, _world
from robolearn.cli._options import MISSING, option
from robolearn.errors import ConfigError


@dataclass
class ExportCfg:
    run: str = option(MISSING, "the run's folder, or last")
    format: str = option("onnx", "of the file", ("onnx", "torch"))
    out: str = option("", "file to write; in the run's folder if not given")


def help_text() -> str:
    return f"{__doc__}\noptions:\n{_options.describe(ExportCfg)}"


def main(argv: list[str]) -> int:
    options = config.parse(ExportCfg, argv)
    _options.check_choices(options)
    from robolearn import bundle, export

    folder = _world.find_run(options.run)
    path = Path(options.out) if options.out else folder / f"policy{export.SUFFIXES[options.format]}"
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"the folder of {path} does not exist")
    worst = export.export(bundle.load(folder / "bundle").policy, path, options.format)
    print(f"{options.format:22} {path} ({path.stat().st_size / 1024:.0f} KiB)")
    print(f"{'largest difference':22} {worst:.2g} over random and extreme observations, batch 1 to 256")
    return 0
