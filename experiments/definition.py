"""An experiment's document, checked and frozen. The shape is that of the YAML files and of the admin API."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, TypeVar
from zlib import crc32

from experiments import buckets, eppo, fields, growthbook
from experiments.buckets import BUCKETS, Draw
from experiments.errors import ExperimentError
from experiments.fields import SALT, Ranges
from experiments.guardrails import Guardrail, Ramp, parse_guardrails, parse_ramp
from experiments.metrics import MetricsPlan, parse_metrics
from experiments.targeting import Condition, TargetingError, compile_condition
from experiments.variants import NOBODY, Variant, arm_table, control_of, parse_variants

SLOTS_MAX: Final = 1_000
OVERRIDES_MAX: Final = 10_000

KEYS: Final = (
    "experiment",
    "model",
    "unit",
    "state",
    "hash",
    "salt",
    "salts",
    "layer",
    "holdout",
    "enrol_bp",
    "where",
    "variants",
    "overrides",
    "shadow",
    "guardrails",
    "ramp",
    "metrics",
    "winner",
)


Word = TypeVar("Word", bound=StrEnum)


class State(StrEnum):
    """Where an experiment is in its life."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    CONCLUDED = "concluded"


class Hash(StrEnum):
    """How units are drawn."""

    V1 = "v1"
    GROWTHBOOK_V2 = "growthbook-v2"
    EPPO = "eppo"


@dataclass(frozen=True, slots=True)
class Holdout:
    """A named share of units that take part in no experiment that names it."""

    name: str
    bp: int


