"""Which release of this program runs."""

from importlib.metadata import PackageNotFoundError, version


def release() -> str:
    """Return the installed distribution's version; `0+source` where it runs from a source tree."""
    try:
        return version("sekisho")
    except PackageNotFoundError:
        return "0+source"
