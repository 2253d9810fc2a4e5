import pytest
from tritonclient.grpc import service_pb2

from model_workers.grpc_edge.messages import (
    HEALTH_MESSAGES,
    INFERENCE_MESSAGES,
    health_messages,
    inference_messages,
    message_classes,
)

THEIRS_ONLY = {"ModelStatistics": {"memory_usage", "response_stats"}}
"""Fields that Triton added and that are left out here: a reader that knows them meets their absence."""


def fields_of(descriptor):
    """Tell what decides the bytes of each field."""
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else None,
            field.containing_oneof.name if field.containing_oneof else None,
            bool(field.message_type and field.message_type.GetOptions().map_entry),
        )
        for field in descriptor.fields
    }


def their_descriptor(name):
    outer, *inner = name.split(".")
    descriptor = service_pb2.DESCRIPTOR.message_types_by_name[outer]
    for part in inner:
        descriptor = descriptor.nested_types_by_name[part]
    return descriptor


@pytest.mark.parametrize("name", INFERENCE_MESSAGES)
def test_every_field_has_the_number_type_and_label_that_it_has_in_a_public_client(name):
    ours, theirs = fields_of(inference_messages()[name].DESCRIPTOR), fields_of(their_descriptor(name))
    assert ours == {field: told for field, told in theirs.items() if field not in THEIRS_ONLY.get(name, ())}


def test_every_method_that_is_served_has_the_messages_of_the_public_service():
    (service,) = service_pb2.DESCRIPTOR.services_by_name.values()
    assert service.full_name == "inference.GRPCInferenceService"
    pairs = {(method.input_type.name, method.output_type.name) for method in service.methods}
    requests = [name for name in INFERENCE_MESSAGES if name.endswith("Request")]
    assert {(name, name.replace("Request", "Response")) for name in requests} <= pairs


def test_a_message_of_ours_is_read_by_a_public_client_and_the_other_way_round():
    ours = inference_messages()["ModelInferRequest"](model_name="m", id="7", raw_input_contents=[b"\1\0\0\0"])
    ours.parameters["timeout"].int64_param = 5
    ours.inputs.add(name="x", datatype="INT32", shape=[1, -1]).contents.int_contents.extend([3, -4])
    theirs = service_pb2.ModelInferRequest.FromString(ours.SerializeToString())
    assert theirs.parameters["timeout"].int64_param == 5
    assert list(theirs.inputs[0].contents.int_contents) == [3, -4]
    assert type(ours).FromString(theirs.SerializeToString()) == ours


def test_two_sets_of_messages_live_in_one_process():
    first, second = inference_messages()["InferParameter"], inference_messages()["InferParameter"]
    assert first is not second
    assert first(int64_param=3).SerializeToString() == second(int64_param=3).SerializeToString()


def test_a_health_status_is_the_varint_of_its_enumeration():
    assert set(health_messages()) == set(HEALTH_MESSAGES)
    assert health_messages()["HealthCheckResponse"](status=1).SerializeToString() == b"\x08\x01"


def test_a_line_of_the_table_that_is_no_field_is_refused():
    with pytest.raises(ValueError, match="Broken: 'string name' is no field"):
        message_classes("broken", {"Broken": ("string name",)})
