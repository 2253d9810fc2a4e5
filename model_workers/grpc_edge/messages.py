"""The messages of the gRPC edge, made from a table of the specification's fields.

Generated code would register `inference.*` in protobuf's default pool, where every other library that carries the same
protocol (a Triton or KServe client in one process with a worker) registers it as well, and the second one fails. Here
the pool is the caller's own.

Source: KServe open-inference-protocol, `inference_grpc.md`; Triton, `grpc_service.proto`, for the repository and the
statistics; gRPC, `health.proto`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

INFERENCE_PACKAGE: Final = "inference"
INFERENCE_SERVICE: Final = "inference.GRPCInferenceService"
HEALTH_PACKAGE: Final = "grpc.health.v1"
HEALTH_SERVICE: Final = "grpc.health.v1.Health"

HEALTH_MESSAGES: Final[dict[str, tuple[str, ...]]] = {
    "HealthCheckRequest": ("string service = 1",),
    "HealthCheckResponse": ("int32 status = 1",),  # an enumeration, which is an int32 on the wire
}

INFERENCE_MESSAGES: Final[dict[str, tuple[str, ...]]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": ("bool live = 1",),
    "ServerReadyRequest": (),
    "ServerReadyResponse": ("bool ready = 1",),
    "ModelReadyRequest": ("string name = 1", "string version = 2"),
    "ModelReadyResponse": ("bool ready = 1",),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": ("string name = 1", "string version = 2", "repeated string extensions = 3"),
    "ModelMetadataRequest": ("string name = 1", "string version = 2"),
    "ModelMetadataResponse": (
        "string name = 1",
        "repeated string versions = 2",
        "string platform = 3",
        "repeated ModelMetadataResponse.TensorMetadata inputs = 4",
        "repeated ModelMetadataResponse.TensorMetadata outputs = 5",
    ),
    "ModelMetadataResponse.TensorMetadata": ("string name = 1", "string datatype = 2", "repeated int64 shape = 3"),
    "InferParameter": (
        "oneof parameter_choice bool bool_param = 1",
        "oneof parameter_choice int64 int64_param = 2",
        "oneof parameter_choice string string_param = 3",
        "oneof parameter_choice double double_param = 4",
        "oneof parameter_choice uint64 uint64_param = 5",
    ),
    "InferTensorContents": (
        "repeated bool bool_contents = 1",
        "repeated int32 int_contents = 2",
        "repeated int64 int64_contents = 3",
        "repeated uint32 uint_contents = 4",
        "repeated uint64 uint64_contents = 5",
        "repeated float fp32_contents = 6",
        "repeated double fp64_contents = 7",
        "repeated bytes bytes_contents = 8",
    ),
    "ModelInferRequest": (
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        "map InferParameter parameters = 4",
        "repeated ModelInferRequest.InferInputTensor inputs = 5",
        "repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6",
        "repeated bytes raw_input_contents = 7",
    ),
    "ModelInferRequest.InferInputTensor": (
        "string name = 1",
        "string datatype = 2",
        "repeated int64 shape = 3",
        "map InferParameter parameters = 4",
        "InferTensorContents contents = 5",
    ),
    "ModelInferRequest.InferRequestedOutputTensor": ("string name = 1", "map InferParameter parameters = 2"),
    "ModelInferResponse": (
        "string model_name = 1",
        "string model_version = 2",
        "string id = 3",
        "map InferParameter parameters = 4",
        "repeated ModelInferResponse.InferOutputTensor outputs = 5",
        "repeated bytes raw_output_contents = 6",
    ),
    "ModelInferResponse.InferOutputTensor": (
        "string name = 1",
        "string datatype = 2",
        "repeated int64 shape = 3",
        "map InferParameter parameters = 4",
        "InferTensorContents contents = 5",
    ),
    "ModelStatisticsRequest": ("string name = 1", "string version = 2"),
    "ModelStatisticsResponse": ("repeated ModelStatistics model_stats = 1",),
    "ModelStatistics": (
        "string name = 1",
        "string version = 2",
        "uint64 last_inference = 3",
        "uint64 inference_count = 4",
        "uint64 execution_count = 5",
        "InferStatistics inference_stats = 6",
        "repeated InferBatchStatistics batch_stats = 7",
    ),
    "InferStatistics": (
        "StatisticDuration success = 1",
        "StatisticDuration fail = 2",
        "StatisticDuration queue = 3",
        "StatisticDuration compute_input = 4",
        "StatisticDuration compute_infer = 5",
        "StatisticDuration compute_output = 6",
        "StatisticDuration cache_hit = 7",
        "StatisticDuration cache_miss = 8",
    ),
    "InferBatchStatistics": (
        "uint64 batch_size = 1",
        "StatisticDuration compute_input = 2",
        "StatisticDuration compute_infer = 3",
        "StatisticDuration compute_output = 4",
    ),
    "StatisticDuration": ("uint64 count = 1", "uint64 ns = 2"),
    "ModelRepositoryParameter": (
        "oneof parameter_choice bool bool_param = 1",
        "oneof parameter_choice int64 int64_param = 2",
        "oneof parameter_choice string string_param = 3",
        "oneof parameter_choice bytes bytes_param = 4",
    ),
    "RepositoryIndexRequest": ("string repository_name = 1", "bool ready = 2"),
    "RepositoryIndexResponse": ("repeated RepositoryIndexResponse.ModelIndex models = 1",),
    "RepositoryIndexResponse.ModelIndex": (
        "string name = 1",
        "string version = 2",
        "string state = 3",
        "string reason = 4",
    ),
    "RepositoryModelLoadRequest": (
        "string repository_name = 1",
        "string model_name = 2",
        "map ModelRepositoryParameter parameters = 3",
    ),
    "RepositoryModelLoadResponse": (),
    "RepositoryModelUnloadRequest": (
        "string repository_name = 1",
        "string model_name = 2",
        "map ModelRepositoryParameter parameters = 3",
    ),
    "RepositoryModelUnloadResponse": (),
}
"""Fields by message, a nested one after its outer one. `map` means `map<string, …>`."""

_FIELD: Final = re.compile(
    r"(?:oneof (?P<oneof>\w+) )?(?:(?P<label>repeated|map) )?(?P<type>[\w.]+) (?P<name>\w+) = (?P<number>\d+)"
)
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = frozenset({"bool", "int32", "int64", "uint32", "uint64", "float", "double", "string", "bytes"})

MessageClass = Any
"""A protobuf message class: made at run time, so no type checker knows its fields."""


def inference_messages() -> dict[str, MessageClass]:
    """Make the messages of `inference.GRPCInferenceService`, by name without the package, in a pool of their own."""
    return message_classes(INFERENCE_PACKAGE, INFERENCE_MESSAGES)


def health_messages() -> dict[str, MessageClass]:
    """Make the messages of `grpc.health.v1.Health`, by name without the package, in a pool of their own."""
    return message_classes(HEALTH_PACKAGE, HEALTH_MESSAGES)


def message_classes(package: str, table: Mapping[str, Sequence[str]]) -> dict[str, MessageClass]:
    """Make a message class of each entry, `Outer.Inner` being nested in `Outer`, which stands before it."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    described: dict[str, Any] = {}
    for name, fields in table.items():
        outer, _, inner = name.rpartition(".")
        described[name] = message = described[outer].nested_type.add() if outer else file.message_type.add()
        message.name = inner
        for field in fields:
            _add_field(message, field, f".{package}", name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}")) for name in described
    }


