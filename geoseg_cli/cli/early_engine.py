"""The engine of a run over one scene, opened while most of the program is still being imported.

OpenVINO prepares a network in a thread of its own, as long as a third of the time until the first tile: begun first,
that happens beside everything else. What takes the caller's time - another engine, a graph that no earlier run has
compiled, golden tiles that have not run here - is not begun before scene and outputs are known to be good, and what is
wrong with an engine is told where its turn comes.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoseg_cli.bundle import Bundle
    from geoseg_cli.cli.request import Request
    from geoseg_cli.engines import Engine, EngineOptions


class EarlyEngine:
    """What a request will run, opened already where it maps one file."""

    def __init__(self, request: Request) -> None:
        """Open the engine; whatever is wrong with it is not told here."""
        self._made: tuple[Engine, str] | None = None
        if not _maps_one_file(request):
            return
        from geoseg_cli.engines import choose_prepared

        with suppress(Exception):  # whatever it is: where the engine's turn comes it is met again
            self._bundle, self._options = request.bundle(), request.engine_options()
            self._made = choose_prepared(self._bundle, self._options)

    def choose(self, bundle: Bundle, options: EngineOptions) -> tuple[Engine, str]:
        """As :func:`geoseg_cli.engines.choose_engine`: the early engine once, where it is the one that is meant."""
        from geoseg_cli.engines import choose_engine

        if self._made is not None and (self._bundle.folder.absolute(), self._options) == (bundle.folder, options):
            made, self._made = self._made, None
            return made
        return choose_engine(bundle, options)


def _maps_one_file(request: Request) -> bool:
    """Whether the request will run in this process, and its scene is a file that is there and no list of others."""
    given, scenes = request.given, request.given["scenes"]
    if len(scenes) != 1 or not str(scenes[0]).lower().endswith((".tif", ".tiff")) or not os.path.isfile(scenes[0]):
        return False
    elsewhere = ("dry_run", "sandbox", "shard", "scheduler")
    return not any(given.get(name) for name in elsewhere) and given.get("workers", 1) == 1
