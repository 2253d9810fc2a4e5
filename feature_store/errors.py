"""What can go wrong with online features. Errors carry facts; the caller chooses what to do about them."""


class FeatureStoreError(Exception):
    """The root of this package's errors."""


class FeatureStoreUnavailable(FeatureStoreError):
    """Redis cannot be reached or will not answer. `reason` is its own text where it gave one."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"Redis at {address}: {reason}")
        self.address, self.reason = address, reason


class PartlyUnread(FeatureStoreUnavailable):
    """Some of the rows that were asked for could not be read. unread: their places; `rows` has None there."""

    def __init__(self, address: str, reason: str, rows: list[bytes | None], unread: frozenset[int]) -> None:
        super().__init__(address, reason)
        self.rows, self.unread = rows, unread


class CorruptRow(FeatureStoreError):
    """Stored bytes that are not a row of this layout."""

    def __init__(self, view: str, problem: str) -> None:
        super().__init__(f"view {view}: corrupt row: {problem}")
        self.view, self.problem = view, problem


class RowTooLarge(FeatureStoreError):
    """A row would take more bytes than a reader accepts. `row` counts from 0 within its batch."""

    def __init__(self, view: str, row: int, row_bytes: int, row_bytes_max: int) -> None:
        super().__init__(f"view {view}: row {row} takes {row_bytes} bytes; at most {row_bytes_max} are stored")
        self.view, self.row, self.row_bytes, self.row_bytes_max = view, row, row_bytes, row_bytes_max


class UnknownView(FeatureStoreError):
    """No such view is registered."""

    def __init__(self, view: str, known: tuple[str, ...]) -> None:
        super().__init__(f"view {view} is not registered; registered: {', '.join(known) or 'none'}")
        self.view, self.known = view, known


class UnknownFeature(FeatureStoreError):
    """The view has no feature of this name."""

    def __init__(self, view: str, feature: str) -> None:
        super().__init__(f"view {view} has no feature {feature}")
        self.view, self.feature = view, feature


class IncompatibleDatatype(FeatureStoreError):
    """A model wants a feature as a tensor datatype that its dtype does not widen to."""

    def __init__(self, view: str, feature: str, dtype: str, datatype: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{view}:{feature} is {dtype} and cannot be fed as {datatype}; it can as {', '.join(allowed)}")
        self.view, self.feature, self.dtype, self.datatype, self.allowed = view, feature, dtype, datatype, allowed


class NoDefault(FeatureStoreError):
    """A feature without a default is wanted as a datatype that has no NaN, so a null could not be fed."""

    def __init__(self, view: str, feature: str, datatype: str) -> None:
        super().__init__(f"{view}:{feature} has no default, and {datatype} has no NaN for a null: declare a default")
        self.view, self.feature, self.datatype = view, feature, datatype


class WrongFeatureValue(FeatureStoreError):
    """A value given for a feature is not of its type or range."""

    def __init__(self, feature: str, expected: str, got: str) -> None:
        super().__init__(f"feature {feature}: expected {expected}, got {got}")
        self.feature, self.expected, self.got = feature, expected, got


class InvalidEntityId(FeatureStoreError):
    """An entity id is empty, too long, or not text that UTF-8 can say."""

    def __init__(self, entity_id: str, problem: str) -> None:
        super().__init__(f"entity id {entity_id[:32]!r}: {problem}")
        self.entity_id, self.problem = entity_id, problem


class CorruptRegistry(FeatureStoreError):
    """The registry in Redis holds something that `sekisho-features apply` does not write."""

    def __init__(self, view: str, field: str, problem: str) -> None:
        super().__init__(f"registered view {view}: field {field}: {problem}")
        self.view, self.field, self.problem = view, field, problem
