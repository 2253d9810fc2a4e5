"""How one row's features came back."""

from enum import IntEnum


class FeatureStatus(IntEnum):
    """The status of what a view gave for one entity; the numbers are logged and never change.

    PRESENT: a row no older than the view's `max_age`, with every wanted feature. STALE: an older row; its values are
    used. NULL: a fresh row in which a wanted feature is null, so that its default is used. MISSING: no readable row;
    every value is a default.
    """

    PRESENT = 0
    STALE = 1
    NULL = 2
    MISSING = 3
