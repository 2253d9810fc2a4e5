import asyncio
import logging
import os
from pathlib import Path

import pytest

from gateway.configuration.last_good import STATE_FILE_BYTES_MAX, StateDirectory, StateNotWritten
from tests.unit.gateway.gateway_fakes import in_loop


def state_in(path: Path, now_us: int = 0) -> StateDirectory:
    return StateDirectory(path, lambda: now_us)


def test_what_was_written_is_read_with_its_age_by_any_process(tmp_path):
    state_in(tmp_path).write("signatures/churn/1.json", b"{}")
    written_at_us = int((tmp_path / "signatures/churn/1.json").stat().st_mtime * 1e6)
    stored = state_in(tmp_path, written_at_us + 5_000_000).read("signatures/churn/1.json")
    assert stored.data == b"{}"
    assert stored.age_s == pytest.approx(5.0, abs=0.01)


def test_what_is_not_there_is_none(tmp_path):
    assert state_in(tmp_path / "nothing").read("views.json") is None


def test_a_failed_write_leaves_the_file_before_it_whole_and_nothing_beside_it(tmp_path, monkeypatch):
    state = state_in(tmp_path)
    state.write("views.json", b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateNotWritten, match="No space left"):
        state.write("views.json", b"after")
    assert "No space left" in state.problem
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("views.json", b"before")]
    monkeypatch.undo()
    state.write("views.json", b"after")
    assert state.problem is None


def test_a_directory_that_cannot_be_made_is_told_with_its_path(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StateNotWritten, match=r"file/state"):
        state_in(tmp_path / "file" / "state").write("views.json", b"")


def test_a_file_that_is_too_large_or_is_none_is_not_read(tmp_path, caplog):
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(STATE_FILE_BYTES_MAX + 1)
    (tmp_path / "folder.json").mkdir()
    state = state_in(tmp_path)
    assert [state.read(name) for name in ("large.json", "folder.json")] == [None, None]
    assert len(caplog.records) == 2


@in_loop
async def test_what_is_kept_again_unchanged_is_not_written_again(tmp_path):
    state = state_in(tmp_path)
    await state.keep("views.json", b"one")
    (tmp_path / "views.json").unlink()
    await state.keep("views.json", b"one")
    assert not (tmp_path / "views.json").exists()
    await state.keep("views.json", b"two")
    assert (tmp_path / "views.json").read_bytes() == b"two"


def test_what_cannot_be_kept_is_logged_once_and_written_as_soon_as_it_can_be(tmp_path, caplog):
    (tmp_path / "state").write_bytes(b"in the way")
    state = state_in(tmp_path / "state")

    @in_loop
    async def scenario() -> None:
        for _ in range(3):
            await state.keep("views.json", b"one")
        (tmp_path / "state").unlink()
        await state.keep("views.json", b"one")

    with caplog.at_level(logging.WARNING):
        scenario()
    assert len(caplog.records) == 1
    assert (tmp_path / "state/views.json").read_bytes() == b"one"


@in_loop
async def test_many_writes_at_once_leave_one_whole_file(tmp_path):
    state = state_in(tmp_path)
    contents = [bytes([65 + i]) * 100_000 for i in range(8)]
    await asyncio.gather(*(state.keep("views.json", content) for content in contents))
    assert (tmp_path / "views.json").read_bytes() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["views.json"]


def test_a_removed_file_is_gone_and_removing_it_again_is_harmless(tmp_path):
    state = state_in(tmp_path)
    state.write("routes/churn.json", b"{}")
    for _ in range(2):
        state.remove("routes/churn.json")
    assert state.read("routes/churn.json") is None
