"""What `docs/conformance.md` says of the servers is what the kit finds today."""

import pytest

from tests.conformance.documented import PAGE, documented_tables, measured_mlserver_table, measured_tables, with_tables
from tests.integration.peers import needs_peers

HOW = "run `python -m tests.conformance.documented` and look at what changed"


@pytest.mark.integration
def test_the_tables_of_worker_and_gateway_and_of_all_checks_are_as_measured(tmp_path):
    documented = documented_tables(PAGE.read_text(encoding="utf-8"))
    measured = measured_tables(tmp_path)
    for name, table in measured.items():
        assert documented[name] == table, f"{name}: {HOW}"


@pytest.mark.integration
@needs_peers
def test_the_table_of_mlserver_is_as_measured(tmp_path):
    documented = documented_tables(PAGE.read_text(encoding="utf-8"))
    assert documented["mlserver"] == measured_mlserver_table(tmp_path)["mlserver"], HOW


def test_a_table_is_put_into_its_own_place_and_read_back():
    page = "a\n<!-- measured: x -->\nold\n<!-- end -->\nb\n<!-- measured: y -->\nother\n<!-- end -->\n"
    written = with_tables(page, {"x": "\nnew\n\n"})
    assert written == page.replace("old\n", "\nnew\n\n")
    assert documented_tables(written) == {"x": "\nnew\n\n", "y": "other\n"}
    with pytest.raises(ValueError, match="measured: z"):
        with_tables(page, {"z": ""})
