"""The schema's service as gRPC's handlers and calls, and what both ends set of a connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from robolearn.distributed.records import wire
from robolearn.optional import lazy

grpc = lazy("grpc", extra="distributed")
factory = lazy("google.protobuf.message_factory", extra="distributed")

MESSAGE_BYTES = 512 * 1024**2
"""Of the largest message: weights are sent whole."""
OPTIONS = (
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
SERVER_OPTIONS = (
    *OPTIONS,
    ("grpc.so_reuseport", 0),  # or two learners would share one port, and each get some of the actors
    ("grpc.http2.min_ping_interval_without_data_ms", 2_000),
)
CHANNEL_OPTIONS = (
    *OPTIONS,
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


def handlers(methods: Mapping[str, Callable[..., Any]]) -> Any:
    """For a server: what answers each method of the service, as generators of messages."""
    service, out = wire.DESCRIPTOR.services_by_name["Learner"], {}
    for method in service.methods:
        make = grpc.stream_stream_rpc_method_handler if method.client_streaming else (
            grpc.unary_stream_rpc_method_handler
        )  # fmt: skip
        out[method.name] = make(
            methods[method.name],
            request_deserializer=factory.GetMessageClass(method.input_type).FromString,
            response_serializer=factory.GetMessageClass(method.output_type).SerializeToString,
        )
    return grpc.method_handlers_generic_handler(service.full_name, out)


def call(channel: Any, name: str) -> Callable[..., Any]:
    """The method as gRPC's callable of an actor's end."""
    service = wire.DESCRIPTOR.services_by_name["Learner"]
    method = service.methods_by_name[name]
    make = channel.stream_stream if method.client_streaming else channel.unary_stream
    return make(
        f"/{service.full_name}/{name}",
        request_serializer=factory.GetMessageClass(method.input_type).SerializeToString,
        response_deserializer=factory.GetMessageClass(method.output_type).FromString,
    )
