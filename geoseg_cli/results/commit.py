"""All-or-nothing publication: files appear under their final names only when all of them are on the disk.

What is guaranteed:

- Until ``commit()`` the targets are untouched; everything happens in a hidden folder beside them.
- Each target is at every moment the complete old file or the complete new one, power loss included.
- After an exception in ``commit()``, an interrupt by the keyboard included, all targets and sidecars are as they
  were (on file systems without hard links, targets that were already replaced stay new).
- A process killed in the middle of ``commit()`` can leave some targets new and others old, and targets, old or new,
  without some of their sidecars, but never a new target beside an old one's sidecar: those go first, which the disk
  is waited for, and new ones come after the file that they describe. Only a rename is atomic; the next run for the
  same targets puts that right.
- While a run works no other one works on any of its targets (``results/lock.py`` says where that holds).
- A work folder left by a killed process is removed by the next run for the same target on the same machine, or taken
  over by one that makes the same (``adopt``): it goes on from the rows that ``results/checkpoint.py`` finds whole.
- Work that has a checkpoint stays where a run is interrupted, by a signal or the keyboard, before its targets are
  published. Any other end of a run leaves no work folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from geoseg_cli.errors import AccessError, OutputError, StorageError, UsageError
from geoseg_cli.results.checkpoint import entries_in, key_in
from geoseg_cli.results.lock import OutputLock
from geoseg_cli.results.sidecars import described_by_geoseg, described_instead, sidecar_paths, sidecars
from geoseg_cli.results.storage import free_bytes, storage_trouble
from geoseg_cli.results.workfolder import WorkFolder, dead_work, remove_dead_work

_log = logging.getLogger(__name__)

_PERMISSIONS = 0o777


class OutputTransaction:
    """Context manager that publishes one or more files at once, or none.

    Usage::

        with OutputTransaction([out], overwrite=False, inputs=[scene]) as transaction:
            write(transaction.path(out))
            transaction.commit()

    Leaving the block without ``commit()`` throws the work away.

    Attributes:
        targets: The files to publish, as absolute paths, in the order in which they appear.
    """

    def __init__(self, targets: Sequence[Path], overwrite: bool = False, inputs: Sequence[Path] = ()) -> None:
        """Plan; nothing is looked at or touched before the ``with`` block starts.

        Args:
            targets: Files to publish, in any folders that exist; sidecars after what they belong to.
            overwrite: Whether targets may exist. A symbolic link to a file, or to nothing, is replaced itself, not
                what it points to.
            inputs: Files that are read; none of them may be a target.
        """
        self.targets = tuple(Path(target).absolute() for target in targets)
        self._overwrite = overwrite
        self._inputs = tuple(Path(path).absolute() for path in inputs)
        self._folders: dict[Path, WorkFolder] = {}
        self._lock = OutputLock(self.targets)

    def check(self) -> None:
        """Check everything that can be checked before work starts; nothing is touched.

        Raises:
            UsageError: Two targets are the same file, or one is an input.
            OutputError: A target exists or is a folder, its folder is missing, or it describes somebody else's map.
            AccessError: A folder cannot be written to.
        """
        _check_distinct(self.targets, self._inputs)
        _check_sidecars(self.targets)
        for target in self.targets:
            _check_target(target, self._overwrite)

    def __enter__(self) -> OutputTransaction:
        """Check, lock the targets, and remove what killed runs left behind; what can be gone on with stays so far.

        Raises:
            UsageError, OutputError, AccessError: As ``check``.
            BusyError: Another run works on one of the targets.
        """
        self.check()
        self._lock.__enter__()
        try:
            self.check()  # the run that held the lock until now may have published
            for target in self.targets:
                remove_dead_work(target, keep_resumable=True)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit):
                self._leave_resumable()
            self._discard()
        finally:
            self._lock.release()

    def adopt(self, key: str | None) -> Path | None:
        """Take over the work folder of a killed run for the same first target, where its checkpoint has this key.

        Work of another key is removed.

        Args:
            key: What the work is for: everything that decides the pixels; None to begin anew.

        Returns:
            The checkpoint file, in the folder whose ``scratch`` files are those of the dead run; None where there is no
            such work.

        Raises:
            AccessError, StorageError: The folder cannot be taken.
        """
        target = self.targets[0]
        assert not self._folders, "work is adopted before any other is begun"
        dead = dead_work(target)
        same = next((one for one in dead if key is not None and key_in(one.checkpoint) == key), None)
        if same is not None:
            folder = self._folders[target.parent] = WorkFolder.beside(target)
            folder.take(same, target)
        elif key is not None and dead:
            _log.info("%s: starts anew, what an earlier run left was made of another input, model or option", target)
        remove_dead_work(target)
        return None if same is None else self.checkpoint()

    def disown(self) -> None:
        """Throw adopted work away, which turned out to be of no use."""
        self._discard()

    def checkpoint(self) -> Path:
        """Where the work for the first target says how far it is; once it has an entry an interrupt keeps the work."""
        return self._folder(self.targets[0]).checkpoint

    def _leave_resumable(self) -> None:
        folder = self._folders.get(self.targets[0].parent)
        with contextlib.suppress(OSError):  # else it goes with the others
            if folder is None or next(entries_in(folder.checkpoint), None) is None:
                return
            folder.leave(self.targets[0])
            del self._folders[self.targets[0].parent]

    def path(self, target: Path) -> Path:
        """Where to write what ``commit()`` will publish as ``target``.

        Raises:
            AccessError, StorageError: The work folder cannot be made.
        """
        absolute = Path(target).absolute()
        return self._folder(absolute).new(absolute.name)

    def scratch(self, name: str) -> Path:
        """A path beside the first target's for a file that is never published."""
        return self._folder(self.targets[0]).scratch(name)

    def require_space(self, needed_bytes: int, target: Path | None = None) -> None:
        """Stop now rather than hours later where the disk of ``target`` (default: the first) is too small.

        Raises:
            StorageError: Less than ``needed_bytes`` are free.
        """
        chosen = Path(target).absolute() if target else self.targets[0]
        with storage_trouble(chosen):
            free = free_bytes(chosen.parent)
        if free < needed_bytes:
            raise StorageError(
                f"{chosen}: writing can need {needed_bytes / 1e6:.0f} MB, {free / 1e6:.0f} MB are free",
                f"make room in {chosen.parent} or write to another disk",
            )

    def commit(self) -> None:
        """Publish all targets.

        Raises:
            OutputError: A target appeared while this run was working, and ``overwrite`` is off.
            AccessError, StorageError: The disk does not take it; everything is as it was before.
            RuntimeError: A target was not written: a mistake of ours.
        """
        for target in self.targets:
            if not self.path(target).is_file():
                raise RuntimeError(f"{target} was not written before commit()")
            with storage_trouble(target):
                _sync(self.path(target))
        publication = _Publication(self._folders, self._overwrite)
        try:
            for target in self.targets:
                publication.clear_sidecars(target, self.targets)
            if publication.has_moved:  # else a loss of power may keep them beside the new file
                self._sync_folders()
            for target in self.targets:
                publication.place(target)
            self._sync_folders()
        except BaseException:
            self._undo(publication)
            raise
        self._discard()

    def _sync_folders(self) -> None:
        for target in {target.parent: target for target in self.targets}.values():
            with storage_trouble(target):
                _sync_folder(target.parent)

    def _undo(self, publication: _Publication) -> None:
        stuck = publication.undo()
        if stuck:
            folders = ", ".join(str(folder.path) for folder in self._folders.values())
            self._folders.clear()  # they hold the only copies now
            raise StorageError(
                f"publishing failed and {', '.join(map(str, stuck))} could not be put back",
                f"find the old files in {folders} and move them back before the next run",
            )

    def _folder(self, target: Path) -> WorkFolder:
        """The work folder beside a target, made when it is first needed: until then there is nothing to remove."""
        folder = self._folders.get(target.parent)
        if folder is None:
            remove_dead_work(target)
            # Noted before it is made: a signal between the two must find the note.
            folder = self._folders[target.parent] = WorkFolder.beside(target)
            folder.make(target)
        return folder

    def _discard(self) -> None:
        try:
            self._remove_folders()
        except BaseException:  # a signal in the middle of it: finish, then go
            self._remove_folders()
            raise

    def _remove_folders(self) -> None:
        for folder in self._folders.values():
            folder.remove()
        self._folders.clear()


