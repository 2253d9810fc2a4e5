"""Reads a moment from a command line."""

import argparse
from datetime import UTC, datetime


def read_moment(text: str) -> datetime:
    """Read RFC 3339, or a date; UTC where it names no zone. Raises ArgumentTypeError, which says what to write."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        problem = f"{text!r} is not a time: write 2026-10-31T09:00:00Z or 2026-10-31"
        raise argparse.ArgumentTypeError(problem) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
