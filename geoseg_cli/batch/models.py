"""The bundles of a run over many scenes, and their engines."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from geoseg_cli import engines, predict
from geoseg_cli.batch.tasks import Recipe
from geoseg_cli.batch.watch import Watch
from geoseg_cli.bundle import Bundle
from geoseg_cli.errors import GeosegError

if TYPE_CHECKING:
    from collections.abc import Callable

    from geoseg_cli.engines import Engine, EngineOptions

    Choose = Callable[[Bundle, EngineOptions], tuple[Engine, str]]


class Models:
    """The bundles of a recipe, and their engines, which are opened when the first scene needs them."""

    def __init__(self, recipe: Recipe, watch: Watch, choose: Choose | None = None) -> None:
        """Open the bundles without their weights.

        Args:
            recipe: What they are for.
            watch: Is told which engines were chosen.
            choose: Opens an engine; :func:`geoseg_cli.engines.choose_engine` when None.

        Raises:
            InputMissingError, ModelError: There is none, or its card does not fit.
        """
        self.recipe = recipe
        self.bundle = Bundle.open(recipe.bundle)
        self.cloud_bundle = Bundle.open(recipe.clouds.bundle) if recipe.clouds else None
        self._watch, self._lock = watch, threading.Lock()
        self._choose_engine = choose or engines.choose_engine
        self._opened: tuple[Engine, predict.CloudModel | None] | None = None

    def opened(self) -> tuple[Engine, predict.CloudModel | None]:
        """The engine, and what masks clouds.

        Raises:
            EngineTrouble: An engine does not open: no scene can be run.
        """
        with self._lock:
            if self._opened is None:
                try:
                    self._opened = self._choose(self.bundle), self._clouds()
                except GeosegError as error:
                    raise EngineTrouble(error) from error
            return self._opened

    def close(self) -> None:
        """Free the devices."""
        if self._opened is not None:
            engine, clouds = self._opened
            engine.close()
            if clouds is not None and clouds.engine is not None:
                clouds.engine.close()
            self._opened = None

    def _choose(self, bundle: Bundle) -> Engine:
        engine, reason = self._choose_engine(bundle, self.recipe.engine)
        self._watch.note(f"bundle {bundle.name}; engine {reason}")
        return engine

    def _clouds(self) -> predict.CloudModel | None:
        if self.cloud_bundle is None or self.recipe.clouds is None:
            return None
        return predict.CloudModel(self.cloud_bundle, self._choose(self.cloud_bundle), self.recipe.clouds.hidden_as)


class EngineTrouble(Exception):
    """No engine runs: a reason to end a run over many scenes, not to name each of them.

    Attributes:
        error: The trouble itself.
    """

    def __init__(self, error: GeosegError) -> None:
        super().__init__(error.message)
        self.error = error

    def __reduce__(self) -> tuple[type[EngineTrouble], tuple[GeosegError]]:
        """It travels between processes."""
        return EngineTrouble, (self.error,)
