"""Pins, licences, bill of materials and the wheel's bytes: what the commands of ``scripts/supply_chain.py`` say."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def chain() -> ModuleType:
    spec = importlib.util.spec_from_file_location("supply_chain", ROOT / "scripts" / "supply_chain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def requirements_of(*sections: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    texts = {
        "run": project["project"]["dependencies"],
        "optional": [text for extra in project["project"]["optional-dependencies"].values() for text in extra],
        "dev": project["dependency-groups"]["dev"],
        "build": project["build-system"]["requires"],
    }
    found = [Requirement(text) for section in sections for text in texts[section]]
    return [one for one in found if one.marker is None or one.marker.evaluate({"sys_platform": "linux"})]


def test_every_declared_package_is_pinned_to_a_version_that_the_declaration_takes(chain: ModuleType) -> None:
    pins = chain.pins()
    for wanted in requirements_of("run", "optional", "dev", "build"):
        pinned = pins[canonicalize_name(wanted.name)]
        assert SpecifierSet(str(wanted.specifier)).contains(pinned, prereleases=True), (wanted, pinned)


def test_what_installs_the_folder_in_place_is_pinned(chain: ModuleType) -> None:
    """Nothing is fetched beside the pins; ``editables`` is asked for by the build backend only when it runs."""
    assert {"hatchling", "editables"} <= set(chain.pins())


def test_every_installed_run_time_dependency_is_pinned(chain: ModuleType) -> None:
    installed = set(chain.runtime_packages())
    assert {"numpy", "torch", "rasterio", "pydantic-core", "pyparsing"} <= installed  # direct ones, and theirs
    assert installed - set(chain.pins()) == set()


def test_a_line_of_the_pins_is_a_name_a_version_and_one_hash_and_no_place(chain: ModuleType) -> None:
    lines = chain.PINS.read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.+!]+ --hash=sha256:[0-9a-f]{64}", row) for row in rows)
    assert rows == sorted(rows)
    assert not re.search(r"://|index|/(?:home|root|opt|tmp|work)/", "\n".join(lines))


def test_pins_tell_hashes_and_not_where_a_file_came_from(chain: ModuleType) -> None:
    def item(name: str, digest: str | None) -> dict[str, Any]:
        hashes = {"archive_info": {"hashes": {"sha256": digest}}} if digest else {}
        return {
            "metadata": {"name": name, "version": "1.2"},
            "download_info": {"url": "https://user:word@index.example/x.whl", **hashes},
        }

    text = chain.pins_text({"install": [item("Some_Thing", "ab" * 32), item("other", "cd" * 32)]})
    assert text.splitlines()[-2:] == [
        f"other==1.2 --hash=sha256:{'cd' * 32}",
        f"some-thing==1.2 --hash=sha256:{'ab' * 32}",
    ]
    assert "example" not in text
    with pytest.raises(ValueError, match="no SHA-256 of other"):
        chain.pins_text({"install": [item("other", None)]})


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        ("", 3, "could not be asked"),
        ('{"dependencies": []}', 3, "nothing is known"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 3, "nothing is known"),
        (
            '{"dependencies": [{"name": "a", "skip_reason": "not found"}, {"name": "b", "version": "1", "vulns": []}]}',
            3,
            "a: not asked, not found",
        ),
        ('{"dependencies": [{"name": "b", "version": "1", "vulns": []}]}', 0, "1 versions were asked for, 0 weak"),
        (
            '{"dependencies": [{"name": "b", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}',
            1,
            "b 1: CVE-1, mended in 2",
        ),
    ],
)
def test_an_audit_calls_safe_only_what_was_asked_for_and_answered(
    chain: ModuleType, answer: str, code: int, told: str
) -> None:
    found, text = chain.judge_audit(answer, "connection refused")
    assert found == code
    assert told in text


def test_the_licence_of_every_run_time_dependency_is_known_and_allowed(
    chain: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chain.licences() == 0
    lines = capsys.readouterr().out.splitlines()
    for wanted in requirements_of("run"):
        version = distribution(wanted.name).version
        assert any(line.startswith(f"{canonicalize_name(wanted.name)} {version}: ") for line in lines)
    assert not any("unknown" in line for line in lines)


@pytest.mark.parametrize(
    ("fields", "is_refused"),
    [
        ({"License-Expression": "MIT"}, False),
        ({"License-Expression": "MIT OR GPL-3.0-only"}, False),
        ({"License-Expression": "MIT AND GPL-3.0-only"}, True),
        ({"License-Expression": "(MIT OR ISC) AND MIT"}, True),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, False),
        ({"Classifier": "License :: OSI Approved :: BSD License"}, True),
        ({"License": "MIT"}, True),
        ({}, True),
    ],
)
def test_a_licence_that_is_not_stated_clearly_or_not_allowed_is_refused(
    chain: ModuleType, tmp_path: Path, fields: dict[str, str], is_refused: bool
) -> None:
    from importlib.metadata import PathDistribution

    folder = tmp_path / "thing-1.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.4", "Name: thing", "Version: 1", *(f"{k}: {v}" for k, v in fields.items())]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")
    rules = tomllib.loads(chain.LICENCES.read_text(encoding="utf-8"))
    assert bool(chain.licence_of("thing", PathDistribution(folder), rules)[1]) == is_refused


def test_exceptions_of_licences_are_of_packages_that_are_used_and_have_reasons(chain: ModuleType) -> None:
    rules = tomllib.loads(chain.LICENCES.read_text(encoding="utf-8"))
    assert set(rules["packages"]) <= set(chain.pins())
    assert all(row["licence"] and row["reason"] for row in rules["packages"].values())


def test_a_bill_keeps_what_runs_and_no_place_on_a_disk(chain: ModuleType) -> None:
    place = {"type": "distribution", "url": "file:///home/somebody/x.whl"}
    parts = [
        {"bom-ref": "a", "name": "A_b", "externalReferences": [place, {"type": "website", "url": "https://a.example"}]},
        {"bom-ref": "c", "name": "pytest"},
    ]
    edges = [{"ref": "root", "dependsOn": ["a", "c"]}, {"ref": "c", "dependsOn": ["a"]}, {"ref": "a"}]
    bill = chain.only_runtime(
        {"metadata": {"component": {"bom-ref": "root"}}, "components": parts, "dependencies": edges}, {"a-b"}
    )
    assert [part["name"] for part in bill["components"]] == ["A_b"]
    assert bill["dependencies"] == [{"ref": "root", "dependsOn": ["a"]}, {"ref": "a"}]
    assert "somebody" not in json.dumps(bill)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("cyclonedx_py") is None, reason="needs cyclonedx-bom")
def test_the_bill_of_materials_lists_every_installed_run_time_dependency(chain: ModuleType, tmp_path: Path) -> None:
    assert chain.sbom(tmp_path / "sbom.json") == 0
    bill = json.loads((tmp_path / "sbom.json").read_text())
    listed = {canonicalize_name(part["name"]): part["version"] for part in bill["components"]}
    assert listed == {name: package.version for name, package in chain.runtime_packages().items()}
    assert bill["metadata"]["component"]["name"] == "geoseg"
    assert str(Path(sys.prefix)) not in json.dumps(bill)


@pytest.mark.slow
def test_the_wheel_has_the_same_bytes_wherever_and_whenever_it_is_built(
    chain: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chain.wheel() == 0
    assert "the same bytes twice" in capsys.readouterr().out
