"""Admission: how many requests may be in flight, by priority. What is over the limit is shed early and cheaply."""

from enum import StrEnum
from typing import Final

from gateway.errors import Overloaded

SHARE_BY_PRIORITY: Final = {"critical": 1.0, "default": 0.9, "sheddable": 0.7}
"""How full the gateway may be before a request of that priority is shed: `sheddable` goes first, `critical` last."""


class Priority(StrEnum):
    """What a caller says its request is worth (`x-priority`)."""

    CRITICAL = "critical"
    DEFAULT = "default"
    SHEDDABLE = "sheddable"


class Admission:
    """A limit on requests in flight. Use it as `admit(priority)` … `release()`."""

    __slots__ = ("_limits", "in_flight", "shed")

    def __init__(self, requests_in_flight_max: int) -> None:
        self._limits = {Priority(p): max(1, int(requests_in_flight_max * s)) for p, s in SHARE_BY_PRIORITY.items()}
        self.in_flight = 0
        self.shed: dict[Priority, int] = dict.fromkeys(Priority, 0)

    def admit(self, priority: Priority) -> None:
        """Take a place. Raises Overloaded where none is free for this priority."""
        if self.in_flight >= self._limits[priority]:
            self.shed[priority] += 1
            raise Overloaded(f"{self.in_flight} requests are in flight, the most for priority {priority.value}")
        self.in_flight += 1

    def release(self) -> None:
        """Give the place back."""
        self.in_flight -= 1
