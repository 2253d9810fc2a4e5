import os
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

# What `.gitignore` lists, and git's own folder.
LEFT_OUT = {".git", ".venv", ".venv-peers", "__pycache__", "dist", "sekisho-data", ".cache"} | {
    f".{tool}_cache" for tool in ("mypy", "ruff", "pytest", "import_linter")
}
FILE_BYTES_MAX = 2 * 1024 * 1024

BANNED_STEMS = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}
REGISTRY_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|npmjs\.|crates\.io|anaconda\.|conda\.io|docker\.io|ghcr\.io|quay\.io|gcr\.io"
    r"|\.azurecr\.|artifactory|jfrog|--(?:extra-)?index-url[= ]|--find-links[= ]",
    re.IGNORECASE,
)
PATH_OF_A_MACHINE = re.compile(r"(?<![\w./-])/(?:work|root|home|Users|mnt|private)/\w")


def files() -> Iterator[Path]:
    for directory, folders, names in os.walk(ROOT):
        folders[:] = [folder for folder in folders if folder not in LEFT_OUT | {".hypothesis"}]
        folders[:] = [folder for folder in folders if not folder.endswith(".egg-info")]
        yield from (Path(directory) / name for name in names)


def texts() -> Iterator[tuple[Path, str]]:
    for path in files():
        if path == Path(__file__) or not path.is_file() or path.stat().st_size > FILE_BYTES_MAX:
            continue
        data = path.read_bytes()
        if b"\0" not in data:
            yield path.relative_to(ROOT), data.decode("utf-8")


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()[:120]}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]


def test_no_text_names_a_package_registry():
    assert lines_with(REGISTRY_HOST) == []


def test_no_text_names_a_path_of_one_machine():
    assert lines_with(PATH_OF_A_MACHINE) == []


def test_every_text_is_utf_8_with_a_newline_at_its_end():
    assert [str(path) for path, text in texts() if text and not text.endswith("\n")] == []


def test_no_file_is_named_for_what_it_is_not():
    assert [str(path) for path in files() if path.suffix == ".py" and path.stem in BANNED_STEMS] == []
