"""Builds harmless files that try what hostile ones would: ``python -m tests.hostile.corpus FOLDER``.

Where a file could run code it would make the file ``MARKER`` beside itself; where it could read a file of others it
points to ``secret``; where it could open a connection it names a port of this machine. Each attack lies in a folder of
its own, with the words of the command line that meets it.
"""

from __future__ import annotations

import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import rasterio
from onnx import TensorProto, helper

from tests.conftest import TEN_METRES, write_scene
from tests.engines.pixelwise import CHANNELS, CLASSES, draw_network, make_graph, write_pixelwise_bundle
from tests.scenes import safe_fixtures

MARKER, SECRET = "MARKER", "secret"
NAMES = ("blue", "green", "red", "nir")
PORT = int(os.environ.get("GEOSEG_HOSTILE_PORT", "9"))
"""Where a connection would go; 9 is that of the discard service, where nobody listens."""

Words = list[str]
TRUSTING = ["--bands", ",".join(NAMES), "--radiometry", "dn"]


@dataclass(frozen=True)
class Attack:
    """One hostile input.

    Attributes:
        name: What is tried.
        build: Writes it into a folder; returns the arguments of ``geoseg``, without output and bundle.
        code: Exit code that is right.
        says: Words of the message that is right; where the code is 0, of a warning, or nothing.
    """

    name: str
    build: Callable[[Path], Words]
    code: int
    says: str


class Payload:
    """Runs a command when it is unpickled: makes the marker."""

    def __init__(self, folder: Path) -> None:
        self._marker = str(folder / MARKER)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._marker,)


def _scene(folder: Path, name: str = "scene.tif", **more: Any) -> Path:
    pixels = np.random.default_rng(0).integers(1, 3000, (4, 40, 48)).astype(np.uint16)
    return write_scene(folder / name, pixels, NAMES, **more)


def _words(scene: Path | str, *more: str) -> Words:
    return ["cloudmask", str(scene), *(more or TRUSTING)]


def _vrt(folder: Path, name: str, band: str, options: Words) -> Words:
    path = folder / name
    path.write_text(f'<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>EPSG:32631</SRS>{band}</VRTDataset>')
    return _words(path, *options)


def _raw_band(folder: Path) -> str:
    return (
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f"<SourceFilename>{folder / SECRET}</SourceFilename></VRTRasterBand>"
    )


def _remote_band(folder: Path) -> str:
    address = f"/vsicurl/http://127.0.0.1:{PORT}/x.tif"
    return (
        f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{address}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
    )


def tile_index(folder: Path) -> Words:
    """A GDAL tile index, which names other rasters."""
    path = folder / "scene.gti"
    path.write_text(f"<GDALTileIndexDataset><IndexDataset>{folder / SECRET}</IndexDataset></GDALTileIndexDataset>")
    return _words(path)


def overview_redirect(folder: Path) -> Words:
    """A sidecar that says that overviews are another file; the scene itself is good."""
    scene = _scene(folder)
    trap = write_scene(folder / "trap.tif", np.full((4, 20, 24), 9, np.uint16))
    scene.with_name(scene.name + ".aux.xml").write_text(
        f'<PAMDataset><Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{trap}</MDI></Metadata></PAMDataset>'
    )
    return _words(scene)


def eight_terabytes(folder: Path) -> Words:
    layout = {"tiled": True, "blockxsize": 8192, "blockysize": 8192, "bigtiff": "yes", "sparse_ok": True}
    size = {"height": 1_000_000, "width": 1_000_000, "count": 4, "dtype": "uint16"}
    path = folder / "scene.tif"
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32631", transform=TEN_METRES, **size, **layout) as file:
        file.descriptions = NAMES
    return _words(path)


def _named(name: str) -> Callable[[Path], Words]:
    """A scene that is called by words of GDAL's, and is not there."""
    return lambda folder: _words(name.format(folder=folder))


def _odd_name(name: str) -> Callable[[Path], Words]:
    """A good scene whose name a tool could take for something else."""

    def build(folder: Path) -> Words:
        _scene(folder, name)
        return ["cloudmask", *TRUSTING, "--", name]

    return build


def _safe(folder: Path, extra: str = "", head: str = "", listed: tuple[str, ...] = ("B02", "B03", "B04")) -> Path:
    text = safe_fixtures.Text(level="L1C", adds=safe_fixtures.ALL_MINUS_1000)
    image = np.full((24, 24), 2000, np.uint16)
    root = safe_fixtures.write_safe(folder, text, dict.fromkeys(("B02", "B03", "B04"), image))
    path = safe_fixtures.write_metadata(root, text, listed, extra)
    path.write_text(path.read_text().replace('standalone="no"?>', f'standalone="no"?>{head}', 1))
    return path


