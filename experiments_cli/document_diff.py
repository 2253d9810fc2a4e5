"""What differs between two documents, key by key, as a person names keys."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

ABSENT: Final = object()

_NAMED_BY: Final = {"variants": "name", "guardrails": "metric"}
"""Lists whose entries have a name: told by it, so that a new first arm is not a change of all."""


@dataclass(frozen=True, slots=True)
class KeyChange:
    """One key. old, new: ABSENT where the document has no such key."""

    key: str
    old: Any
    new: Any

    def facts(self) -> dict[str, Any]:
        """Return what JSON can say; what is absent is left out."""
        facts = {"key": self.key, "old": self.old, "new": self.new}
        return {name: value for name, value in facts.items() if value is not ABSENT}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[KeyChange]:
    """Compare two documents; the keys of the old one come first, in its order."""
    return list(_of_mappings("", old, new))


def _of_mappings(at: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[KeyChange]:
    for key in [*old, *(key for key in new if key not in old)]:
        yield from _of_values(f"{at}.{key}" if at else str(key), old.get(key, ABSENT), new.get(key, ABSENT))


def _of_values(at: str, old: Any, new: Any) -> Iterator[KeyChange]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _of_mappings(at, old, new)
        return
    name = _NAMED_BY.get(at)
    by_name, new_by_name = (_by_name(old, name), _by_name(new, name)) if name else (None, None)
    if by_name is not None and new_by_name is not None:
        yield from _of_mappings(at, by_name, new_by_name)
        kept = [key for key in by_name if key in new_by_name]
        if kept != [key for key in new_by_name if key in by_name]:
            yield KeyChange(f"{at} (order)", list(by_name), list(new_by_name))
    elif _is_other(old, new):
        yield KeyChange(at, old, new)


def _by_name(value: Any, name: str) -> dict[str, Any] | None:
    if not isinstance(value, Sequence) or not all(
        isinstance(e, Mapping) and isinstance(e.get(name), str) for e in value
    ):
        return None
    found = {entry[name]: {key: inner for key, inner in entry.items() if key != name} for entry in value}
    return found if len(found) == len(value) else None


def _is_other(old: Any, new: Any) -> bool:
    # 1 == True in Python, and 1 == 1.0; in a document they are three values.
    return old is not new and (type(old) is not type(new) or old != new)
