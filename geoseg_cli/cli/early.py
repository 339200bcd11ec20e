"""The engine of a run, opened before the rest of geoseg is imported, so that its compiler works beside the imports."""

from __future__ import annotations

import os
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING

from geoseg_cli.cli.request import Request
from geoseg_cli.errors import GeosegError

if TYPE_CHECKING:
    from pathlib import Path

    from geoseg_cli.bundle import Bundle
    from geoseg_cli.engines import Engine, EngineOptions

_NEEDS_NO_ENGINE_HERE = ("sandbox", "dry_run", "shard", "scheduler")


class EarlyEngine:
    """What a scene alone will run, opened at once; whatever is wrong with it is told later, when it is asked for.

    OpenVINO takes half a second to compile a graph, on a thread of its own, and the readers and writers of scenes take
    as long to be imported. What nobody takes is closed on leaving the context.

    Args:
        request: What the user asked for; nothing is opened where that is more than one file, or runs elsewhere.
    """

    def __init__(self, request: Request) -> None:
        self._opened: tuple[Path, EngineOptions, Engine, str] | None = None
        given = request.given
        if any(given.get(name) for name in _NEEDS_NO_ENGINE_HERE) or given["trust"] is not None:
            return
        if len(given["scenes"]) == 1 and os.path.isfile(given["scenes"][0]):
            with suppress(GeosegError):  # it is raised again where the user expects it
                self._open(request)

    def _open(self, request: Request) -> None:
        from geoseg_cli import engines
        from geoseg_cli.bundle import find_bundle

        options, bundle = request.engine_options(), find_bundle(request.model)
        engine, reason = engines.choose_engine(bundle, options)
        self._opened = bundle.folder.absolute(), options, engine, reason

    def __enter__(self) -> EarlyEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
            self._opened[2].close()

    def choose(self, bundle: Bundle, options: EngineOptions) -> tuple[Engine, str]:
        """The engine that was opened, once, if it is the one that is wanted; else as ``engines.choose_engine``."""
        from geoseg_cli import engines

        if self._opened is not None and self._opened[:2] == (bundle.folder.absolute(), options):
            _, _, engine, reason = self._opened
            self._opened = None
            return engine, reason
        return engines.choose_engine(bundle, options)
