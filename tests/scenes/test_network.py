"""Addresses: nothing is fetched without permission, what is fetched equals the file, and secrets are not told."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geoseg_cli.bundle import InputSpec
from geoseg_cli.errors import BusyError, GeosegError, InputError, InputMissingError
from geoseg_cli.grid import Window
from geoseg_cli.scenes import SceneOptions, open_scene
from geoseg_cli.scenes import network as network_module
from geoseg_cli.scenes.network import address_of, gdal_name, is_remote, read_remote, redacted
from geoseg_cli.scenes.raster_file import open_raster
from geoseg_cli.scenes.stac_item import find
from tests.conftest import write_scene

SPEC = InputSpec(("red", "green", "blue"), (), (0.0,) * 3, (1.0,) * 3)
ALLOWED = SceneOptions(radiometry="dn", allow_network=True)


@dataclass
class Server:
    """A folder over http on this machine, and the requests that came."""

    folder: Path
    address: str
    requests: list[str] = field(default_factory=list)
    broken: bool = False
    sends_parts: bool = True


def handler_of(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers HEAD and GET, with ranges, as stores of COGs do."""

        def do_HEAD(self) -> None:
            self.answer(is_head=True)

        def do_GET(self) -> None:
            self.answer(is_head=False)

        def answer(self, is_head: bool) -> None:
            server.requests.append(f"{self.command} {self.path}")
            path = server.folder / self.path.split("?")[0].lstrip("/")
            if server.broken:
                return self.send_error(500)
            if not path.is_file():
                return self.send_error(404)
            body = path.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if server.sends_parts else None
            start = int(asked[1]) if asked else 0
            stop = min(int(asked[2]) + 1 if asked and asked[2] else len(body), len(body))
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
            if server.sends_parts:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if not is_head:
                self.wfile.write(body[start:stop])
            return None

        def log_message(self, format: str, *args: Any) -> None:
            """Tests are quiet."""

    return Handler


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    made = Server(folder, "")
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(made))
    made.address = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    http.shutdown()
    http.server_close()
    thread.join()


def numbers() -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(1, 9000, (3, 70, 50), dtype=np.uint16)


def serve_scene(server: Server, name: str = "scene.tif") -> Path:
    return write_scene(server.folder / name, numbers(), bands=("B02", "B03", "B04"), tiled=True, blockxsize=16,
                       blockysize=16, compress="deflate")  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "https://host/a.tif",
        "http://host/a.tif",
        "https:/host/a.tif",
        "s3://bucket/a.tif",
        "gs://bucket/a.tif",
        "/vsicurl/https://host/a.tif",
        "/vsis3/bucket/a.tif",
        "/vsigs/bucket/a.tif",
    ],
)
def test_addresses_are_told_from_files(name: str) -> None:
    assert is_remote(name)
    assert is_remote(str(Path(name)))


@pytest.mark.parametrize("name", ["/data/a.tif", "a.tif", "https", "http:a.tif", "/vsizip/a.zip/b.tif", "C:/a.tif", ""])
def test_files_are_no_addresses(name: str) -> None:
    assert not is_remote(name)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://host/a.tif", "/vsicurl/https://host/a.tif"),
        ("https:/host/a.tif", "/vsicurl/https://host/a.tif"),
        ("http://host:80/a.tif?sig=1", "/vsicurl/http://host:80/a.tif?sig=1"),
        ("s3://bucket/key/a.tif", "/vsis3/bucket/key/a.tif"),
        ("gs:/bucket/a.tif", "/vsigs/bucket/a.tif"),
        ("/vsicurl/https://host/a.tif", "/vsicurl/https://host/a.tif"),
    ],
)
def test_an_address_becomes_what_gdal_calls_it(address: str, name: str) -> None:
    assert gdal_name(address, is_allowed=True) == name
    with pytest.raises(InputError, match="lies on a network"):
        gdal_name(address, is_allowed=False)


@pytest.mark.parametrize(
    "address",
    [
        "https://host/a.tif?sig=SECRET",
        "https://SECRET:SECRET@host/a.tif",
        "https:/SECRET:SECRET@host/a.tif?x=SECRET",
        "/vsicurl/https://SECRET@host/a.tif?SECRET",
    ],
)
def test_secrets_of_an_address_are_not_told(address: str) -> None:
    assert "SECRET" not in redacted(address)
    assert redacted(address).endswith("host/a.tif")


