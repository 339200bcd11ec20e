"""Archives of torch.export."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from geoseg_cli.errors import ModelError
from geoseg_cli.export.pt2 import open_pt2, write_pt2
from geoseg_cli.networks.windows import gather_windows, plan_windows, scatter_windows
from tests.export.toys import CHANNELS, FixedBatch, Plain, draw, seeded

SHAPE = (2, CHANNELS, 128, 192)


@pytest.mark.parametrize("size", [(1, 64, 64), (3, 96, 160), (1, 161, 33), (5, 1, 1)])
def test_an_archive_takes_any_size(tmp_path: Path, size: tuple[int, int, int]) -> None:
    network = seeded(Plain)
    write_pt2(network, tmp_path / "a.pt2", SHAPE, {})
    pixels = draw(size[0], CHANNELS, *size[1:])
    with torch.inference_mode():
        wanted = network(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(open_pt2(tmp_path / "a.pt2")(pixels), wanted, atol=1e-5)


class Windows(nn.Conv2d):
    """Mean of shifted windows of 64 pixels; the traced size has several, a small tile one."""

    def __init__(self) -> None:
        super().__init__(CHANNELS, 4, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        features = super().forward(pixels).permute(0, 2, 3, 1)
        plan = plan_windows(pixels.shape[2], pixels.shape[3], 64, 32, pixels.device)
        windows = gather_windows(features, plan)
        return scatter_windows(windows + windows.mean(dim=2, keepdim=True), plan).permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [(1, 40, 50), (1, 64, 200), (4, 300, 33)])
def test_what_the_tracer_assumed_of_the_number_of_windows_is_forgotten(
    tmp_path: Path, size: tuple[int, int, int]
) -> None:
    network = seeded(Windows)
    write_pt2(network, tmp_path / "a.pt2", SHAPE, {})
    pixels = draw(size[0], CHANNELS, *size[1:])
    with torch.inference_mode():
        wanted = network(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(open_pt2(tmp_path / "a.pt2")(pixels), wanted, atol=1e-5)


def test_texts_come_back_from_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    write_pt2(seeded(Plain), path, SHAPE, {"geoseg.json": '{"é": 1}'})
    found = {"geoseg.json": ""}
    torch.export.load(path, extra_files=found)
    assert found == {"geoseg.json": '{"é": 1}'}


def test_nothing_tells_where_an_archive_was_made(tmp_path: Path) -> None:
    path = tmp_path / "a.pt2"
    write_pt2(seeded(Plain), path, SHAPE, {})
    root = str(Path(__file__).resolve().parent.parent.parent).encode()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            assert root not in content, name
            assert b"site-packages" not in content, name
            assert b"toys.py" not in content, name


class Unexportable(nn.Conv2d):
    """Chooses its path by the values of the pixels."""

    def __init__(self) -> None:
        super().__init__(CHANNELS, 4, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        return super().forward(pixels) if pixels.sum() > 0 else super().forward(-pixels)


@pytest.mark.parametrize("network", [Unexportable, FixedBatch])
def test_a_network_that_cannot_be_exported_is_refused_in_one_line(tmp_path: Path, network: type[nn.Module]) -> None:
    with pytest.raises(ModelError, match=r"cannot be exported by torch\.export: \S") as caught:
        write_pt2(seeded(network), tmp_path / "a.pt2", SHAPE, {})
    assert "\n" not in caught.value.message
    assert not list(tmp_path.iterdir())


def test_an_export_says_nothing_and_keeps_the_mode(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    network = seeded(Windows).train()
    write_pt2(network, tmp_path / "a.pt2", SHAPE, {})
    open_pt2(tmp_path / "a.pt2")
    assert network.training
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list
