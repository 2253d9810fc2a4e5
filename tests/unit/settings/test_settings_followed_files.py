import asyncio
import threading
from pathlib import Path

import pytest

from settings import ConfigurationError
from settings.followed_files import FollowedFiles


class Numbers:
    """Follows a file that should hold a number."""

    def __init__(self, path: Path) -> None:
        self.path, self.taken, self.readings = path, [], 0
        self.files = FollowedFiles("numbers", [path], self.read, self.taken.append)

    def read(self) -> int:
        self.readings += 1
        try:
            return int(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(self.path, 1, "is no number") from error

    def look(self) -> None:
        asyncio.run(self.files.look_again())


@pytest.fixture
def numbers(tmp_path: Path) -> Numbers:
    (tmp_path / "number").write_text("1", encoding="utf-8")
    return Numbers(tmp_path / "number")


def test_a_file_is_read_and_taken_at_once_and_a_wrong_one_is_told(tmp_path: Path, numbers: Numbers):
    assert numbers.taken == [1]
    with pytest.raises(ConfigurationError):
        Numbers(tmp_path / "none")


def test_a_file_that_has_not_changed_is_not_read_again(numbers: Numbers):
    numbers.look()
    numbers.look()
    assert (numbers.taken, numbers.readings) == ([1], 1)


def test_a_file_that_has_changed_is_taken_once(numbers: Numbers):
    numbers.path.write_text("22", encoding="utf-8")
    numbers.look()
    numbers.look()
    assert numbers.taken == [1, 22]


def test_a_wrong_file_is_not_taken_and_is_a_problem_until_it_is_right_again(numbers: Numbers):
    numbers.path.write_text("two", encoding="utf-8")
    numbers.look()
    assert numbers.taken == [1]
    assert "is no number" in (numbers.files.problem or "")
    numbers.path.write_text("3", encoding="utf-8")
    numbers.look()
    assert (numbers.taken, numbers.files.problem) == ([1, 3], None)


def test_a_file_that_has_gone_is_a_problem_and_what_it_held_stays(numbers: Numbers):
    numbers.path.unlink()
    numbers.look()
    assert numbers.taken == [1]
    assert numbers.files.problem is not None


def test_what_cannot_be_taken_is_a_problem_too(tmp_path: Path):
    path = tmp_path / "file"
    path.write_text("a", encoding="utf-8")
    taken = []

    def take(text: str) -> None:
        if text != "a":
            raise ConfigurationError(path, 1, "not that one")
        taken.append(text)

    files = FollowedFiles("file", [path], lambda: path.read_text(encoding="utf-8"), take)
    path.write_text("bb", encoding="utf-8")
    asyncio.run(files.look_again())
    assert (taken, files.problem) == (["a"], f"{path}:1: not that one")


def test_a_mounted_secret_that_is_replaced_whole_is_seen(tmp_path: Path):
    # As Kubernetes does it: file -> ..data/file, and ..data -> a folder that is another one after each change.
    for name, content in (("first", "1"), ("second", "2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "number").write_text(content, encoding="utf-8")
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "number").symlink_to("..data/number")
    numbers = Numbers(tmp_path / "number")
    (tmp_path / "..new").symlink_to("second")
    (tmp_path / "..new").replace(tmp_path / "..data")
    numbers.look()
    assert numbers.taken == [1, 2]


def test_a_file_system_that_hangs_is_a_problem_until_it_answers_and_the_file_is_then_read_again(
    numbers: Numbers, monkeypatch
):
    monkeypatch.setattr("settings.patient_reader.READING_S_MAX", 0.01)
    back = threading.Event()
    monkeypatch.setattr(numbers.files, "_stamps", lambda: back.wait(10) and (1,))

    async def scene() -> None:
        await numbers.files.look_again()
        assert "does not answer" in (numbers.files.problem or "")
        back.set()
        async with asyncio.timeout(10):
            while numbers.files.problem is not None:
                await asyncio.sleep(0)  # one turn of the loop
                await numbers.files.look_again()
        assert numbers.taken == [1, 1]

    asyncio.run(scene())
