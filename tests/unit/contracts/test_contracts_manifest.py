import hashlib
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contracts.manifest import (
    MANIFEST_BYTES_MAX,
    ManifestError,
    decode_manifest,
    encode_manifest,
    feature_reference,
    sha256_of,
)


@pytest.fixture
def document(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "manifest.json").read_bytes())


def changed(document: dict[str, Any], path: str, value: Any) -> bytes:
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = document
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(document).encode()


def test_the_golden_manifest_is_read_and_written_byte_for_byte(golden: Path):
    data = (golden / "manifest.json").read_bytes()
    manifest = decode_manifest(data)
    assert encode_manifest(manifest) == data
    assert (manifest.model, manifest.version, manifest.batch_rows_max) == ("diagnosis", "2", 256)
    assert manifest.inputs[0].features == ("patient_profile:age", "patient_profile:history", "request:hour")
    assert (manifest.outputs[0].source, manifest.outputs[0].column, manifest.outputs[0].shape) == (
        "probabilities",
        1,
        (-1,),
    )
    assert manifest.lineage.metrics == {"auc": 0.991, "log_loss": 0.081}


UNSAFE_NAMES = ["../x", "..", ".", "", "a/b", "a\\b", "/etc", ".hidden", "a\n", "a b", "a\0", "é", "-a", "n" * 129, 7]


@pytest.mark.parametrize("name", UNSAFE_NAMES)
@pytest.mark.parametrize("path", ["model", "version", "artifact.file"])
def test_a_name_that_is_not_safe_in_a_path_is_refused(document: dict[str, Any], path: str, name: Any):
    with pytest.raises(ManifestError, match=path.replace(".", r"\.")):
        decode_manifest(changed(document, path, name))


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("model", "a name of 1 to 128 letters, digits, `_`, `.` and `-` that begins with a letter or digit"),
        ("artifact.file", "a name of 1 to 128 letters, digits, `_`, `.` and `-` that begins with a letter or digit"),
        ("artifact.sha256", "64 hexadecimal digits in lower case"),
        ("runtime", "a name of 1 to 32 lower-case letters, digits, `_` and `-` that begins with a letter"),
        ("outputs.0.name", "a name of 1 to 64 letters, digits and `_` that does not begin with a digit"),
    ],
)
def test_a_refused_name_is_told_in_words_what_it_may_be(document: dict[str, Any], path: str, said: str):
    with pytest.raises(ManifestError) as refusal:
        decode_manifest(changed(document, path, "../x"))
    assert f"Expected {said} - at `$." in str(refusal.value)
    assert "regex" not in str(refusal.value)


@pytest.mark.parametrize(
    "path", ["../profile.json", "a/../b", "/etc/passwd", "./p", "a//b", "a/", "..", "a\\..\\b", "a\n", "a\0b"]
)
def test_a_baseline_profile_outside_of_the_manifests_directory_is_refused(document: dict[str, Any], path: str):
    with pytest.raises(ManifestError, match="baseline_profile"):
        decode_manifest(changed(document, "baseline_profile", path))