def _bomb(folder: Path) -> str:
    grow = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))
    return f'<!DOCTYPE a [<!ENTITY a0 "ha">{grow}]>'


def _outer_entity(folder: Path) -> str:
    return f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{folder / SECRET}">]>'


def _in_safe(head: Callable[[Path], str]) -> Callable[[Path], Words]:
    return lambda folder: _words(_safe(folder, head=head(folder)), "--radiometry", "auto")


def _in_landsat(head: Callable[[Path], str]) -> Callable[[Path], Words]:
    def build(folder: Path) -> Words:
        name = "LC08_L2SP_198029_20200614_20200825_02_T1_MTL.xml"
        (folder / name).write_text(f"<?xml version='1.0'?>{head(folder)}<LANDSAT_METADATA_FILE/>")
        return _words(folder / name, "--radiometry", "auto")

    return build


def _in_planetscope(head: Callable[[Path], str]) -> Callable[[Path], Words]:
    def build(folder: Path) -> Words:
        scene = _scene(folder, "20240601_100000_00_2400_3B_AnalyticMS.tif")
        text = f"<?xml version='1.0'?>{head(folder)}<ps:EarthObservation xmlns:ps='http://schemas.planet.com/ps'/>"
        scene.with_name(scene.stem + "_metadata.xml").write_text(text)
        return _words(scene, "--radiometry", "auto")

    return build


def path_out_of_safe(folder: Path) -> Words:
    write_scene(folder / "out_B04.tif", np.ones((1, 24, 24), np.uint16))
    item = "<IMAGE_FILE>../../out_B04</IMAGE_FILE>"
    return _words(_safe(folder, extra=item, listed=("B02", "B03")), "--radiometry", "auto")


def _zip(folder: Path, change: Callable[[zipfile.ZipFile], None]) -> Words:
    root = _safe(folder / "unpacked").parent
    path = safe_fixtures.zip_folder(root, folder / "scene.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        change(file)
    return _words(path, "--radiometry", "auto")


def zip_slip(folder: Path) -> Words:
    return _zip(folder, lambda file: file.writestr(f"../{MARKER}", "x"))


def zip_link(folder: Path) -> Words:
    link = zipfile.ZipInfo("a/link")
    link.external_attr = 0o120777 << 16
    return _zip(folder, lambda file: file.writestr(link, str(folder / SECRET)))


def zip_bomb(folder: Path) -> Words:
    """Metadata that unpack to a thousand times their size."""
    path = folder / "scene.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.SAFE/MTD_MSIL1C.xml", b" " * (30 << 20))
    return _words(path, "--radiometry", "auto")


def many_members(folder: Path) -> Words:
    def fill(file: zipfile.ZipFile) -> None:
        for number in range(2000):
            file.writestr(f"a/{number}", "")

    return _zip(folder, fill)


def _stac(href: str) -> Callable[[Path], Words]:
    def build(folder: Path) -> Words:
        write_scene(folder / SECRET, np.ones((1, 24, 24), np.uint16))
        (folder / "item").mkdir()
        asset = {"href": href.format(folder=folder), "type": "image/tiff", "eo:bands": [{"common_name": "red"}]}
        item = {"type": "Feature", "stac_version": "1.0.0", "id": "x", "properties": {}, "assets": {"red": asset}}
        (folder / "item" / "item.json").write_text(json.dumps(item))
        return _words(folder / "item" / "item.json", "--radiometry", "dn")

    return build


def mtl_out_of_folder(folder: Path) -> Words:
    from tests.scenes.product_fixtures import make_landsat

    scene = make_landsat(folder / "scene")
    write_scene(folder / "out_B4.TIF", np.ones((1, 6, 6), np.uint16))
    name = next(scene.folder.glob("*_SR_B4.TIF")).name
    scene.mtl.write_text(scene.mtl.read_text().replace(name, "../out_B4.TIF"))
    return _words(scene.mtl, "--radiometry", "auto")


def _model(write: Callable[[Path], Path]) -> Callable[[Path], Words]:
    """A good scene and a model that is no bundle folder."""

    def build(folder: Path) -> Words:
        return [*_words(_scene(folder)), "--model", str(write(folder))]

    return build


