"""Pages that hold, between two markers, what a program measured."""

from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def write_between(page: Path, subject: str, text: str) -> None:
    """Put text between a page's markers of a subject. Raises ValueError where they are not there."""
    begin, end = f"<!-- {subject}: begin -->", f"<!-- {subject}: end -->"
    whole = page.read_text(encoding="utf-8")
    begins, ends = whole.find(begin), whole.find(end)
    if not 0 <= begins < ends:
        raise ValueError(f"{page} has no {begin} before its {end}")
    page.write_text(f"{whole[:begins]}{begin}\n\n{text}\n\n{whole[ends:]}", encoding="utf-8")
