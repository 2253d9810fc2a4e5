"""The JSON Schemas of the worker's OpenAPI document: the protocol's, and those of its extensions."""

import msgspec

from contracts.inference_schemas import (
    SCHEMAS,
    TEXT,
    Schema,
    description_schemas,
    inference_schemas,
    object_of,
    reference_to,
    whole_number,
)
from contracts.manifest import Manifest
from model_workers.repository_index import LOADING, READY, UNAVAILABLE, UNLOADING


def openapi_schemas(*, infers: bool, loads: bool) -> dict[str, Schema]:
    """Make the document's `components/schemas`, for a port that infers, or loads and unloads."""
    _, of_manifest = msgspec.json.schema_components([Manifest], ref_template=f"{SCHEMAS}{{name}}")
    return {
        **of_manifest,
        **description_schemas(),
        **_statistics_schemas(),
        **(inference_schemas() if infers else {}),
        **(_repository_schemas() if loads else {}),
    }


def _repository_schemas() -> dict[str, Schema]:
    state = {"type": "string", "enum": [READY, LOADING, UNLOADING, UNAVAILABLE]}
    version = {"description": "One version, for clients whose paths cannot name it", "type": "string", "minLength": 1}
    return {
        "IndexRequest": object_of((), ready={"description": "Only what answers", "type": "boolean"}),
        "IndexEntry": object_of(
            ("name", "version", "state", "reason"), name=TEXT, version=TEXT, state=state, reason=TEXT
        ),
        "OperationRequest": object_of((), parameters={"type": "object", "properties": {"version": version}}),
    }


def _statistics_schemas() -> dict[str, Schema]:
    counter = whole_number(0)
    duration = object_of(("count", "ns"), count=counter, ns=counter)
    durations = ("compute_input", "compute_infer", "compute_output")
    of_request = ("success", "fail", "queue", *durations, "cache_hit", "cache_miss")
    batch = object_of(("batch_size", *durations), batch_size=whole_number(1), **dict.fromkeys(durations, duration))
    return {
        "Statistics": object_of(
            ("model_stats",), model_stats={"type": "array", "items": reference_to("VersionStatistics")}
        ),
        "VersionStatistics": object_of(
            (
                "name",
                "version",
                "last_inference",
                "inference_count",
                "execution_count",
                "inference_stats",
                "batch_stats",
            ),
            name=TEXT,
            version=TEXT,
            last_inference={"description": "In ms since the epoch; 0 is never", **counter},
            inference_count={"description": "Rows", **counter},
            execution_count=counter,
            inference_stats=object_of(of_request, **dict.fromkeys(of_request, duration)),
            batch_stats={"type": "array", "items": batch},
        ),
    }
