import json
from datetime import UTC, datetime
from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml

from gateway.access.keys_file import KeysFile, Scope, read_keys
from settings import ConfigurationError

SCHEMA = Path(__file__).parents[3] / "gateway" / "access" / "keys.schema.json"
ONE, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4

GOOD = f"""\
keys:
  - name: checkout
    sha256: "{ONE}"
    scopes: [predict, outcome]
    requests_per_s: 500
    burst: 1000
    models: [churn]
    force_variant: true
    expires: 2027-01-01T00:00:00Z
  - name: checkout
    sha256: "{OTHER}"
    scopes: [admin]
"""


def written(tmp_path: Path, content: str) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(content, encoding="utf-8")
    return path


def test_a_good_file_is_read_with_its_defaults_and_a_name_may_come_twice(tmp_path: Path):
    full, plain = read_keys(written(tmp_path, GOOD))
    assert (full.name, full.sha256, full.scopes) == ("checkout", ONE, (Scope.PREDICT, Scope.OUTCOME))
    assert (full.requests_per_s, full.burst, full.models, full.force_variant) == (500, 1000, ("churn",), True)
    assert full.expires == datetime(2027, 1, 1, tzinfo=UTC)
    assert (plain.requests_per_s, plain.burst, plain.models, plain.force_variant, plain.expires) == (
        None, None, None, False, None,
    )  # fmt: skip


def test_the_schema_in_the_repository_is_the_one_that_files_are_read_by():
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    assert schema == msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(KeysFile)))
    document = yaml.safe_load(GOOD)
    document["keys"][0]["expires"] = document["keys"][0]["expires"].isoformat()
    jsonschema.validate(document, schema)


WRONG = {
    "no key at all": (GOOD, "keys: []\n", 1, "length >= 1"),
    "a key in the clear": (f'sha256: "{ONE}"', "key: sk_secret", 3, "key"),
    "a digest that is none": (f'"{ONE}"', '"abc"', 3, "[0-9a-f]{64}"),
    "a digest in capitals": (ONE, ONE.upper(), 3, "[0-9a-f]{64}"),
    "the same key twice": (OTHER, ONE, 11, "the same key as that of 'checkout'"),
    "a scope that is none": ("[admin]", "[root]", 12, "root"),
    "no scope": ("[admin]", "[]", 12, "length >= 1"),
    "a rate of nothing": ("requests_per_s: 500", "requests_per_s: 0", 5, ">= 0.001"),
    "a burst without a rate": ("    requests_per_s: 500\n", "", 5, "`burst` goes with `requests_per_s`"),
    "an expiry without a zone": ("2027-01-01T00:00:00Z", "2027-01-01T00:00:00", 9, "timezone"),
    "an expiry that is a day": ("2027-01-01T00:00:00Z", "2027-01-01", 9, "datetime"),
    "a name with a space": ("name: checkout\n", "name: check out\n", 2, "matching regex"),
}


@pytest.mark.parametrize(("old", "new", "line", "said"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_refused_with_its_line(tmp_path: Path, old: str, new: str, line: int, said: str):
    assert old in GOOD
    with pytest.raises(ConfigurationError) as refusal:
        read_keys(written(tmp_path, GOOD.replace(old, new, 1)))
    assert refusal.value.line == line
    assert said in refusal.value.problem
