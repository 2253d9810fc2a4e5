"""Files of the state directory: what was written is what is read, and whatever else lies there is refused in words."""

from hypothesis import given
from hypothesis import strategies as st

from contracts.datatypes import BYTES, DATATYPES
from contracts.manifest import Input, Output
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
from gateway.configuration.signature_file import SignatureFileError, decode_signature, encode_signature
from gateway.model_signature import ModelSignature
from gateway.routes_file import ModelRoute, RouteFault, VersionRoute

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,20}", fullmatch=True)
IDENTIFIERS = st.from_regex(r"[a-z_][a-z0-9_]{0,10}", fullmatch=True)
DTYPES = st.sampled_from(sorted(DATATYPES))
SHAPES = st.lists(st.integers(1, 50), max_size=3).map(lambda rest: (-1, *rest))
INPUTS = st.builds(Input, st.text(min_size=1, max_size=20).filter(str.isprintable), DTYPES, SHAPES)
MATRICES = st.builds(Output, IDENTIFIERS, DTYPES, SHAPES)
COLUMNS = st.builds(
    Output, IDENTIFIERS, DTYPES.filter(lambda dtype: dtype != BYTES), st.just((-1,)), IDENTIFIERS, st.integers(0, 9)
)
SIGNATURES = st.builds(
    ModelSignature,
    model=NAMES,
    version=NAMES,
    inputs=st.lists(INPUTS, min_size=1, max_size=4, unique_by=lambda i: i.name).map(tuple),
    outputs=st.lists(MATRICES | COLUMNS, min_size=1, max_size=4, unique_by=lambda o: o.name).map(tuple),
    batch_rows_max=st.integers(1, 65_536),
    server_model=NAMES,
    server_version=st.none() | NAMES,
    binary=st.booleans(),
)
WORKERS = st.integers(1, 65_535).map(lambda port: VersionRoute(workers=(f"http://a:{port}",)))
ROUTE = VersionRoute(workers=("http://a:1",))
FILE = ModelRoute(versions={"1": ROUTE, "2": ROUTE}, default_version="1")

CHANGES = st.one_of(
    st.tuples(st.just("put"), st.sampled_from("1234"), WORKERS),
    st.tuples(st.just("delete"), st.sampled_from("1234"), st.none()),
    st.tuples(st.just("default"), st.sampled_from("1234"), st.none()),
)


@given(SIGNATURES)
def test_a_signature_is_read_as_it_was_written(signature):
    encoded = encode_signature(signature, ROUTE)
    assert decode_signature(encoded, signature.model, signature.version, ROUTE) == signature


@given(SIGNATURES, st.data())
def test_a_signature_that_was_damaged_is_refused_in_words_or_is_still_one(signature, data):
    encoded = bytearray(encode_signature(signature, ROUTE))
    encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_signature(bytes(encoded), signature.model, signature.version, ROUTE)
    except SignatureFileError:
        return
    assert decoded.inputs
    assert decoded.outputs


@given(st.binary(max_size=200))
def test_bytes_that_nobody_wrote_are_refused_in_words(data):
    for decode, refusal in (
        (decode_overlay, OverlayError),
        (lambda given: decode_signature(given, "m", "1", ROUTE), SignatureFileError),
    ):
        try:
            decode(data)
        except refusal:
            continue
        raise AssertionError("taken for a state file")


@given(st.lists(CHANGES, max_size=12))
def test_an_overlay_makes_of_the_file_what_its_changes_made_one_by_one(changes):
    overlay = Overlay(route_sha256=route_sha256(FILE))
    versions, default = dict(FILE.versions), FILE.default_version
    for kind, version, route in changes:
        if kind == "put":
            overlay = with_version(overlay, FILE, version, route)
            versions[version] = route
        elif kind == "delete" and version in versions and version != default:
            overlay = without_version(overlay, FILE, version)
            del versions[version]
        elif kind == "default" and version in versions:
            overlay = with_default(overlay, FILE, version)
            default = version
    overlay = decode_overlay(encode_overlay(overlay))
    merged = overlaid(FILE, overlay)
    assert (merged.versions, merged.default_version) == (versions, default)
    assert overlay.is_empty == (merged == FILE)


@given(
    st.builds(Overlay, route_sha256=st.just(""), default_version=st.none() | NAMES, removed=st.lists(NAMES).map(tuple))
)
def test_any_overlay_makes_a_route_or_is_refused_in_words(overlay):
    try:
        merged = overlaid(FILE, overlay)
    except RouteFault:
        return
    assert merged.default_version in merged.versions
