"""What the rounds add up to: one line a stack and load."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from loadtests.cell import FOREIGN_CORES_MAX, Cell
from loadtests.percentiles import Spread, spread
from loadtests.stacks import YARDSTICK


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One stack under one load, over all rounds: the median, and least and most of what a `Spread` is kept of."""

    stack: str
    load: str
    rounds: int
    rate_per_s: Spread
    p50_ms: Spread
    p99_ms: Spread
    p999_ms: Spread
    rate_ratio: Spread | None
    """Requests a second, as a multiple of the yardstick's in the same round; None where the yardstick was not run."""

    p50_ratio: Spread | None
    p99_ratio: Spread | None
    cpu_s_per_1000: dict[str, float]
    memory_mb: dict[str, float]
    unanswered: int
    errors: dict[str, int]
    generator_cpu_share: float
    foreign_cores: float
    """Of the worst round."""

    @property
    def disturbed(self) -> bool:
        """Whether other programs kept more than FOREIGN_CORES_MAX busy in any round."""
        return self.foreign_cores > FOREIGN_CORES_MAX


def summarise(cells: Iterable[Cell], yardstick: str = YARDSTICK) -> list[Summary]:
    """Sum up cells, in the order in which stacks and loads first appear. yardstick: the stack that ratios are of.

    Ratios are taken within a round and then their spread, because a machine drifts: figures of the same minutes share
    its state, figures of different rounds do not.
    """
    groups: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
    measures: dict[tuple[str, int], Cell] = {}
    for cell in cells:
        groups[cell.stack, cell.load].append(cell)
        if cell.stack == yardstick:
            measures[cell.load, cell.round] = cell
    return [_summary(group, measures) for group in groups.values()]


def find(summaries: Iterable[Summary], stack: str, load: str) -> Summary | None:
    """The summary of one stack and load, or None where it was not measured."""
    return next((each for each in summaries if (each.stack, each.load) == (stack, load)), None)


def _summary(cells: list[Cell], yardstick: dict[tuple[str, int], Cell]) -> Summary:
    results = [cell.result for cell in cells]
    pairs = [(cell.result, yardstick[key].result) for cell in cells if (key := (cell.load, cell.round)) in yardstick]
    errors: defaultdict[str, int] = defaultdict(int)
    for result in results:
        for problem, count in result.errors.items():
            errors[problem] += count
    return Summary(
        stack=cells[0].stack,
        load=cells[0].load,
        rounds=len(cells),
        rate_per_s=spread([result.rate_per_s for result in results]),
        p50_ms=spread([result.p50_ms for result in results]),
        p99_ms=spread([result.p99_ms for result in results]),
        p999_ms=spread([result.p999_ms for result in results]),
        rate_ratio=_ratio([(own.rate_per_s, other.rate_per_s) for own, other in pairs]),
        p50_ratio=_ratio([(own.p50_ms, other.p50_ms) for own, other in pairs]),
        p99_ratio=_ratio([(own.p99_ms, other.p99_ms) for own, other in pairs]),
        cpu_s_per_1000=_medians([cell.cpu_s_per_1000 for cell in cells]),
        memory_mb=_medians([cell.memory_mb for cell in cells]),
        unanswered=sum(result.unanswered for result in results),
        errors=dict(errors),
        generator_cpu_share=spread([result.generator_cpu_share for result in results]).median,
        foreign_cores=max(cell.foreign_cores for cell in cells),
    )


def _ratio(pairs: list[tuple[float, float]]) -> Spread | None:
    ratios = [own / other for own, other in pairs if other > 0]
    return spread(ratios) if ratios else None


def _medians(by_role: list[dict[str, float]]) -> dict[str, float]:
    return {role: spread([each[role] for each in by_role]).median for role in by_role[0]}
