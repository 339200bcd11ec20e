"""Standard error as a place for messages that nobody has to read."""

from __future__ import annotations

from typing import Any, TextIO


class Messenger:
    """A stream that drops what cannot be written: a full disk below the messages must not cost the map.

    Args:
        stream: Standard error; everything but writing is its own.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or drop."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            return

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
