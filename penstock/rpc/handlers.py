"""Registers a servicer so that bytes which are no message are the client's fault, not ours.

gRPC's own registration answers such bytes with UNKNOWN and a traceback in the log. Knows a service
by its descriptor only.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any, TypeAlias

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

# The stubs make both generic in messages that are known by descriptor only.
Method: TypeAlias = Callable[[Any, Any], Awaitable[Any]]
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


def handlers_of(
    servicer: object, service: ServiceDescriptor, encoded: Collection[str] = ()
) -> grpc.GenericRpcHandler:
    """Return what a server needs to offer a service.

    Args:
        servicer: has a coroutine method for each method of the service. A method that streams
            reads an iterator of requests and writes to its context.
        service: unary and bidirectional methods only.
        encoded: names of methods that are given messages as bytes, and return such.
    """
    table = {
        method.name: (_bytes_handler if method.name in encoded else _handler)(
            getattr(servicer, method.name), method
        )
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, table)


def _bytes_handler(call: Method, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    if method.client_streaming:
        return grpc.stream_stream_rpc_method_handler(call)
    return grpc.unary_unary_rpc_method_handler(call)


def _handler(call: Method, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
    request = GetMessageClass(method.input_type)
    answer = GetMessageClass(method.output_type)
    if method.client_streaming:
        # One unreadable message means that the rest of the stream cannot be trusted either.
        return grpc.stream_stream_rpc_method_handler(
            call,
            request_deserializer=request.FromString,
            response_serializer=answer.SerializeToString,
        )
    return grpc.unary_unary_rpc_method_handler(
        _checked(call, method.input_type.full_name),
        request_deserializer=_parser(request),
        response_serializer=answer.SerializeToString,
    )


def _parser(request: type[Message]) -> Callable[[bytes], Message | DecodeError]:
    def parse(data: bytes) -> Message | DecodeError:
        try:
            return request.FromString(data)
        except DecodeError as error:
            return error

    return parse


def _checked(call: Method, name: str) -> Method:
    async def checked(request: object, context: Context) -> object:
        if isinstance(request, DecodeError):
            details = f"{name}: expected a protobuf message, found bytes that are none"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, details)
        return await call(request, context)

    return checked
