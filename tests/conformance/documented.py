"""The tables of `docs/conformance.md`: `python -m tests.conformance.documented` measures and writes them anew."""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.conformance.kit import CHECKS, run_checks
from tests.conformance.report import markdown, markdown_of_checks
from tests.conformance.target import discover
from tests.conformance.wire import parse_address
from tests.integration.gateway_stack import ROOT
from tests.integration.identity_models import TYPED
from tests.integration.peers import MLSERVER, MlServer
from tests.integration.raw_tensor_system import RawTensorSystem

PAGE: Final = ROOT / "docs" / "conformance.md"
_BEGIN: Final = "<!-- measured: {name} -->\n"
_END: Final = "<!-- end -->"


def measured_tables(directory: Path) -> dict[str, str]:
    """Start a worker and a gateway, run the kit on both, and return the tables by their names on the page."""
    with RawTensorSystem(directory) as system:
        ours = {"worker": system.worker_port, "gateway": system.gateway_port}
        tables = {name: _table(f"http://127.0.0.1:{port}", TYPED, identity=True) for name, port in ours.items()}
        tables["worker-lightgbm"] = _table(f"http://127.0.0.1:{system.worker_port}", "diagnosis")
    return tables | {"checks": "\n" + markdown_of_checks(CHECKS) + "\n"}


def measured_mlserver_table(directory: Path) -> dict[str, str]:
    """As `measured_tables`, of a real MLServer."""
    with MlServer(directory) as server:
        return {"mlserver": _table(server.url, "churn-lightgbm")}


def documented_tables(page: str) -> dict[str, str]:
    """Return the tables that the page has, by their names."""
    tables = {}
    for part in page.split("<!-- measured: ")[1:]:
        name, _, rest = part.partition(" -->\n")
        tables[name] = rest.partition(_END)[0]
    return tables


def with_tables(page: str, tables: Mapping[str, str]) -> str:
    """Put tables into the page. Raises ValueError where it has no place for one."""
    for name, table in tables.items():
        begin = _BEGIN.format(name=name)
        head, found, rest = page.partition(begin)
        if not found:
            raise ValueError(f"the page has no line {begin.strip()!r}")
        page = head + begin + table + _END + rest.partition(_END)[2]
    return page


def _table(url: str, model: str, *, identity: bool = False) -> str:
    target = discover(parse_address(url), model=model, version=None, inputs=(), parameters={}, identity=identity)
    return "\n" + markdown(list(run_checks(target))) + "\n"


def main() -> int:
    """Measure, and write the page. MLServer's table stays as it is where there is no MLServer."""
    with tempfile.TemporaryDirectory() as directory:
        tables = measured_tables(Path(directory) / "ours")
        if MLSERVER.exists():
            tables |= measured_mlserver_table(Path(directory) / "mlserver")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")
    sys.stdout.write(f"{PAGE.name}: {', '.join(sorted(tables))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
