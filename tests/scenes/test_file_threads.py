"""Files beside each other: the same numbers, the same errors, never more threads than cores."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geoseg_cli.errors import StorageError
from geoseg_cli.grid import Window
from geoseg_cli.scenes import stack as stack_module
from geoseg_cli.scenes.file_threads import FileThreads, share_cores
from geoseg_cli.scenes.parts import Validity
from geoseg_cli.scenes.product import BandMask, Layer, Product, Quality
from geoseg_cli.scenes.raster_file import RasterFile
from geoseg_cli.scenes.stack import Stack, open_stack
from tests.conftest import TEN_METRES, write_scene

SIDES = {10: (36, 48), 20: (18, 24), 60: (6, 8)}


@given(files=st.integers(1, 40), cores=st.integers(1, 256), decodes_beside=st.booleans())
def test_readers_and_the_threads_they_decode_with_are_never_more_than_cores(
    files: int, cores: int, decodes_beside: bool
) -> None:
    readers, decoders = share_cores(files, cores, decodes_beside)
    assert 1 <= readers <= files
    assert decoders >= 1
    assert readers * decoders <= cores
    if files > 1 and cores > 1:
        assert readers > 1


@given(count=st.integers(1, 5), items=st.integers(0, 12), bad=st.sets(st.integers(0, 11)))
@settings(max_examples=40)
def test_whatever_fails_the_first_error_in_order_is_raised_and_nothing_runs_on(
    count: int, items: int, bad: set[int]
) -> None:
    running: set[int] = set()
    done: list[int] = []

    def do(item: int) -> None:
        running.add(item)
        time.sleep(0.0005 * (7 * item % 4))
        running.discard(item)
        if item in bad:
            raise KeyError(item)
        done.append(item)

    threads = FileThreads(count)
    failing = [item for item in range(items) if item in bad]
    with closing(threads):
        if failing:
            with pytest.raises(KeyError) as caught:
                threads.each(do, range(items))
            assert caught.value.args == (min(failing),)
        else:
            threads.each(do, range(items))
            assert sorted(done) == list(range(items))
        assert not running


def layers(folder: Path) -> tuple[list[Layer], Quality]:
    """Bands of three pixel sizes with nodata, one of them masked, and a quality band."""
    rng = np.random.default_rng(0)
    made = []
    for place, size in enumerate((10, 20, 10, 60, 10)):
        pixels = rng.integers(0, 12, (1, *SIDES[size]), dtype=np.uint16)
        made.append(Layer(f"b{place}", save(folder, f"b{place}", pixels, size, nodata=place)))
    mask = save(folder, "mask", rng.integers(0, 8, (2, *SIDES[20])) == 0, 20)
    made[2] = Layer("b2", made[2].file, mask=BandMask(mask, "GTiff", (1,), (2,), "mask"))
    quality = save(folder, "quality", rng.integers(0, 9, (1, *SIDES[20])), 20)
    return made, Quality(Layer("q", quality, nodata=None), (0,), 0, "quality")


def save(folder: Path, name: str, pixels: Any, size_m: int, **profile: Any) -> str:
    transform = TEN_METRES @ TEN_METRES.scale(size_m / 10)
    return str(write_scene(folder / f"{name}.tif", pixels.astype(np.uint16), transform=transform, **profile))


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: Any) -> Iterator[dict[tuple[int, str], Stack]]:
    """The same product by cores and rule."""
    bands, quality = layers(tmp_path_factory.mktemp("threads"))
    product = Product("test", Path("/scene"), tuple(bands), quality=quality)
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        for cores in (1, 2, 3, 16):
            patch.setattr(stack_module, "usable_cores", lambda cores=cores: cores)
            for combine in ("all", "any"):
                rules = Validity(combine=combine, keeps_saturated=False)  # type: ignore[arg-type]
                made[cores, combine] = open_stack(product, (3, 1, 5, 2, 4), 10.0, rules)
    yield made
    for stack in made.values():
        stack.close()


@pytest.mark.parametrize("combine", ["all", "any"])
@given(data=st.data())
@settings(max_examples=30)
def test_numbers_and_validity_do_not_depend_on_the_threads(
    stacks: dict[tuple[int, str], Stack], combine: str, data: Any
) -> None:
    row, col = data.draw(st.integers(0, 35)), data.draw(st.integers(0, 47))
    window = Window(row, col, data.draw(st.integers(1, 36 - row)), data.draw(st.integers(1, 48 - col)))
    pixels, valid = stacks[1, combine].read(window)
    for cores in (2, 3, 16):
        others = stacks[cores, combine].read(window)
        np.testing.assert_array_equal(others[0], pixels)
        np.testing.assert_array_equal(others[1], valid)


def test_valid_and_lost_pixels_are_there_to_compare(stacks: dict[tuple[int, str], Stack]) -> None:
    for stack in stacks.values():
        assert 0.1 < stack.read(stack.grid.window)[1].mean() < 0.9


def test_each_file_is_read_by_one_thread_at_a_time_and_by_no_more_threads_than_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy: list[int] = []
    threads: set[int] = set()
    inside: set[int] = set()
    read = RasterFile._read_stored

    def watched(self: RasterFile, *args: Any, **kwargs: Any) -> Any:
        assert id(self) not in inside
        inside.add(id(self))
        threads.add(threading.get_ident())
        busy.append(len(inside))
        time.sleep(0.005)
        try:
            return read(self, *args, **kwargs)
        finally:
            inside.discard(id(self))

    monkeypatch.setattr(stack_module, "usable_cores", lambda: 3)
    monkeypatch.setattr(RasterFile, "_read_stored", watched)
    bands, quality = layers(tmp_path)
    product = Product("test", Path("/scene"), tuple(bands), quality=quality)
    with closing(open_stack(product, (1, 2, 3, 4, 5), 10.0)) as stack:
        for _ in range(5):
            stack.read(stack.grid.window)
    assert max(busy) == len(threads) == 3


def test_a_damaged_file_is_named_whatever_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bands, _ = layers(tmp_path)
    for name in ("b1", "b4"):
        path = tmp_path / f"{name}.tif"
        whole = np.random.default_rng(1).integers(1, 9000, (1, *SIDES[20 if name == "b1" else 10]), np.uint16)
        save(tmp_path, name, whole, 20 if name == "b1" else 10, compress="deflate")
        path.write_bytes(path.read_bytes()[:-200])
    for cores in (1, 2, 8):
        monkeypatch.setattr(stack_module, "usable_cores", lambda cores=cores: cores)
        product = Product("test", Path("/scene"), tuple(bands))
        with (
            closing(open_stack(product, (1, 2, 3, 4, 5), 10.0)) as stack,
            pytest.raises(StorageError, match=r"b1\.tif"),
        ):
            stack.read(stack.grid.window)


def test_what_reading_beside_each_other_takes_is_planned(stacks: dict[tuple[int, str], Stack]) -> None:
    assert stacks[1, "all"].working_bytes < stacks[2, "all"].working_bytes < stacks[16, "all"].working_bytes
