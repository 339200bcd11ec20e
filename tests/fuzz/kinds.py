"""The kinds of files that are damaged: how a good one is made, how geoseg reads it, and what is right."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from geoseg_cli.bundle import Bundle, InputSpec
from geoseg_cli.grid import Window
from geoseg_cli.scenes import Scene, SceneOptions, open_scene
from tests.conftest import write_scene
from tests.engines.pixelwise import BANDS, CHANNELS, draw_network, draw_pixels, make_graph, write_pixelwise_bundle
from tests.fuzz import oracle
from tests.scenes import safe_fixtures

NAMES = ("blue", "green", "red", "nir")
SPEC = InputSpec(NAMES, (), (0.0,) * 4, (1.0,) * 4)
DN = SceneOptions(radiometry="dn", bands=NAMES)
PLAIN = SceneOptions()
MOST_PX = 1 << 20
"""Pixels of one window that is read; a damaged header may promise far more."""

SAFE_IDS = {"blue": 1, "green": 2, "red": 3, "nir": 7}
"""``band_id`` of a Sentinel-2 product by band."""

TILE = draw_pixels(1, CHANNELS, 16, 16)


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        name: What it is called.
        is_text: Whether words and numbers in it are damaged as such.
        make: Writes good files into a folder; returns those to damage.
        check: Reads the damaged file in a copy of that folder and compares; raises GeosegError where geoseg refuses.
        options: How the command line is told to read it; None where it is no scene.
        keeps_name: Whether it is known by its name, and must be damaged in its place.
    """

    name: str
    is_text: bool
    make: Callable[[Path], list[Path]]
    check: Callable[[Path], None]
    options: SceneOptions | None = None
    keeps_name: bool = False


def numbers_4x(height: int, width: int, dtype: str = "uint16", seed: int = 0) -> oracle.Pixels:
    """(4, H, W) random numbers, some of them 0."""
    return np.random.default_rng(seed).integers(0, 3000, (4, height, width)).astype(dtype)


def make_tiffs(folder: Path) -> list[Path]:
    """One of each codec and layout."""
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    profiles: list[dict[str, Any]] = [
        {"nodata": 0}, {"compress": "deflate", "predictor": 2, "nodata": 0, **tiles}, {"compress": "lzw", **tiles},
        {"compress": "zstd", "interleave": "pixel"}, {"compress": "packbits", "interleave": "pixel", **tiles},
        {"bigtiff": "yes", "nodata": 7, **tiles}, {"compress": "lzma"}, {"compress": "lerc"},
        {"compress": "deflate", "dtype": "float32", "nodata": math.nan}, {"mask": True, "compress": "lzw"},
    ]  # fmt: skip
    for number, profile in enumerate(profiles):
        mask = numbers_4x(40, 48)[0] > 400 if profile.pop("mask", None) else None
        pixels = numbers_4x(40, 48, profile.pop("dtype", "uint16"))
        write_scene(folder / f"{number}.tif", pixels, NAMES, mask=mask, **profile)
    return sorted(folder.glob("*.tif"))


