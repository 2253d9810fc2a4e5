import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from telemetry.logs import JsonFormatter, configure_logging


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@dataclass
class Point:
    x: int


def circle() -> list[Any]:
    around: list[Any] = []
    around.append(around)
    return around


def deep() -> list[Any]:
    inside: list[Any] = []
    for _ in range(5_000):
        inside = [inside]
    return inside


WEIRD: list[Any] = [
    object(),
    Unspeakable(),
    [Unspeakable()],
    circle(),
    deep(),
    {(1, 2): 3},
    {Unspeakable(): 1},
    {1: "a", None: "b"},
    {object()},
    1 << 100,
    -(1 << 70),
    float("nan"),
    float("inf"),
    1j,
    b"\xff",
    "half a pair \ud800",
    ["\udc00"],
    "line\nbreak\u2028\0",
    Exception("x"),
    type,
    lambda: None,
    datetime(2026, 1, 1, tzinfo=UTC),
]


def record(message: Any = "hello", *arguments: Any, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "n", "levelno": logging.INFO, "levelname": "INFO", "msg": message})
    made.args = arguments
    vars(made).update(extra)
    return made


def line_of(made: logging.LogRecord) -> dict[str, Any]:
    text = JsonFormatter().format(made)
    assert "\n" not in text
    return json.loads(text, parse_constant=pytest.fail)


def test_a_line_is_json_with_time_level_logger_message_and_extras():
    made = record("%s of %d", "one", 2, model="churn", rows=3, point=Point(1), ids=["a"])
    made.created = 1_793_437_200.5
    assert line_of(made) == {
        "ts": "2026-10-31T09:00:00.500+00:00",
        "level": "info",
        "logger": "n",
        "message": "one of 2",
        "model": "churn",
        "rows": 3,
        "point": {"x": 1},
        "ids": ["a"],
    }


@pytest.mark.parametrize("value", WEIRD, ids=lambda value: type(value).__name__)
def test_no_extra_can_make_a_line_fail_or_lose_the_others(value: Any):
    line = line_of(record(weird=value, model="churn"))
    assert "weird" in line
    assert (line["message"], line["model"]) == ("hello", "churn")


@pytest.mark.parametrize("value", WEIRD, ids=lambda value: type(value).__name__)
def test_no_message_can_make_a_line_fail(value: Any):
    assert isinstance(line_of(record(value))["message"], str)
    assert isinstance(line_of(record("%s", value))["message"], str)


@pytest.mark.parametrize("arguments", [(), ("a", "b"), ("a",)])
def test_arguments_that_do_not_fit_leave_the_message_as_it_stands(arguments: tuple[str, ...]):
    said = line_of(record("%d rows", *arguments))["message"]
    assert said == "%d rows"


@pytest.mark.parametrize("name", ["ts", "level", "logger"])
def test_an_extra_cannot_stand_in_for_a_fixed_field(name: str):
    line = line_of(record(**{name: "false", "model": "churn"}))
    assert line[name] != "false"
    assert line["model"] == "churn"


def test_an_extra_whose_name_is_no_text_is_written_with_its_name_as_text():
    made = record()
    vars(made)["\ud800"] = 1
    assert line_of(made)["\\ud800"] == 1


def test_an_exception_and_a_stack_are_in_the_line():
    try:
        {}["lost"]
    except KeyError as error:
        made = record()
        made.exc_info = (type(error), error, error.__traceback__)
    made.stack_info = "Stack (most recent call last):"
    line = line_of(made)
    assert line["exception"].endswith("KeyError: 'lost'")
    assert line["stack"] == "Stack (most recent call last):"


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text("ab\ud800é\n", max_size=5)
    | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab") | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text("abc\ud800", min_size=1, max_size=3), JSON, max_size=4))
def test_every_extra_is_in_the_line(extra: dict[str, Any]):
    made = record()
    vars(made).update(extra)
    written = {name.encode("utf-8", "backslashreplace").decode() for name in extra}
    assert line_of(made).keys() == {"ts", "level", "logger", "message"} | written


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("restored_logging")
def test_every_logger_writes_to_the_one_stream_in_the_one_form():
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    configure_logging("info", "json", stream)  # again, without a second line for each record
    logging.getLogger("gateway.app").info("serving", extra={"port": 8080})
    logging.getLogger("somebody.elses").warning("slow")
    logging.getLogger("gateway.app").debug("not this one")
    lines = [json.loads(row) for row in stream.getvalue().splitlines()]
    assert [(line["logger"], line["message"]) for line in lines] == [
        ("gateway.app", "serving"),
        ("somebody.elses", "slow"),
    ]
    assert lines[0]["port"] == 8080


@pytest.mark.usefixtures("restored_logging")
def test_text_for_people_has_time_level_logger_and_message():
    stream = io.StringIO()
    configure_logging("debug", "text", stream)
    logging.getLogger("n").debug("hello")
    assert stream.getvalue().rstrip().endswith("DEBUG   n: hello")
