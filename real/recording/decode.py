"""Messages of a bag as objects, by the definitions that lie in the bag itself."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

import numpy as np

from real.recording.topic import Topic
from robolearn import optional
from robolearn.errors import ConfigError, unknown

serde, typesys = (optional.load(f"rosbags.{name}", "ros") for name in ("serde", "typesys"))
SEPARATOR = "=" * 80 + "\n"
STEP = re.compile(r"(?P<name>[A-Za-z]\w*)(?P<indices>(\[\d+\])*)")
WRONG = (serde.SerdeError, ValueError, IndexError, TypeError, OverflowError, MemoryError, AttributeError)


class Decoder:
    def __init__(self, topics: Collection[Topic]):
        self._store = typesys.get_typestore(typesys.Stores.EMPTY)
        self._standard = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
        self.unknown: dict[str, str] = {}
        """Types that cannot be decoded -> why."""
        for topic in {t.type: t for t in topics}.values():
            try:
                self._register(topic)
            except (typesys.TypesysError, KeyError, AssertionError, ValueError) as error:
                self.unknown[topic.type] = " ".join(str(error).split())[:200] or type(error).__name__

    def _register(self, topic: Topic) -> None:
        if topic.definition and topic.encoding == "ros2msg":
            found = typesys.get_types_from_msg(topic.definition, topic.type)
        elif topic.definition:
            parts = topic.definition.split(SEPARATOR)
            texts = [part.partition("\n")[2] for part in parts[1:]] if len(parts) > 1 else parts
            found = {name: fields for text in texts for name, fields in typesys.get_types_from_idl(text).items()}
        elif topic.type in self._standard.fielddefs:
            text, _ = self._standard.generate_msgdef(topic.type, ros_version=2)  # from before bags held definitions
            found = typesys.get_types_from_msg(text, topic.type)
        else:
            raise ValueError("the bag holds no definition of it, and it is none of the standard ones")
        self._store.register(found)

    def __call__(self, data: bytes | memoryview, type_name: str) -> Any:
        """Raises ConfigError for what is no message of the type."""
        if type_name in self.unknown:
            raise ConfigError(f"{type_name} cannot be decoded: {self.unknown[type_name]}")
        try:
            return self._store.deserialize_cdr(data, type_name)
        except WRONG as error:
            raise ConfigError(f"a message is no {type_name}: {str(error)[:200]}") from None


def part(message: Any, path: str) -> Any:
    """What stands at `pose.position.x`, `position[2]` or `data` in a message. Raises ConfigError with the names there
    are, IndexError for an element that a list lacks."""
    value = message
    for step in path.split("."):
        found = STEP.fullmatch(step)
        if found is None:
            raise ConfigError(f"{path!r} is no field: names joined by dots, with [number] behind those of lists")
        fields = list(getattr(value, "__dataclass_fields__", {}))
        fields = [name for name in fields if not name.startswith("_")]
        if found["name"] not in fields:
            raise ConfigError(f"{path}: {unknown('field', found['name'], fields)}")
        value = getattr(value, found["name"])
        for index in map(int, re.findall(r"\d+", found["indices"])):
            if not hasattr(value, "__len__") or index >= len(value):
                raise IndexError(index)
            value = value[index]
    return value


def numbers(message: Any, path: str) -> float | np.ndarray:
    """A number, or a vector of them, at a path as `part` takes it. Raises ConfigError if there is none."""
    value = part(message, path)
    if hasattr(value, "sec") and hasattr(value, "nanosec"):
        return float(value.sec) + 1e-9 * float(value.nanosec)
    try:
        read = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        inner = [n for n in getattr(value, "__dataclass_fields__", {}) if not n.startswith("_")]
        raise ConfigError(f"{path} is no number" + (f": {', '.join(inner)} lie in it" if inner else "")) from None
    return read if read.ndim else float(read)
