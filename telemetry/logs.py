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
    """One JSON object a line: `ts` (RFC 3339, UTC), `level`, `logger`, `message`, then the record's extra fields.

    An extra field under one of those four names is left out. A call can hand over anything: what JSON cannot hold is
    written as text, and what cannot even be that, as the name of its type. Formatting never raises.
    """

    def __init__(self) -> None:
        super().__init__()
        self._encoder = msgspec.json.Encoder(enc_hook=repr)

    def format(self, record: logging.LogRecord) -> str:
        """Render one record as one line."""
        line: dict[str, object] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = record.stack_info
        for key, value in vars(record).items():
            if key not in _RECORD_FIELDS:
                line.setdefault(key, value)
        try:
            return self._encoder.encode(line).decode()
        except Exception:  # noqa: BLE001 - a log call must not fail, whatever is logged
            return self._encoder.encode({_plain(key): self._value(value) for key, value in line.items()}).decode()

    def _value(self, value: object) -> msgspec.Raw:
        try:
            return msgspec.Raw(self._encoder.encode(value))
        except Exception:  # noqa: BLE001 - as above
            return msgspec.Raw(self._encoder.encode(_plain(value)))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit the message; the message alone says where to look
        return _plain(record.msg)


def _plain(value: object) -> str:
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001 - a `__repr__` may do anything
        text = f"<{type(value).__name__}>"
    return text.encode("utf-8", "backslashreplace").decode()


class TextFormatter(logging.Formatter):
    """A line for people: time, level, logger, message, then the record's extra fields as key=value."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's own name
        """Render the first line."""
        extras = [f"{key}={value}" for key, value in vars(record).items() if key not in _RECORD_FIELDS]
        return " ".join([super().formatMessage(record), *extras])


def configure_logging(level: str = "info", style: str = "json", stream: TextIO | None = None) -> None:
    """Send every logger's records to `stream` (standard error).

    level: one of LEVELS. style: one of FORMATS.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        JsonFormatter() if style == "json" else TextFormatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    for previous in root.handlers[:]:
        root.removeHandler(previous)
    root.addHandler(handler)
    root.setLevel(level.upper())
