"""geoseg: satellite scenes in, georeferenced class maps out.

    scene ─▶ Scene ─▶ TilePlan ─▶ batches() ─▶ Engine.run() ─▶ Mosaic ─▶ work raster ─▶ COG
               │          │        (N,C,T,T)     (N,K,T,T)      rows        uint8
               └── Grid ──┘            ▲             ▲            ▲           ▲
                                  InputSpec       Bundle       weights      Legend

The public names are loaded when they are first used, so ``import geoseg_cli`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geoseg_cli.version import __version__

if TYPE_CHECKING:
    from geoseg_cli.bundle import Bundle, find_bundle
    from geoseg_cli.engines import EngineOptions, choose_engine
    from geoseg_cli.errors import GeosegError
    from geoseg_cli.job import PredictOptions
    from geoseg_cli.predict import PredictReport, predict_scene
    from geoseg_cli.results.data_array import open_result
    from geoseg_cli.scenes import SceneOptions

_HOMES = {
    "Bundle": "bundle",
    "EngineOptions": "engines",
    "GeosegError": "errors",
    "PredictOptions": "job",
    "PredictReport": "predict",
    "SceneOptions": "scenes",
    "choose_engine": "engines",
    "find_bundle": "bundle",
    "open_result": "results.data_array",
    "predict_scene": "predict",
}

__all__ = [
    "Bundle",
    "EngineOptions",
    "GeosegError",
    "PredictOptions",
    "PredictReport",
    "SceneOptions",
    "__version__",
    "choose_engine",
    "find_bundle",
    "open_result",
    "predict_scene",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'geoseg_cli' has no attribute {name!r}")
    return getattr(import_module(f"geoseg_cli.{_HOMES[name]}"), name)
