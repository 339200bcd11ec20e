"""Values of options from files and variables: which one decides, what is refused, and what is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer

from geoseg_cli.cli import app
from geoseg_cli.cli.config_layers import default_map, read_files, variable_of
from geoseg_cli.errors import ConfigError
from tests.cli.conftest import Run
from tests.composite.stacks import WORLDCOVER, write_map

ROOT = typer.main.get_command(app)
ROOT.load_all()
Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder below a project's, and a home without anything."""
    folder = tmp_path / "project" / "deep" / "here"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("GEOSEG_CONFIG", raising=False)
    monkeypatch.setattr("geoseg_cli.cli.config_layers.user_file", lambda: tmp_path / "user.toml")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "project" / "geoseg.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def user(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "user.toml"
        path.write_text(text)
        return path

    return write


def shown(run: Run, *words: str) -> dict[str, tuple[object, str]]:
    done = run("config", "show", "--json", *words)
    assert done.code == 0, done.err
    return {row["option"]: (row["value"], row["source"]) for row in json.loads(done.out)["options"]}


def test_flag_then_variable_then_project_then_user_then_default_decide(
    run: Run, project: Write, user: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(run, "classify")["tile"] == (None, "default")
    path = user("[defaults]\nmajority = 20\n[classify]\ntile = 20\n")
    assert shown(run, "classify")["tile"] == (20, str(path))
    for text in ("[defaults]\ntile = 30\n", "[defaults]\ntile = 30\n[classify]\ntile = 31\n"):
        path = project(text)
        assert shown(run, "classify")["tile"] == (31 if "31" in text else 30, str(path))
    monkeypatch.setenv("GEOSEG_TILE", "40")
    assert shown(run, "classify")["tile"] == (40, "GEOSEG_TILE")
    monkeypatch.setenv("GEOSEG_CLASSIFY_TILE", "41")
    assert shown(run, "classify")["tile"] == (41, "GEOSEG_CLASSIFY_TILE")
    assert shown(run, "cloudmask")["tile"] == (40, "GEOSEG_TILE")
    assert shown(run, "classify", "--tile", "50")["tile"] == (50, "flag")
    assert shown(run, "classify")["majority"][0] == 20
    assert shown(run, "classify")["overlap"] == (None, "default")


def test_a_command_takes_what_is_configured_and_a_flag_beats_it(run: Run, project: Write, tmp_path: Path) -> None:
    project("[models.list]\njson = true\n")
    assert isinstance(json.loads(run("models", "list").out), list)
    project("[cloudmask]\ndry-run = true\ntile = 0\n")
    done = run("cloudmask", tmp_path / "none.tif")
    assert done.code == 78
    project("[composite]\nmin-count = 3\noutput = 'configured.tif'\n")
    done = run("composite", tmp_path, "--min-count", "0")
    assert done.code == 2, "the flag is looked at, not the configured value"
    assert run("composite", tmp_path).code == 66, "the required option was found in the file"


def test_what_stands_in_the_file_reaches_the_run(run: Run, project: Write, tmp_path: Path) -> None:
    write_map(tmp_path / "maps/1.tif", np.full((4, 4), WORLDCOVER.values[0], np.uint8), 1)
    project("[composite]\nmin-count = 2\n")
    done = run("composite", tmp_path / "maps", "-o", tmp_path / "out.tif", "--json", "-q")
    report = json.loads(done.out)
    assert (report["min_count"], report["too_rarely_seen_pixels"]) == (2, 16)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[clasify]\ntile = 3\n", ("line 1", "clasify is an unknown table", "classify")),
        ("[classify]\n\ntiles = 3\n", ("line 3", "no option 'tiles'", "tile")),
        ("[defaults]\nenginee = 'onnx'\n", ("line 2", "'enginee'", "engine")),
        ("tile = 3\n", ("line 1", "key outside of a table", "defaults")),
        ("[classify]\ntile = 'big'\n", ("line 2", "tile is 'big'", "--help")),
        ("[classify]\ntile = 512.5\n", ("line 2", "tile is 512.5", "--help")),
        ("[classify]\ntile = 0\n", ("line 2", "tile is 0", "--help")),
        ("[classify]\ntile = true\n", ("line 2", "tile is True", "--help")),
        ("[classify]\ncrop = 'yes'\n", ("line 2", "not true or false", "--help")),
        ("[classify]\nfill = 'swir22=0.1'\n", ("line 2", "not a list", "--help")),
        ("[classify]\nengine = 'tensorflow'\n", ("line 2", "tensorflow", "--help")),
        ("[scene.info]\nno = 3\n", ("line 2", "[scene.info] has no option 'no'", "")),
        ("[defaults]\nblend = 'blur'\n", ("line 2", "blur", "correct")),
        ("[classify]\nversion = true\n", ("line 2", "no option 'version'", "")),
        ("[classify\n", ("is no TOML", "", "correct it")),
        (f"[classify]\ntile = {'9' * 5000}\n", ("is no TOML", "", "correct it")),
        ("[config]\n", ("config is an unknown table", "", "")),
    ],
)
def test_what_a_file_cannot_say_ends_with_78_naming_file_line_and_key(
    run: Run, project: Write, tmp_path: Path, text: str, told: tuple[str, ...]
) -> None:
    path = project(text)
    done = run("classify", tmp_path / "none.tif")
    assert done.code == 78
    assert str(path) in done.err
    for words in told:
        assert words in done.err


