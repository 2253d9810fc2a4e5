"""Where the rows of one request come from: from stored features, or from the caller, as tensors."""

from collections.abc import Awaitable, Sequence
from typing import Protocol

from contracts.datatypes import BYTES
from contracts.inference import Tensor, split_byte_elements
from contracts.manifest import Input
from gateway.errors import InvalidRequest
from gateway.feature_rows import FeatureAssembler, ModelRows, Snapshot
from gateway.predict_request import PredictRequest
from gateway.served_models import PlannedVersion


class RowSource(Protocol):
    """Makes the input rows of whichever version is to score them; asked once more where another has to step in."""

    @property
    def count(self) -> int:
        """How many rows there are."""
        ...

    def keep(self) -> None:
        """Keep what is read, so that rows that are asked for later are made of the same."""
        ...

    def rows(self, planned: PlannedVersion) -> Awaitable[ModelRows]:
        """Return this version's rows. Raises a GatewayError of the request or of the feature store, now or later."""
        ...


class StoredRows:
    """Rows made of stored features and of those that a predict request brings."""

    __slots__ = ("_features", "_request", "_snapshot")

    def __init__(self, features: FeatureAssembler, request: PredictRequest) -> None:
        self._features, self._request = features, request
        self._snapshot: Snapshot | None = None

    @property
    def count(self) -> int:
        """One row an instance."""
        return 1 if self._request.instances is None else len(self._request.instances)

    def keep(self) -> None:
        """Keep each stored row from its first reading on."""
        self._snapshot = Snapshot()

    def rows(self, planned: PlannedVersion) -> Awaitable[ModelRows]:
        """Fetch, project and join. Raises InvalidRequest where the version takes raw tensors only."""
        if planned.plan is None:
            signature = planned.signature
            raise InvalidRequest(
                f"{signature.label} lists no features: send it tensors, POST /v2/models/{signature.model}/infer"
            )
        return self._features.rows(planned.plan, self._request, self._snapshot)


class SentRows:
    """Rows that the caller sent as the model's own input tensors. outputs: those that it asks for; none: all."""

    __slots__ = ("_outputs", "_tensors", "count")

    def __init__(self, tensors: Sequence[Tensor], outputs: Sequence[str]) -> None:
        """Count the rows, which all tensors must have alike. Raises InvalidRequest."""
        counts = {tensor.shape[0] if tensor.shape else 0 for tensor in tensors}
        if len(counts) > 1:
            each = ", ".join(f"{tensor.name!r} {list(tensor.shape)}" for tensor in tensors)
            raise InvalidRequest(f"the first dimension counts rows and must be alike in all inputs: {each}", "inputs")
        self.count = counts.pop()
        if self.count == 0:
            raise InvalidRequest("the inputs have no rows", "inputs")
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._outputs = outputs

    def keep(self) -> None:
        """Keep nothing: the tensors are all there is."""

    async def rows(self, planned: PlannedVersion) -> ModelRows:
        """Check the tensors against the version's signature. Raises InvalidRequest, which names the tensor."""
        for name in self._outputs:
            if name not in planned.output_names:
                raise InvalidRequest(
                    f"there is no output {name!r}; the model has {list(planned.output_names)}", "outputs"
                )
        expected = planned.signature.inputs
        known = {model_input.name for model_input in expected}
        if self._tensors.keys() != known:
            raise InvalidRequest(f"the inputs are {sorted(self._tensors)}; the model takes {sorted(known)}", "inputs")
        tensors = [self._tensors[model_input.name] for model_input in expected]
        for model_input, tensor in zip(expected, tensors, strict=True):
            _check(model_input, tensor)
        declared = tuple(model_input.shape[1:] for model_input in expected)
        shapes = tuple(tensor.shape[1:] for tensor in tensors)
        inputs = tuple(bytes(tensor.data) for tensor in tensors)
        return ModelRows(self.count, inputs, [], (), None if shapes == declared else shapes)


def _check(expected: Input, tensor: Tensor) -> None:
    if tensor.datatype != expected.dtype:
        raise InvalidRequest(
            f"input {expected.name!r} is {tensor.datatype}; the model takes {expected.dtype}", "inputs"
        )
    fits = len(tensor.shape) == len(expected.shape) and all(
        declared in (-1, found) for declared, found in zip(expected.shape[1:], tensor.shape[1:], strict=True)
    )
    if not fits:
        raise InvalidRequest(
            f"input {expected.name!r} has shape {list(tensor.shape)}; the model takes {list(expected.shape)}", "inputs"
        )
    if tensor.datatype == BYTES:
        _check_texts(tensor)


def _check_texts(tensor: Tensor) -> None:
    # Here, because a worker's refusal would be taken for a fault of the worker.
    try:
        for element in split_byte_elements(tensor.data, tensor.name):
            element.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"input {tensor.name!r} holds an element that is not UTF-8", "inputs") from None
