import time
import warnings
from typing import Any

import pytest

from experiments.targeting import EXPRESSION_CHARACTERS_MAX, TargetingError, compile_condition

REQUEST: dict[str, Any] = {
    "age": 34,
    "country": "JP",
    "tier": "gold",
    "score": 0.5,
    "trial": True,
    "closed": False,
    "tags": ["a", "b"],
    "nothing": None,
}

TRUE = [
    "age >= 18",
    "age == 34 and country == 'JP'",
    "country in ['JP', 'DE']",
    "country in ('JP', 'DE')",
    "country not in ['US']",
    "'a' in tags",
    "'c' not in tags",
    "tags == ['a', 'b']",
    "18 <= age < 65",
    "0 < score < age > 3",
    "age > -1",
    "score == 0.5",
    "trial",
    "trial == true",
    "closed == False",
    "not closed",
    "not (tier == 'free' or age < 3)",
    "age < 3 or country == 'JP' and trial",
    'country == "JP"',
    "true",
    "not false",
    "not (age == 'x')",
    " age >= 18 ",
    "age != 'x'",
    "missing == 1 or age > 3",
    "age > 3 or missing == 1",
]
FALSE = [
    "age < 18",
    "country in []",
    "age == '34'",
    "closed",
    "false",
    "not trial",
    "34 < age < 65",
    "age >= 18 and closed",
    # Unknown: neither they nor their opposite are true.
    "missing",
    "not missing",
    "missing == 1",
    "not (missing == 1)",
    "missing != 1",
    "missing in [1]",
    "missing not in [1]",
    "not (missing not in [1])",
    "missing == 1 and age > 3",
    "age > 3 and missing == 1",
    "not (age > 3 and missing == 1)",
    "age < 3 or missing == 1",
    "age >= 'x'",
    "not (age >= 'x')",
    "nothing > 1",
    "tags < 3",
    "'J' in country",
    "'J' not in country",
    "age in age",
    "score",
    "not score",
    "tier",
    "nothing",
    "__import__",  # a name like any other: the request's, which it has not
]
REFUSED = [
    "",
    "__import__('os').system('true')",
    "age.__class__",
    "age.real > 3",
    "len(country) > 1",
    "(lambda: 1)() == 1",
    "[a for a in tags] == tags",
    "{a for a in tags}",
    "{'a': 1} == tags",
    "{'a'} == tags",
    "tags[0] == 'a'",
    "tags[0:1] == tags",
    "9**9**9 > age",
    "'x' * 1000000000 == country",
    "age + 1 > 3",
    "-age < 3",
    "-True < 3",
    "+1 < age",
    "~1 < age",
    "1 if age else 0",
    "(age := 3) > 1",
    "f'{age}' == '34'",
    "b'JP' == country",
    "1j == age",
    "None == nothing",
    "nothing is None",
    "age is not 3",
    "... == age",
    "[*tags] == tags",
    "await age",
    "yield",
    "age > 3; country",
    "age = 3",
    "import os",
    "1",
    "'yes'",
    "[true]",
    "not 1",
    "1 and 2",
    "country in 'JP'",
    "country not in 'JP'",
    "age in 34",
    "age >",
    "(age > 3",
    "age > 3\ncountry == 'JP'",
    "country == 'JP\\d'",
    "1if age>3else 2",
    "\0",
    "age > 3 \udc80",
    "(" * 150 + "age" + ")" * 150 + " > 3 and" * 60,
    "not " * 400 + "trial",
    "-" * 1_900 + "1 < age",
    "[" * 90 + "]" * 90 + " == tags and " + " and ".join(["trial"] * 200),
    " or ".join(["trial"] * 200),
    "age > " + "9" * EXPRESSION_CHARACTERS_MAX,
    "x" * (EXPRESSION_CHARACTERS_MAX + 1),
]


@pytest.mark.parametrize("expression", TRUE)
def test_a_condition_holds(expression: str):
    assert compile_condition(expression)(REQUEST) is True


@pytest.mark.parametrize("expression", FALSE)
def test_a_condition_does_not_hold(expression: str):
    assert compile_condition(expression)(REQUEST) is False


@pytest.mark.parametrize("expression", REFUSED)
def test_what_is_not_of_the_language_is_refused_at_once(expression: str):
    begun = time.perf_counter()
    with pytest.raises(TargetingError) as caught:
        compile_condition(expression)
    assert time.perf_counter() - begun < 1
    assert len(str(caught.value)) < 300


def test_an_expression_that_python_warns_of_is_refused_even_where_warnings_are_ignored():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(TargetingError, match="cannot be read"):
            compile_condition(r"country == '\d'")


def test_a_name_alone_holds_only_where_it_is_true_itself():
    condition = compile_condition("trial")
    assert [condition({"trial": value}) for value in (True, False, 1, "true", [True], None)] == [True] + [False] * 5


@pytest.mark.parametrize("left", [True, False, None])
@pytest.mark.parametrize("right", [True, False, None])
def test_and_or_and_not_follow_the_truth_tables_of_sql(left: bool | None, right: bool | None):
    request = {name: value for name, value in (("l", left), ("r", right)) if value is not None}
    known_and = False if False in (left, right) else None if None in (left, right) else True
    known_or = True if True in (left, right) else None if None in (left, right) else False
    for expression, truth in (("l and r", known_and), ("l or r", known_or)):
        assert compile_condition(expression)(request) is (truth is True)
        assert compile_condition(f"not ({expression})")(request) is (truth is False)


def test_values_nested_a_thousand_deep_compare_as_unknown():
    deep: Any = []
    other: Any = []
    for _ in range(100_000):
        deep, other = [deep], [other]
    assert compile_condition("a == b or trial")({"a": deep, "b": other, "trial": True}) is True
    assert compile_condition("a == b")({"a": deep, "b": other}) is False
    while deep:  # taken apart one by one: to be freed all at once would recurse as deeply
        deep, other = deep[0], other[0]


def test_a_long_literal_is_only_compared():
    assert compile_condition("age < " + "9" * 1_900)(REQUEST) is True
