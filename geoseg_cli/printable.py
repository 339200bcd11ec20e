"""Text for people: names that may come from anyone, made safe to print and to store; numbers with their nouns."""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""A text whose control characters, and bytes that are no text, are written as escapes such as ``\x1b``.

    A terminal obeys control characters in the name of a file, and XML, in which GDAL stores tags, cannot hold them.

    Args:
        text: Any.
        keep: Characters that stay as they are, such as a line feed.
    """
    return "".join(sign if sign.isprintable() or sign in keep else ascii(sign)[1:-1] for sign in text)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: ``1 scene``, ``1,200 scenes``.

    Args:
        number: How many there are.
        noun: What one of them is called.
        plural: What others are called, where that is not the noun with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
