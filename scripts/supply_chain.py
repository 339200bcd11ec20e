"""What geoseg is made of: pins with hashes, known weaknesses, licences, bill of materials, reproducible wheel.

    python scripts/supply_chain.py pin        write requirements/linux-x86_64-cp311.txt anew
    python scripts/supply_chain.py audit      ask a service for known weaknesses of the pinned versions
    python scripts/supply_chain.py licences   list the licences of all run-time dependencies
    python scripts/supply_chain.py sbom FILE  write a CycloneDX bill of materials of the run-time dependencies
    python scripts/supply_chain.py wheel      build the wheel twice and compare the bytes

Exit codes: 0 all is well, 1 it is not, 3 it could not be found out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PINS = ROOT / "requirements" / "linux-x86_64-cp311.txt"
LICENCES = ROOT / "requirements" / "licences.toml"
HEADER = """\
# Every package of a development environment with the SHA-256 of its file, for CPython 3.11 on Linux x86-64, torch for
# CPUs. Made by `python scripts/supply_chain.py pin`; how it is used stands in docs/supply_chain.md.
"""
EPOCH = "1704067200"
"""Time stamp of the two wheels, 2024-01-01."""
NOT_KNOWN = 3


def main() -> int:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("pin", "audit", "licences", "wheel"):
        commands.add_parser(name)
    commands.add_parser("sbom").add_argument("file", type=Path)
    given = parser.parse_args()
    if given.command == "sbom":
        return sbom(given.file)
    return {"pin": pin, "audit": audit, "licences": licences, "wheel": wheel}[given.command]()


def declared(*, development: bool) -> list[str]:
    """Requirements that ``pyproject.toml`` declares, optional ones too; those of development and building if asked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    found = list(project["project"]["dependencies"])
    for extra in project["project"]["optional-dependencies"].values():
        found += extra
    if development:
        found += [*project["dependency-groups"]["dev"], *project["build-system"]["requires"]]
    return found


def pin() -> int:
    """Resolve what is declared, install nothing, and write down what would have been."""
    with tempfile.TemporaryDirectory() as scratch:
        wanted = Path(scratch) / "wanted.txt"
        wanted.write_text("\n".join(declared(development=True)), encoding="utf-8")
        resolve = [
            sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-",
            "-r", str(wanted),
        ]  # fmt: skip
        done = subprocess.run(resolve, capture_output=True, text=True)
    if done.returncode:
        print(f"pip could not resolve the requirements:\n{done.stderr}", file=sys.stderr)
        return NOT_KNOWN
    text = pins_text(json.loads(done.stdout))
    PINS.write_text(text, encoding="utf-8", newline="\n")
    print(f"{PINS.relative_to(ROOT)}: {text.count('==')} packages")
    return 0


def pins_text(report: Mapping[str, Any]) -> str:
    """A requirements file of pip's installation report: names, versions and hashes, not where they came from.

    Raises:
        ValueError: A file has no SHA-256.
    """
    lines = []
    for item in report["install"]:
        name, version = canonicalize_name(item["metadata"]["name"]), item["metadata"]["version"]
        digest = item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256")
        if not re.fullmatch("[0-9a-f]{64}", digest or ""):
            raise ValueError(f"pip tells no SHA-256 of {name} {version}")
        lines.append(f"{name}=={version} --hash=sha256:{digest}")
    return HEADER + "\n".join(sorted(lines)) + "\n"


def pins() -> dict[str, str]:
    """Name -> version of every pinned package."""
    lines = (line for line in PINS.read_text(encoding="utf-8").splitlines() if not line.startswith("#"))
    return dict(line.split(" ", 1)[0].split("==", 1) for line in lines)


def audit() -> int:
    """Ask for known weaknesses; a version that nobody answered for is not called safe."""
    with tempfile.TemporaryDirectory() as scratch:
        # Services know 2.13.0, not the build 2.13.0+cpu of it.
        asked = Path(scratch) / "asked.txt"
        asked.write_text("".join(f"{name}=={v.partition('+')[0]}\n" for name, v in pins().items()), encoding="utf-8")
        command = [
            sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--progress-spinner", "off",
            "-f", "json", "-r", str(asked),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
    code, text = judge_audit(done.stdout, done.stderr)
    print(text)
    return code


def judge_audit(answer: str, messages: str) -> tuple[int, str]:
    """Exit code and text of what pip-audit answered.

    Args:
        answer: Its standard output, JSON where it could ask.
        messages: Its standard error.
    """
    try:
        rows = json.loads(answer)["dependencies"]
    except (ValueError, KeyError, TypeError):
        reason = (messages.strip().splitlines() or ["it said nothing"])[-1]
        return NOT_KNOWN, f"the service for weaknesses could not be asked; nothing is known. pip-audit: {reason}"
    weak = [
        f"{row['name']} {row['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'no version'}"
        for row in rows
        for one in row.get("vulns", ())
    ]
    unasked = [f"{row['name']}: not asked, {row['skip_reason']}" for row in rows if "skip_reason" in row]
    asked = f"{len(rows) - len(unasked)} versions were asked for, {len(weak)} weaknesses are known"
    if len(unasked) == len(rows):
        return NOT_KNOWN, f"the service for weaknesses knows none of the {len(rows)} packages; nothing is known"
    return 1 if weak else NOT_KNOWN if unasked else 0, "\n".join([*weak, *unasked, asked])


def runtime_packages() -> dict[str, Distribution]:
    """Everything installed that the run-time requirements lead to, by name, optional ones where they are installed.

    Raises:
        PackageNotFoundError: One that is not optional is not installed.
    """
    optional = {Requirement(text).name for text in declared(development=False)} - {
        Requirement(text).name for text in _required()
    }
    waiting = [Requirement(text) for text in declared(development=False)]
    found: dict[str, Distribution] = {}
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found or not _applies(wanted):
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            if wanted.name not in optional:
                raise
            continue
        waiting += [Requirement(text) for text in found[name].requires or ()]
    return dict(sorted(found.items()))


def _required() -> list[str]:
    return list(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])


