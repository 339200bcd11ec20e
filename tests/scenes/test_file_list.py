"""Single-band files that are listed with commas: one scene, from any folder, called as its files are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from geoseg_cli.batch.naming import place_and_stem
from geoseg_cli.errors import BandError, GeosegError, InputError, InputMissingError
from geoseg_cli.scenes import SceneOptions, open_scene
from tests.scenes.product_fixtures import spec_of, write_band

DN = SceneOptions(radiometry="dn")
DATES = ("20200101", "20200106")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two dates of two bands, which no folder of one scene may hold."""
    for day, name in enumerate(DATES):
        for number in (3, 4):
            plane = np.full((64, 64), 1000 * number + day, np.uint16)
            write_band(tmp_path / f"in/T31UFS_{name}_B{number:02}.tif", plane)
    return tmp_path / "in"


def test_listed_files_are_one_scene_of_the_bands_that_their_names_tell(folder: Path) -> None:
    with pytest.raises(GeosegError, match="hold the same band"):
        open_scene(folder, spec_of("red", "green"), DN)
    path = Path(f"{folder}/T31UFS_{DATES[1]}_B04.tif,T31UFS_{DATES[1]}_B03.tif")
    with open_scene(path, spec_of("red", "green"), DN) as scene:
        pixels = scene.read(scene.grid.window).pixels
        assert scene.product.layout == "list of single-band files"
        assert scene.path == path
        assert sorted(scene.identities) == sorted(folder.glob(f"*{DATES[1]}*"))
    assert pixels[:, 0, 0].tolist() == [4001, 3001]


def test_a_list_means_the_same_from_another_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    names = [f"T31UFS_{DATES[0]}_B0{number}.tif" for number in (4, 3)]
    for path in (f"in/{names[0]},{names[1]}", f"in/{names[0]},{folder / names[1]}"):
        with open_scene(Path(path), spec_of("red", "green"), DN) as scene:
            assert scene.read(scene.grid.window).pixels[:, 0, 0].tolist() == [4000, 3000]
            assert scene.path == folder / ",".join(names)  # its last part goes into the map's tags


@pytest.mark.parametrize(
    ("list_of", "kind", "says"),
    [
        ("T31UFS_20200101_B04.tif,T31UFS_20200101_B08.tif", InputMissingError, "B08.tif: there is no such file"),
        ("T31UFS_20200101_B04.tif,", InputError, "is no raster of one band"),
        ("T31UFS_20200101_B04.tif,T31UFS_20200106_B04.tif", InputError, "hold the same band"),
        ("a.tif,b.tif", InputMissingError, "a.tif,b.tif: there is no such file"),
        ("T31UFS_20200101_B03.tif,T31UFS_20200101_B03.tif", InputError, "hold the same band"),
    ],
)
def test_what_cannot_be_one_scene_is_refused_by_name(
    folder: Path, list_of: str, kind: type[GeosegError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        open_scene(folder / list_of, spec_of("red"), DN)


def test_a_file_whose_name_has_a_comma_is_that_file(folder: Path) -> None:
    plane = np.full((64, 64), 7000, np.uint16)
    write_band(folder / "a_B03.tif,a_B04.tif", plane)
    with pytest.raises(BandError, match="no band has a name"):
        open_scene(folder / "a_B03.tif,a_B04.tif", spec_of("red"), DN)


@pytest.mark.parametrize(
    ("names", "stem"),
    [
        (("T31UFS_20200101_B03.tif", "T31UFS_20200101_B04.tif"), "T31UFS_20200101"),
        (("B03.tif", "B04.tif"), "in"),
        (("lake_red.tif", "lake_rededge.tif", "lake_nir.tif"), "lake"),
        (("north sea.B03_10m.tif", "north sea.B04_10m.tif"), "north sea"),
    ],
)
def test_the_map_lies_beside_the_files_and_is_called_as_they_begin(
    folder: Path, names: tuple[str, ...], stem: str
) -> None:
    for name in names:
        write_band(folder / name, np.ones((4, 4), np.uint16))
    assert place_and_stem(folder / ",".join(names)) == (folder, stem)
