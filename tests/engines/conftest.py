"""Bundles for the tests of the engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geoseg_cli.bundle import Bundle
from tests.engines.pixelwise import Pixelwise, draw_network, write_pixelwise_bundle


@pytest.fixture
def network() -> Pixelwise:
    return draw_network()


@pytest.fixture
def pixelwise(tmp_path: Path, network: Pixelwise) -> Bundle:
    """Bundle of ``network`` for every engine; torch builds its convolution only with ``torch_knows_pixelwise``."""
    return write_pixelwise_bundle(tmp_path / "pixelwise", network)


@pytest.fixture
def torch_knows_pixelwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the torch engine build the network that the card calls pixelwise."""
    from torch import nn

    def create(name: str, bands: int, classes: int, **config: Any) -> nn.Module:
        assert name == "pixelwise"
        return nn.Conv2d(bands, classes, 1)

    monkeypatch.setattr("geoseg_cli.engines.torch_engine.create_network", create)
