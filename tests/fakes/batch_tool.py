"""geoseg with an engine that gives back its input: for runs in processes of their own, which scenes may kill by name.

    python -m tests.fakes.batch_tool cloudmask ...

A scene called ``killer*`` kills whatever process runs it, ``once*`` only the first, ``torn*`` only the first, when its
map is published and its locks are still there. ``GEOSEG_TEST_PAUSE`` is what each
batch of tiles takes, in seconds; each map that is begun and each that is made leaves a line in ``GEOSEG_TEST_LOG``.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import geoseg_cli.engines
from geoseg_cli import predict
from geoseg_cli.engines.fake_engine import IdentityEngine
from geoseg_cli.results.lock import OutputLock


class Paused(IdentityEngine):
    def run(self, pixels: Any) -> Any:
        time.sleep(float(os.environ.get("GEOSEG_TEST_PAUSE", "0")))
        return super().run(pixels)


_predict = predict.predict_scene


def _log(word: str, scene: Path) -> None:
    with open(os.environ.get("GEOSEG_TEST_LOG", os.devnull), "a") as file:
        file.write(f"{word} {scene.name} {os.getpid()}\n")


def _deadly(scene: Path, *rest: Any, **more: Any) -> Any:
    _log("begun", scene)
    marker = scene.with_name(f".{scene.name}.died")
    if scene.name.startswith("killer") or (scene.name.startswith("once") and not marker.exists()):
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if scene.name.startswith("torn") and not marker.exists():
        marker.touch()
        OutputLock.release = lambda self: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    report = _predict(scene, *rest, **more)
    _log("made", scene)
    return report


geoseg_cli.engines.choose_engine = lambda bundle, options=None: (Paused(4), f"fake with {options.threads} threads")
predict.predict_scene = _deadly

if __name__ == "__main__":
    from geoseg_cli.cli import main

    main()