@pytest.mark.parametrize("path", ["", "profile.json", "profiles/training.json"])
def test_a_baseline_profile_lies_below_the_manifest_or_is_absent(document: dict[str, Any], path: str):
    assert decode_manifest(changed(document, "baseline_profile", path)).baseline_profile == path


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model", ..., "required field `model`"),
        ("inputs", ..., "required field `inputs`"),
        ("created_at", ..., "required field `created_at`"),
        ("modle", "x", "unknown field `modle`"),
        ("artifact.sha", "x", r"unknown field `sha`.*artifact"),
        ("inputs.0.dtpye", "x", r"unknown field `dtpye`.*inputs"),
        ("outputs.1.name", "score", "output 'score' is listed more than once"),
        ("inputs.1.name", "x", "input 'x' is listed more than once"),
        ("format", 2, "format 2 is not known"),
        ("runtime", "Onnx", r"\$\.runtime"),
        ("runtime", "../onnx", r"\$\.runtime"),
        ("artifact.sha256", "0" * 63, r"\$\.artifact\.sha256"),
        ("artifact.sha256", "0" * 64 + "\n", r"\$\.artifact\.sha256"),
        ("artifact.sha256", "A" * 64, r"\$\.artifact\.sha256"),
        ("inputs", [], r"length >= 1.*\$\.inputs"),
        ("outputs", [], r"length >= 1.*\$\.outputs"),
        ("inputs.0.name", "", r"\$\.inputs"),
        ("inputs.0.name", "n" * 257, r"\$\.inputs"),
        ("inputs.0.dtype", "float32", "'x': unknown dtype 'float32'; known: BOOL"),
        ("outputs.1.dtype", "FP8", "'embedding': unknown dtype 'FP8'"),
        ("inputs.0.shape", [], r"length >= 1.*shape"),
        ("inputs.0.shape", [3], "'x': shape \\[3\\] must begin with -1"),
        ("inputs.0.shape", [-1, 0], "0 is no dimension"),
        ("inputs.0.shape", [-1, -2], "must begin with -1"),
        ("inputs.0.shape", [-1, 2**40], "'x': a row of shape"),
        ("inputs.0.shape", [-1] * 9, r"length <= 8.*shape"),
        ("inputs.0.shape", [-1, 2**70], "'x': a row of shape"),
        ("inputs.0.features", ["age"], "'age' is not a feature reference"),
        ("inputs.0.features", ["view:age\n"], "is not a feature reference"),
        ("inputs.0.features", ["../view:age"], "is not a feature reference"),
        ("inputs.0.features", ["view:age:b"], "is not a feature reference"),
        ("outputs.0.name", "a.b", r"\$\.outputs"),
        ("outputs.0.name", "a\n", r"\$\.outputs"),
        ("outputs.0.column", -1, r">= 0.*\$\.outputs"),
        ("outputs.1.column", 1, "output 'embedding' is narrowed to one column"),
        ("outputs.0.dtype", "BYTES", "output 'score': a BYTES output cannot be narrowed"),
        ("batch_rows_max", 0, r">= 1.*\$\.batch_rows_max"),
        ("batch_rows_max", 65_537, r"<= 65536.*\$\.batch_rows_max"),
        ("created_at", "yesterday", "created_at 'yesterday' is not a time"),
        ("created_at", "2026-10-31T09:00:00", "is not a time with its offset"),
        ("lineage.rows", "many", r"\$\.lineage\.rows"),
        ("lineage.metrics", {"auc": None}, r"\$\.lineage\.metrics"),
        ("parameters", [], r"\$\.parameters"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_part_at_fault(document: dict[str, Any], path: str, value: Any, said: str):
    with pytest.raises(ManifestError, match=said):
        decode_manifest(changed(document, path, value))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"model": "\xff"}', b"[" * 100_000, b"NaN"])
def test_what_is_no_manifest_at_all_is_refused(data: bytes):
    with pytest.raises(ManifestError, match=r"^no valid manifest: "):
        decode_manifest(data)


def test_a_manifest_over_the_limit_is_refused_unread():
    with pytest.raises(ManifestError, match=f"more than {MANIFEST_BYTES_MAX} bytes"):
        decode_manifest(b"[" * (MANIFEST_BYTES_MAX + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "../x"},
        {"version": ""},
        {"inputs": ()},
        {"batch_rows_max": 0},
        {"created_at": "yesterday"},
        {"parameters": {"threads": object()}},
    ],
)
def test_a_manifest_that_nobody_could_read_is_not_written(golden: Path, change: dict[str, Any]):
    manifest = decode_manifest((golden / "manifest.json").read_bytes())
    with pytest.raises(ManifestError):
        encode_manifest(msgspec.structs.replace(manifest, **change))


def test_a_metric_that_is_no_number_is_not_written(golden: Path):
    manifest = decode_manifest((golden / "manifest.json").read_bytes())
    lineage = msgspec.structs.replace(manifest.lineage, metrics={"auc": math.nan})
    with pytest.raises(ManifestError, match=r"lineage\.metrics"):
        encode_manifest(msgspec.structs.replace(manifest, lineage=lineage))


def test_a_feature_reference_is_a_view_and_a_name():
    assert feature_reference("patient_profile:age") == ("patient_profile", "age")
    assert feature_reference("request:hour") == ("request", "hour")


def test_a_file_larger_than_one_chunk_is_hashed_whole(tmp_path: Path):
    content = b"sekisho" * 400_000
    (tmp_path / "model.onnx").write_bytes(content)
    assert sha256_of(tmp_path / "model.onnx") == hashlib.sha256(content).hexdigest()
