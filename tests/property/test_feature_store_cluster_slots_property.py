from hypothesis import given
from hypothesis import strategies as st

from feature_store.cluster_slots import SLOTS, parse_redirect, parse_slots

REPLIES = st.recursive(
    st.none() | st.integers(-2, 2**17) | st.binary(max_size=8), lambda inner: st.lists(inner, max_size=4), max_leaves=30
)
ENTRIES = st.lists(st.tuples(st.integers(-1, SLOTS), st.integers(-1, SLOTS), REPLIES).map(list), max_size=4)


@given(REPLIES | ENTRIES)
def test_any_answer_is_a_table_of_slots_in_range_or_refused(reply):
    try:
        ranges = parse_slots(reply, "asked")
    except ValueError:
        return
    assert ranges
    assert all(0 <= found.first <= found.last < SLOTS and 0 < found.port < 65_536 for found in ranges)


@given(st.text() | st.tuples(st.sampled_from(["MOVED", "ASK"]), st.text(), st.text()).map(" ".join))
def test_any_error_text_is_a_redirection_in_range_or_none(text):
    found = parse_redirect(text, "asked")
    assert found is None or (0 <= found.slot < SLOTS and 0 < found.port < 65_536)
