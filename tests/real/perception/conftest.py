"""Cameras that look at rendered boards and tags whose places are known."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from real.perception.lens import Lens

LENS = Lens(640, 480, 612.0, 609.0, 322.4, 236.3, (-0.22, 0.07, 0.0008, -0.0006, 0.0), "wrist")


@pytest.fixture(scope="session")
def rendered() -> ModuleType:
    """benchmarks.rendered_boards, which is not installed."""
    root = str(Path(__file__).parents[3])
    sys.path.insert(0, root)
    try:
        return importlib.import_module("benchmarks.rendered_boards")
    finally:
        sys.path.remove(root)


@pytest.fixture(scope="session")
def truth(rendered: ModuleType) -> ModuleType:
    """benchmarks.camera_truth: boards, tags and mountings with known places."""
    root = str(Path(__file__).parents[3])
    sys.path.insert(0, root)
    try:
        return importlib.import_module("benchmarks.camera_truth")
    finally:
        sys.path.remove(root)


@pytest.fixture(scope="session")
def lens() -> Lens:
    return LENS


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)
