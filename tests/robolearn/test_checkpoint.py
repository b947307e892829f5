"""Checkpoints are whole or absent."""

import resource
import subprocess
import sys

import pytest
import torch

from robolearn.loops import checkpoint
from robolearn.loops.checkpoint import CheckpointError


def tree(value: float) -> dict:
    return {
        "a": {"w": torch.full((3,), value), "n": 4},
        "rate": 1e-3,
        "rng": torch.arange(5, dtype=torch.uint8),
    }


def test_round_trip(tmp_path):
    checkpoint.write(tmp_path, 7, tree(1.5))
    back = checkpoint.read_newest(tmp_path)
    assert back["a"]["n"] == 4 and back["rate"] == 1e-3
    torch.testing.assert_close(back["a"]["w"], torch.full((3,), 1.5))
    assert back["rng"].dtype == torch.uint8


def test_only_the_newest_are_kept(tmp_path):
    for step in range(5):
        checkpoint.write(tmp_path, step, tree(step))
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "000000000003.safetensors",
        "000000000004.safetensors",
    ]


@pytest.mark.parametrize("keep_bytes", [0, 5, 100])
def test_a_truncated_checkpoint_is_passed_over(tmp_path, keep_bytes):
    checkpoint.write(tmp_path, 1, tree(1.0))
    newest = checkpoint.write(tmp_path, 2, tree(2.0))
    newest.write_bytes(newest.read_bytes()[:keep_bytes])
    assert float(checkpoint.read_newest(tmp_path)["a"]["w"][0]) == 1.0


def test_an_empty_folder_and_a_foreign_file_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint"):
        checkpoint.read_newest(tmp_path)
    (tmp_path / "000000000001.safetensors").write_text("not a checkpoint at all")
    with pytest.raises(CheckpointError, match="000000000001"):
        checkpoint.read_newest(tmp_path)


WRITER = """
import resource, sys, torch
from pathlib import Path
from robolearn.loops import checkpoint
folder = Path(sys.argv[1])
checkpoint.write(folder, 1, {"w": torch.zeros(10)})
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))  # the disk is full after 200 kB of a file
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    checkpoint.write(folder, 2, {"w": torch.zeros(1_000_000)})
except OSError as error:
    print("refused:", error)
"""


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs RLIMIT_FSIZE")
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    done = subprocess.run([sys.executable, "-c", WRITER, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert "refused: checkpoint" in done.stdout, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["000000000001.safetensors"]
    assert checkpoint.read_newest(tmp_path)["w"].shape == (10,)