def _pickle(folder: Path) -> Path:
    path = folder / "checkpoint.pth"
    path.write_bytes(pickle.dumps(Payload(folder)))
    return path


def _archive(name: str, *members: str) -> Callable[[Path], Path]:
    """A zip as torch writes them, with the payload where torch would unpickle it."""

    def write(folder: Path) -> Path:
        path = folder / name
        with zipfile.ZipFile(path, "w") as file:
            for member in members:
                file.writestr(f"archive/{member}", pickle.dumps(Payload(folder)) if member.endswith("kl") else b"3\n")
        return path

    return write


def _bundle_with(asset: str, content: Callable[[Path], bytes]) -> Callable[[Path], Words]:
    """A bundle whose card is right about a hostile file."""

    def build(folder: Path) -> Words:
        write_pixelwise_bundle(folder / "model", draw_network(), **{asset: content(folder)})
        engine = "torch" if asset == "weights" else "onnx"
        card = folder / "model" / "item.json"
        card.write_text(card.read_text().replace('"network": {"name": "pixelwise"}', '"network": {"name": "lale-s1"}'))
        return [*_words(_scene(folder)), "--model", str(folder / "model"), "--engine", engine]

    return build


def _outside(location: str, prepare: Callable[[Path, Path], None] = lambda folder, model: None) -> Any:
    """An ONNX file that keeps its weights at ``location``."""

    def content(folder: Path) -> bytes:
        model = make_graph(draw_network())
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location.format(folder=folder))
        (folder / "weights").write_bytes(np.ones(CLASSES * CHANNELS, np.float32).tobytes())
        (folder / "model").mkdir(exist_ok=True)
        prepare(folder / "weights", folder / "model" / "data")
        return bytes(model.SerializeToString())

    return content


def custom_operator(folder: Path) -> bytes:
    model = make_graph(draw_network(), domain="evil.ops", op_type="Steal")
    model.opset_import.append(helper.make_opsetid("evil.ops", 1))
    return bytes(model.SerializeToString())


def giant_tensor(folder: Path) -> bytes:
    """Asks for 256 GB when it runs."""
    model = make_graph(draw_network())
    model.graph.node[0].output[0] = "all"
    shape = onnx.numpy_helper.from_array(np.array([64_000_000_000], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.extend(
        (
            helper.make_node("ConstantOfShape", ["shape"], ["giant"]),
            helper.make_node("ReduceSum", ["giant"], ["sum"], keepdims=0),
            helper.make_node("Add", ["all", "sum"], ["logits"]),
        )
    )
    return bytes(model.SerializeToString())


def long_header(folder: Path) -> bytes:
    return struct.pack("<Q", 1 << 62) + b"{}"


def card_out_of_folder(folder: Path) -> Words:
    words = _bundle_with("onnx", lambda folder: make_graph(draw_network()).SerializeToString())(folder)
    card = folder / "model" / "item.json"
    (folder / "outside.onnx").write_bytes((folder / "model" / "onnx.bin").read_bytes())
    card.write_text(card.read_text().replace('"onnx.bin"', '"../outside.onnx"'))
    return words


def area_from_elsewhere(folder: Path) -> Words:
    """An area of interest that is a virtual layer over another file."""
    area = folder / "area.geojson"
    area.write_text(f'<OGRVRTDataSource><OGRVRTLayer name="a"><SrcDataSource>{folder / SECRET}</SrcDataSource>'
                    "</OGRVRTLayer></OGRVRTDataSource>")  # fmt: skip
    return [*_words(_scene(folder)), "--area", str(area)]


def build(attack: Attack, folder: Path) -> Words:
    """Write one attack into a folder that does not exist yet; returns what to call ``geoseg`` with."""
    folder.mkdir(parents=True)
    if not attack.name.startswith("STAC"):
        (folder / SECRET).write_bytes(b"nobody must ever read these bytes" * 8)
    words = attack.build(folder)
    if "--model" not in words:
        write_pixelwise_bundle(folder / "good model", draw_network())
        place = words.index("--") if "--" in words else len(words)
        words[place:place] = ["--model", str(folder / "good model"), "--engine", "onnx"]
    return words


def main(folder: Path) -> None:
    """Write all attacks and say how to meet them."""
    from tests.hostile.attacks import ATTACKS

    for number, attack in enumerate(ATTACKS):
        words = build(attack, folder / f"{number:02}")
        print(f"{number:02} {attack.name}: geoseg {' '.join(words)} -> {attack.code}, {attack.says!r}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
