import gc

from feature_store.near_cache import NearCache
from feature_store.row_layout import ROW_BYTES_MAX


def test_a_row_is_fresh_from_the_time_it_was_read_at():
    cache = NearCache()
    cache.remember(b"k", b"row", 10.0)
    entry = cache.fresh(b"k", 10.0)
    assert entry is not None
    assert entry.row == b"row"
    assert cache.fresh(b"k", 10.001) is None
    assert cache.fresh(b"other", 0.0) is None
    assert (cache.hits, cache.misses) == (1, 2)


def test_that_there_is_no_row_is_remembered_while_fresh_and_of_no_use_when_stale():
    cache = NearCache()
    cache.remember(b"k", None, 10.0)
    entry = cache.fresh(b"k", 10.0)
    assert entry is not None
    assert entry.row is None
    assert cache.stale(b"k", 0.0) is None
    assert cache.stale_served == 0


def test_a_stale_row_is_served_up_to_its_age_and_counted():
    cache = NearCache()
    cache.remember(b"k", b"row", 10.0)
    assert cache.stale(b"k", 10.0) == b"row"
    assert cache.stale(b"k", 10.001) is None
    assert cache.stale_served == 1


def test_an_older_reading_does_not_replace_a_later_one():
    cache = NearCache()
    cache.remember(b"k", b"new", 10.0)
    cache.remember(b"k", b"old", 9.0)
    assert cache.stale(b"k", 0.0) == b"new"


def test_what_nobody_asked_for_is_forgotten_first():
    cache = NearCache(entries_max=3)
    for key in (b"a", b"b", b"c"):
        cache.remember(key, key, 0.0)
    cache.fresh(b"a", 0.0)
    cache.fresh(b"c", 0.0)
    cache.remember(b"d", b"d", 0.0)
    assert [key for key in (b"a", b"b", b"c", b"d") if cache.stale(key, 0.0)] == [b"a", b"c", b"d"]


def test_more_rows_than_the_limit_leave_as_many_as_the_limit_even_where_all_were_used():
    cache = NearCache(entries_max=1_000)
    for number in range(5_000):
        key = b"%d" % number
        cache.remember(key, b"row", 0.0)
        cache.fresh(key, 0.0)
    assert len(cache) == 1_000


def test_bytes_that_are_too_long_for_a_row_are_not_remembered():
    cache = NearCache()
    cache.remember(b"k", b"x" * (ROW_BYTES_MAX + 1), 0.0)
    assert (len(cache), cache.bytes_held) == (0, 0)


def test_a_row_too_large_for_the_whole_cache_empties_it_and_is_not_kept():
    cache = NearCache(bytes_max=1_000)
    cache.remember(b"a", b"row", 0.0)
    cache.remember(b"k", b"x" * 2_000, 0.0)
    assert (len(cache), cache.bytes_held) == (0, 0)


def test_entries_are_nothing_that_the_garbage_collector_walks():
    cache = NearCache()
    gc.collect()
    before = len(gc.get_objects())
    for number in range(10_000):
        cache.remember(b"%d" % number, b"row", float(number))
    gc.collect()
    assert len(gc.get_objects()) - before < 100
