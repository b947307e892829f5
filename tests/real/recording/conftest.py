"""Each way to store a bag."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(params=["mcap", "mcap+zstd", "sqlite3"])
def kind(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Each way to store."""
    storage, _, packed = request.param.partition("+")
    yield {"storage": storage, "zstd": bool(packed)}
