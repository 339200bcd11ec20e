"""A small bundle, written once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from geoseg_cli.bundle import Bundle
from geoseg_cli.export.source import Source, open_source
from tests.export.toys import Plain, seeded, write_small_bundle


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_small_bundle(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small_source(small_bundle: Bundle) -> Source:
    return open_source(str(small_bundle.folder))


@pytest.fixture
def plain_source(small_source: Source) -> Source:
    """The bundle with a network that exports in a second in the place of its own."""
    return replace(small_source, module=seeded(Plain))
