import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments_cli.__main__ import main
from tests.unit.experiments_cli.fake_admin import FakeAdmin, serving


@dataclass
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Program:
    """Runs commands in this process, against the fake gateway."""

    def __init__(self, admin: FakeAdmin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.admin, self._capsys, self._monkeypatch = admin, capsys, monkeypatch

    def __call__(self, *arguments: str, answer: str | None = None, columns: int | None = None) -> Done:
        """Run a command. answer: what somebody types; without it, nobody is there. columns: of a terminal."""
        self._monkeypatch.setattr("sys.stdin", _Typed(answer))
        if columns is not None:
            self._monkeypatch.setattr("experiments_cli.__main__.PIPE_WIDTH", columns)
        self._capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as error:
            code = int(error.code or 0)
        read = self._capsys.readouterr()
        return Done(code, read.out, read.err)


class _Typed(io.StringIO):
    def __init__(self, answer: str | None) -> None:
        super().__init__(answer or "")
        self._is_terminal = answer is not None

    def isatty(self) -> bool:
        return self._is_terminal


@pytest.fixture
def admin() -> Iterator[FakeAdmin]:
    with serving(FakeAdmin()) as served:
        yield served


@pytest.fixture
def program(admin: FakeAdmin, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Program:
    for name in [name for name in os.environ if name.startswith("SEKISHO_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SEKISHO_URL", admin.url)
    monkeypatch.setenv("SEKISHO_REASON", "a test")
    monkeypatch.setenv("SEKISHO_ACTOR", "ben@laptop")
    monkeypatch.setenv("SEKISHO_TIMEOUT_S", "20")
    return Program(admin, capsys, monkeypatch)


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Write documents to a file, and return its path."""

    def write(*documents: Any, name: str = "experiments.yaml") -> str:
        path = tmp_path / name
        parts: Sequence[str] = [d if isinstance(d, str) else yaml.safe_dump(d, sort_keys=False) for d in documents]
        path.write_text("---\n".join(parts), encoding="utf-8")
        return str(path)

    return write
