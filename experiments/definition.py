"""An experiment's document, checked and frozen. The shape is that of the YAML files and of the admin API."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final
from zlib import crc32

from experiments.buckets import BUCKETS, bucket_prefix
from experiments.targeting import Condition, TargetingError, compile_condition

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}\Z")
SALT: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
VARIANTS_MAX: Final = 100
SLOTS_MAX: Final = 1_000
OVERRIDES_MAX: Final = 10_000
SHOWN_CHARACTERS_MAX: Final = 100
"""How much of a wrong value an error repeats."""

_KEYS: Final = frozenset(
    [
        "experiment",
        "model",
        "unit",
        "state",
        "hash",
        "salt",
        "layer",
        "enrol_bp",
        "where",
        "variants",
        "overrides",
        "shadow",
        "guardrails",
        "ramp",
        "metrics",
    ]
)
NOT_ACTED_ON: Final = ("shadow", "guardrails", "ramp")
"""Read, kept and shown, but no program acts on them yet: a loader says so."""


class ExperimentError(ValueError):
    """A document is not a valid experiment. Carries the key at fault, as a path."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key, self.problem = key, problem


class State(StrEnum):
    """Where an experiment is in its life."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    CONCLUDED = "concluded"


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm: the model version that it serves and its half-open range of split buckets."""

    name: str
    version: str
    bp: int
    first_bucket: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A checked experiment.

    The prefixes and the table are worked out once, so that `assign` only hashes and looks up.
    """

    name: str
    model: str
    unit: str
    state: State
    salt: str
    layer: str
    slots: tuple[tuple[int, int], ...]
    enrol_bp: int
    where: Condition | None
    variants: tuple[Variant, ...]
    overrides: Mapping[str, Variant]
    revision: int
    epoch: int
    document: Mapping[str, Any] = field(repr=False)
    enrol_prefix: bytes = field(repr=False)
    split_prefix: bytes = field(repr=False)
    layer_prefix: bytes = field(repr=False)

    def variant_at(self, split_bucket: int) -> Variant:
        """Return the arm whose range holds the bucket."""
        chosen = self.variants[0]
        for variant in self.variants:
            if variant.first_bucket > split_bucket:
                break
            if variant.bp:
                chosen = variant
        return chosen

    def variant_named(self, name: str) -> Variant | None:
        """Return the arm of that name, if there is one."""
        return next((variant for variant in self.variants if variant.name == name), None)


def parse_experiment(document: Mapping[str, Any]) -> Experiment:
    """Check a document and freeze it. Raises ExperimentError, which names the key at fault."""
    if not isinstance(document, Mapping):
        raise ExperimentError("experiment", "a document is a mapping of keys to values")
    unknown = next((key for key in document if key not in _KEYS), None)
    if unknown is not None:
        raise ExperimentError(str(unknown), f"no such key; there are: {', '.join(sorted(_KEYS))}")
    name = _text(document.get("experiment"), "experiment", NAME)
    if document.get("hash", "v1") != "v1":
        raise ExperimentError("hash", f"{_shown(document['hash'])} is not known here; v1 is")
    # A file without a salt means the same salt in every process and after every restart.
    salt = _text(document.get("salt", sha256(f"sekisho/v1/salt/{name}".encode()).hexdigest()[:16]), "salt", SALT)
    variants = _variants(document.get("variants"))
    layer, slots = _layer(document.get("layer"))
    enrol_bp = _basis_points(document.get("enrol_bp", BUCKETS), "enrol_bp")
    return Experiment(
        name=name,
        model=_text(document.get("model"), "model", NAME),
        unit=_text(document.get("unit"), "unit", NAME),
        state=_state(document.get("state", "draft")),
        salt=salt,
        layer=layer,
        slots=slots,
        enrol_bp=enrol_bp,
        where=_where(document.get("where")),
        variants=variants,
        overrides=_overrides(document.get("overrides"), variants),
        revision=_fingerprint(document),
        epoch=_fingerprint([salt, enrol_bp, layer, slots, [(v.name, v.version, v.bp) for v in variants]]),
        document=dict(document),
        enrol_prefix=bucket_prefix("enrol", salt),
        split_prefix=bucket_prefix("split", salt),
        layer_prefix=bucket_prefix("layer", layer),
    )


def refuse_conflicts(experiments: list[Experiment]) -> None:
    """Check what only a whole set can break: names, a layer's unit kind, its slots. Raises ExperimentError."""
    seen: dict[str, Experiment] = {}
    for experiment in experiments:
        if experiment.name in seen:
            raise ExperimentError("experiment", f"{experiment.name!r} is defined twice")
        seen[experiment.name] = experiment
    live = [e for e in experiments if e.state in {State.RUNNING, State.PAUSED}]
    for index, one in enumerate(live):
        for other in live[index + 1 :]:
            if one.layer != other.layer or one.model != other.model:
                continue
            if one.unit != other.unit:
                raise ExperimentError(
                    "layer", f"{one.name!r} and {other.name!r} share layer {one.layer!r} but differ in unit"
                )
            if any(a < d and c < b for a, b in one.slots for c, d in other.slots):
                raise ExperimentError(
                    "layer", f"{one.name!r} and {other.name!r} overlap in layer {one.layer!r}: give each its own slots"
                )


