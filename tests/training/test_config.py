"""The configuration of a run: what is accepted, and how what is not accepted is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

pytest.importorskip("torch")

from geoseg_cli.errors import InputError, InputMissingError, UsageError
from geoseg_cli.training.augment import AugmentOptions
from geoseg_cli.training.config import SplitTable, TrainConfig, read_config
from geoseg_cli.training.schedule import TrainOptions
from geoseg_cli.training.split import split_places

DOCS = Path(__file__).resolve().parents[2] / "docs" / "training.md"

SMALLEST = """
[bundle]
name = "fields"
task = "land-cover"
licence = "CC0-1.0"
gsd_m = 10
[network]
name = "lale-s1"
[input]
bands = ["red", "nir"]
[classes]
legend = "esa-worldcover"
values = [10, 80]
[[data.pairs]]
folder = "own"
[train]
steps = 6
"""


def read(tmp_path: Path, text: str) -> TrainConfig:
    path = tmp_path / "train.toml"
    path.write_text(text, encoding="utf-8")
    return read_config(path)


def test_the_smallest_configuration_is_read_and_its_paths_lie_beside_it(tmp_path: Path) -> None:
    config = read(tmp_path, SMALLEST)
    assert config.data.pairs[0].folder == tmp_path / "own"
    assert config.classes.to_legend().values == (10, 80)
    assert (config.split.develop, config.split.test) == (0.2, 0.2)


def test_an_absolute_path_stays_as_it_is(tmp_path: Path) -> None:
    assert read(tmp_path, SMALLEST.replace('"own"', '"/data/own"')).data.pairs[0].folder == Path("/data/own")


def test_own_classes_make_a_legend(tmp_path: Path) -> None:
    own = 'legend = "roofs"\nown = [{value = 1, name = "roof", color = "#FF0000"}, {value = 2, name = "x", title = "Rest", color = "#00FF00"}]'  # noqa: E501
    legend = read(tmp_path, SMALLEST.replace('legend = "esa-worldcover"\nvalues = [10, 80]', own)).classes.to_legend()
    assert [(one.value, one.title) for one in legend.classes] == [(1, "roof"), (2, "Rest")]
    assert legend.nodata == 255


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps = 6", "stepz = 6", ("train.stepz is no known key; did you mean steps?", "keys there: minutes, steps")),
        ("steps = 6", "steps = 6\nminutes = 3", ("give minutes or steps",)),
        ("steps = 6", "seed = 6", ("give minutes or steps",)),
        ("steps = 6", "steps = 0", ("train.steps", "greater than or equal to 1", "(given: 0)")),
        ("steps = 6", 'steps = 6\nprecision = "fp8"', ("train.precision", "'auto', 'fp32' or 'bf16'", "'fp8'")),
        ("steps = 6", "steps = 6\nsizes_px = [100]", ("train.sizes_px.0", "multiple of 32", "100")),
        ("steps = 6", "steps = 6\n[split]\ntest = 0.9", ("leave nothing to learn from",)),
        ("steps = 6", 'steps = 6\n[split]\ntest_places = ["a"]\ndevelop_places = ["a"]', ("places a are in",)),
        ("steps = 6", "steps = 6\n[augment]\nset_share = 0.8\ndrop_share = 0.5", ("at most 1",)),
        ('"lale-s1"', '"lale-s9"', ("no network is called 'lale-s9'", "lale-s1", "lemevit-base-light")),
        ('["red", "nir"]', '["red", "infrared"]', ("no band is called infrared", "nir")),
        ('["red", "nir"]', '["red", "red"]', ("named twice",)),
        ('["red", "nir"]', '["red", "nir"]\noptional = ["blue"]', ("optional bands blue",)),
        ('["red", "nir"]', '["red", "nir"]\noptional = ["red", "nir"]', ("every band is optional",)),
        ('["red", "nir"]', '["red", "nir"]\nmean = [0.1]\nstddev = [0.1, 0.1]', ("mean has 1 numbers for 2",)),
        ('["red", "nir"]', '["red", "nir"]\nmean = [0.1, 0.2]', ("mean and stddev come together",)),
        ("[10, 80]", "[10, 81]", ("legend esa-worldcover has no value [81]",)),
        ("[10, 80]", "[10]", ("2 to 62",)),
        ('"esa-worldcover"', '"corine"', ("no legend is called 'corine'", "esa-worldcover", "own classes")),
        ('folder = "own"', 'folder = "own"\nzoom = [2, 1]', ("data.pairs.0.zoom", "smaller")),
        ('folder = "own"', 'foldr = "own"', ("data.pairs.0.foldr is no known key; did you mean folder?",)),
        ('[[data.pairs]]\nfolder = "own"', "[data]", ("there is no data",)),
        ('[network]\nname = "lale-s1"', "", ("[network] is missing",)),
        ('name = "fields"', 'name = "../fields"', ("bundle.name",)),
        ('licence = "CC0-1.0"', "", ("bundle.licence is missing",)),
        ('task = "land-cover"', 'task = "cloud"\n[augment]\nclouds = 0.1', ("augment.clouds is for land cover",)),
        ('["red", "nir"]', '["red", "lwir11"]\n[augment]\nclouds = 0.1', ("knows the bands of Sentinel-2",)),
        ('["red", "nir"]', '["red", "lwir11"]\n[augment]\nair = 0.1', ("augment.air knows the bands of Sentinel-2",)),
        ("steps = 6", "steps = ", ("is no TOML",)),
        ("[10, 80]", "[10, 80, 10]", ("value 10 is given twice",)),
        ("gsd_m = 10", 'gsd_m = "10"', ("bundle.gsd_m: a number is wanted, without quotes",)),
        ("steps = 6", "steps = 6\ntensorboard = 1", ("train.tensorboard: true or false is wanted",)),
        ('folder = "own"', 'folder = "own"\nnodata = true', ("data.pairs.0.nodata: a number is wanted",)),
    ],
)
def test_what_does_not_fit_is_named_with_what_would(tmp_path: Path, old: str, new: str, words: tuple[str, ...]) -> None:
    assert old in SMALLEST
    text = SMALLEST.replace(old, new)
    if "\n[augment]" in new and not new.startswith("steps"):  # a table may not interrupt another one
        text = SMALLEST.replace(old, new.partition("\n[augment]")[0]) + "[augment]" + new.partition("\n[augment]")[2]
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    for word in words:
        assert word in f"{caught.value.message}\n{caught.value.hint}"


def test_every_mistake_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    text = SMALLEST.replace("steps = 6", "stepz = 6\nsteps = 0").replace('"lale-s1"', '"x"')
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    for word in ("train.stepz", "train.steps:", "network.name"):
        assert word in caught.value.message


@pytest.mark.parametrize(
    ("where", "key"),
    [
        ("steps = 6", "steps"),
        ("steps = 6", "seed"),
        ("steps = 6", "learning_rate"),
        ("steps = 6", "sizes_px"),
        ("steps = 6", "output_weights"),
        ("gsd_m = 10", "tile_px"),
        ("values = [10, 80]", "values"),
        ('folder = "own"', "share"),
        ('folder = "own"', "zoom"),
        ('folder = "own"', "ignore"),
    ],
)
def test_true_is_no_number(tmp_path: Path, where: str, key: str) -> None:
    lists = {"sizes_px": "[true]", "output_weights": "[true, 0.4]", "values": "[10, true]", "zoom": "[true, 2]",
             "ignore": "[true]"}  # fmt: skip
    kept = "" if where.startswith(f"{key} =") else f"{where}\n"
    with pytest.raises(UsageError, match=rf"\.{key}(\.\d)?: a number is wanted, and not true or false \(given: true\)"):
        read(tmp_path, SMALLEST.replace(where, f"{kept}{key} = {lists.get(key, 'true')}"))


@pytest.mark.parametrize("zoom", ["[0, 1]", "[-1, 1]", "[1, inf]", "[nan, 1]", "[1, 1e9]", "[1e-9, 1]", "[1, 10.01]"])
def test_a_zoom_beyond_tenfold_is_refused_with_the_bounds(tmp_path: Path, zoom: str) -> None:
    with pytest.raises(UsageError, match=r"data\.pairs\.0\.zoom.*from 0\.1 to 10 "):
        read(tmp_path, SMALLEST.replace('folder = "own"', f'folder = "own"\nzoom = {zoom}'))


def test_a_zoom_of_tenfold_is_read(tmp_path: Path) -> None:
    config = read(tmp_path, SMALLEST.replace('folder = "own"', 'folder = "own"\nzoom = [0.1, 10]'))
    assert config.data.pairs[0].zoom == (0.1, 10)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(1, "roof"), (1, "road")], "value 1 is given twice: roof and road"),
        ([(1, "roof"), (2, "roof")], "name roof is given twice: to 1 and 2"),
        ([(1, "2"), (2, "roof")], "the name of class 1 is 2, which is the value of roof"),
        ([(1, "roof")], "2 to 62"),
    ],
)
def test_own_classes_that_cannot_be_told_apart_are_named(
    tmp_path: Path, rows: list[tuple[int, str]], words: str
) -> None:
    own = ", ".join(f'{{value = {value}, name = "{name}", color = "#FF0000"}}' for value, name in rows)
    text = SMALLEST.replace('legend = "esa-worldcover"\nvalues = [10, 80]', f'legend = "roofs"\nown = [{own}]')
    with pytest.raises(UsageError, match=f"classes: .*{words}"):
        read(tmp_path, text)


def test_a_name_that_is_its_own_value_is_read(tmp_path: Path) -> None:
    own = 'own = [{value = 1, name = "1", color = "#FF0000"}, {value = 2, name = "2", color = "#FF0000"}]'
    text = SMALLEST.replace('legend = "esa-worldcover"\nvalues = [10, 80]', f'legend = "roofs"\n{own}')
    assert read(tmp_path, text).classes.to_legend().values == (1, 2)


def test_a_byte_order_mark_as_windows_editors_write_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.lstrip().encode())
    assert read_config(path).bundle.name == "fields"


def test_a_folder_is_answered_with_the_configurations_in_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder") as caught:
        read_config(tmp_path)
    assert "geoseg train CONFIG.toml" in caught.value.hint
    for name in ("fields.toml", "lakes.toml"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match="is a folder") as caught:
        read_config(tmp_path)
    assert f"geoseg train {tmp_path / 'fields.toml'}" in caught.value.hint
    assert "or lakes.toml" in caught.value.hint


def test_a_file_that_is_not_there_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match=r"no configuration .*none\.toml"):
        read_config(tmp_path / "none.toml")


def test_start_stands_in_for_network_and_input(tmp_path: Path) -> None:
    text = SMALLEST.replace('[network]\nname = "lale-s1"\n', "").replace('[input]\nbands = ["red", "nir"]\n', "")
    config = read(tmp_path, text + '[start]\nbundle = "landcover-lale"\n')
    assert (config.network, config.input) == (None, None)
    (tmp_path / "mine").mkdir()
    assert read(tmp_path, text + '[start]\nbundle = "mine"\n').start.bundle == str(tmp_path / "mine")


def test_defaults_that_the_loop_has_too_are_the_same(tmp_path: Path) -> None:
    config, loop, augment = read(tmp_path, SMALLEST), TrainOptions(), AugmentOptions()
    for name in (
        "pixels_per_step",
        "learning_rate",
        "warmup_share",
        "weight_decay",
        "clip_norm",
        "ema_decay",
        "view_weight",
        "seed",
    ):
        assert getattr(config.train, name) == getattr(loop, name), name
    for name in type(config.augment).model_fields:
        assert getattr(config.augment, name) == getattr(augment, name), name


def keys(table: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all keys below a table."""
    for name, field in table.model_fields.items():
        inner = list(tables(field.annotation))
        if inner:
            yield from keys(inner[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def tables(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None and get_origin(annotation) in (tuple, Union, type(int | None)):
        for inner in get_args(annotation):
            yield from tables(inner)


def test_the_documentation_names_every_key_and_no_other() -> None:
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    assert documented == set(keys(TrainConfig))


def test_the_examples_of_the_documentation_are_valid(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 3
    for example in examples:
        read(tmp_path, example)


PLACES = st.lists(st.text(alphabet="abcdefgh", min_size=1, max_size=6), min_size=3, max_size=40, unique=True)


@given(places=PLACES, seed=st.integers(0, 5), develop=st.floats(0.05, 0.4), test=st.floats(0, 0.4))
def test_a_split_gives_every_place_one_part_and_each_part_its_share(
    places: list[str], seed: int, develop: float, test: float
) -> None:
    table = SplitTable(develop=develop, test=test, seed=seed)
    wanted = {"develop": max(1, round(develop * len(places))), "test": max(1, round(test * len(places))) if test else 0}
    if sum(wanted.values()) >= len(places):
        return
    parts = split_places([*places, *places], table)
    assert list(parts) == sorted(places)
    for part, count in wanted.items():
        assert list(parts.values()).count(part) == count
    assert parts == split_places(reversed(places), table)


def test_another_seed_tests_on_other_places() -> None:
    places = [f"p{number}" for number in range(30)]
    first, second = (split_places(places, SplitTable(seed=seed)) for seed in (1, 2))
    assert first != second


def test_named_places_are_put_where_they_are_wanted() -> None:
    table = SplitTable(develop_places=("b",), test_places=("a", "d"))
    assert split_places("abcde", table) == {"a": "test", "b": "develop", "c": "train", "d": "test", "e": "train"}
    with pytest.raises(UsageError, match="there is no place x"):
        split_places("abc", SplitTable(test_places=("x",)))


@pytest.mark.parametrize("places", ["a", "ab"])
def test_too_few_places_are_refused(places: str) -> None:
    with pytest.raises(InputError, match="cannot be split") as caught:
        split_places(places, SplitTable())
    assert "places" in caught.value.hint


def test_a_split_that_chooses_with_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="no place chooses"):
        split_places("abc", SplitTable(develop=0))
    assert "develop" not in split_places("abc", SplitTable(develop=0), has_other_develop=True).values()
