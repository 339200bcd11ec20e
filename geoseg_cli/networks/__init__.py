"""The architectures by name.

Importing this package imports no architecture and no torch; ``create_network`` imports the one it builds.
"""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geoseg_cli.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Interface", "create_network", "network_names", "published_interface"]

# name -> (module, class, key of the module's VARIANTS)
_NETWORKS: dict[str, tuple[str, str, str]] = {
    "lale-s1": ("lale", "LALE", "s1"),
    "lale-s2": ("lale", "LALE", "s2"),
    "lale-s3": ("lale", "LALE", "s3"),
    "lale-s4": ("lale", "LALE", "s4"),
    "lale-s1-k7": ("lale", "LALE", "s1-k7"),
    "lale-s2-k7": ("lale", "LALE", "s2-k7"),
    "lale-s3-k7": ("lale", "LALE", "s3-k7"),
    "lale-s4-k7": ("lale", "LALE", "s4-k7"),
    "mscloudcam": ("mscloudcam", "MSCloudCAM", "published"),
    "mscloudcam-small": ("mscloudcam", "MSCloudCAM", "small"),
    "chromaformer-mini": ("chromaformer", "ChromaFormer", "mini"),
    "chromaformer-t": ("chromaformer", "ChromaFormer", "t"),
    "chromaformer-s": ("chromaformer", "ChromaFormer", "s"),
    "chromaformer-b": ("chromaformer", "ChromaFormer", "b"),
    "chromaformer-l": ("chromaformer", "ChromaFormer", "l"),
    "chromaformer-h": ("chromaformer", "ChromaFormer", "h"),
    "lemevit-tiny": ("lemevit", "LeMeViT", "tiny"),
    "lemevit-small": ("lemevit", "LeMeViT", "small"),
    "lemevit-base": ("lemevit", "LeMeViT", "base"),
    "lemevit-tiny-light": ("lemevit", "LeMeViT", "tiny-light"),
    "lemevit-small-light": ("lemevit", "LeMeViT", "small-light"),
    "lemevit-base-light": ("lemevit", "LeMeViT", "base-light"),
}


@dataclass(frozen=True, slots=True)
class Interface:
    """What goes into a network and what comes out.

    Attributes:
        bands: Input bands.
        classes: Output classes.
    """

    bands: int
    classes: int


# module -> the bands and classes of its paper's main experiment, with which its published sizes are counted
_PUBLISHED: dict[str, Interface] = {
    "lale": Interface(bands=3, classes=7),
    "mscloudcam": Interface(bands=13, classes=4),
    "chromaformer": Interface(bands=11, classes=15),
    "lemevit": Interface(bands=3, classes=5),
}


def network_names() -> tuple[str, ...]:
    """List the names that ``create_network`` knows, grouped by architecture, small before large."""
    return tuple(_NETWORKS)


def published_interface(name: str) -> Interface:
    """Tell the bands and classes with which the published size of a network is counted.

    Raises:
        ModelError: The name is unknown.
    """
    module_name, _, _ = _find(name)
    return _PUBLISHED[module_name]


def create_network(name: str, bands: int, classes: int, **config: Any) -> nn.Module:
    """Create a network with random weights.

    Args:
        name: One of ``network_names()``.
        bands: Input bands, at least 1.
        classes: Output classes, at least 1.
        **config: Fields of the variant's configuration to replace; lists, as JSON has them, stand for tuples.

    Returns:
        A module from (N, bands, H, W) float32 to logits (N, classes, H, W) in evaluation mode. In training
        mode a network with auxiliary heads returns a tuple, the main logits first.

    Raises:
        ModelError: The name or a field is unknown, a number is below 1, or the fields contradict each other.
    """
    module_name, class_name, variant = _find(name)
    if bands < 1 or classes < 1:
        raise ModelError(f"{name}: {bands} bands and {classes} classes", "use at least one of each")
    module = importlib.import_module(f"{__name__}.{module_name}")
    network: nn.Module = getattr(module, class_name)(
        bands, classes, config=_configure(name, module.VARIANTS[variant], config)
    )
    return network


def _find(name: str) -> tuple[str, str, str]:
    if name not in _NETWORKS:
        raise ModelError(f"no network is called {name!r}", f"use one of {', '.join(_NETWORKS)}")
    return _NETWORKS[name]


def _configure(name: str, base: Any, changes: dict[str, Any]) -> Any:
    """Replace fields of the frozen configuration ``base`` of network ``name``."""
    fields = [field.name for field in dataclasses.fields(base)]
    unknown = sorted(set(changes) - set(fields))
    if unknown:
        raise ModelError(f"{name} has no setting {', '.join(unknown)}", f"it has {', '.join(fields)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in changes.items()}
    return dataclasses.replace(base, **values)
