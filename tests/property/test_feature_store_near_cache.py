"""The near cache against the simplest thing that could be meant: a dictionary that forgets at will."""

from hypothesis import given
from hypothesis import strategies as st

from feature_store.near_cache import ENTRY_OVERHEAD_BYTES, NearCache

KEYS = st.sampled_from([b"a", b"bb", b"ccc", b"dddd", b"eeeee"])
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["remember", "fresh", "stale"]), KEYS, st.none() | st.binary(max_size=300), st.integers(0, 20)
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 4), st.integers(300, 1_500))
def test_what_is_found_is_the_latest_reading_and_young_enough_and_the_limits_hold(steps, entries_max, bytes_max):
    cache = NearCache(entries_max=entries_max, bytes_max=bytes_max)
    latest: dict[bytes, tuple[bytes | None, int]] = {}
    for action, key, row, at_s in steps:
        if action == "remember":
            cache.remember(key, row, at_s)
            if key not in latest or latest[key][1] <= at_s:
                latest[key] = row, at_s
        elif action == "fresh":
            entry = cache.fresh(key, at_s)
            # What was evicted may be remembered again in an older reading: no reading is ever made up, or too old.
            assert entry is None or entry.read_at_s >= at_s
            assert entry is None or entry.read_at_s < latest[key][1] or (entry.row, entry.read_at_s) == latest[key]
        else:
            found = cache.stale(key, at_s)
            assert found is None or latest[key][1] >= at_s
        assert len(cache) <= entries_max
        assert cache.bytes_held <= bytes_max
        assert cache.bytes_held >= len(cache) * ENTRY_OVERHEAD_BYTES


@given(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=50)), max_size=40))
def test_with_room_for_all_the_last_reading_of_each_key_is_there(readings):
    cache = NearCache()
    for at_s, (key, row) in enumerate(readings):
        cache.remember(key, row, at_s)
    for key, row in dict(readings).items():
        entry = cache.fresh(key, 0)
        assert entry is not None
        assert entry.row == row
        assert cache.stale(key, 0) == row
    held = sum(ENTRY_OVERHEAD_BYTES + len(key) + len(row or b"") for key, row in dict(readings).items())
    assert (len(cache), cache.bytes_held) == (len(dict(readings)), held)
