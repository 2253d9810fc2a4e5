import json
import re
from pathlib import Path

import jsonschema
import msgspec
import yaml

from gateway.routes_file import RoutesFile, read_routes

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "gateway" / "models.schema.json"


def example() -> str:
    page = (ROOT / "docs" / "routes.md").read_text(encoding="utf-8")
    return re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1]


def test_the_schema_in_the_repository_is_the_one_that_files_are_read_by():
    expected = msgspec.json.decode(msgspec.json.encode(msgspec.json.schema(RoutesFile)))
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == expected


def test_the_documented_example_is_a_valid_file(tmp_path):
    file = tmp_path / "models.yaml"
    file.write_text(example(), encoding="utf-8")
    assert read_routes(file).models["churn"].fallback.value == 0.5
    jsonschema.validate(yaml.safe_load(example()), json.loads(SCHEMA.read_text(encoding="utf-8")))


def test_every_key_of_a_route_is_in_the_documentation():
    page = (ROOT / "docs" / "routes.md").read_text(encoding="utf-8")
    route = msgspec.json.schema(RoutesFile)["$defs"]["ModelRoute"]["properties"]
    assert [key for key in route if key not in page] == []