class _Publication:
    """The renames of one commit, and how to take them back."""

    def __init__(self, folders: Mapping[Path, WorkFolder], overwrite: bool) -> None:
        self._folders = folders
        self._overwrite = overwrite
        self._moved: list[tuple[Path, Path]] = []
        self._modes: dict[Path, int] = {}
        self._created: list[tuple[Path, tuple[int, int]]] = []

    @property
    def has_moved(self) -> bool:
        """Whether anything was moved aside."""
        return bool(self._moved)

    def clear_sidecars(self, target: Path, keep: Sequence[Path]) -> None:
        """Move aside what would override the new file, or describes the old one.

        Where nothing may be overwritten, ``keep`` stays, and publishing a file of that name is refused.
        """
        with storage_trouble(target):
            for sidecar in (*sidecars(target), *described_by_geoseg(target)):
                if self._overwrite or sidecar not in keep:
                    os.replace(sidecar, self._aside(sidecar))

    def place(self, target: Path) -> None:
        """Give a new file its final name."""
        new = self._folders[target.parent].new(target.name)
        with storage_trouble(target):
            if self._overwrite and os.path.lexists(target):
                self._keep_link(target)
                self._take_mode(target, new)
                os.replace(new, target)
                return
            self._take_mode(target, new)
            status = os.stat(new)
            self._created.append((target, (status.st_dev, status.st_ino)))
            if self._overwrite:
                os.replace(new, target)
            else:
                _rename_to_free_name(new, target)

    def undo(self) -> list[Path]:
        """Put everything back; returns what could not be."""
        stuck = []
        for target, identity in reversed(self._created):
            try:
                status = os.lstat(target)
                if (status.st_dev, status.st_ino) == identity:
                    target.unlink()
            except FileNotFoundError:
                pass
            except OSError:
                stuck.append(target)
        for aside, original in reversed(self._moved):
            try:
                if os.path.lexists(aside):
                    os.replace(aside, original)
            except OSError:
                stuck.append(original)
        return stuck

    def _aside(self, original: Path) -> Path:
        """A place for an old file; noted before it is used, so that an interrupt finds the note."""
        with contextlib.suppress(OSError):
            status = os.lstat(original)
            if stat.S_ISREG(status.st_mode):
                self._modes[original] = stat.S_IMODE(status.st_mode) & _PERMISSIONS
        aside = self._folders[original.parent].aside(str(len(self._moved)))
        self._moved.append((aside, original))
        return aside

    def _take_mode(self, target: Path, new: Path) -> None:
        """What replaces a file may be read and written by whom the old one allowed; its owner is who runs geoseg."""
        if target in self._modes:
            with contextlib.suppress(OSError, NotImplementedError):  # a disk that knows no modes
                os.chmod(new, self._modes[target])

    def _keep_link(self, target: Path) -> None:
        with contextlib.suppress(OSError, NotImplementedError):  # no hard links here: then without a way back
            os.link(target, self._aside(target), follow_symlinks=False)