@dataclass(frozen=True, slots=True)
class Shadow:
    """A version that scores a share of the units once more, and whose answer nobody gets."""

    version: str
    sample_bp: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A checked experiment.

    The draws and the table of arms are made once, so that `assign` only hashes and looks up. `revision` and `epoch` are
    the store's numbers; of a document from a file, fingerprints of it and of what decides an assignment.
    """

    name: str
    model: str
    unit: str
    state: State
    hash: Hash
    salt: str
    salts: tuple[str, str]
    """Of enrolment and of the split: the salt twice, but for `hash: eppo`."""

    layer: str
    slots: Ranges
    holdout: Holdout | None
    enrol_bp: int
    where: Condition | None
    variants: tuple[Variant, ...]
    overrides: Mapping[str, Variant]
    winner: Variant | None
    shadow: Shadow | None
    guardrails: tuple[Guardrail, ...]
    ramp: Ramp | None
    metrics: MetricsPlan | None
    revision: int
    epoch: int
    document: Mapping[str, Any] = field(repr=False)
    enrol: Draw = field(repr=False, compare=False)
    enrolled_below: int = field(repr=False)
    """Enrolment buckets under it take part."""

    split: Draw = field(repr=False, compare=False)
    arms: bytes = field(repr=False)
    """By split bucket: the index of its variant, or NOBODY."""

    layer_draw: Draw | None = field(repr=False, compare=False)
    """None where the experiment has the whole layer."""

    holdout_draw: Draw | None = field(repr=False, compare=False)
    shadow_draw: Draw | None = field(repr=False, compare=False)

    @property
    def control(self) -> Variant:
        """The arm that others are compared with."""
        return control_of(self.variants)

    def variant_at(self, split_bucket: int) -> Variant | None:
        """Return the arm that has the bucket; None where none has."""
        index = self.arms[split_bucket]
        return None if index == NOBODY else self.variants[index]

    def variant_named(self, name: str) -> Variant | None:
        """Return the arm of that name, if there is one."""
        return next((variant for variant in self.variants if variant.name == name), None)


def parse_experiment(
    document: Mapping[str, Any], *, revision: int | None = None, epoch: int | None = None
) -> Experiment:
    """Check a document and freeze it. Raises ExperimentError, which names the key at fault.

    revision, epoch: the store's; None takes fingerprints in their place.
    """
    if not isinstance(document, Mapping):
        raise ExperimentError("experiment", "a document is a mapping of keys to values")
    unknown = next((key for key in document if key not in KEYS), None)
    if unknown is not None:
        raise ExperimentError(
            str(unknown)[: fields.SHOWN_CHARACTERS_MAX], f"no such key; there are: {', '.join(sorted(KEYS))}"
        )
    name = fields.text(document.get("experiment"), "experiment")
    chosen = _one_of(Hash, document.get("hash", "v1"), "hash")
    # A file without a salt means the same salt in every process and after every restart.
    salt = fields.text(document.get("salt", default_salt(name)), "salt", SALT)
    salts = _salts(document.get("salts"), salt, chosen)
    state = _one_of(State, document.get("state", "draft"), "state")
    variants = _variants(document.get("variants"), chosen)
    layer, slots = _layer(document.get("layer"))
    holdout = _holdout(document.get("holdout"))
    ramp = _ramp(document.get("ramp"), variants)
    enrol_bp = fields.basis_points(document.get("enrol_bp", ramp.steps_bp[0] if ramp else BUCKETS), "enrol_bp")
    shadow = _shadow(document.get("shadow"))
    enrol = _draw(chosen, "enrol", salts[0])
    read = Experiment(
        name=name,
        model=fields.text(document.get("model"), "model"),
        unit=fields.text(document.get("unit"), "unit"),
        state=state,
        hash=chosen,
        salt=salt,
        salts=salts,
        layer=layer,
        slots=slots,
        holdout=holdout,
        enrol_bp=enrol_bp,
        where=_where(document.get("where")),
        variants=variants,
        overrides=_overrides(document.get("overrides"), variants),
        winner=_winner(document.get("winner"), variants, state),
        shadow=shadow,
        guardrails=_guardrails(document.get("guardrails"), variants),
        ramp=ramp,
        metrics=parse_metrics(document["metrics"]) if document.get("metrics") is not None else None,
        revision=fingerprint(document) if revision is None else revision,
        epoch=0 if epoch is None else epoch,
        document=dict(document),
        enrol=enrol,
        enrolled_below=BUCKETS if chosen is Hash.GROWTHBOOK_V2 else enrol_bp,
        split=enrol if chosen is Hash.GROWTHBOOK_V2 else _draw(chosen, "split", salts[1]),
        arms=_arms(chosen, variants, enrol_bp),
        layer_draw=None if slots == ((0, BUCKETS),) else buckets.draw("layer", layer),
        holdout_draw=buckets.draw("holdout", holdout.name) if holdout is not None else None,
        shadow_draw=buckets.draw("shadow", salt) if shadow is not None else None,
    )
    return read if epoch is not None else replace(read, epoch=fingerprint(what_decides(read)))


def default_salt(name: str) -> str:
    """Return the salt of a document that names none."""
    return sha256(f"sekisho/v1/salt/{name}".encode()).hexdigest()[:16]


def what_decides(experiment: Experiment) -> list[Any]:
    """Return what an assignment among the enrolled follows from: where it changes, an epoch begins.

    Not enrolment: who comes in by a ramp is drawn as everybody before, and nobody moves. As read, so that a default
    that is written out changes nothing.
    """
    holdout = experiment.holdout
    return [
        experiment.hash,
        experiment.salts,
        experiment.layer,
        fields.joined(experiment.slots),
        None if holdout is None else (holdout.name, holdout.bp),
        experiment.document.get("where"),
        [(v.name, v.version, fields.joined(v.ranges)) for v in experiment.variants],
    ]


def fingerprint(value: Any) -> int:
    """Return a number that is equal where the value is, in any process: 32 bits."""
    return crc32(json.dumps(_with_text_keys(value), sort_keys=True, default=str).encode())


def _with_text_keys(value: Any) -> Any:
    # YAML has keys that are numbers, or dates; JSON, which the fingerprint is made of, has not.
    if isinstance(value, Mapping):
        return {str(key): _with_text_keys(item) for key, item in value.items()}
    return [_with_text_keys(item) for item in value] if isinstance(value, list | tuple) else value


def _one_of(kind: type[Word], value: Any, key: str) -> Word:
    try:
        return kind(value)
    except ValueError:
        raise ExperimentError(key, f"{fields.shown(value)}: one of {', '.join(kind)} is expected") from None


def _salts(value: Any, salt: str, chosen: Hash) -> tuple[str, str]:
    if value is None:
        return (f"traffic-{salt}", f"split-{salt}") if chosen is Hash.EPPO else (salt, salt)
    if chosen is not Hash.EPPO:
        raise ExperimentError("salts", "only `hash: eppo` has two salts of its own")
    given = fields.mapping(value, "salts", ("enrol", "split"))
    enrol, split = fields.plain(given.get("enrol"), "salts.enrol"), fields.plain(given.get("split"), "salts.split")
    if enrol == split:
        raise ExperimentError("salts.split", "is that of enrolment: the two would be one draw, and a ramp uneven")
    return enrol, split


def _draw(chosen: Hash, purpose: str, salt: str) -> Draw:
    if chosen is Hash.GROWTHBOOK_V2:
        return growthbook.draw(salt)
    return eppo.draw(salt) if chosen is Hash.EPPO else buckets.draw(purpose, salt)


def _arms(chosen: Hash, variants: tuple[Variant, ...], enrol_bp: int) -> bytes:
    if chosen is not Hash.GROWTHBOOK_V2:
        return arm_table([variant.ranges for variant in variants])
    return arm_table(
        [(r,) if r[0] < r[1] else () for r in growthbook.covered_ranges([v.bp for v in variants], enrol_bp)]
    )


def _variants(listed: Any, chosen: Hash) -> tuple[Variant, ...]:
    variants = parse_variants(listed)
    at = next((i for i, entry in enumerate(listed) if entry.get("ranges") is not None), None)
    if chosen is Hash.GROWTHBOOK_V2 and at is not None:
        raise ExperimentError(f"variants[{at}].ranges", "GrowthBook works its ranges out from weights and coverage")
    return variants


def _layer(value: Any) -> tuple[str, Ranges]:
    if value is None:
        return "default", ((0, BUCKETS),)
    given = fields.mapping(value, "layer", ("name", "slots"))
    name = fields.text(given.get("name", "default"), "layer.name")
    return name, fields.ranges(given.get("slots", [[0, BUCKETS]]), "layer.slots", SLOTS_MAX)


def _holdout(value: Any) -> Holdout | None:
    if value is None:
        return None
    given = fields.mapping(value, "holdout", ("name", "bp"))
    return Holdout(fields.text(given.get("name"), "holdout.name"), fields.basis_points(given.get("bp"), "holdout.bp"))


def _shadow(value: Any) -> Shadow | None:
    if value is None:
        return None
    given = fields.mapping(value, "shadow", ("version", "sample_bp"))
    version = fields.version(given.get("version"), "shadow.version")
    return Shadow(version, fields.basis_points(given.get("sample_bp", BUCKETS), "shadow.sample_bp"))


def _guardrails(value: Any, variants: tuple[Variant, ...]) -> tuple[Guardrail, ...]:
    read = parse_guardrails(value)
    if read and len(variants) < 2:
        raise ExperimentError("guardrails", "there is no arm to compare with control")
    if read and not control_of(variants).bp:
        raise ExperimentError("guardrails", "control has no share: there is nothing to compare the others with")
    return read


def _ramp(value: Any, variants: tuple[Variant, ...]) -> Ramp | None:
    read = parse_ramp(value)
    if read is None or not read.promote:
        return read
    if len(variants) != 2:
        raise ExperimentError("ramp.promote", "which of several treatments wins is not for a ramp to say: two variants")
    if read.steps_bp[-1] == 0 or any(variant.bp == 0 for variant in variants):
        raise ExperimentError("ramp.promote", "what nobody has tried cannot win: a step above 0, and a share for each")
    return read


def _winner(value: Any, variants: tuple[Variant, ...], state: State) -> Variant | None:
    if value is None:
        return None
    found = next((variant for variant in variants if variant.name == value), None)
    if found is None:
        known = ", ".join(variant.name for variant in variants)
        raise ExperimentError("winner", f"{fields.shown(value)} is not one of the variants: {known}")
    if state is not State.CONCLUDED:
        raise ExperimentError("winner", "an experiment has a winner once it is concluded: state is " + state)
    return found


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
        unit = fields.decimal(given)
        if not isinstance(unit, str) or not unit or not fields.is_utf8(unit):
            raise ExperimentError(
                f"overrides.{fields.shown(given)}", "a unit is a string that is not empty, or a whole number"
            )
        if unit in overrides:
            raise ExperimentError(f"overrides.{unit}", "the unit is listed twice, as a number and as text")
        if not isinstance(name, str) or name not in by_name:
            problem = f"{fields.shown(name)} is not one of the variants: {', '.join(by_name)}"
            raise ExperimentError(f"overrides.{unit}", problem)
        overrides[unit] = by_name[name]
    return overrides