@pytest.mark.parametrize("key", ["allow-network = true", "allow-driver = ['VRT']", "overwrite = true"])
@pytest.mark.parametrize("table", ["classify", "defaults"])
def test_a_file_that_came_with_data_cannot_switch_on_what_is_dangerous(
    run: Run, project: Write, user: Write, tmp_path: Path, table: str, key: str
) -> None:
    path = project(f"[{table}]\n{key}\n")
    done = run("classify", tmp_path / "none.tif")
    assert (done.code, "may not be set by a file that can come with data" in done.err) == (78, True)
    assert run("--config", path, "classify", tmp_path / "none.tif").code == 78
    path.unlink()
    user(f"[{table}]\n{key}\n")
    assert run("classify", tmp_path / "none.tif").code == 66
    assert shown(run, "classify")[key.split()[0]][1] == str(tmp_path / "user.toml")


def test_every_dangerous_option_of_every_command_is_guarded() -> None:
    """New ones must be called so that the rule finds them."""
    from geoseg_cli.cli.config_layers import is_guarded, leaves, options_of

    names = {param.name for _, command in leaves(ROOT) for param in options_of(command).values()}
    assert {name for name in names if is_guarded(name)} >= {"allow_network", "allow_driver", "overwrite"}
    words = ("network", "driver", "trust", "pickle", "unsafe", "insecure", "scheduler", "overwrite")
    assert not {name for name in names if any(word in name for word in words) and not is_guarded(name)}


def test_variables_that_cannot_be_used_are_named(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in (("GEOSEG_TILE", "many"), ("GEOSEG_CLASSIFY_CROP", "perhaps"), ("GEOSEG_CONFIG", "nowhere")):
        with monkeypatch.context() as patch:
            patch.setenv(name, text)
            done = run("classify", tmp_path / "none.tif")
            assert (done.code, name in done.err, text in done.err) == (78, True, True)


def test_variables_of_other_commands_and_programs_change_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("GEOSEG_VERSION", "GEOSEG_REAL_DATA", "GEOSEG_HELP", "GEOSEG_NONSENSE"):
        monkeypatch.setenv(name, "17")
    monkeypatch.setenv("GEOSEG_FORMAT", "gtiff")  # of classify; export has another --format, or none
    assert run("classify", tmp_path / "none.tif").code == 66
    assert shown(run, "classify")["format"] == ("gtiff", "GEOSEG_FORMAT")
    assert run("doctor").code == 0


def test_paths_of_a_file_begin_at_its_folder(run: Run, project: Write, tmp_path: Path) -> None:
    project("[classify]\nout-dir = 'maps'\nmodel = './own'\n[cloudmask]\nmodel = 'cloud-lale'\n")
    found = shown(run, "classify")
    assert os.path.normpath(str(found["out-dir"][0])) == str(tmp_path / "project/maps")
    assert os.path.normpath(str(found["model"][0])) == str(tmp_path / "project/own")
    assert shown(run, "cloudmask")["model"][0] == "cloud-lale"


def test_the_named_file_stands_in_the_place_of_the_nearest(run: Run, project: Write, tmp_path: Path) -> None:
    path = project("[classify]\ntile = 31\n")
    other = tmp_path / "other.toml"
    other.write_text("[classify]\nblend = 'trim'\n")
    named = {row["option"] for row in json.loads(run("--config", other, "config", "show", "--json").out)["options"]}
    assert named == {"blend"}
    assert run("config", "path").out.splitlines() == [str(path), str(tmp_path / "user.toml")]
    assert run("--config", os.devnull, "config", "show").out == "nothing is set: every option has its default\n"


def test_a_named_file_whose_name_no_system_takes_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOSEG_CONFIG", "x" * 5000)
    assert run("classify", "none.tif").code == 78


def test_help_is_there_for_who_has_to_repair_a_file(run: Run, project: Write) -> None:
    project("[nonsense]\n")
    assert run("classify", "--help").code == 0
    assert run("--help").code == 0
    assert run("config", "path").code == 0
    assert run("config", "show").code == 78


def test_show_prints_a_table_and_refuses_unknown_commands(run: Run, project: Write) -> None:
    path = project("[defaults]\nengine = 'onnx'\n")
    lines = [line.split() for line in run("config", "show").out.splitlines()]
    assert ["classify", "--engine", "onnx", str(path)] in lines
    assert run("config", "show", "nothing").code == 2
    assert run("config", "show", "scene", "nothing").code == 2


def test_defaults_reach_only_commands_whose_option_takes_them(project: Write) -> None:
    files = read_files(ROOT, project("[defaults]\njson = true\nschema = 'scl'\n"))
    assert default_map(ROOT, files, {}, "cloudmask") == {"cloudmask": {"json": True, "schema": "scl"}}
    assert default_map(ROOT, files, {}, "classify") == {"classify": {"json": True}}
    assert default_map(ROOT, files, {}, "scene")["scene"]["info"] == {"json": True}
    with pytest.raises(ConfigError):
        read_files(ROOT, project("[defaults]\nschema = 'other'\n"))


def test_names_of_variables() -> None:
    assert variable_of((), "max-memory") == "GEOSEG_MAX_MEMORY"
    assert variable_of(("scene", "info"), "json") == "GEOSEG_SCENE_INFO_JSON"


def test_help_reads_no_configuration_and_loads_no_reader_of_it() -> None:
    code = (
        "import sys\nsys.argv = ['geoseg', '--help']\nfrom geoseg_cli.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('tomllib', 'geoseg_cli.cli.config_layers') if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == "[]"
