"""Every trouble that geoseg names, and the exit code that each one ends with.

    GeosegError
    ├── UsageError            2   options that contradict each other
    ├── InputError           65   the file is readable but cannot be used
    │   ├── BandError        65   a wanted band is missing, unnamed or ambiguous
    │   ├── RadiometryError  65   nothing says what the numbers mean
    │   └── GridError        65   not on a map grid: ground control points only, wrong resolution
    ├── InputMissingError    66   there is no such file
    ├── EngineError          69   the engine or device that was asked for does not run here
    ├── WorkerDiedError      71   the process that ran a scene died
    ├── OutputError          73   the output exists or cannot be created
    ├── StorageError         74   the disk is full, or a file is truncated
    ├── BusyError            75   another run holds the output, or a network is down: may pass
    ├── AccessError          77   no permission, or a model that is not trusted
    ├── ModelError           78   a bundle, card or architecture that does not fit
    └── ConfigError          78   a configuration file or variable that says something unknown

The codes are those of sysexits(3); 70 is left for bugs, which are not GeosegErrors.
"""

from __future__ import annotations


class GeosegError(Exception):
    """Root of all troubles that a user can do something about.

    Args:
        message: What is wrong, and where.
        hint: What to do about it, as an imperative sentence or a command.
    """

    exit_code = 70

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(GeosegError):
    """Options that contradict each other."""

    exit_code = 2


class InputError(GeosegError):
    """The input can be read but not used."""

    exit_code = 65


class BandError(InputError):
    """A wanted band is missing, unnamed or ambiguous."""


class RadiometryError(InputError):
    """Nothing says which physical value a stored number means."""


class GridError(InputError):
    """The pixels do not lie on a map grid that the model can use."""


class InputMissingError(GeosegError):
    """There is no such input."""

    exit_code = 66


class EngineError(GeosegError):
    """The engine or device that was asked for does not run here."""

    exit_code = 69


class WorkerDiedError(GeosegError):
    """The process that ran a scene died, however often it was tried."""

    exit_code = 71


class OutputError(GeosegError):
    """The output exists already or cannot be created."""

    exit_code = 73


class StorageError(GeosegError):
    """Reading or writing failed: disk full, file truncated."""

    exit_code = 74


class BusyError(GeosegError):
    """Something that may pass: another run holds the output, a network is down."""

    exit_code = 75


class AccessError(GeosegError):
    """No permission, or a model that is not trusted."""

    exit_code = 77


class ModelError(GeosegError):
    """A bundle, card or architecture that does not fit."""

    exit_code = 78


class ConfigError(GeosegError):
    """A configuration file or an environment variable that says something unknown."""

    exit_code = 78
