"""What a map is made of, as one short key: equal keys, equal maps.

The key holds what the scene's files are (size, time of change, and the hash of their first and last MiB), the cards of
the bundles (which state the hashes of all weights), every option that can change the outputs, and geoseg's major and
minor version. Engine and precision count as they were asked for, not as they were found: machines of one cluster may
choose differently, and no scene is done twice for that.

What lies on a network is known by its address alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoseg_cli.batch.tasks import Recipe, SceneTask, is_address, shown
from geoseg_cli.bundle import CARD_FILE, sha256_of
from geoseg_cli.results.storage import storage_trouble
from geoseg_cli.scenes import layouts, planetscope
from geoseg_cli.scenes.integrity import FileIdentity, first_bytes, is_tiff
from geoseg_cli.version import __version__

if TYPE_CHECKING:
    from geoseg_cli.job import PredictOptions
    from geoseg_cli.scenes import SceneOptions

END_BYTES = 1 << 20
IMMATERIAL = frozenset(
    {
        "accuracy", "batch", "confidence", "entropy", "max_memory_bytes", "overwrite", "probabilities", "resume",
        "written_at",
    }
)  # fmt: skip
"""Options that change no pixel; further rasters are looked for by name."""


class Identities:
    """Keys of the scenes of one run.

    Args:
        recipe: What is done to each of them.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._scene_options = recipe.options.scene
        self._asked = _digest(_asked(recipe))

    @property
    def of_recipe(self) -> str:
        """SHA-256 of what is done to every scene: models and options; lower-case hex."""
        return self._asked

    def task_key(self, task: SceneTask) -> str:
        """A name for the work that a task is, made without reading the scene; lower-case hex.

        Size and time of the scene stand for its content: whoever runs it looks closer.
        """
        try:
            known = os.stat(task.scene)
            seen = [known.st_size, known.st_mtime_ns]
        except (OSError, ValueError):
            seen = []
        return _digest([self._asked, shown(task.scene), str(task.place), seen])

    def key(self, scene: Path) -> str:
        """SHA-256 of everything that the map of a scene is made of; lower-case hex.

        Raises:
            GeosegError: The scene's files cannot be told or read.
        """
        if is_address(scene):
            return _digest([self._asked, shown(scene)])
        members = sorted(members_of(scene.absolute(), self._scene_options))
        return _digest([self._asked, str(scene.absolute().name), [_file(member) for member in members]])


def members_of(scene: Path, options: SceneOptions) -> Iterable[Path]:
    """The files that a scene's pixels and their meaning come from.

    Args:
        scene: Absolute path.
        options: How scenes are read.
    """
    if os.path.isfile(scene) and is_tiff(first_bytes(scene)):
        # A lone file is its own and only member: no need to open it.
        product = planetscope.find(scene)
        return (scene,) if product is None else product.members
    return layouts.find_product(scene, options).members


def _file(path: Path) -> list[Any]:
    identity = FileIdentity.of(path)
    with storage_trouble(path, "read"), open(path, "rb") as stream:
        ends = hashlib.sha256(stream.read(END_BYTES))
        if identity.size_bytes > END_BYTES:
            stream.seek(max(END_BYTES, identity.size_bytes - END_BYTES))
            ends.update(stream.read(END_BYTES))
    return [path.name, identity.size_bytes, identity.mtime_ns, ends.hexdigest()]


def _asked(recipe: Recipe) -> list[Any]:
    bundles = [recipe.bundle, *([recipe.clouds.bundle] if recipe.clouds else [])]
    return [
        __version__.split(".")[:2],
        [sha256_of(bundle / CARD_FILE) for bundle in bundles],
        recipe.clouds.hidden_as if recipe.clouds else None,
        [recipe.engine.engine, recipe.engine.precision],
        _options(recipe.options),
    ]


def _options(options: PredictOptions) -> dict[str, Any]:
    """Options by name; any that is new counts until somebody says that it does not."""
    told: dict[str, Any] = {}
    for one in fields(options):
        value = getattr(options, one.name)
        if one.name == "area":
            told[one.name] = None if value is None else _file(value)
        elif one.name == "cleaning":
            told[one.name] = value.to_json()
        elif one.name not in IMMATERIAL:
            told[one.name] = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    return told


def _digest(value: Any) -> str:
    # repr of floats, NaN among them, is exact and JSON's own.
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