def _fingerprint(value: Any) -> int:
    return crc32(json.dumps(_with_text_keys(value), sort_keys=True, default=str).encode())


def _with_text_keys(value: Any) -> Any:
    # YAML has keys that are numbers, or dates; JSON, which the fingerprint is made of, has not.
    if isinstance(value, Mapping):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list | tuple) else value


def _text(value: Any, key: str, pattern: re.Pattern[str]) -> str:
    if value is None:
        raise ExperimentError(key, "is required")
    if not isinstance(value, str) or not pattern.match(value):
        raise ExperimentError(
            key, f"{_shown(value)} is not a name: a string of letters, digits, `_`, `-` (and `.`) is expected"
        )
    return value


def _shown(value: Any) -> str:
    return repr(value)[:SHOWN_CHARACTERS_MAX]


def _state(value: Any) -> State:
    try:
        return State(value)
    except ValueError:
        raise ExperimentError("state", f"{_shown(value)}: one of {', '.join(State)} is expected") from None


def _basis_points(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= BUCKETS:
        raise ExperimentError(key, f"{_shown(value)}: a whole number of basis points from 0 to {BUCKETS} is expected")
    return value


def _variants(listed: Any) -> tuple[Variant, ...]:
    if not isinstance(listed, list) or not 1 <= len(listed) <= VARIANTS_MAX:
        raise ExperimentError("variants", f"a list of 1 to {VARIANTS_MAX} variants is expected")
    variants: list[Variant] = []
    first = 0
    for index, entry in enumerate(listed):
        where = f"variants[{index}]"
        if not isinstance(entry, Mapping) or set(entry) != {"name", "version", "bp"}:
            raise ExperimentError(where, "exactly name, version and bp are expected")
        name = _text(entry["name"], f"{where}.name", NAME)
        version = entry["version"]
        if isinstance(version, int) and not isinstance(version, bool):
            version = str(version)  # YAML reads an unquoted 2 as a number
        version = _text(version, f"{where}.version", NAME)
        if any(v.name == name for v in variants):
            raise ExperimentError(f"{where}.name", f"{name!r} is used twice")
        bp = _basis_points(entry["bp"], f"{where}.bp")
        variants.append(Variant(name, version, bp, first))
        first += bp
    if first != BUCKETS:
        raise ExperimentError("variants", f"bp add up to {first}, not to {BUCKETS}")
    return tuple(variants)


def _layer(value: Any) -> tuple[str, tuple[tuple[int, int], ...]]:
    if value is None:
        return "default", ((0, BUCKETS),)
    if not isinstance(value, Mapping) or set(value) - {"name", "slots"}:
        raise ExperimentError("layer", "a mapping with name and slots is expected")
    name = _text(value.get("name", "default"), "layer.name", NAME)
    slots = value.get("slots", [[0, BUCKETS]])
    if not isinstance(slots, list) or not 1 <= len(slots) <= SLOTS_MAX:
        raise ExperimentError("layer.slots", f"a list of 1 to {SLOTS_MAX} ranges is expected")
    ranges: list[tuple[int, int]] = []
    for index, pair in enumerate(slots):
        whole = (
            isinstance(pair, list)
            and len(pair) == 2
            and all(isinstance(n, int) and not isinstance(n, bool) for n in pair)
        )
        if not whole or not 0 <= pair[0] < pair[1] <= BUCKETS:
            raise ExperimentError(
                f"layer.slots[{index}]", f"{_shown(pair)}: [first, end) within 0 and {BUCKETS} is expected"
            )
        if any(pair[0] < end and first < pair[1] for first, end in ranges):
            raise ExperimentError(f"layer.slots[{index}]", f"{pair!r} overlaps another range of this experiment")
        ranges.append((pair[0], pair[1]))
    return name, tuple(ranges)


def _where(value: Any) -> Condition | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ExperimentError("where", "an expression in a string is expected")
    try:
        return compile_condition(value)
    except TargetingError as error:
        raise ExperimentError("where", str(error)) from error


def _overrides(value: Any, variants: tuple[Variant, ...]) -> dict[str, Variant]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or len(value) > OVERRIDES_MAX:
        raise ExperimentError("overrides", f"a mapping of at most {OVERRIDES_MAX} units to variant names is expected")
    by_name = {variant.name: variant for variant in variants}
    overrides: dict[str, Variant] = {}
    for given, name in value.items():
        unit = str(given) if isinstance(given, int) and not isinstance(given, bool) else given
        if not isinstance(unit, str) or not unit:
            raise ExperimentError(
                f"overrides.{_shown(given)}", "a unit is a string that is not empty, or a whole number"
            )
        if unit in overrides:
            raise ExperimentError(f"overrides.{unit}", "the unit is listed twice, as a number and as text")
        if not isinstance(name, str) or name not in by_name:
            problem = f"{_shown(name)} is not one of the variants: {', '.join(by_name)}"
            raise ExperimentError(f"overrides.{unit}", problem)
        overrides[unit] = by_name[name]
    return overrides