def _applies(wanted: Requirement) -> bool:
    """Whether a requirement counts here; those of extras of other packages do not."""
    return wanted.marker is None or bool(wanted.marker.evaluate({"extra": ""}))


def licences() -> int:
    """One line a package; what is not known to be allowed is refused."""
    rules = tomllib.loads(LICENCES.read_text(encoding="utf-8"))
    rows = [(name, dist.version, *licence_of(name, dist, rules)) for name, dist in runtime_packages().items()]
    for name, version, licence, _ in rows:
        print(f"{name} {version}: {licence}")
    refused = [f"{name} {version}: {reason}" for name, version, _, reason in rows if reason]
    print("\n".join([*refused, f"{len(rows)} run-time dependencies, {len(refused)} refused"]))
    return 1 if refused else 0


def licence_of(name: str, package: Distribution, rules: Mapping[str, Any]) -> tuple[str, str]:
    """A package's licence as an SPDX expression, and why it is refused; no reason where it is not."""
    if name in rules["packages"]:
        return rules["packages"][name]["licence"], ""
    stated = package.metadata.get("License-Expression")
    trove = [line.removeprefix("License :: ") for line in package.metadata.get_all("Classifier") or ()]
    known = sorted({rules["classifiers"][line] for line in trove if line in rules["classifiers"]})
    expression = stated or " AND ".join(known)
    if not expression:
        return "unknown", "states no licence that is known here; look, and add it to requirements/licences.toml"
    if not is_allowed(expression, rules["allowed"]):
        return expression, f"{expression} is not allowed; see requirements/licences.toml"
    return expression, ""


def is_allowed(expression: str, allowed: Iterable[str]) -> bool:
    """Whether every AND part of an expression, or one of its OR parts, is allowed; brackets are not understood."""
    names = set(allowed)
    if "(" in expression:
        return False
    return any(all(part in names for part in choice.split(" AND ")) for choice in expression.split(" OR "))


def sbom(file: Path) -> int:
    """Write a bill of materials of the run-time dependencies that are installed here, and validate it."""
    command = [
        sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--sv", "1.6", "--of", "JSON",
        "--pyproject", str(ROOT / "pyproject.toml"), sys.executable,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"cyclonedx-py failed: {done.stderr}", file=sys.stderr)
        return NOT_KNOWN
    bill = only_runtime(json.loads(done.stdout), set(runtime_packages()))
    text = json.dumps(bill, indent=2) + "\n"
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    trouble = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if trouble:
        print(f"the bill of materials does not fit its schema: {trouble}", file=sys.stderr)
        return 1
    file.write_text(text, encoding="utf-8", newline="\n")
    print(f"{file}: {len(bill['components'])} components, valid CycloneDX 1.6")
    return 0


def only_runtime(bill: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """A bill of an environment without what is there for development alone, and without places on this machine."""
    kept = [one for one in bill["components"] if canonicalize_name(one["name"]) in names]
    for component in (*kept, bill["metadata"]["component"]):
        references = component.get("externalReferences", [])
        component["externalReferences"] = [one for one in references if not one["url"].startswith("file:")]
    references = {one["bom-ref"] for one in (*kept, bill["metadata"]["component"])}
    edges = [
        edge | ({"dependsOn": [to for to in edge["dependsOn"] if to in references]} if "dependsOn" in edge else {})
        for edge in bill.get("dependencies", ())
        if edge["ref"] in references
    ]
    return {**bill, "components": kept, "dependencies": edges}


def wheel() -> int:
    """Build the wheel in two places, under two file masks and time zones, and compare the bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        surroundings = (
            (Path(scratch) / "one", 0o022, "UTC"),
            (Path(scratch) / "another" / "place", 0o077, "Asia/Tokyo"),
        )
        built = [build_wheel(folder, umask, zone) for folder, umask, zone in surroundings]
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in built]
        for path, digest in zip(built, digests, strict=True):
            print(f"{digest}  {path.name}")
    print("the same bytes twice" if len(set(digests)) == 1 else "the bytes differ")
    return 0 if len(set(digests)) == 1 else 1


def build_wheel(folder: Path, umask: int, zone: str) -> Path:
    """Copy what a wheel is made of into a folder and build it there."""
    source = folder / "source"
    source.mkdir(parents=True)
    for name in ("geoseg_cli", "models"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copy
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(source)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "TZ": zone}
    subprocess.run(command, check=True, env=environment, umask=umask)
    (path,) = folder.glob("geoseg-*.whl")
    return path


if __name__ == "__main__":
    sys.exit(main())
