"""One run for one scene: whoever holds its claim may look what is left to do, and do it.

A claim is a lock file in ``.geoseg/claims`` of the folder that the maps go to (:mod:`geoseg_cli.results.lock` says how
it is held). It ends with its process, and that of another machine once it has given no sign of life for a while. The
lock of the map itself is no claim: what is left to do has to be decided before that one is taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geoseg_cli.batch.journal import FOLDER
from geoseg_cli.batch.tasks import SceneTask
from geoseg_cli.errors import BusyError
from geoseg_cli.results.lock import OutputLock
from geoseg_cli.results.lock_holder import is_held
from geoseg_cli.results.storage import storage_trouble


@contextmanager
def claimed(task: SceneTask, home: Path) -> Iterator[None]:
    """Hold the claim of a scene.

    Raises:
        BusyError: Another run holds it.
        AccessError, StorageError: The folder does not take it.
    """
    target = _claim(home, task.place)
    with storage_trouble(home / FOLDER):
        for folder in (target.parent.parent, target.parent):
            folder.mkdir(exist_ok=True)
    lock = OutputLock([target])
    try:
        lock.__enter__()
    except BusyError as error:
        raise BusyError(error.message.replace(str(target), str(task.output)), error.hint) from None
    try:
        yield
    finally:
        lock.release()


def is_claimed(home: Path, place: Path) -> bool:
    """Whether a run holds the claim of an output, or the output itself.

    Args:
        home: Folder of the journal.
        place: The output, absolute.

    Raises:
        AccessError, StorageError: A lock file cannot be read.
    """
    return is_held(_claim(home, place)) or is_held(place)


def _claim(home: Path, place: Path) -> Path:
    # Relative: machines may see a shared folder in different places.
    name = place.relative_to(home).as_posix() if place.is_relative_to(home) else str(place)
    return home.absolute() / FOLDER / "claims" / hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()