def _rename_to_free_name(new: Path, target: Path) -> None:
    """Rename that fails where the name has been taken meanwhile, which os.replace would not notice."""
    try:
        os.link(new, target)
    except FileExistsError:
        raise _exists(target, "appeared while this run was working") from None
    except OSError:
        if os.path.lexists(target):
            raise _exists(target, "appeared while this run was working") from None
        os.replace(new, target)


def _check_distinct(targets: Sequence[Path], inputs: Sequence[Path]) -> None:
    seen: set[str] = set()
    for target in targets:
        real = os.path.join(os.path.realpath(target.parent), target.name)
        if real in seen:
            raise UsageError(f"{target} is named for two outputs", "give every output its own name")
        seen.add(real)
        if any(_is_same_file(target, path) for path in inputs):
            raise UsageError(f"{target} is both input and output", "write to another file")


def _check_sidecars(targets: Sequence[Path]) -> None:
    """Refuse to replace what describes a raster that stays."""
    for raster in targets:
        beside = sidecar_paths(raster)
        taken = [path for path in (beside["style"], beside["item"]) if path in targets and os.path.lexists(path)]
        other = described_instead(raster) if taken else None
        if other is not None and other not in targets:
            raise OutputError(
                f"{raster}: {taken[0]} would be replaced, which goes with {other}",
                "choose a name that is not only another ending, or add --no-sidecar",
            )


def _is_same_file(one: Path, other: Path) -> bool:
    # os.path.exists says no where Path.exists raises: to names that are too long.
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)


def _check_target(target: Path, overwrite: bool) -> None:
    folder = target.parent
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise OutputError(f"{target}: GDAL cannot write to a name that is not UTF-8", "choose another name") from error
    if not folder.is_dir():
        raise OutputError(f"{target}: there is no folder {folder}", f"make it first: mkdir -p {folder}")
    try:
        os.lstat(target)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror}", "choose another name") from error
    if target.is_dir():
        raise OutputError(f"{target} is a folder", f"name a file, such as {target / 'map.tif'}")
    # A link that leads nowhere is replaced; one to /dev/stdout means what it leads to.
    is_system = target.is_symlink() and os.readlink(target).startswith("/proc/")
    if is_system or (os.path.exists(target) and not target.is_file()):
        raise OutputError(f"{target} is a device or a pipe", "name a file; a map is written as a whole, not streamed")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise AccessError(f"{target}: no permission to write in {folder}", "choose another folder for the output")
    if os.path.lexists(target) and not overwrite:
        raise _exists(target, "exists already")


def _exists(target: Path, what: str) -> OutputError:
    return OutputError(f"{target} {what}", "add --overwrite to replace it, or choose another name")


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
