import msgspec
import pytest

from gateway.configuration.route_overlay import (
    Overlay,
    OverlayError,
    decode_overlay,
    encode_overlay,
    overlaid,
    route_sha256,
    with_default,
    with_version,
    without_version,
)
from gateway.routes_file import VERSIONS_MAX, ModelRoute, RouteFault, VersionRoute


def served_at(url: str) -> VersionRoute:
    return VersionRoute(workers=(url,))


FILE = msgspec.convert(
    {
        "default_version": "1",
        "versions": {"1": {"workers": ["http://a:1"]}, "2": {"workers": ["http://b:1"]}},
        "fallback": {"version": "1"},
    },
    ModelRoute,
)
EMPTY = Overlay(route_sha256=route_sha256(FILE))


def test_an_empty_overlay_changes_nothing():
    assert EMPTY.is_empty
    assert overlaid(FILE, EMPTY) is overlaid(FILE, None) is FILE


def test_a_version_that_is_added_replaced_or_removed_lies_over_the_files():
    overlay = with_version(EMPTY, FILE, "3", served_at("http://c:1"))
    overlay = with_version(overlay, FILE, "2", served_at("http://d:1"))
    assert overlaid(FILE, overlay).versions == {
        "1": served_at("http://a:1"),
        "2": served_at("http://d:1"),
        "3": served_at("http://c:1"),
    }
    overlay = without_version(without_version(overlay, FILE, "3"), FILE, "2")
    assert list(overlaid(FILE, overlay).versions) == ["1"]


def test_what_is_changed_back_to_what_the_file_says_is_no_change():
    overlay = with_default(with_version(EMPTY, FILE, "2", served_at("http://d:1")), FILE, "2")
    assert not overlay.is_empty
    assert with_default(with_version(overlay, FILE, "2", served_at("http://b:1")), FILE, "1").is_empty


def test_a_removed_version_comes_back_when_it_is_put_again():
    overlay = with_version(without_version(EMPTY, FILE, "2"), FILE, "2", served_at("http://b:1"))
    assert overlay.is_empty


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        (without_version(EMPTY, FILE, "1"), "default_version '1'"),
        (with_default(EMPTY, FILE, "9"), "default_version '9'"),
        (with_default(without_version(EMPTY, FILE, "1"), FILE, "2"), "fallback version '1'"),
    ],
)
def test_an_overlay_that_makes_no_route_is_refused(overlay, expected):
    with pytest.raises(RouteFault, match=expected):
        overlaid(FILE, overlay)


def test_a_model_has_no_more_versions_than_a_file_may_give_it():
    overlay = EMPTY
    for number in range(VERSIONS_MAX - 1):
        overlay = with_version(overlay, FILE, f"v{number}", served_at("http://c:1"))
    with pytest.raises(RouteFault, match=f"at most {VERSIONS_MAX}"):
        overlaid(FILE, overlay)


def test_an_overlay_is_read_as_it_was_written():
    overlay = with_default(with_version(EMPTY, FILE, "3", served_at("http://c:1")), FILE, "3")
    assert decode_overlay(encode_overlay(overlay)) == overlay


def test_a_route_that_says_something_else_has_another_hash():
    other = msgspec.structs.replace(FILE, deadline_ms=7)
    assert (
        route_sha256(other)
        != route_sha256(FILE)
        == route_sha256(msgspec.convert(msgspec.to_builtins(FILE), ModelRoute))
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "no overlay"),
        (b"null", "no overlay"),
        (b'{"format": 2, "route_sha256": ""}', "format 2 is not known"),
        (b'{"format": 1, "route_sha256": "", "removed": ["../x"]}', "no overlay"),
        (b'{"format": 1, "route_sha256": "", "other": 1}', "other"),
        (b"[" * 100_000, "no overlay"),
    ],
)
def test_a_file_that_is_no_overlay_is_refused(data, expected):
    with pytest.raises(OverlayError, match=expected):
        decode_overlay(data)