def test_without_permission_nothing_is_asked_of_a_server(server: Server, tmp_path: Path) -> None:
    serve_scene(server)
    red = {"href": f"{server.address}/scene.tif", "type": "image/tiff", "eo:bands": [{"common_name": "red"}]}
    item = {"type": "Feature", "stac_version": "1.0.0", "properties": {}, "assets": {"red": red}}
    local = tmp_path / "item.json"
    local.write_text(json.dumps(item))
    (server.folder / "item.json").write_text(json.dumps(item))
    for name in (f"{server.address}/scene.tif", f"{server.address}/item.json", f"/vsicurl/{server.address}/scene.tif"):
        with pytest.raises(InputError, match="lies on a network") as refusal:
            open_scene(Path(name), SPEC)
        assert "--allow-network" in refusal.value.hint
    with pytest.raises(InputError, match="lies on a network"):
        open_scene(local, SPEC)
    assert server.requests == []


def test_a_cog_over_http_equals_the_file(server: Server) -> None:
    path = serve_scene(server)
    with (
        open_scene(path, SPEC, ALLOWED) as file,
        open_scene(Path(f"{server.address}/scene.tif"), SPEC, ALLOWED) as remote,
    ):
        assert remote.grid == file.grid
        for window in (Window(0, 0, 70, 50), Window(17, 5, 20, 33)):
            ours, theirs = remote.read(window), file.read(window)
            np.testing.assert_array_equal(ours.pixels, theirs.pixels)
            np.testing.assert_array_equal(ours.valid, theirs.valid)
        remote.refuse_change()
    assert server.requests


def test_a_signed_address_is_read_and_its_signature_is_kept_for_the_server_alone(server: Server) -> None:
    serve_scene(server, "signed.tif")
    file = open_raster(f"/vsicurl/{server.address}/signed.tif?sig=SECRET", "GTiff")
    try:
        np.testing.assert_array_equal(file.read((1, 2, 3), Window(0, 0, 70, 50))[0], numbers())
        assert "SECRET" not in str(file.path)
    finally:
        file.close()
    assert all("sig=SECRET" in request for request in server.requests)


def test_no_file_beside_the_scene_is_asked_for(server: Server) -> None:
    serve_scene(server, "alone.tif")
    with open_scene(Path(f"{server.address}/alone.tif"), SPEC, ALLOWED) as scene:
        scene.read(Window(0, 0, 5, 5))
    assert {request.split()[1] for request in server.requests} == {"/alone.tif"}


@pytest.mark.parametrize("style", ["relative", "below the root", "absolute"])
def test_an_item_over_http_equals_its_files(server: Server, style: str) -> None:
    folder = server.folder / "items" / style.replace(" ", "-")
    assets, planes = {}, dict(zip(("red", "green", "blue"), numbers(), strict=True))
    for name, plane in planes.items():
        folder.mkdir(parents=True, exist_ok=True)
        write_scene(folder / f"{name}.tif", plane[None])
        below = f"/items/{folder.name}/{name}.tif"
        href = {"relative": f"./{name}.tif", "below the root": below, "absolute": server.address + below}[style]
        assets[name] = {"href": href, "type": "image/tiff", "eo:bands": [{"common_name": name}]}
    item = {"type": "Feature", "stac_version": "1.0.0", "properties": {}, "assets": assets}
    (folder / "item.json").write_text(json.dumps(item))
    address = f"{server.address}/items/{folder.name}/item.json"
    with open_scene(Path(address), SPEC, ALLOWED) as scene:
        pixels = scene.read(Window(0, 0, 70, 50)).pixels
    np.testing.assert_array_equal(pixels, [planes[name] for name in SPEC.bands])


@pytest.mark.parametrize("href", ["file:///etc/passwd.tif", "/vsicurl/file:///etc/x.tif", "ftp://host/x.tif"])
def test_an_item_over_http_cannot_name_files_of_this_machine(server: Server, href: str) -> None:
    assets = {"red": {"href": href, "type": "image/tiff", "eo:bands": [{"common_name": "red"}]}}
    item = {"type": "Feature", "stac_version": "1.0.0", "properties": {}, "assets": assets}
    (server.folder / "item.json").write_text(json.dumps(item))
    with pytest.raises(InputError, match=r"no address|no link"):
        find(f"{server.address}/item.json", allow_network=True)


def test_what_is_not_there_is_said_to_be_missing(server: Server) -> None:
    with pytest.raises(InputMissingError, match="404"):
        read_remote(f"{server.address}/none.json?sig=SECRET", 100, is_allowed=True)


def test_a_scene_that_is_not_there_is_refused(server: Server) -> None:
    with pytest.raises(GeosegError, match="none") as refusal:
        open_scene(Path(f"{server.address}/none.tif"), SPEC, ALLOWED)
    assert refusal.value.hint


