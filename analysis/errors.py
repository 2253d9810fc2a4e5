"""What can go wrong offline. Each message says what was wrong, where, and what to do about it."""

from pathlib import Path


class AnalysisError(Exception):
    """The analysis cannot go on. The base of the errors here, so that one handler at the edge can tell them."""


class UnreadableFile(AnalysisError):
    """A file is missing, damaged, too large or not of the kind expected. Carries its path."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


class ProfileMismatch(AnalysisError):
    """A profile was made for another model than the one asked about."""

    def __init__(self, expected: str, found: str) -> None:
        super().__init__(f"the profile describes model {found!r}, not {expected!r}: give the profile of {expected!r}")
        self.expected, self.found = expected, found


class NoRows(AnalysisError):
    """A log or a table has no rows that could be counted. `scope` says which were looked for."""

    def __init__(self, path: Path | str, scope: str) -> None:
        super().__init__(f"{path}: no rows of {scope}")
        self.path, self.scope = path, scope


class UnusableColumn(AnalysisError):
    """A column cannot be profiled. Carries its name."""

    def __init__(self, column: str, problem: str) -> None:
        super().__init__(f"column {column!r}: {problem}")
        self.column, self.problem = column, problem


class TooManyRows(AnalysisError):
    """There are more rows than are read at once."""

    def __init__(self, rows: int, rows_max: int) -> None:
        super().__init__(f"{rows} rows; at most {rows_max} are profiled: take a sample, or narrow the window")
        self.rows, self.rows_max = rows, rows_max
