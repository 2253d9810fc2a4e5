"""The slots of time by which a report shows how an experiment went."""

from dataclasses import dataclass
from typing import Final

from analysis.experiment_results.experiment_log import SECOND_US

SLOTS_MAX: Final = 60
"""More points than this are no clearer on a page, and each costs a look at every unit that changed in it."""

_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400
_WIDTHS_S: Final = (
    *(_MINUTE * n for n in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * n for n in (1, 2, 3, 6, 12)),
    *(_DAY * n for n in (1, 2, 7, 14, 28)),
)


@dataclass(frozen=True, slots=True)
class TimeSlots:
    """Slots of equal width, the first of which begins at a whole multiple of it."""

    origin_us: int
    width_us: int
    count: int

    def end_us(self, slot: int) -> int:
        """When a slot is over."""
        return self.origin_us + (slot + 1) * self.width_us


def time_slots(first_us: int, last_us: int) -> TimeSlots:
    """Divide a span, both ends included, into at most SLOTS_MAX slots of a width that people think in."""
    for width_s in _WIDTHS_S:
        slots = _slots(first_us, last_us, width_s * SECOND_US)
        if slots.count <= SLOTS_MAX:
            return slots
    longest = _WIDTHS_S[-1] * SECOND_US
    times = -(-(last_us - first_us + 1) // (longest * (SLOTS_MAX - 1)))
    return _slots(first_us, last_us, longest * times)


def _slots(first_us: int, last_us: int, width_us: int) -> TimeSlots:
    origin_us = first_us // width_us * width_us
    return TimeSlots(origin_us, width_us, (last_us - origin_us) // width_us + 1)