def test_a_text_longer_than_expected_is_refused(server: Server) -> None:
    (server.folder / "long.json").write_text("x" * 101)
    (server.folder / "right.json").write_text("x" * 100)
    assert read_remote(f"{server.address}/right.json", 100, is_allowed=True) == b"x" * 100
    with pytest.raises(InputError, match="longer than 100 bytes"):
        read_remote(f"{server.address}/long.json", 100, is_allowed=True)


def test_a_server_that_does_not_answer_is_named_without_secrets() -> None:
    with pytest.raises(BusyError, match="cannot be fetched") as refusal:
        read_remote("http://127.0.0.1:9/item.json?sig=SECRET", 100, is_allowed=True)
    assert "SECRET" not in str(refusal.value)


@pytest.mark.parametrize("address", ["http://SECRET:SECRET@127.0.0.1/item.json", "http://127.0.0.1:SECRET/item.json"])
def test_an_address_that_cannot_be_used_is_refused(address: str) -> None:
    with pytest.raises(GeosegError, match="cannot be fetched") as refusal:
        read_remote(address, 100, is_allowed=True)
    assert "SECRET:SECRET" not in str(refusal.value)


@pytest.mark.parametrize("address", ["s3://bucket/item.json", "gs://bucket/item.json", "/vsicurl/http://h/item.json"])
def test_items_come_by_http_alone(address: str) -> None:
    with pytest.raises(InputError, match="cannot be fetched"):
        read_remote(address, 100, is_allowed=True)


def test_a_server_that_fails_during_the_read_is_an_error_and_no_zeros(server: Server, monkeypatch: Any) -> None:
    monkeypatch.setitem(network_module.GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY", "0")
    rng = np.random.default_rng(5)
    big = rng.integers(1, 9000, (1, 700, 700), dtype=np.uint16)
    write_scene(server.folder / "big.tif", big, bands=("B04",), tiled=True, blockxsize=64, blockysize=64)
    file = open_raster(f"/vsicurl/{server.address}/big.tif", "GTiff")
    try:
        server.broken = True
        with pytest.raises(BusyError, match="cannot be read over the network"):
            file.read((1,), Window(600, 600, 100, 100))
    finally:
        file.close()


def test_a_server_that_sends_files_only_whole_is_told_as_such(server: Server) -> None:
    # Larger than what is asked for first: of smaller files the whole is taken.
    write_scene(server.folder / "scene.tif", np.random.default_rng(3).integers(1, 9000, (3, 300, 300), np.uint16))
    server.sends_parts = False
    with pytest.raises(BusyError, match="or the server does not send parts of files") as caught:
        open_scene(Path(f"{server.address}/scene.tif"), SPEC, ALLOWED)
    assert "download it" in caught.value.hint


def test_time_and_tries_of_gdal_are_bounded_while_a_file_is_open(monkeypatch: Any, server: Server) -> None:
    import rasterio.env

    serve_scene(server, "bounded.tif")
    seen: list[dict[str, Any]] = []
    original = rasterio.open

    def spy(*args: Any, **keywords: Any) -> Any:
        seen.append(dict(rasterio.env.getenv()))
        return original(*args, **keywords)

    monkeypatch.setattr(rasterio, "open", spy)
    open_raster(f"/vsicurl/{server.address}/bounded.tif", "GTiff").close()
    assert seen
    assert all(str(options["GDAL_HTTP_TIMEOUT"]) == "30" for options in seen)
    assert all(str(options["GDAL_HTTP_MAX_RETRY"]) == "4" for options in seen)


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("/vsicurl/https://example.org/a/x.tif?sig=SECRET", "https://example.org/a/x.tif"),
        ("https://alice:SECRET@example.org/x.tif", "https://example.org/x.tif"),
        ("/vsis3/bucket/x.tif", "s3://bucket/x.tif"),
        ("/vsigs/bucket/x.tif", "gs://bucket/x.tif"),
        ("http://localhost:80/x.json", "http://localhost:80/x.json"),
    ],
)
def test_a_path_that_stands_for_an_address_is_told_as_one_without_secrets(path: str, address: str) -> None:
    assert address_of(Path(path)) == address


@pytest.mark.parametrize("path", ["/data/x.tif", "x.tif", "/data/https/x.tif", "/vsizip//a.zip/x.tif"])
def test_other_paths_are_no_addresses(path: str) -> None:
    assert address_of(Path(path)) == Path(path)
