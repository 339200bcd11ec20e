"""Chips in a folder: they come back as they were written, and what is damaged is named."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.errors import StorageError
from geoseg_cli.training.chip_store import ChipRow, StoredChips, read_index, write_chip, write_index
from geoseg_cli.training.chips import Chip
from geoseg_cli.training.lazy import LazySequence
from geoseg_cli.training.split import Part

ROWS = st.builds(
    ChipRow,
    number=st.integers(0, 10**7 - 1),
    kind=st.sampled_from(["pairs", "vectors", "simulator"]),
    source=st.integers(0, 9),
    part=st.sampled_from(get_args(Part)),
    bands=st.lists(st.sampled_from(["red", "nir", "blue"]), min_size=1, unique=True).map(tuple),
    height_px=st.integers(1, 10**5),
    width_px=st.integers(1, 10**5),
    pixels=st.lists(st.integers(0, 2**40), min_size=2, max_size=4).map(tuple),
)


class Squares(LazySequence[int]):
    """Place -> its square; six of them."""

    def __len__(self) -> int:
        return 6

    def _make(self, place: int) -> int:
        return place * place


def row(number: int) -> ChipRow:
    return ChipRow(number, "pairs", 0, "train", ("red",), 4, 5, (20, 0))


def chip(number: int) -> Chip:
    return Chip("pairs", ("red",), np.full((1, 4, 5), number, np.int16), np.full((4, 5), 1, np.uint8))


@given(st.one_of(st.integers(-9, 9), st.slices(6)))
def test_a_lazy_sequence_answers_every_index_as_a_list_does(index: int | slice) -> None:
    wanted = [0, 1, 4, 9, 16, 25]
    if isinstance(index, int) and not -6 <= index < 6:
        with pytest.raises(IndexError):
            Squares()[index]
    else:
        assert Squares()[index] == wanted[index]
    assert list(Squares()) == wanted


@given(rows=st.lists(ROWS, max_size=5), notes=st.lists(st.text(max_size=20), max_size=3))
def test_an_index_comes_back_as_it_was_written(rows: list[ChipRow], notes: list[str]) -> None:
    with TemporaryDirectory() as folder:
        write_index(Path(folder), rows, notes)
        assert read_index(Path(folder)) == (rows, notes)


def test_a_folder_without_an_index_is_not_whole(tmp_path: Path) -> None:
    write_chip(tmp_path, 0, chip(0))
    assert read_index(tmp_path) is None


@given(share=st.floats(0, 0.999))
def test_an_index_that_was_cut_anywhere_is_refused_by_name(share: float) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_index(folder, [row(0), row(1)], ["a note"])
        whole = (folder / "index.json").read_bytes()
        (folder / "index.json").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(StorageError, match=r"index\.json is damaged") as caught:
            read_index(folder)
        assert "--restart" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "value"), [("part", "teach"), ("number", "one"), ("pixels", 5), ("bands", [1]), ("height_px", None)]
)
def test_an_index_with_a_wrong_value_is_refused_with_its_place(tmp_path: Path, key: str, value: object) -> None:
    write_index(tmp_path, [row(0)], [])
    table = json.loads((tmp_path / "index.json").read_text())
    table["chips"][0][key] = value
    (tmp_path / "index.json").write_text(json.dumps(table))
    with pytest.raises(StorageError, match=rf"index\.json is damaged: chips\.0\.{key}"):
        read_index(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_a_damaged_chip_is_named_with_the_way_out(tmp_path: Path, content: bytes | None) -> None:
    for number in range(3):
        write_chip(tmp_path, number, chip(number))
    chips = StoredChips(tmp_path, [row(number) for number in range(3)])
    path = tmp_path / "0000001-labels.npy"
    path.unlink() if content is None else path.write_bytes(content)
    assert [int(one.dn[0, 0, 0]) for one in (chips[0], chips[-1])] == [0, 2]
    with pytest.raises(StorageError) as caught:
        chips[1]
    assert path.name in caught.value.message
    assert "pickle" not in caught.value.message
    assert "--restart" in caught.value.hint


def test_a_chip_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot write .*gone/0000007-pixels\.npy"):
        write_chip(tmp_path / "gone", 7, chip(7))
    with pytest.raises(StorageError, match=r"cannot write .*gone/index\.json"):
        write_index(tmp_path / "gone", [], [])
