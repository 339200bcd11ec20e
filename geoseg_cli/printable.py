"""Names that may come from anyone, as text that is safe to print and to store."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""A text whose control characters, and bytes that are no text, are written as escapes such as ``\x1b``.

    A terminal obeys control characters in the name of a file, and XML, in which GDAL stores tags, cannot hold them.

    Args:
        text: Any.
        keep: Characters that stay as they are, such as a line feed.
    """
    return "".join(sign if sign.isprintable() or sign in keep else ascii(sign)[1:-1] for sign in text)
