"""Text of others for a terminal."""


def plain(text: str) -> str:
    """Return text with what cannot be printed escaped: a name must not move a cursor, or colour a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
