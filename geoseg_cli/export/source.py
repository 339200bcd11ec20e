"""What can be exported: a bundle with its weights, or a bare network by name with random ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geoseg_cli.bundle import CARD_FILE, Bundle, bundle_folders, find_bundle
from geoseg_cli.engines.golden import read_golden
from geoseg_cli.errors import InputMissingError, ModelError, UsageError
from geoseg_cli.export.parity import FloatArray
from geoseg_cli.networks import create_network, network_names, published_interface

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


@dataclass(frozen=True, slots=True)
class Source:
    """A network to export.

    Attributes:
        name: Of the bundle or of the network.
        module: (N, C, H, W) -> (N, K, H, W) float32 in evaluation mode, on the CPU.
        channels: C; for a bundle its bands and one plane of presence per optional band.
        classes: Names of the K classes.
        size_multiple: Heights and widths that the network takes are multiples of this.
        bundle: Where it is one.
        tiles: (C, T, T) float32 each, normalised: the golden tiles of a bundle; none for a bare network.
    """

    name: str
    module: nn.Module
    channels: int
    classes: tuple[str, ...]
    size_multiple: int
    bundle: Bundle | None = None
    tiles: tuple[FloatArray, ...] = ()

    @property
    def card(self) -> str:
        """The card of the bundle as it stands in its file; empty for a bare network."""
        return (self.bundle.folder / CARD_FILE).read_text(encoding="utf-8") if self.bundle else ""

    @property
    def files(self) -> list[Path]:
        """Files of the bundle."""
        return list(self.bundle.files) if self.bundle else []


def open_source(name: str, bands: int | None = None, classes: int | None = None) -> Source:
    """Open a bundle, or make a network with random weights.

    Args:
        name: Name or folder of a bundle, or one of ``network_names()``.
        bands: Input channels; a bare network needs them, those of a bundle must be these.
        classes: Classes; likewise.

    Raises:
        InputMissingError: Nothing is called so.
        UsageError: A bare network lacks its number of bands or classes.
        ModelError: The bundle has no weights, or they do not fit its card or the numbers.
    """
    if name in network_names():
        return _make_network(name, bands, classes)
    try:
        bundle = find_bundle(name)
    except InputMissingError as error:
        bundles = ", ".join(folder.name for folder in bundle_folders()) or "none"
        raise InputMissingError(
            f"no bundle and no network is called {name!r}",
            f"use a bundle ({bundles}), a folder of one, or a network ({', '.join(network_names())})",
        ) from error
    return _open_bundle(bundle, bands, classes)


def _make_network(name: str, bands: int | None, classes: int | None) -> Source:
    published = published_interface(name)
    if bands is None or classes is None:
        missing = " and ".join(
            option for option, value in (("--bands", bands), ("--classes", classes)) if value is None
        )
        raise UsageError(
            f"{name} is a bare network: {missing} must say how large it is",
            f"for example --bands {bands or published.bands} --classes {classes or published.classes}",
        )
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same weights in every export
        module = create_network(name, bands, classes).eval()
    return Source(name, module, bands, tuple(f"class {number}" for number in range(classes)), size_multiple=1)


def _open_bundle(bundle: Bundle, bands: int | None, classes: int | None) -> Source:
    from geoseg_cli.engines.torch_engine import load_network

    if "weights" not in bundle.card.assets:
        raise ModelError(
            f"bundle {bundle.name} has no weights, only {', '.join(bundle.card.assets) or 'a card'}",
            "use a bundle whose card names model.safetensors",
        )
    channels, names = bundle.input_spec.channels, tuple(cls.name for cls in bundle.legend.classes)
    for option, wanted, found in (("--bands", bands, channels), ("--classes", classes, len(names))):
        if wanted not in (None, found):
            raise ModelError(
                f"the weights of bundle {bundle.name} are for {option} {found}, not {wanted}",
                f"leave {option} away, or export the bare network {bundle.card.extras.network.name}",
            )
    module = load_network(bundle)
    tiles = tuple(read_golden(bundle)[0]) if "golden" in bundle.card.assets else ()
    return Source(bundle.name, module, channels, names, bundle.card.extras.size_multiple, bundle, tiles)
