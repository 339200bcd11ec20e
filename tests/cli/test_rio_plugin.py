"""``rio geoseg`` is ``geoseg``: through rasterio's own ``rio``, with the entry point of the distribution."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from rasterio.rio.main import main_group

from geoseg_cli.rio_plugin import command

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample_scenes" / "l1c_13_bands.tif"
GROUP, ENTRY = "rasterio.rio_commands", "geoseg_cli.rio_plugin:command"
GEOSEG = [sys.executable, "-m", "geoseg_cli"]
RIO = [
    sys.executable,
    "-c",
    "import sys; from rasterio.rio.main import main_group; sys.exit(main_group(prog_name='rio'))",
]


def test_the_distribution_registers_the_command() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert stated["entry-points"][GROUP] == {"geoseg": ENTRY}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the command is registered as an installed distribution registers it."""
    site = tmp_path_factory.mktemp("site")
    folder = site / "geoseg-0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: geoseg\nVersion: 0\n")
    (folder / "entry_points.txt").write_text(f"[{GROUP}]\ngeoseg = {ENTRY}\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)]), "PYTHONDONTWRITEBYTECODE": "1"}


def ran(command: list[str], env: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, env=env, timeout=240)


def test_rio_lists_the_command(installed: dict[str, str]) -> None:
    done = ran(RIO, installed, "--help")
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if line.split()[:1] == ["geoseg"]]
    assert "Map land cover and clouds" in line


def test_rio_loads_nothing_of_geoseg_but_the_plugin(installed: dict[str, str]) -> None:
    code = "import sys, rasterio.rio.main; print(*sorted(m for m in sys.modules if m.split('.')[0] in sys.argv))"
    looked = [sys.executable, "-c", code, "geoseg_cli", "typer", "rich", "torch", "onnxruntime"]
    assert ran(looked, installed).stdout.split() == ["geoseg_cli", "geoseg_cli.rio_plugin", "geoseg_cli.version"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("models", "list"),
        ("classify", "nowhere.tif"),
        ("classify", SAMPLE, "--no-such-option"),
        ("classify", SAMPLE, "--bounds", "1 2 3"),
        ("verify", SAMPLE),
        ("cloudmask", SAMPLE, "--dry-run", "--json", "-q"),
        ("nonsense",),
        (),
    ],
    ids=lambda value: " ".join(Path(str(word)).name for word in value) or "nothing",
)
def test_streams_and_exit_code_are_those_of_geoseg(
    installed: dict[str, str], tmp_path: Path, arguments: tuple[object, ...]
) -> None:
    environment = {**installed, "COLUMNS": "100"}
    mine = ran(GEOSEG, environment, *arguments)
    through_rio = ran(RIO, environment, "geoseg", *arguments)

    def told(text: str) -> list[str]:
        # Usage texts name the tool as it was called, and pad their lines; what is free in memory moves.
        text = text.replace("rio geoseg", "geoseg").replace("python -m geoseg_cli", "geoseg")
        return [line.rstrip() for line in re.sub(r'"limit_bytes": \d+', "limit", text).splitlines()]

    assert through_rio.returncode == mine.returncode
    assert told(through_rio.stdout) == told(mine.stdout)
    assert told(through_rio.stderr) == told(mine.stderr)
    assert mine.stdout + mine.stderr, "nothing was compared"


def test_help_is_that_of_geoseg_under_its_name_in_rio(installed: dict[str, str]) -> None:
    done = ran(RIO, installed, "geoseg", "classify", "--help")
    assert done.returncode == 0
    assert "Usage: rio geoseg classify" in done.stdout
    assert "--mask-clouds" in done.stdout


def test_a_map_through_rio_is_the_same_file(installed: dict[str, str], tmp_path: Path) -> None:
    environment = {**installed, "SOURCE_DATE_EPOCH": "1700000000"}
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert ran(GEOSEG, environment, "cloudmask", SAMPLE, "--out-dir", tmp_path / "a", "-q").returncode == 0
    done = ran(RIO, environment, "geoseg", "cloudmask", SAMPLE, "--out-dir", tmp_path / "b", "-q")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'b' / 'l1c_13_bands_cloudmask.tif'}\n")
    left, right = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab")
    assert left == right
    assert len(left) == 4


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("aws_profile", "--aws-profile"),
        ("aws_no_sign_requests", "--aws-no-sign-requests"),
        ("aws_requester_pays", "--aws-requester-pays"),
    ],
)
def test_options_of_rio_that_would_get_lost_are_refused(name: str, option: str) -> None:
    assert option in {flag for parameter in main_group.params for flag in parameter.opts}
    rio = click.Context(main_group)
    rio.params = {name: True}
    context = command.make_context("geoseg", ["--version"], parent=rio)
    with context, pytest.raises(click.UsageError, match=f"{option} does not reach geoseg"):
        command.invoke(context)


def test_an_option_of_rio_that_would_get_lost_ends_with_2(installed: dict[str, str]) -> None:
    done = ran(RIO, installed, "--aws-no-sign-requests", "geoseg", "--version")
    assert (done.returncode, done.stdout) == (2, "")
    assert "AWS_NO_SIGN_REQUEST=YES" in done.stderr
