"""Completion is really installed in a home of its own, and answers what a shell asks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from geoseg_cli.cli.options import bundle_names
from geoseg_cli.shipped import bundle_folders

ROOT = Path(__file__).resolve().parents[2]

INTERACTIVE = """
source "$HOME/.bashrc"
COMP_WORDS=({words})
COMP_CWORD={place}
_geoseg_completion geoseg
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """A home without anything, and the tool on the path under its own name."""
    programs = tmp_path / "bin"
    programs.mkdir()
    tool = programs / "geoseg"
    tool.write_text(f"#!{sys.executable}\nfrom geoseg_cli.cli import main\nmain()\n")
    tool.chmod(0o755)
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    home = tmp_path / "home"
    home.mkdir()
    return {**os.environ, "HOME": str(home), "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def bash(home: dict[str, str]) -> dict[str, str]:
    """The same after ``geoseg --install-completion``, run by the shell that it is for."""
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    done = subprocess.run(["bash", "-c", "geoseg --install-completion; true"], env=home, capture_output=True, text=True)
    assert "bash completion installed" in done.stdout, done.stderr
    return home


def completed(environment: dict[str, str], *words: str) -> list[str]:
    script = INTERACTIVE.format(words=" ".join(f"'{word}'" for word in words), place=len(words) - 1)
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_bash_completes_commands_options_engines_and_bundles(bash: dict[str, str]) -> None:
    assert completed(bash, "geoseg", "cla") == ["classify"]
    assert completed(bash, "geoseg", "classify", "--mask") == ["--mask-clouds"]
    assert completed(bash, "geoseg", "classify", "--engine", "o") == ["onnx", "openvino"]
    names = [folder.name for folder in bundle_folders()]
    assert completed(bash, "geoseg", "classify", "--model", "") == names
    assert len(names) > 1


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_a_script_that_they_can_read(home: dict[str, str], shell: str) -> None:
    asked = {**home, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(["geoseg", "--show-completion", shell], env=asked, capture_output=True, text=True)
    assert f"_GEOSEG_COMPLETE=complete_{shell}" in done.stdout
    if shutil.which(shell):
        check = subprocess.run([shell, "-n"], input=done.stdout, env=home, capture_output=True, text=True)
        assert check.returncode == 0, check.stderr


def test_names_of_bundles_are_found_without_heavy_packages() -> None:
    code = (
        "import sys\nfrom geoseg_cli.cli.options import bundle_names\nfound = bundle_names('cloud-')\n"
        "print(found, [name for name in ('numpy', 'pydantic', 'torch', 'rasterio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{bundle_names('cloud-')} []"
    assert bundle_names("cloud-")
