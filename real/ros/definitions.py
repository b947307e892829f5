"""Interface definitions: the standard ones from rosbags, further ones from .msg, .srv and .action text files.

Everything is a message here. A service is its `_Request` and `_Response`; an action is the messages and services that
ROS 2 derives from it. Fields are kept as rosbags describes them: (kind, (base name, bound of a string)), or
(kind, type name), or (kind, (the element's description, length or bound)).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, TypesysError, get_typestore
from rosbags.typesys import store as rosbags_store
from rosbags.typesys.base import make_typesdict
from rosbags.typesys.msg import MSGParser

from robolearn.errors import ConfigError, unknown

rosbags_store.TIDMAP["char"] = rosbags_store.TIDMAP["uint8"]  # as rosidl has it; rosbags' own value gives wrong hashes

STORE = get_typestore(Stores.ROS2_JAZZY)
FIELDS: dict[str, Any] = STORE.fielddefs
"""Type name (`pkg/msg/Name`, `pkg/srv/Name_Request`) -> (constants, fields)."""
DEFAULTS: dict[tuple[str, str], Any] = {("geometry_msgs/msg/Quaternion", "w"): 1.0}
"""(type, field) -> value where it is not zero: rosbags does not keep them, and this is the only standard one."""
DUMMY = "structure_needs_at_least_one_member"
SEPARATOR = re.compile(r"^---[ \t]*$", re.MULTILINE)
UUID, TIME = "unique_identifier_msgs/UUID goal_id\n", "builtin_interfaces/Time stamp\n"


def fields_of(type_name: str) -> list[tuple[str, Any]]:
    """What a program sees: without the byte that stands for no members at all."""
    return [field for field in FIELDS[type_name][1] if field[0] != DUMMY]


def constants_of(type_name: str) -> dict[str, Any]:
    """As rclpy has them: a `byte` is bytes of length 1."""
    return {name: bytes([value]) if base == "byte" else value for name, base, value in FIELDS[type_name][0]}


def type_hash(type_name: str) -> str:
    """`RIHS01_...`, which peers compare and `ros2 topic info -v` shows."""
    return STORE.hash_rihs01(type_name)


def definition(type_name: str) -> str:
    """The text of a message, followed by those of the messages it uses, as bags hold it. ConfigError if unknown."""
    if type_name not in FIELDS:
        raise ConfigError(unknown("message", type_name, sorted(FIELDS)))
    return STORE.generate_msgdef(type_name, ros_version=2)[0]


def dds_name(type_name: str, separator: str = "::") -> str:
    """`std_msgs/msg/String` -> `std_msgs::msg::dds_::String_`."""
    package, kind, name = type_name.split("/")
    return separator.join((package, kind, "dds_", f"{name}_"))


def register_interfaces(folder: str | Path) -> list[str]:
    """Add `folder`/PACKAGE/{msg,srv,action}/NAME.{msg,srv,action}; their names. The same definition twice is fine."""
    found = sorted(p for kind in ("msg", "srv", "action") for p in Path(folder).glob(f"*/{kind}/*.{kind}"))
    if not found:
        raise ConfigError(f"{folder} holds no interfaces (PACKAGE/msg/NAME.msg, PACKAGE/srv/..., PACKAGE/action/...)")
    texts = {path: path.read_text(encoding="utf-8") for path in found}
    for path, text in texts.items():
        try:
            for part, definition in _parts(path.parent.parent.name, path.parent.name, path.stem, text).items():
                _add(part, definition)
        except TypesysError as error:
            raise ConfigError(f"{path}: {' '.join(str(error).split())[:200]}") from None
    for path in found:
        _check_references(path)
    return [f"{path.parent.parent.name}/{path.parent.name}/{path.stem}" for path in found]


def _parts(package: str, kind: str, name: str, text: str) -> dict[str, str]:
    """Messages that the file stands for -> their text."""
    whole = f"{package}/{kind}/{name}"
    sections = SEPARATOR.split(text)
    needed = {"msg": 1, "srv": 2, "action": 3}[kind]
    if len(sections) != needed:
        raise TypesysError(f"{needed - 1} lines of --- expected, {len(sections) - 1} found")
    if kind == "msg":
        return {whole: text}
    if kind == "srv":
        return {f"{whole}_Request": sections[0], f"{whole}_Response": sections[1]}
    goal, result, feedback = (f"{package}/{part} {part.rpartition('_')[2].lower()}\n" for part in
                              (f"{name}_Goal", f"{name}_Result", f"{name}_Feedback"))  # fmt: skip
    return {
        **dict(zip((f"{whole}_Goal", f"{whole}_Result", f"{whole}_Feedback"), sections, strict=True)),
        f"{whole}_SendGoal_Request": UUID + goal,
        f"{whole}_SendGoal_Response": "bool accepted\n" + TIME,
        f"{whole}_GetResult_Request": UUID,
        f"{whole}_GetResult_Response": "int8 status\n" + result,
        f"{whole}_FeedbackMessage": UUID + feedback,
    }


def _add(type_name: str, text: str) -> None:
    package, kind, name = type_name.split("/")
    parsed = MSGParser(f"MSG: {package}/msg/{name}\n{text}\n").specification()  # the parser knows no other kind
    ((constants, fields),) = make_typesdict(parsed).values()
    if kind == "action":  # its parts name each other
        fields = [(field, _renamed(desc, f"{package}/msg/{name.split('_')[0]}_", kind)) for field, desc in fields]
    if type_name in FIELDS and [f for f in FIELDS[type_name][1] if f[0] != DUMMY] != fields:
        raise TypesysError(f"{type_name} is known already, with other fields")
    FIELDS.setdefault(type_name, (constants, fields or [(DUMMY, (Nodetype.BASE, ("uint8", 0)))]))
    DEFAULTS.update({(type_name, f.name): f.value for f in parsed[0].fields if f.value is not None})


def _renamed(desc: Any, prefix: str, kind: str) -> Any:
    if isinstance(desc[1], str) and desc[1].startswith(prefix):
        return desc[0], desc[1].replace("/msg/", f"/{kind}/")
    return desc


def _check_references(path: Path) -> None:
    whole = f"{path.parent.parent.name}/{path.parent.name}/{path.stem}"
    for part in (name for name in FIELDS if name == whole or name.startswith(f"{whole}_")):
        for field, desc in FIELDS[part][1]:
            inner = desc[1][0] if isinstance(desc[1][0], tuple) else desc
            if isinstance(inner[1], str) and inner[1] not in FIELDS:
                raise ConfigError(f"{path}: {field}: {unknown('message', inner[1], sorted(FIELDS))}")


register_interfaces(Path(__file__).parent / "interfaces")
