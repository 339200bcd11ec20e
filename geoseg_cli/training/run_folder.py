"""The folder of one run: its configuration, chips, checkpoint and logs. It is not part of the bundle.

A run is taken up again only by the configuration and the data that it was begun with: anything else would be another
run with the old one's name.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, Literal

from geoseg_cli.bundle import CARD_FILE
from geoseg_cli.errors import InputError, OutputError, StorageError
from geoseg_cli.training.chip_store import ANEW, INDEX
from geoseg_cli.training.config import TrainConfig

Mode = Literal["new", "resume", "restart"]
_BEGUN_WITH: Final = "run.json"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths of a run.

    Attributes:
        out: Folder of the bundle.
    """

    out: Path

    @property
    def path(self) -> Path:
        """Beside the bundle's folder.

        Raises:
            OutputError: The bundle's folder has no name, such as ``/``.
        """
        # `.` and `..` have a name only when they are followed.
        out = self.out if self.out.name not in ("", "..") else self.out.resolve()
        if not out.name:
            raise OutputError(f"{self.out} has no place for a run beside it", "name a folder with --out")
        return out.with_name(f"{out.name}.run")

    @property
    def checkpoint(self) -> Path:
        """Weights, optimiser and history."""
        return self.path / "checkpoint.pt"

    @property
    def chips(self) -> Path:
        """Labelled chips."""
        return self.path / "chips"

    @property
    def logs(self) -> Path:
        """TensorBoard's files."""
        return self.path / "tensorboard"

    def open(self, mode: Mode, config: TrainConfig, files: Sequence[Path]) -> str:
        """Make the folder ready for a run.

        Args:
            mode: ``new`` refuses to touch an earlier run or bundle, ``resume`` goes on with it, ``restart`` drops it.
            config: What the run is told.
            files: Data that it reads.

        Returns:
            What was found, a sentence.

        Raises:
            OutputError: There is a run or a bundle already, the folder holds something else, or cannot be written.
            InputError: Configuration or data are not those that the run was begun with.
        """
        begun_with = self.path / _BEGUN_WITH
        with self._usable():
            self._refuse_strangers(begun_with)
            self._refuse_earlier(mode, begun_with)
            self._try_to_write()
        told = {"config": config.model_dump(mode="json"), "files": _identities(files)}
        for left in self.out.glob(".part-*"):
            shutil.rmtree(left, ignore_errors=True)
        if mode == "resume" and begun_with.is_file():
            self._refuse_changes(_read_json(begun_with), told)
            return f"going on with {self.path}"
        with self._usable():
            if self.path.is_dir():
                shutil.rmtree(self.path)
            self.path.mkdir(parents=True)
            begun_with.write_text(json.dumps(told, indent=1), encoding="utf-8")
        return f"new run in {self.path}" + (": there was none to resume" if mode == "resume" else "")

    @property
    def has_chips(self) -> bool:
        """Whether all chips are there."""
        return (self.chips / INDEX).is_file()

    def _refuse_strangers(self, begun_with: Path) -> None:
        """What is not ours is not deleted and not mixed with ours."""
        if self.path.exists() and not begun_with.is_file() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise OutputError(f"{self.path} exists and is no training run", "move it, or choose another --out")
        is_used = self.out.is_dir() and any(self.out.iterdir()) and not (self.out / CARD_FILE).is_file()
        # A run that was killed while it wrote the bundle leaves a part of one: that is ours.
        if (is_used and not begun_with.is_file()) or self.out.is_file():
            raise OutputError(f"{self.out} exists and is no bundle", "choose another folder with --out")

    def _refuse_earlier(self, mode: Mode, begun_with: Path) -> None:
        """An earlier run or bundle is gone on with or replaced only when that is asked for."""
        if mode == "new" and begun_with.is_file():
            raise OutputError(
                f"{self.path} exists already",
                "--resume goes on with that run, --restart drops it; or name another folder with --out",
            )
        if mode != "restart" and not begun_with.is_file() and (self.out / CARD_FILE).is_file():
            raise OutputError(
                f"{self.out} is a bundle, and no run of it is kept in {self.path}",
                "--restart trains anew and replaces it; or name another folder with --out",
            )

    def _try_to_write(self) -> None:
        """Rights, read-only disks and links into nothing show when something is written, so something is."""
        is_there = self.out.is_dir()
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            with TemporaryFile(dir=self.out):
                pass
        finally:
            if not is_there:
                self.out.rmdir()

    @contextmanager
    def _usable(self) -> Iterator[None]:
        """An error of the system means that the folders cannot be used: better now than after the training."""
        try:
            yield
        except OSError as error:
            target = error.filename or self.out
            why = "it is a link into nothing" if os.path.islink(target) else error.strerror
            raise OutputError(
                f"cannot write {self.out}: {target}: {why}", "choose another folder with --out, or correct this one"
            ) from error

    def _refuse_changes(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        old, new = dict(_flat(before)), dict(_flat(json.loads(json.dumps(now))))
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        if changed:
            said = "; ".join(f"{key}: {old.get(key)!r} then, {new.get(key)!r} now" for key in changed[:5])
            rest = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
            raise InputError(
                f"the run in {self.path} was begun with other settings or data: {said}{rest}",
                "put them back, or begin anew with --restart or another --out",
            )


def _read_json(path: Path) -> Any:
    """What a file of the run holds.

    Raises:
        StorageError: It cannot be read, is empty or cut, as a power cut leaves it.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StorageError(f"{path} is damaged: {error}", ANEW) from error
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}", ANEW) from error


def _identities(files: Sequence[Path]) -> dict[str, list[int]]:
    """Size and time of files; folders stand for the files in them."""
    flat = [inside for path in files for inside in (sorted(path.iterdir()) if path.is_dir() else [path])]
    stats = {str(path): path.stat() for path in flat if path.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of nested tables with their dotted keys."""
    if isinstance(value, Mapping) and value:
        for key, inside in value.items():
            yield from _flat(inside, f"{prefix}.{key}" if prefix else str(key).removeprefix("config"))
    else:
        yield prefix.removeprefix("config."), value
