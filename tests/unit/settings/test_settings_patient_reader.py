import asyncio
import threading
from pathlib import Path

import pytest

from settings import ConfigurationError, patient_reader
from settings.patient_reader import PatientReader


def test_what_a_reading_returns_or_raises_comes_back():
    async def scene() -> None:
        reader = PatientReader(Path("a"))
        assert await reader.run(lambda: 7) == 7
        with pytest.raises(ConfigurationError, match="b:3: wrong"):
            await reader.run(lambda: _raise(ConfigurationError(Path("b"), 3, "wrong")))

    asyncio.run(scene())


def test_a_reading_that_hangs_is_told_and_no_second_one_is_begun_until_it_has_come_back(monkeypatch):
    monkeypatch.setattr(patient_reader, "READING_S_MAX", 0.01)
    back, begun = threading.Event(), []

    def hang() -> None:
        begun.append(1)
        back.wait(10)

    async def scene() -> None:
        reader = PatientReader(Path("a"))
        for _ in range(3):
            with pytest.raises(ConfigurationError, match="does not answer"):
                await reader.run(hang)
        assert (reader.hangs, len(begun)) == (True, 1)
        back.set()
        async with asyncio.timeout(10):
            while reader.hangs:  # noqa: ASYNC110 - there is no event to wait on
                await asyncio.sleep(0)  # one turn of the loop
        assert await reader.run(lambda: 7) == 7

    asyncio.run(scene())


def _raise(error: Exception) -> None:
    raise error
