import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from settings import ConfigurationError, read_yaml
from settings.yaml_file import (
    DOCUMENTS_PER_FILE_MAX,
    FILE_BYTES_MAX,
    NESTING_MAX,
    line_of,
    read_yaml_documents,
)

Write = Callable[[str | bytes], Path]


class Worker(msgspec.Struct, forbid_unknown_fields=True):
    url: str
    weight: Annotated[int, msgspec.Meta(ge=1)] = 1


class Route(msgspec.Struct, forbid_unknown_fields=True):
    workers: list[Worker]
    mode: Literal["fast", "slow"] = "fast"
    limits: dict[str, int] = {}


class Routes(msgspec.Struct, forbid_unknown_fields=True):
    models: dict[Annotated[str, msgspec.Meta(pattern="^[a-z]+$")], Route]


RIGHT = """\
# routes
models:
  churn:
    workers:
      - url: http://a
      - url: http://b
        weight: 2
  diagnosis:
    mode: slow
    workers: [{url: http://c}]
    limits:
      rows: 3
"""


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def writing(content: str | bytes) -> Path:
        path = tmp_path / "routes.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return writing


def refusal(path: Path, expected: Any = Routes) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        read_yaml(path, expected)
    assert str(caught.value) == f"{path}:{caught.value.line}: {caught.value.problem}"
    return caught.value


def test_a_right_file_is_read(write: Write):
    routes = read_yaml(write(RIGHT), Routes)
    assert [w.weight for w in routes.models["churn"].workers] == [1, 2]
    assert routes.models["diagnosis"].limits == {"rows": 3}


@pytest.mark.parametrize(
    ("was", "becomes", "line", "said"),
    [
        ("weight: 2", "weight: two", 7, "Expected `int`, got `str` in `models.churn.workers.1.weight`"),
        ("weight: 2", "weight: 0", 7, "Expected `int` >= 1 in `models.churn.workers.1.weight`"),
        ("weight: 2", "wieght: 2", 7, "unknown field `wieght` in `models.churn.workers.1`"),
        ("url: http://b\n        weight", "weight", 6, "missing required field `url` in `models.churn.workers.1`"),
        ("mode: slow", "mode: slower", 9, "Invalid enum value 'slower' in `models.diagnosis.mode`"),
        ("mode: slow", "mode:", 9, "got `null` in `models.diagnosis.mode`"),
        ("mode: slow", "moed: slow", 9, "unknown field `moed` in `models.diagnosis`"),
        ("rows: 3", "rows: 3.5", 12, "Expected `int`, got `float` in `models.diagnosis.limits.rows`"),
        ("rows: 3", "7: 3", 12, "Expected `str`, got `int` in `models.diagnosis.limits.7`"),
        ("limits:", "limits: 7 #", 11, "not YAML"),
        ("diagnosis:", "Diagnosis:", 8, "matching regex '^[a-z]+$' in `models.Diagnosis`"),
        ("models:", "modles:", 2, "unknown field `modles`"),
        ("  churn:\n", "  churn: 7\n  more:\n", 3, "Expected `object`, got `int` in `models.churn`"),
        ("      - url: http://a", "      - http://a", 5, "Expected `object`, got `str` in `models.churn.workers.0`"),
        ("{url: http://c}", "{url: http://c, x: 1}", 10, "unknown field `x` in `models.diagnosis.workers.0`"),
    ],
)
def test_a_wrong_value_is_told_with_its_line_and_path(write: Write, was: str, becomes: str, line: int, said: str):
    assert was in RIGHT
    error = refusal(write(RIGHT.replace(was, becomes, 1)))
    assert error.line == (12 if said == "not YAML" else line)
    assert said in error.problem


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "`a` was given already in line 1"),
        ("a:\n  b: 1\n  c: 2\n  b: 3\n", 4, "`b` was given already in line 2"),
        ("a: [{b: 1},\n {c: 1, c: 2}]\n", 2, "`c` was given already in line 2"),
        ('1: x\n"1": y\n', 2, "`1` was given already in line 1"),
        ("x: 1\na: &a\n  b: [*a]\n", 2, "an alias refers to itself"),
        ("x: 1\na: *nobody\n", 2, "undefined alias"),
        ("x: 1\n? [a, b]\n: c\n", 2, "a key is one word or number"),
        ("x: 1\n? {a: b}\n: c\n", 2, "a key is one word or number"),
        ("a: 1\n b: 2\n", 2, "mapping values are not allowed"),
        ("a: 1\nb: [1, 2\nc: 3\n", 3, "not YAML"),
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ('a: 1\nb: "x\n', 3, "unexpected end of stream"),
        ('a: é関\nb: 1\nc: "\x07"\nd: 1\n', 3, "control characters are not allowed"),
        ("a: 1\nb: 2026-13-45\n", 2, "'2026-13-45' is no value of its type: month"),
        ("a: 1\nb: [1, !!int '']\n", 2, "'' is no value of its type"),
        ("a: 1\nb: !!bool maybe\n", 2, "'maybe' is no value of its type"),
        ("a: 1\nb: !!timestamp noon\n", 2, "'noon' is no value of its type"),
        ("a: 1\nb: !!float x\n", 2, "'x' is no value of its type"),
        ("a: 1\nb: " + "9" * 5_000 + "\n", 2, "is no value of its type"),
        ("a: 1\nb: !!python/object/apply:os.system ['true']\n", 2, "could not determine a constructor"),
        ("a: 1\nb: !!python/name:os.system\n", 2, "could not determine a constructor"),
        ("a: 1\nb:\n  <<: 3\n", 3, "not YAML: expected a mapping"),
        ("%YAML 3.0\n---\na: 1\n", 1, "incompatible YAML document"),
        ("", 1, "expected one document, found 0"),
        ("# nothing\n", 1, "expected one document, found 0"),
        ("a: 1\n---\nb: 2\n", 1, "expected one document, found 2"),
        ("---\n", 2, "Expected `object`, got `null`"),
        ("- a\n", 1, "Expected `object`, got `array`"),
        ("7\n", 1, "Expected `object`, got `int`"),
    ],
)
def test_what_is_no_yaml_or_no_one_mapping_is_told_with_its_line(write: Write, text: str, line: int, said: str):
    error = refusal(write(text), dict[str, Any])
    assert (error.line, said in error.problem) == (line, True), str(error)


