"""What can go wrong with a request, as facts. Only `gateway/edge` knows which status each becomes."""

from typing import Any, ClassVar


class GatewayError(Exception):
    """A request that cannot be answered.

    `code` is stable: clients may branch on it. `field` names the part at fault.
    """

    code: ClassVar[str]

    def __init__(self, detail: str, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail, self.field = detail, field
        self.facts: dict[str, Any] = {}
        """More that a client may want to know, by name."""


class MalformedRequest(GatewayError):
    """The body or a header cannot be read at all."""

    code = "malformed_request"


class UnsupportedMediaType(GatewayError):
    """The body is not said to be JSON."""

    code = "unsupported_media_type"


class BodyTooLarge(GatewayError):
    """The body has more bytes than the route takes."""

    code = "body_too_large"


class TooSlow(GatewayError):
    """The request did not arrive whole in the time that there is for it."""

    code = "request_timeout"


class TooManyInstances(GatewayError):
    """More instances than the model's route takes in one request, or rows of them that are too large together."""

    code = "too_many_instances"


class InvalidRequest(GatewayError):
    """Well-formed, but a field is of the wrong type or is not known."""

    code = "invalid_request"


class UnknownEntity(GatewayError):
    """An entity kind that the model does not use."""

    code = "unknown_entity"


class MissingEntity(GatewayError):
    """An entity that the model's features need was not given."""

    code = "missing_entity"


class UnknownFeature(GatewayError):
    """A feature that the model does not take from a request."""

    code = "unknown_feature"


class MissingFeature(GatewayError):
    """A feature that the caller must send was not sent."""

    code = "missing_feature"


class WrongFeatureType(GatewayError):
    """A feature's value is not of its declared type."""

    code = "wrong_feature_type"


class MissingUnit(GatewayError):
    """The model is split by unit, and the request names none, or several."""

    code = "missing_unit"


class UnknownVariant(GatewayError):
    """The forced variant is no arm of the running experiment."""

    code = "unknown_variant"


class ForcedVariantRefused(GatewayError):
    """This caller may not choose a variant."""

    code = "forced_variant_refused"


class Unauthenticated(GatewayError):
    """The request carries no key, or one that is not in force."""

    code = "unauthenticated"


class Forbidden(GatewayError):
    """The caller's key may not do this, or not with this model."""

    code = "forbidden"


class RateLimited(GatewayError):
    """The caller's key has been used more often than it may. Carries in how many seconds it may be used again."""

    code = "rate_limited"

    def __init__(self, detail: str, wait_s: float) -> None:
        super().__init__(detail)
        self.wait_s = wait_s


class UnknownModel(GatewayError):
    """No route has that name."""

    code = "unknown_model"


class UnknownVersion(GatewayError):
    """The model's route has no such version."""

    code = "unknown_version"


class VersionInUse(GatewayError):
    """Requests are sent to the version: it cannot be removed. The message says by what."""

    code = "version_in_use"


class VersionNotReady(GatewayError):
    """The version cannot answer, so it cannot be made the default one."""

    code = "version_not_ready"


class ChangeNotKept(GatewayError):
    """The state directory does not take a change, which would so be lost with the process: it was not made."""

    code = "change_not_kept"


class UnknownExperiment(GatewayError):
    """There is no experiment of that name."""

    code = "unknown_experiment"


class NoResults(GatewayError):
    """Nobody has published results of the experiment."""

    code = "no_results"


class ExperimentsFromFiles(GatewayError):
    """The gateway reads its experiments from files: they are changed there."""

    code = "experiments_from_files"


class PreconditionRequired(GatewayError):
    """A change must say what it was made of."""

    code = "precondition_required"


class PreconditionFailed(GatewayError):
    """What a change was made of is not what there is any more. Carries what there is; None where it is gone."""

    code = "precondition_failed"

    def __init__(self, detail: str, current: dict[str, Any] | None) -> None:
        super().__init__(detail, "if-match")
        self.facts = {"current": current}


class ExperimentsUnavailable(GatewayError):
    """The store of experiments cannot be read or written just now."""

    code = "experiments_unavailable"


class UnknownPath(GatewayError):
    """Nothing is served there."""

    code = "unknown_path"


class MethodNotAllowed(GatewayError):
    """The path is served, but not by that method."""

    code = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"use {allowed}")
        self.allowed = allowed


class FeaturesMissing(GatewayError):
    """A view whose rows the route requires has none for this entity."""

    code = "features_missing"


class FeaturesUnavailable(GatewayError):
    """The feature store cannot be read, and the route does not allow defaults."""

    code = "features_unavailable"


class Overloaded(GatewayError):
    """Too many requests are in flight for one of this priority."""

    code = "overloaded"


class ModelNotReady(GatewayError):
    """The version's manifest or feature views have not been seen yet."""

    code = "model_not_ready"


class WorkerUnavailable(GatewayError):
    """No worker of the version gave an answer."""

    code = "worker_unavailable"


class WorkerRefused(GatewayError):
    """A worker answered, and its answer is an error or does not fit the manifest."""

    code = "worker_refused"


class DeadlineExceeded(GatewayError):
    """The request's time ran out. Carries the stage in which it did."""

    code = "deadline_exceeded"

    def __init__(self, stage: str, budget_ms: float) -> None:
        super().__init__(f"the budget of {budget_ms:g} ms ran out while {stage}")
        self.stage = stage


class OutcomesNotAccepted(GatewayError):
    """The outcome log cannot take more just now."""

    code = "outcomes_not_accepted"
