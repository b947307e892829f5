"""Parameters of a node: declared with a type, given from outside, checked and announced when they change."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from real.ros.messages import interface
from robolearn.errors import ConfigError, unknown

if TYPE_CHECKING:
    from real.ros.node import Node

EVENT = "rcl_interfaces/msg/ParameterEvent"
SIM_TIME = "use_sim_time"


class ParameterType(IntEnum):
    (
        NOT_SET, BOOL, INTEGER, DOUBLE, STRING, BYTE_ARRAY, BOOL_ARRAY, INTEGER_ARRAY, DOUBLE_ARRAY, STRING_ARRAY,
    ) = range(10)  # fmt: skip

    @classmethod
    def of(cls, value: Any) -> ParameterType:
        """TypeError for what no parameter can hold."""
        if isinstance(value, list) and value:
            kinds = {cls.of(v) for v in value}
            if len(kinds) == 1 and (kind := kinds.pop()) in SCALARS:
                return cls(kind + 5)
            raise TypeError(f"{value!r}: a list of one type expected")
        for kind, python in SCALARS.items():
            if type(value) is python:
                return kind
        if value is None or isinstance(value, bytes | list):
            return cls.NOT_SET if value is None else cls.BYTE_ARRAY
        raise TypeError(f"{value!r}: a parameter cannot be a {type(value).__name__}")


SCALARS = {ParameterType.BOOL: bool, ParameterType.INTEGER: int, ParameterType.DOUBLE: float, ParameterType.STRING: str}
FIELDS = {kind: f"{kind.name.lower()}_value" for kind in ParameterType}


class Parameter:
    """rclpy's: `Parameter("rate", value=10.0)`."""

    Type = ParameterType

    def __init__(self, name: str, type_: ParameterType | None = None, value: Any = None):
        if not isinstance(value, bytes | str | type(None)) and (np.ndim(value) == 1 or isinstance(value, np.generic)):
            value = value.tolist() if isinstance(value, np.ndarray | np.generic) else list(value)
        if isinstance(value, list) and float in map(type, value) and int in map(type, value):
            value = [float(v) if type(v) is int else v for v in value]
        self.name, self.value = name, value
        empty = isinstance(value, list) and not value
        self.type_ = (
            type_ if type_ is not None and empty and type_ >= ParameterType.BYTE_ARRAY else ParameterType.of(value)
        )
        if type_ not in (None, self.type_):
            raise TypeError(f"parameter {name}: {value!r} is not a {type_.name}")

    def __repr__(self) -> str:
        return f"Parameter({self.name}={self.value!r})"

    @classmethod
    def from_parameter_msg(cls, msg: Any) -> Parameter:
        kind = ParameterType(msg.value.type)
        if kind == ParameterType.NOT_SET:
            return cls(msg.name)
        value = getattr(msg.value, FIELDS[kind])
        return cls(msg.name, kind, bytes(value) if kind == ParameterType.BYTE_ARRAY else value)

    def get_parameter_value(self) -> Any:
        message = interface("rcl_interfaces/msg/ParameterValue")(type=int(self.type_))
        if self.type_ != ParameterType.NOT_SET:
            setattr(message, FIELDS[self.type_], self.value)
        return message

    def to_parameter_msg(self) -> Any:
        return interface("rcl_interfaces/msg/Parameter")(name=self.name, value=self.get_parameter_value())


class Parameters:
    """Those of one node. `overrides`: values given from outside, until they are declared."""

    def __init__(self, node: Node, overrides: dict[str, Any], publish: Callable[[Any], None]):
        self.node, self.overrides, self._publish = node, overrides, publish
        self.values: dict[str, Parameter] = {}
        self.descriptors: dict[str, Any] = {}
        self.callbacks: list[Callable[[list[Parameter]], Any]] = []

    def declare(self, name: str, value: Any = None, descriptor: Any = None) -> Parameter:
        """With the value from outside if there is one, which must have the default's type. ConfigError if refused."""
        if name in self.values:
            raise ConfigError(f"{self.node.get_name()}: parameter {name} is declared twice")
        kind = value if isinstance(value, ParameterType) else Parameter(name, value=value).type_
        given = self.overrides.get(name, None if isinstance(value, ParameterType) else value)
        try:
            parameter = Parameter(name, kind if kind != ParameterType.NOT_SET and given is not None else None, given)
        except TypeError as error:
            raise ConfigError(f"{self.node.get_name()}: {error}") from None
        described = descriptor or interface("rcl_interfaces/msg/ParameterDescriptor")()
        described.name, described.type = name, int(kind)
        self.descriptors[name] = described
        result = self._accepted([parameter], declaring=True)
        if not result.successful:
            del self.descriptors[name]
            raise ConfigError(f"{self.node.get_name()}: parameter {name}: {result.reason}")
        self.values[name] = parameter
        self._announce(new=[parameter])
        return parameter

    def get(self, name: str) -> Parameter:
        if name not in self.values:
            raise ConfigError(f"{self.node.get_name()}: {unknown('parameter', name, sorted(self.values))}")
        return self.values[name]

    def set(self, parameters: Sequence[Parameter]) -> Any:
        """All of them or none; the result says why not."""
        result = self._accepted(list(parameters))
        if result.successful:
            self.values.update({p.name: p for p in parameters})
            self._announce(changed=parameters)
        return result

    def _accepted(self, parameters: list[Parameter], declaring: bool = False) -> Any:
        answer = interface("rcl_interfaces/msg/SetParametersResult")
        for parameter in parameters:
            if reason := self._objection(parameter, declaring):
                return answer(successful=False, reason=reason)
        for callback in reversed(self.callbacks):
            if not (result := callback(parameters)).successful:
                return result
        return answer(successful=True)

    def _objection(self, parameter: Parameter, declaring: bool) -> str:
        described = self.descriptors.get(parameter.name)
        if described is None:
            return unknown("parameter", parameter.name, sorted(self.values))
        if described.read_only and not declaring:
            return f"{parameter.name} cannot be changed"
        fits = described.dynamic_typing or described.type in (ParameterType.NOT_SET, parameter.type_)
        if not fits and not (declaring and parameter.value is None):
            return f"{parameter.name} is a {ParameterType(described.type).name}, {parameter.value!r} is not"
        if parameter.name == SIM_TIME and parameter.value:
            return "simulated time is not supported"
        return _range_objection(parameter, described)

    def _announce(self, new: Iterable[Parameter] = (), changed: Iterable[Parameter] = ()) -> None:
        self._publish(interface(EVENT)(
            stamp=self.node.get_clock().now().to_msg(), node=self.node.get_fully_qualified_name(),
            new_parameters=[p.to_parameter_msg() for p in new],
            changed_parameters=[p.to_parameter_msg() for p in changed],
        ))  # fmt: skip


def _range_objection(parameter: Parameter, described: Any) -> str:
    limits = {ParameterType.INTEGER: described.integer_range, ParameterType.DOUBLE: described.floating_point_range}
    for limit in limits.get(parameter.type_, []):
        if not limit.from_value <= parameter.value <= limit.to_value:
            return f"{parameter.name}: {parameter.value} is not between {limit.from_value} and {limit.to_value}"
    return ""