def make_jp2s(folder: Path) -> list[Path]:
    """Lossless, in one piece and in tiles."""
    for number, more in enumerate(({}, {"BLOCKXSIZE": 64, "BLOCKYSIZE": 64})):
        path = folder / f"{number}.jp2"
        profile = {"driver": "JP2OpenJPEG", "count": 4, "height": 70, "width": 80, "dtype": "uint16"}
        georeference = {"crs": "EPSG:32631", "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 5.7e6)}
        with (
            rasterio.Env(GDAL_PAM_ENABLED="NO"),
            rasterio.open(path, "w", **profile, **georeference, QUALITY="100", REVERSIBLE="YES", **more) as file,
        ):
            file.write(numbers_4x(70, 80))
    return sorted(folder.glob("*.jp2"))


def windows_of(scene: Scene) -> list[Window]:
    """The whole scene, or its two ends where it says that it is large."""
    height, width = scene.grid.height, scene.grid.width
    rows, cols = max(1, min(height, MOST_PX // min(width, MOST_PX))), min(width, MOST_PX)
    return [Window(0, 0, rows, cols), Window(height - rows, width - cols, rows, cols)]


def check_raster(path: Path, driver: str) -> None:
    """Numbers and validity are those that rasterio gives."""
    with open_scene(path, SPEC, DN) as scene:
        for window in windows_of(scene):
            patch = scene.read(window)
            pixels, valid = oracle.plain_read(path, driver, scene.bands.held_numbers, window.rows, window.cols)
            oracle.require_equal(patch.pixels[:, valid], pixels[:, valid], "numbers")
            oracle.require_equal(patch.valid, valid, "validity")


def make_safe(folder: Path) -> list[Path]:
    """A product of level 1C as a folder; its metadata are damaged."""
    rng = np.random.default_rng(3)
    images = {f"B{band}": rng.integers(0, 900, (24, 24), dtype=np.uint16) for band in ("02", "03", "04", "08")}
    text = safe_fixtures.Text(level="L1C", baseline="05.09", adds=safe_fixtures.ALL_MINUS_1000)
    root = safe_fixtures.write_safe(folder, text, images)
    return [root / text.file_name]


def check_safe(path: Path) -> None:
    """Reflectance is what divisor and offsets in the metadata say of the numbers."""
    with open_scene(path, SPEC, PLAIN) as scene:
        patch = scene.read(scene.grid.window)
        found = scene.to_reflectance(patch.pixels)
    divisor, offsets, nodata = oracle.safe_numbers(path.read_bytes())
    for plane, (band, number) in zip(found, SAFE_IDS.items(), strict=True):
        ending = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08"}[band]
        (image,) = path.parent.rglob(f"*_{ending}.jp2")
        with rasterio.open(image) as file:
            stored = file.read(1).astype(np.float64)
        right = (stored + offsets.get(number, 0.0)) / divisor
        close = np.isclose(plane, right, rtol=1e-4, atol=1e-5) | ~patch.valid
        oracle.require(bool(close.all()), f"reflectance of {band}")
        if nodata is not None:
            oracle.require(not (patch.valid & (stored == nodata)).any(), "no data taken for data")


def make_zip(folder: Path) -> list[Path]:
    """The same product, stored and deflated."""
    metadata = make_safe(folder / "unpacked")[0]
    paths = []
    for method in (0, 8):
        paths.append(safe_fixtures.zip_folder(metadata.parent, folder / f"{method}.zip", method))
    return paths


def check_zip(path: Path) -> None:
    """Every member has a checksum, so what is read is what was packed."""
    root = next((path.parent / "unpacked").iterdir())
    with open_scene(path, SPEC, PLAIN) as one, open_scene(root, SPEC, PLAIN) as other:
        patch, right = one.read(one.grid.window), other.read(other.grid.window)
        oracle.require(one.grid == other.grid, "grid")
        oracle.require_equal(patch.valid, right.valid, "validity")
        oracle.require_equal(one.to_reflectance(patch.pixels), other.to_reflectance(right.pixels), "reflectance")


def make_stac(folder: Path) -> list[Path]:
    """An item of four files of one band."""
    assets = {}
    for number, band in enumerate(NAMES):
        write_scene(folder / f"{band}.tif", numbers_4x(24, 24, seed=number + 1)[:1], nodata=0)
        assets[f"asset{number}"] = {
            "href": f"{band}.tif", "type": "image/tiff; application=geotiff", "roles": ["data"],
            "eo:bands": [{"name": f"b{number}", "common_name": band}],
            "raster:bands": [{"nodata": 0, "scale": 0.0001, "offset": -0.1}],
        }  # fmt: skip
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "x", "properties": {"datetime": "2024-06-01T00:00:00Z"},
            "geometry": None, "links": [], "assets": assets}  # fmt: skip
    (folder / "item.json").write_text(json.dumps(item, indent=1))
    return [folder / "item.json"]


def check_stac(path: Path) -> None:
    """Each band comes from the file, and by the formula, that the item states."""
    with open_scene(path, SPEC, PLAIN) as scene:
        patch = scene.read(scene.grid.window)
        found = scene.to_reflectance(patch.pixels)
    assets = json.loads(path.read_bytes())["assets"].values()
    for band, plane in zip(NAMES, found, strict=True):
        stated = [one for one in assets if _common_name(one) == band]
        if len(stated) != 1:
            raise oracle.Unjudged("told by something else than a common name")
        numbers = stated[0].get("raster:bands", [{}])[0]
        with rasterio.open(path.parent / Path(stated[0]["href"]).name) as file:
            stored = file.read(1).astype(np.float64)
        right = stored * float(numbers["scale"]) + float(numbers.get("offset", 0) or 0)
        close = np.isclose(plane, right, rtol=1e-4, atol=1e-5) | ~patch.valid
        oracle.require(bool(close.all()), f"reflectance of {band}")


def _common_name(asset: Any) -> str | None:
    try:
        return str(asset["eo:bands"][0]["common_name"])
    except (KeyError, IndexError, TypeError):
        return None


def make_card(folder: Path) -> list[Path]:
    """A bundle; its card is damaged."""
    return [write_pixelwise_bundle(folder / "model", draw_network()).folder / "item.json"]


def check_card(path: Path) -> None:
    """The network's input is what means and deviations in the card say, and its answer numpy's."""
    bundle = Bundle.open(path.parent)
    spec, legend = bundle.input_spec, bundle.legend
    bundle.files  # noqa: B018 - what outputs are compared with
    source = json.loads(path.read_bytes())["properties"]["mlm:input"][0]
    bands = [band for band in source["bands"] if isinstance(band, str)]
    reflectance = np.full((len(bands), 8, 8), 0.5, np.float32)
    if len(spec.bands) <= 8:
        planes = spec.apply(reflectance, np.ones((8, 8), np.bool_), (True,) * len(bands))
        for plane, scaling in zip(planes, source["value_scaling"][: len(bands)], strict=False):
            mean, deviation = float(scaling.get("mean", 0.0)), float(scaling.get("stddev", 1.0))
            with np.errstate(all="ignore"):
                right = np.float32((np.float32(0.5) - np.float32(mean)) * np.float32(1 / np.float32(deviation)))
            oracle.require(bool(np.allclose(plane, right, rtol=1e-5, equal_nan=True)), "normalisation")
    oracle.require(len({one.value for one in legend.classes}) == len(legend.classes), "classes of one value")
    _check_onnx(bundle, draw_network().answer(TILE))


def make_onnx(folder: Path) -> list[Path]:
    """A graph of one convolution, whose bundle lies beside it."""
    write_pixelwise_bundle(folder / "model", draw_network())
    path = folder / "graph.onnx"
    path.write_bytes(make_graph(draw_network()).SerializeToString())
    return [path]


def adopt(folder: Path, asset: str, data: bytes) -> Bundle:
    """Put a file into the bundle, with a card that is right about it, as its author would."""
    card = json.loads((folder / "item.json").read_text())
    card["assets"][asset] |= {"file:checksum": f"1220{hashlib.sha256(data).hexdigest()}", "file:size": len(data)}
    (folder / card["assets"][asset]["href"]).write_bytes(data)
    (folder / "item.json").write_text(json.dumps(card))
    return Bundle.open(folder)


def check_onnx(path: Path) -> None:
    """The answer is the one of the onnx project's own evaluator."""
    data = path.read_bytes()
    bundle = adopt(path.parent / "model", "onnx", data)
    _check_onnx(bundle, None if data == b"" else data)


def _check_onnx(bundle: Bundle, right: oracle.Pixels | bytes | None) -> None:
    answers = []
    for open_engine in _graph_engines():
        engine = open_engine(bundle)
        try:
            answers.append(engine.run(TILE))
        finally:
            engine.close()
    answer = oracle.onnx_answer(right, TILE) if isinstance(right, bytes) else right
    assert answer is not None
    for found in answers:
        oracle.require(found.shape == answer.shape, f"logits {found.shape} for {answer.shape}")
        same = np.isclose(found, answer, rtol=1e-3, atol=1e-4, equal_nan=True)
        oracle.require(bool(same.all()), f"logits of engine {len(answers)}")


def _graph_engines() -> list[Callable[[Bundle], Any]]:
    from geoseg_cli.engines.onnx_engine import OnnxEngine

    if importlib.util.find_spec("openvino") is None:
        return [lambda bundle: OnnxEngine(bundle, threads=1)]
    from geoseg_cli.engines.openvino_engine import OpenVinoEngine

    return [lambda bundle: OnnxEngine(bundle, threads=1), lambda bundle: OpenVinoEngine(bundle, threads=1)]


def make_safetensors(folder: Path) -> list[Path]:
    """The weights of one convolution."""
    bundle = write_pixelwise_bundle(folder / "model", draw_network())
    return [Path(shutil.copyfile(bundle.file("weights"), folder / "weights.safetensors"))]


def check_safetensors(path: Path) -> None:
    """The network computes with the numbers that stand in the file."""
    from geoseg_cli.engines.torch_engine import TorchEngine

    data = path.read_bytes()
    engine = TorchEngine(adopt(path.parent / "model", "weights", data), threads=1)
    found = engine.run(TILE)
    tensors = oracle.safetensors_of(data)
    weight, bias = tensors["weight"].astype(np.float64), tensors["bias"].astype(np.float64)
    with np.errstate(all="ignore"):
        right = np.einsum("kc,nchw->nkhw", weight[:, :, 0, 0], TILE.astype(np.float64)) + bias[:, None, None]
        right = right.astype(np.float32)
        same = np.isclose(found, right, rtol=1e-3, atol=1e-4 * max(1.0, float(np.nanmax(np.abs(weight)))))
    oracle.require(bool((same | ~np.isfinite(right)).all()), "logits")


def words_of(options: SceneOptions) -> list[str]:
    """The options of the command line that say the same."""
    bands = ["--bands", ",".join(options.bands)] if options.bands else []
    return [*bands, "--radiometry", options.radiometry]


def right_map(path: Path, options: SceneOptions) -> tuple[oracle.Pixels, oracle.Pixels]:
    """(H, W) classes of a scene by the network of one convolution, in numpy, and where two of them are as good."""
    with open_scene(path, BANDS, options) as scene:
        patch = scene.read(scene.grid.window)
        reflectance, present = scene.to_reflectance(patch.pixels), scene.present
    planes = np.zeros((CHANNELS, *patch.valid.shape), np.float32)
    for place, (is_there, mean, deviation) in enumerate(zip(present, BANDS.mean, BANDS.stddev, strict=True)):
        if is_there:
            planes[place] = (np.clip(reflectance[sum(present[:place])], -0.2, 2.0) - mean) / deviation
    planes[CHANNELS - 1] = present[1]
    logits = draw_network().answer(np.nan_to_num(planes)[None])[0]
    first, second = np.sort(logits, axis=0)[[-1, -2]]
    return np.where(patch.valid, logits.argmax(axis=0), 255), first - second < 1e-4


KINDS = (
    Kind("tiff", False, make_tiffs, lambda path: check_raster(path, "GTiff"), DN),
    Kind("jp2", False, make_jp2s, lambda path: check_raster(path, "JP2OpenJPEG"), DN),
    Kind("safe xml", True, make_safe, check_safe, PLAIN, keeps_name=True),
    Kind("stac json", True, make_stac, check_stac, PLAIN),
    Kind("card", True, make_card, check_card, keeps_name=True),
    Kind("onnx", False, make_onnx, check_onnx),
    Kind("safetensors", False, make_safetensors, check_safetensors),
    Kind("zip", False, make_zip, check_zip, PLAIN),
)
