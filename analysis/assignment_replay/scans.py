"""The log's distinct decisions: rows grouped by what they say, so that each decision is recomputed once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import ibis
import pyarrow as pa

from analysis.assignment_replay.history import Key
from analysis.assignment_replay.logged_assignment import FACTS
from analysis.assignment_replay.recomputation import Recomputation
from analysis.assignment_replay.replay_log import ROW_COLUMNS, LoggedRows, ReplayLog, facts_of, union
from analysis.assignment_replay.revision_spans import RevisionSpan
from analysis.assignment_replay.where_attributes import AttributeColumn
from contracts.prediction_record import ENTITY_PREFIX, STATUS_PREFIX

REVISIONS: Final = pa.schema([("of_experiment", pa.string()), ("of_revision", pa.int64())])


@dataclass(frozen=True, slots=True)
class Scan:
    """Rows that are grouped alike.

    columns: where the attributes are logged by which `where` is evaluated; None where it is not.
    table: ROW_COLUMNS and FACTS; with attributes, also `a0`, `a1`, …, of_several and of_tensors.
    """

    table: ibis.Table
    columns: tuple[AttributeColumn, ...] | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """What makes a decision."""
        return tuple(name for name in self.table.columns if name not in ROW_COLUMNS)

    def decisions(self) -> ibis.Table:
        """Group: the keys of each decision, and how many rows have it, in the order of units."""
        grouped = self.table.group_by(*self.keys).agg(rows=self.table.count())
        return grouped.select(*self.keys, "rows").order_by("unit", *(key for key in self.keys if key != "unit"))

    def rows_of(self, log: ReplayLog, decisions: Sequence[tuple[Any, ...]], most: int) -> list[list[dict[str, Any]]]:
        """Find the first rows, at most so many, of each of a few decisions, given by their keys."""
        columns = [pa.array(values) for values in zip(*decisions, strict=True)]
        schema = self.table.select(*self.keys).schema().to_pyarrow()
        columns = [column.cast(kind.type) for column, kind in zip(columns, schema, strict=True)]
        named = {f"of_{key}": column for key, column in zip(self.keys, columns, strict=True)}
        wanted = log.lend("wanted", pa.table(named | {"decision": pa.array(range(len(decisions)))}))
        alike = [self.table[key].identical_to(wanted[f"of_{key}"]) for key in self.keys]
        joined = self.table.join(wanted, alike).select("decision", *ROW_COLUMNS)
        order = ibis.window(group_by=joined.decision, order_by=[joined.at_us, joined.prediction_id, joined.row])
        ranked = joined.mutate(place=ibis.row_number().over(order))
        found: list[list[dict[str, Any]]] = [[] for _ in decisions]
        for line in log.lines(ranked.filter(ranked.place < most).order_by("decision", "place")):
            found[line["decision"]].append(line)
        return found


def scans(log: ReplayLog, recomputation: Recomputation, spans: Sequence[Sequence[RevisionSpan]]) -> Iterator[Scan]:
    """Give scans which together have every row once: those whose `where` can be evaluated, and all others in one.

    spans: by part of the log, the revisions that it names.
    """
    others, is_whole = [], True
    for number, (part, named) in enumerate(zip(log.parts, spans, strict=True)):
        checkable = _checkable(part, recomputation, named)
        keys = [key for of_columns in checkable.values() for key in of_columns]
        others.append(facts_of(_without(log, part.table, keys, f"checkable_{number}") if keys else part.table))
        is_whole = is_whole and not keys
        several = any(span.of_several for span in named)
        for lot, (columns, own) in enumerate(checkable.items()):
            targeted = _with(log, part.table, own, f"checkable_{number}_{lot}")
            yield Scan(_with_attributes(targeted, columns, several=several), columns)
    yield Scan(log.rows if is_whole else union(others))


def _checkable(
    part: LoggedRows, recomputation: Recomputation, named: Sequence[RevisionSpan]
) -> Mapping[tuple[AttributeColumn, ...], list[Key]]:
    """Find the revisions with a `where` whose attributes the part has, by the columns that have them."""
    found: dict[tuple[AttributeColumn, ...], list[Key]] = {}
    for key in {span.key: None for span in named if span.key is not None}:
        read = {revision.where for revision in recomputation.revisions(*key)}
        if len(read) != 1:  # a number that was given twice, to documents that read different things
            continue
        (where,) = read
        columns = where.columns(part.schema) if where is not None else None
        if columns is not None:
            found.setdefault(columns, []).append(key)
    return found


def _lent(log: ReplayLog, keys: Sequence[Key], name: str) -> ibis.Table:
    return log.lend(name, pa.table([list(column) for column in zip(*keys, strict=True)], schema=REVISIONS))


def _with(log: ReplayLog, table: ibis.Table, keys: Sequence[Key], name: str) -> ibis.Table:
    lent = _lent(log, keys, name)
    same = [table["_experiment"] == lent.of_experiment, table["_revision"] == lent.of_revision]
    return table.semi_join(lent, same).select(*table.columns)


def _without(log: ReplayLog, table: ibis.Table, keys: Sequence[Key], name: str) -> ibis.Table:
    lent = _lent(log, keys, name)
    same = [table["_experiment"] == lent.of_experiment, table["_revision"] == lent.of_revision]
    return table.anti_join(lent, same).select(*table.columns)


def _with_attributes(table: ibis.Table, columns: tuple[AttributeColumn, ...], *, several: bool) -> ibis.Table:
    """Add what `where` read: what has one value in all of a request's instances. several: whether some has several."""
    request = ibis.window(group_by=[table.prediction_id, table.shadow])
    rows = table.count().over(request) if several else ibis.literal(1)
    attributes = {}
    for number, column in enumerate(columns):
        value = table[column.column]
        if column.rounded_to:
            value = value.cast("float64")
        if several:
            least, most, known = (found.over(request) for found in (value.min(), value.max(), value.count()))
            value = ((known == rows) & (least == most)).ifelse(value, ibis.null())
        attributes[f"a{number}"] = value
    # What is sent as tensors names no entity, and was looked up in no view.
    named = [table[c].isnull() for c in table.columns if c.startswith((ENTITY_PREFIX, STATUS_PREFIX))]
    facts = {fact: table[f"_{fact}"] for fact in FACTS}
    return table.select(
        *ROW_COLUMNS,
        **facts,
        **attributes,
        of_several=rows > 1,
        of_tensors=ibis.and_(*named) if named else ibis.literal(True),
    )
