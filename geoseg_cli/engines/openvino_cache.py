"""Compiled graphs of OpenVINO in the user's cache folder: what takes most of a second is done once per machine.

Nothing depends on the folder: what is not there, not whole or not understood is compiled. A kept graph begins with the
SHA-256 of the rest, because OpenVINO trusts what it imports.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from platformdirs import user_cache_path

from geoseg_cli.engines.openvino_graph import CPU, openvino
from geoseg_cli.version import __version__

MAX_BYTES: Final = 256 * 2**20
"""Kept together; those that were not used for longest go first."""
_DIGEST_BYTES: Final = 32


class CompiledGraphs:
    """Compiled graphs by what they were compiled from.

    Args:
        folder: Where they are kept; None for the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = user_cache_path("geoseg") / "openvino" if folder is None else folder

    def has(self, key: Sequence[object]) -> bool:
        """Whether something was kept for ``key``; it may prove not to be whole."""
        try:
            return self._path(key).is_file()
        except OSError:
            return False

    def find(self, key: Sequence[object], settings: dict[str, Any]) -> Any | None:
        """The compiled model of ``key``; None where there is none that OpenVINO takes.

        Args:
            key: All that the compiled graph depends on besides the versions of OpenVINO and geoseg.
            settings: It was compiled with.
        """
        path = self._path(key)
        try:
            content = path.read_bytes()
            if hashlib.sha256(content[_DIGEST_BYTES:]).digest() != content[:_DIGEST_BYTES]:
                return None
            compiled = openvino.Core().import_model(io.BytesIO(content[_DIGEST_BYTES:]), CPU, settings)
        except (OSError, RuntimeError):
            return None
        with contextlib.suppress(OSError):
            os.utime(path)
        return compiled

    def keep(self, key: Sequence[object], compiled: Any) -> None:
        """Keep a compiled model where that is possible; two processes may do so at the same time."""
        path = self._path(key)
        unfinished = path.with_suffix(f".{os.getpid()}.part")
        with contextlib.suppress(OSError, RuntimeError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            content = compiled.export_model().getvalue()
            try:
                unfinished.write_bytes(hashlib.sha256(content).digest() + content)
                unfinished.replace(path)
            finally:
                unfinished.unlink(missing_ok=True)
            self._forget_oldest()

    def _path(self, key: Sequence[object]) -> Path:
        text = json.dumps([__version__, openvino.__version__, *key])
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.graph"

    def _forget_oldest(self) -> None:
        """Delete the oldest over the limit; what killed processes left counts and goes as well."""
        kept = sorted(self._folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        total = 0
        for path in kept:
            total += path.stat().st_size
            if total > MAX_BYTES:
                path.unlink(missing_ok=True)