def test_a_file_that_is_not_utf_8_is_refused_with_the_line_of_the_first_wrong_byte(write: Write):
    assert refusal(write(b"a: 1\nb: \xff\nc: \xfe\n")).line == 2
    assert refusal(write(b"\xff\xfea\0")).problem == "is not UTF-8 text"


def test_a_file_over_the_limit_is_refused(write: Write):
    assert f"more than the {FILE_BYTES_MAX} bytes" in refusal(write(b"#" * (FILE_BYTES_MAX + 1))).problem


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None])
def test_a_path_that_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, make: Callable[[Path], None]):
    make(tmp_path / "there")
    assert refusal(tmp_path / "there").problem.startswith("cannot be read: ")


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
@pytest.mark.parametrize("depth", [NESTING_MAX + 1, 1_000_000])
def test_deep_nesting_is_refused_before_it_costs_anything(write: Write, opening: str, depth: int):
    begun = time.perf_counter()
    assert refusal(write(opening * depth), Any).problem == f"nested more than {NESTING_MAX} deep"
    assert time.perf_counter() - begun < 2


def test_nesting_up_to_the_limit_is_read(write: Write):
    assert read_yaml(write("[" * NESTING_MAX + "]" * NESTING_MAX), list) != []


def test_nesting_made_of_aliases_counts_as_deep_as_it_reads(write: Write):
    chain = "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 2 * NESTING_MAX))
    error = refusal(write("a0: &a0 [x]\n" + chain), Any)
    assert (error.problem, error.line) == (f"nested more than {NESTING_MAX} deep", NESTING_MAX + 1)


def test_aliases_of_aliases_are_refused_by_what_they_stand_for(write: Write):
    levels = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)]
    begun = time.perf_counter()
    error = refusal(write("a0: &a0 [" + "x, " * 9 + "x]\n" + "".join(levels)), Any)
    assert (error.line, "stands for more than 1000000 values" in error.problem) == (6, True)
    assert time.perf_counter() - begun < 2


def test_aliases_and_merges_are_read(write: Write):
    text = "base: &base {rows: 3}\nmodels: [*base, {<<: *base, more: 1}]\n"
    assert read_yaml(write(text), dict[str, Any])["models"] == [{"rows": 3}, {"rows": 3, "more": 1}]


def test_each_document_of_a_file_is_read_with_its_own_lines(write: Write):
    path = write("a: 1\n---\na: 2\n---\na: 3\nb: 4\n")
    assert read_yaml_documents(path, dict[str, int]) == [{"a": 1}, {"a": 2}, {"a": 3, "b": 4}]
    assert (line_of(path, "a", document=1), line_of(path, "b", document=2), line_of(path, "b", document=7)) == (3, 6, 1)
    with pytest.raises(ConfigurationError, match=r":5: "):
        read_yaml_documents(write("a: 1\n---\na: 2\n---\na: x\n"), dict[str, int])


def test_too_many_documents_are_refused(write: Write):
    with pytest.raises(ConfigurationError, match=f"more than {DOCUMENTS_PER_FILE_MAX} documents"):
        read_yaml_documents(write("--- 1\n" * (DOCUMENTS_PER_FILE_MAX + 1)), int)


def test_the_line_of_a_value_is_its_keys_or_its_nearest_ancestors(write: Write):
    path = write(RIGHT)
    assert line_of(path, "models", "churn", "workers", 1, "weight") == 7
    assert line_of(path, "models", "churn", "workers", 1) == 6
    assert line_of(path, "models", "churn", "workers", 9) == 4
    assert line_of(path, "models", "nobody", "workers") == 2
    assert line_of(path) == 2


def test_the_wrong_one_of_many_alike_is_found(write: Write):
    models = "".join(f"  {'abcdefghij'[i // 10]}{'abcdefghij'[i % 10]}: {{workers: []}}\n" for i in range(100))
    text = "models:\n" + models.replace("gd: {workers: []}", "gd: {workers: [{url: 7}]}")
    error = refusal(write(text))
    assert (error.line, error.problem) == (65, "Expected `str`, got `int` in `models.gd.workers.0.url`")
