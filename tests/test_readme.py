"""The README's examples run, and print what it says they print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONSOLE = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
PYTHON = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """Every ``$ geoseg ...`` line of the README with the lines that follow it."""
    found = []
    for block in CONSOLE:
        for part in block.split("$ ")[1:]:
            line, _, shown = part.partition("\n")
            found.append((line, shown))
    return [(line, shown) for line, shown in found if line.startswith("geoseg ")]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the sample scenes in it, as a new user has one."""
    (tmp_path / "sample_scenes").symlink_to(ROOT / "sample_scenes")
    (tmp_path / "maps").mkdir()
    return tmp_path


def without_numbers_that_vary(text: str) -> list[str]:
    """Lines without the counts of class tables (another processor's rounding moves a few pixels) and the engine."""
    lines = [re.sub("engine .*", "engine #", line.rstrip()) for line in text.splitlines() if line.strip()]
    return [re.sub(r"\s+[\d,.]+%?(?=\s|$)", " #", line) if re.match(r" +\d+  ", line) else line for line in lines]


@pytest.mark.parametrize(("line", "shown"), commands(), ids=lambda value: value[:40])
def test_a_command_of_the_readme_prints_what_stands_below_it(checkout: Path, line: str, shown: str) -> None:
    command = line.replace("geoseg ", f"'{sys.executable}' -m geoseg_cli ", 1)
    done = subprocess.run(
        command, shell=True, cwd=checkout, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == 0, done.stdout
    printed = without_numbers_that_vary(done.stdout)
    for expected in without_numbers_that_vary(shown):
        if expected != "...":
            assert expected in printed, f"{expected!r} is not in\n{done.stdout}"


@pytest.mark.parametrize("code", PYTHON)
def test_python_of_the_readme_runs(checkout: Path, code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_readme_has_examples() -> None:
    assert len(commands()) >= 4
    assert len(PYTHON) == 1


def test_the_exit_codes_in_the_readme_are_those_of_the_errors() -> None:
    from geoseg_cli import errors

    stated = {int(code) for code in re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)}
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert stated == {0, 1, 70, 130, 143} | {cls.exit_code for cls in classes}


def test_files_that_the_readme_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("command", ["classify", "cloudmask"])
def test_every_option_of_the_commands_stands_in_the_readme(command: str) -> None:
    import importlib
    import inspect

    module = importlib.import_module(f"geoseg_cli.cli.{command}")
    for name in inspect.signature(module.command).parameters:
        if name != "scenes":
            flag = {"quiet": "-q", "verbose": "-v"}.get(name, f"--{name.replace('_', '-')}")
            assert f"`{flag}" in README or f" {flag}" in README or f"`{flag}`" in README, flag


def test_the_evaluation_page_shows_the_figures_of_the_shipped_bundle(checkout: Path) -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (block,) = (one for one in re.findall(r"```console\n(.*?)```", page, flags=re.DOTALL) if "mkdir -p eval" in one)
    program = re.sub(r"(?m)^[$>] ", "", block[: block.index("\ncloud-mscloudcam on eval")])
    program = program.replace("geoseg ", f"'{sys.executable}' -m geoseg_cli ")
    done = subprocess.run(program, shell=True, cwd=checkout, text=True, stdout=subprocess.PIPE, check=True)
    shown, printed = (re.findall(r"(?m)^all +(.+)$", text)[0].split() for text in (block, done.stdout))
    assert shown[:3] == printed[:3]
    for expected, found in zip(shown[3:], printed[3:], strict=True):
        assert abs(float(expected) - float(found)) <= 0.002, done.stdout
