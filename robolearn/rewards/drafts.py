"""Labels in the making: a file an episode, kept until the version is whole. A kill costs the episode in work.

A draft is known by its key: what made it. Another source, or another version of one, does not go on with it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from robolearn.data import labels, layout
from robolearn.data.labels import Label


class Draft:
    """Of one or several labels of the same steps."""

    def __init__(self, root: Path, key: Mapping[str, Any]):
        """`key`: plain data that says what the values depend on."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self.root, self.folder = Path(root), Path(root) / labels.FOLDER / f".draft-{digest}"

    def there(self) -> set[int]:
        """Episodes of the set that are done; not one whose recording was killed after its label."""
        count = len(layout.read_rows(self.root))
        return {e for e in (int(p.stem) for p in self.folder.glob("*.safetensors")) if e < count}

    def put(self, episode: int, values: Mapping[str, np.ndarray]) -> None:
        """(T, ...) of each label; an earlier draft of the episode is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self.folder / f"{episode:06d}.part"
        save_file({k: np.ascontiguousarray(v) for k, v in values.items()}, str(part))
        layout.replace(part, self._path(episode))

    def get(self, episode: int) -> dict[str, np.ndarray]:
        return load_file(str(self._path(episode)))

    def _path(self, episode: int) -> Path:
        return self.folder / f"{episode:06d}.safetensors"

    def publish(self, about: Mapping[str, Any], before: Mapping[str, Mapping[int, np.ndarray]] | None = None
                ) -> list[Label]:  # fmt: skip
        """A new version of every label, of the episodes in the draft and those `before` (by name) that it lacks; the
        draft goes. DataError, naming episode and step, for values that do not fit their episode."""
        found = {e: self.get(e) for e in sorted(self.there())}
        names = sorted({name for values in found.values() for name in values})
        known = before or {}
        written = [
            labels.write(self.root, n, {**known.get(n, {}), **{e: v[n] for e, v in found.items()}}, about)
            for n in names
        ]
        shutil.rmtree(self.folder, ignore_errors=True)
        return written
