from random import Random
from uuid import RFC_4122, UUID

from hypothesis import given
from hypothesis import strategies as st

from gateway.identifiers import uuid7_maker

MILLISECONDS = st.integers(0, (1 << 48) - 1)


@given(MILLISECONDS, st.integers(0, 999), st.integers())
def test_an_identifier_is_a_uuid_of_version_7_that_holds_its_millisecond(milliseconds, microseconds, seed):
    made = uuid7_maker(lambda: milliseconds * 1000 + microseconds, Random(seed))()
    parsed = UUID(made)
    assert str(parsed) == made
    assert (parsed.version, parsed.variant) == (7, RFC_4122)
    assert parsed.int >> 80 == milliseconds


@given(st.lists(MILLISECONDS, min_size=2, max_size=20, unique=True), st.integers())
def test_identifiers_of_different_milliseconds_sort_by_time(times, seed):
    clock = iter([time * 1000 for time in sorted(times)])
    make = uuid7_maker(lambda: next(clock), Random(seed))
    made = [make() for _ in times]
    assert made == sorted(made)


@given(MILLISECONDS, st.integers())
def test_identifiers_of_one_millisecond_differ(milliseconds, seed):
    make = uuid7_maker(lambda: milliseconds * 1000, Random(seed))
    assert len({make() for _ in range(1_000)}) == 1_000
