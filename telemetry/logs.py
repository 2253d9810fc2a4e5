"""Logs as JSON lines on standard error, or as plain text for people."""

import logging
import sys
from datetime import UTC, datetime
from typing import Final, TextIO

import msgspec

FORMATS: Final = ("json", "text")
LEVELS: Final = ("debug", "info", "warning", "error")

# What every LogRecord has; anything else on it was passed as `extra=` and belongs in the line.
_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `ts` (RFC 3339, UTC), `level`, `logger`, `message`, then the record's extra fields."""

    def __init__(self) -> None:
        super().__init__()
        # A value that JSON has no form for is written as its repr: a log call must not be able to fail.
        self._encoder = msgspec.json.Encoder(enc_hook=repr)

    def format(self, record: logging.LogRecord) -> str:
        """Render one record as one line."""
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _RECORD_FIELDS)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return self._encoder.encode(line).decode()


def configure_logging(level: str = "info", style: str = "json", stream: TextIO | None = None) -> None:
    """Send every logger's records to `stream` (standard error), and let uvicorn's pass through the same form.

    level: one of LEVELS. style: one of FORMATS.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        JsonFormatter() if style == "json" else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    for previous in root.handlers[:]:
        root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
