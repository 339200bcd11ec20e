"""``write_onnx`` and its parts: what an exporter passes over in silence is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from geoseg_cli.errors import ModelError, UsageError
from geoseg_cli.export import onnx_file
from geoseg_cli.export.onnx_file import (
    append_metadata,
    build_graph,
    check_opset,
    needs_external_data,
    open_graph,
    save_graph,
    write_onnx,
)
from geoseg_cli.export.parity import compare
from tests.export.toys import CHANNELS, AdaptivePool, FixedBatch, Plain, TokenLogarithm, draw, seeded


def logits(network: nn.Module, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        result: np.ndarray = network(torch.from_numpy(pixels)).numpy()
    return result


@pytest.mark.parametrize(
    ("build", "arguments"), [(TokenLogarithm, (True,)), (AdaptivePool, (2,)), (AdaptivePool, (3,)), (FixedBatch, ())]
)
def test_a_size_that_becomes_a_constant_is_refused_and_leaves_no_file(
    tmp_path: Path, build: Any, arguments: tuple[Any, ...]
) -> None:
    with pytest.raises(ModelError, match=r"does not answer as the network does|cannot be exported"):
        write_onnx(seeded(build, *arguments), tmp_path / "a.onnx", CHANNELS)
    assert not list(tmp_path.iterdir())


def test_the_same_logarithm_as_a_tensor_is_exported(tmp_path: Path) -> None:
    network = seeded(TokenLogarithm, False)
    write_onnx(network, tmp_path / "a.onnx", CHANNELS)
    pixels = draw(2, CHANNELS, 40, 200)
    np.testing.assert_allclose(open_graph(tmp_path / "a.onnx")(pixels), logits(network, pixels), atol=1e-5)


def test_the_naive_logarithm_exports_without_an_error_and_is_wrong_at_other_sizes(tmp_path: Path) -> None:
    """What the check protects from."""
    network = seeded(TokenLogarithm, True)
    save_graph(build_graph(network, (2, CHANNELS, 128, 192)), tmp_path / "a.onnx")
    run = open_graph(tmp_path / "a.onnx")
    traced, other = draw(2, CHANNELS, 128, 192), draw(1, CHANNELS, 64, 64)
    np.testing.assert_allclose(run(traced), logits(network, traced), atol=1e-5)
    assert np.abs(run(other) - logits(network, other)).max() > 0.01


@pytest.mark.parametrize("axes", [None, {0: "batch"}, {2: "height", 3: "width"}])
def test_an_exporter_that_silently_fixes_an_axis_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: dict[int, str] | None
) -> None:
    export = torch.onnx.export
    shapes = None if axes is None else (axes,)
    monkeypatch.setattr(
        torch.onnx, "export", lambda *given, **options: export(*given, **(options | {"dynamic_shapes": shapes}))
    )
    fixed = [name for axis, name in {0: "batch", 2: "height", 3: "width"}.items() if axis not in (axes or {})]
    with pytest.raises(ModelError, match=f"takes only the traced {' and '.join(fixed)}: its input is "):
        write_onnx(nn.Conv2d(CHANNELS, 2, 1).eval(), tmp_path / "a.onnx", CHANNELS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opset", [18, 23])
def test_the_oldest_and_the_newest_opset_are_written(tmp_path: Path, opset: int) -> None:
    network, path = seeded(Plain), tmp_path / "a.onnx"
    save_graph(build_graph(network, (2, CHANNELS, 32, 48), opset), path)
    assert {entry.domain: entry.version for entry in onnx.load(path).opset_import}[""] == opset
    pixels = draw(1, CHANNELS, 33, 21)
    np.testing.assert_allclose(open_graph(path)(pixels), logits(network, pixels), atol=1e-5)


@pytest.mark.parametrize(("opset", "nearest"), [(9, 18), (17, 18), (24, 23), (-1, 18)])
def test_an_opset_out_of_range_is_refused_with_the_range(opset: int, nearest: int) -> None:
    with pytest.raises(UsageError, match=f"opset {opset} is .* 18 to 23") as caught:
        check_opset(opset)
    assert f"--opset {nearest}" in caught.value.hint


def test_an_exporter_that_writes_another_opset_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    export = torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda *given, **options: export(*given, **(options | {"opset_version": 19}))
    )
    with pytest.raises(ModelError, match="opset 21, only to 19"):
        build_graph(nn.Conv2d(CHANNELS, 2, 1).eval(), (2, CHANNELS, 8, 8), opset=21)


def test_weights_beyond_the_limit_go_into_a_file_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", 1000)
    network, path = (
        nn.Sequential(nn.Conv2d(CHANNELS, 64, 3, padding=1), nn.Conv2d(64, 4, 1)).eval(),
        tmp_path / "a.onnx",
    )
    write_onnx(network, path, CHANNELS)
    assert {file.name for file in tmp_path.iterdir()} == {"a.onnx", "a.onnx.data"}
    assert (tmp_path / "a.onnx.data").stat().st_size >= 64 * CHANNELS * 9 * 4
    pixels = draw(1, CHANNELS, 16, 24)
    np.testing.assert_allclose(open_graph(path)(pixels), logits(network, pixels), atol=1e-5)
    onnx.checker.check_model(path, full_check=True)


def test_a_wrong_graph_with_weights_of_its_own_leaves_neither_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "EXTERNAL_DATA_BYTES", 0)
    for name in ("a.onnx", "a.onnx.data"):
        (tmp_path / name).write_bytes(b"older")
    with pytest.raises(ModelError):
        write_onnx(seeded(TokenLogarithm, True), tmp_path / "a.onnx", CHANNELS)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == dict.fromkeys(
        ("a.onnx", "a.onnx.data"), b"older"
    )


def test_only_the_largest_chromaformer_needs_a_file_for_its_weights() -> None:
    """On the meta device, which allocates nothing."""
    from geoseg_cli.networks import create_network

    with torch.device("meta"):
        huge, large = (create_network(f"chromaformer-{size}", 11, 15) for size in "hl")
    assert needs_external_data(huge)
    assert not needs_external_data(large)
    assert not needs_external_data(huge, bytes_per_weight=2)


def test_metadata_is_appended_without_a_change_to_the_graph(tmp_path: Path) -> None:
    network, path = nn.Conv2d(CHANNELS, 2, 1).eval(), tmp_path / "a.onnx"
    save_graph(build_graph(network, (2, CHANNELS, 8, 8)), path)
    before, graph = path.read_bytes(), onnx.load(path).graph
    append_metadata(path, {"geoseg": '{"é": 1}', "other": ""})
    assert path.read_bytes().startswith(before)
    after = onnx.load(path)
    onnx.checker.check_model(after, full_check=True)
    assert after.graph == graph
    assert {entry.key: entry.value for entry in after.metadata_props} == {"geoseg": '{"é": 1}', "other": ""}


def test_a_graph_that_the_runtime_refuses_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(ModelError, match="ONNX Runtime refuses the exported graph") as caught:
        compare(open_graph(path), [])
    assert "\n" not in caught.value.message
