"""The services behind `ros2 param`: of every node, over its Parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from real.ros.messages import interface
from real.ros.parameters import Parameter, Parameters, ParameterType

if TYPE_CHECKING:
    from real.ros.node import Node

KINDS = ("GetParameters", "GetParameterTypes", "SetParameters", "SetParametersAtomically", "DescribeParameters",
         "ListParameters")  # fmt: skip
NAMES = {kind: "".join(f"_{c.lower()}" if c.isupper() else c for c in kind)[1:] for kind in KINDS}


class ParameterServices:
    def __init__(self, node: Node, parameters: Parameters):
        self._all = parameters
        for kind, name in NAMES.items():
            node.create_service(interface(f"rcl_interfaces/srv/{kind}"), f"~/{name}", getattr(self, f"_{name}"))

    def _get_parameters(self, request: Any, response: Any) -> Any:
        """Of a name that is not declared: not set."""
        known = (self._all.values.get(name, Parameter(name)) for name in request.names)
        response.values = [p.get_parameter_value() for p in known]
        return response

    def _get_parameter_types(self, request: Any, response: Any) -> Any:
        response.types = [int(self._all.values.get(name, Parameter(name)).type_) for name in request.names]
        return response

    def _set_parameters(self, request: Any, response: Any) -> Any:
        response.results = [self._set([msg]) for msg in request.parameters]
        return response

    def _set_parameters_atomically(self, request: Any, response: Any) -> Any:
        response.result = self._set(request.parameters)
        return response

    def _set(self, messages: list[Any]) -> Any:
        try:
            parameters = [Parameter.from_parameter_msg(msg) for msg in messages]
        except (ValueError, TypeError) as error:  # a type that does not exist
            return interface("rcl_interfaces/msg/SetParametersResult")(successful=False, reason=str(error))
        return self._all.set(parameters)

    def _describe_parameters(self, request: Any, response: Any) -> Any:
        nothing = interface("rcl_interfaces/msg/ParameterDescriptor")
        known = self._all.descriptors
        response.descriptors = [
            known.get(name) or nothing(name=name, type=int(ParameterType.NOT_SET)) for name in request.names
        ]
        return response

    def _list_parameters(self, request: Any, response: Any) -> Any:
        """Names below one of the prefixes, at most `depth` words below it (0: any)."""
        found = []
        for name in sorted(self._all.values):
            for prefix in request.prefixes or [""]:
                below = name if not prefix else name.removeprefix(f"{prefix}.") if name.startswith(f"{prefix}.") else ""
                if name == prefix or (below and (not request.depth or below.count(".") < request.depth)):
                    found.append(name)
                    break
        response.result.names = found
        response.result.prefixes = sorted({name.rpartition(".")[0] for name in found} - {""})
        return response
