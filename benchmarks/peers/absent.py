"""Load the part of a package that tiles a scene, where the rest of the package needs what must not be installed.

torchvision from the package index is a CUDA build that breaks a CPU build of torch, and timm, segmentation-models and
lightning need it. The peers import them for networks and data sets that this benchmark does not use.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, ClassVar, NoReturn


class AbsentModule(ModuleType):
    """A module whose every name can be imported; the names fail when they are called."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> type:
        """A class that cannot be made, so that annotations, base classes and ``isinstance`` still work."""
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: object, **__: object) -> NoReturn:
            raise ModuleNotFoundError(f"{self.__name__}.{name} is not installed: only its name is")

        return type(name, (), {"__init__": refuse, "__module__": self.__name__})


class AbsentFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules that were declared absent, and all modules in them.

    Args:
        names: Packages or modules, dotted names too.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        """A specification where the module is an absent one or lies in one."""
        if not any(f"{fullname}.".startswith(f"{name}.") for name in self._names):
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The stand-in."""
        return AbsentModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to run."""


def declare_absent(*packages: str) -> list[str]:
    """Let packages that are not installed be imported by name; returns those for which that was necessary."""
    missing = [name for name in packages if importlib.machinery.PathFinder.find_spec(name) is None]
    leave_out(*missing)
    return missing


def leave_out(*modules: str) -> None:
    """Let modules be imported by name although they are installed: nothing of them runs."""
    sys.meta_path.insert(0, AbsentFinder(modules))


def open_packages(*names: str) -> None:
    """Make modules of installed packages importable without running the packages' own ``__init__``.

    Args:
        names: Packages, each after the one that holds it.
    """
    for name in names:
        holder, _, last = name.rpartition(".")
        where = sys.modules[holder].__path__ if holder else None
        spec = importlib.machinery.PathFinder.find_spec(name, where)
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(f"no package {name}")
        module = ModuleType(name)
        module.__path__ = list(spec.submodule_search_locations)
        module.__spec__ = spec
        sys.modules[name] = module
        if holder:
            setattr(sys.modules[holder], last, module)