def _add_field(message: Any, line: str, package: str, message_name: str) -> None:
    parsed = _FIELD.fullmatch(line)
    if parsed is None:
        raise ValueError(f"{message_name}: {line!r} is no field")
    label = _Field.LABEL_REPEATED if parsed["label"] else _Field.LABEL_OPTIONAL
    field = message.field.add(name=parsed["name"], number=int(parsed["number"]), label=label)
    if parsed["label"] == "map":
        entry = _map_entry(message, parsed["name"], parsed["type"], package)
        field.type, field.type_name = _Field.TYPE_MESSAGE, f"{package}.{message_name}.{entry}"
    elif parsed["type"] in _SCALARS:
        field.type = _Field.Type.Value(f"TYPE_{parsed['type'].upper()}")
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f"{package}.{parsed['type']}"
    if parsed["oneof"]:
        if not message.oneof_decl:  # no message of the table has a second one
            message.oneof_decl.add(name=parsed["oneof"])
        field.oneof_index = 0


def _map_entry(message: Any, field_name: str, value_type: str, package: str) -> str:
    """Nest the message that a map's field repeats, as protoc does. Returns its name."""
    entry = message.nested_type.add(name=f"{field_name.capitalize()}Entry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
    value = entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_MESSAGE)
    value.type_name = f"{package}.{value_type}"
    return str(entry.name)
