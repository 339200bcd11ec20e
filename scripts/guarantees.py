"""Measure what is promised: one table of the goals G1 to G12 with what was found beside each.

    python scripts/guarantees.py              # all of it, about an hour on two cores
    python scripts/guarantees.py --quick      # smaller numbers, some minutes; the table says so
    python scripts/guarantees.py --only G2 G3
    python scripts/guarantees.py --write      # also into docs/guarantees_measured.md

Every figure comes from a command that anybody can run alone; it stands in the table. What was not run, or is not there,
is told as that and counts for nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "guarantees_measured.md"
NO_INTERPRETER: Final = 3

Verdict = Literal["met", "not met", "too few", "not run", "not there"]


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    text: str


@dataclass(frozen=True)
class Found:
    """A figure, and whether it is what the goal wants."""

    figure: str
    verdict: Verdict


@dataclass(frozen=True)
class Goal:
    """A goal.

    Attributes:
        name: G1 to G12.
        wanted: The goal as a figure.
        full, quick: Commands behind ``python``; none for what is not run so.
        read: Takes the figure from what the commands left.
        needs: A path below the project without which there is nothing to run.
    """

    name: str
    wanted: str
    full: tuple[str, ...]
    quick: tuple[str, ...]
    read: Callable[[Sequence[Done]], Found]
    needs: str = "tests"


def pytest_summary(text: str) -> dict[str, int]:
    """How many tests passed, failed, were skipped, from the last line of pytest."""
    return {word: int(count) for count, word in re.findall(r"(\d+) (passed|failed|skipped|error)", text)}


def all_passed(unit: str) -> Callable[[Sequence[Done]], Found]:
    """Reads runs of pytest: met where something passed and nothing else happened but skips."""

    def read(runs: Sequence[Done]) -> Found:
        counts = [pytest_summary(run.text) for run in runs]
        passed, skipped = (sum(one.get(word, 0) for one in counts) for word in ("passed", "skipped"))
        is_met = passed > 0 and all(run.code == 0 for run in runs)
        bad = sum(one.get("failed", 0) + one.get("error", 0) for one in counts)
        more = f", {skipped} skipped" if skipped else ""
        return Found(f"{passed}/{passed + bad} {unit}{more}", "met" if is_met else "not met")

    return read


def read_faults(runs: Sequence[Done]) -> Found:
    """Of ``python -m tests.faults --json``."""
    told = json.loads(runs[0].text.splitlines()[0])
    is_met = told["survived"] == told["faults"]
    drawn = "" if told["faults"] == told["possible"] else f", drawn from {told['possible']:,}"
    return Found(
        f"{told['survived']:,}/{told['faults']:,} survived{drawn}", _verdict(is_met, runs, told["faults"] >= 500)
    )


def read_fuzz(runs: Sequence[Done]) -> Found:
    """Of ``python -m tests.fuzz``: its last line, and the row of all kinds above."""
    cases, bad = _fuzzed(runs[0])
    return Found(f"{cases:,} files, {bad} ended badly", _verdict(bad == 0, runs, cases >= 20_000))


def read_silence(runs: Sequence[Done]) -> Found:
    """Wrong answers without a word: those of the fuzzing, of the faults and of the table of failures."""
    fuzz, faults, failures = runs
    cases, _ = _fuzzed(fuzz)
    wrong = _wrong(fuzz)
    told, counts = json.loads(faults.text.splitlines()[0]), pytest_summary(failures.text)
    total = cases + told["faults"] + counts.get("passed", 0)
    wrong += told["faults"] - told["survived"] + counts.get("failed", 0)
    return Found(f"{wrong} in {total:,} runs", _verdict(wrong == 0, runs))


def read_memory(runs: Sequence[Done]) -> Found:
    """Of the test that maps 100,000 x 100,000 pixels."""
    peak = re.search(r"peak of resident memory: (\d+) MB", runs[0].text)
    if peak is None:
        return Found("no figure", "not met")
    return Found(f"{int(peak[1]):,} MB resident", _verdict(int(peak[1]) < 1500, runs))


def read_kills(runs: Sequence[Done]) -> Found:
    """Of the test that kills a run at random."""
    told = re.search(r"(\d+) kills survived, (\d+) reruns went on", runs[0].text)
    if told is None:
        return all_passed("test of 5 kills")(runs)
    return Found(f"{told[1]}/{told[1]} the same bytes; {told[2]} went on", _verdict(int(told[1]) >= 50, runs))


def read_batch(runs: Sequence[Done]) -> Found:
    """Of ``benchmarks/batch.py``."""
    told = json.loads(runs[0].text[runs[0].text.index("{") : runs[0].text.rindex("}") + 1])
    done, failed = (told["statuses"].get(name, 0) for name in ("done", "failed"))
    wrong = len(told["wrong_maps"])
    figure = f"{done} right maps of {told['scenes']} scenes, {failed} named failures, {wrong} wrong or missing"
    return Found(figure, _verdict(wrong == 0 and failed == told["bad"], runs))


def read_same(runs: Sequence[Done]) -> Found:
    """Of two maps of the same scene, each from a process of its own."""
    hashes = re.findall(r"^[0-9a-f]{64}$", "\n".join(run.text for run in runs), re.MULTILINE)
    is_met = len(hashes) == 2 and len(set(hashes)) == 1
    return Found("the same bytes twice on this machine; a second machine: not run", _verdict(is_met, runs))


def read_readers(runs: Sequence[Done]) -> Found:
    """Of the tests of readers, and of the comparison with another interpreter where there is one."""
    tests, other = runs
    found = all_passed("tests; Python 3.12 with rasterio 1.5: ")([tests])
    if other.code == NO_INTERPRETER:
        return Found(f"{found.figure}not run, no interpreter", found.verdict)
    is_met, how = found.verdict == "met", "equal" if other.code == 0 else "differs"
    return Found(f"{found.figure}{how}", _verdict(is_met, [other]))


def _fuzzed(run: Done) -> tuple[int, int]:
    (cases, bad) = re.findall(r"^(\d+) cases, .* (\d+) bad$", run.text, re.MULTILINE)[-1]
    return int(cases), int(bad)


def _wrong(run: Done) -> int:
    """The column of wrong answers in the row of all kinds: cases, equal, refused, unjudged, wrong ..."""
    (row,) = re.findall(r"^all +([\d, ]+)$", run.text, re.MULTILINE)
    return int(row.split()[4].replace(",", ""))


def _verdict(is_met: bool, runs: Sequence[Done], is_enough: bool = True) -> Verdict:
    if not (is_met and all(run.code == 0 for run in runs)):
        return "not met"
    return "met" if is_enough else "too few"


PYTEST: Final = "-m pytest -q -n 0 -p no:cacheprovider"
ALL: Final = f'{PYTEST} -m "slow or not slow"'
FAULTS, FUZZ = "-m tests.faults --json", "-m tests.fuzz --cases 20000"
FEW_FAULTS, FEW_FUZZ = "-m tests.faults --json --sample 60", "-m tests.fuzz --cases 800"
FAILURES, FEW_FAILURES = f"{ALL} tests/failures -k test_failure[", f"{PYTEST} tests/failures -k test_failure["
HOSTILE: Final = f"{PYTEST} tests/hostile -k an_attack_ends"
EXACT: Final = "tests/test_exactness.py tests/test_mosaic.py tests/test_predict.py"
SAME: Final = (
    f"{PYTEST} tests/test_predict.py -k do_not_depend",
    f"{PYTEST} tests/engines/test_golden.py -k reproduces",
    f"{PYTEST} tests/test_resume.py -k interrupted_anywhere",
)
READERS: Final = (f"{PYTEST} tests/results/test_readers.py tests/results/test_cog.py", "scripts/readers_312.py")
MAP: Final = "scripts/guarantees.py --map"
KILLS: Final = f"{PYTEST} -s tests/test_resume.py -k"

GOALS: Final = (
    Goal("G1", "silent wrong outputs: 0", (FUZZ, FAULTS, FAILURES), (FEW_FUZZ, FEW_FAULTS, FEW_FAILURES), read_silence),
    Goal("G2", "faults survived: N/N, N >= 500", (FAULTS,), (FEW_FAULTS,), read_faults, "tests/faults"),
    Goal("G3", "damaged inputs: >= 20,000, none ends badly", (FUZZ,), (FEW_FUZZ,), read_fuzz, "tests/fuzz"),
    Goal("G4", "hostile inputs: all refused", (HOSTILE,), (HOSTILE,), all_passed("attacks"), "tests/hostile"),
    Goal("G5", "identity model: equal in 1,000 random cases", (f"{ALL} {EXACT} -k a_thousand_times",),
         (f"{PYTEST} {EXACT} -k comes_out",), all_passed("properties, of 1,000 cases (quick: 20)")),
    Goal("G6", "labels the same for any batch, threads, order, resume, engine", SAME, SAME, all_passed("tests")),
    Goal("G7", "every output opens equal in every reader", READERS, READERS, read_readers),
    Goal("G8", "100,000 x 100,000 px in <= 1.5 GB", (f"{ALL} -s tests/failures -k 20_mapped",), (), read_memory),
    Goal("G9", "50 kills: the rerun gives the same bytes", (f'{KILLS} fifty_kills -m "slow or not slow"',),
         (f"{KILLS} five_kills",), read_kills),
    Goal("G10", "43/43 failures named, with what helps", (FAILURES,), (FEW_FAILURES,), all_passed("cases of 43 rows")),
    Goal("G11", "1,000 scenes, 5 % bad: 950 maps, 50 named failures", ("benchmarks/batch.py --scenes 1000 --bad 50",),
         ("benchmarks/batch.py --scenes 60 --bad 3",), read_batch),
    Goal("G12", "the same bytes twice on one machine (two are not compared)", (MAP, MAP), (MAP, MAP), read_same),
)  # fmt: skip


def main() -> int:
    """Measure and print; 1 where a goal that was measured is not met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller numbers")
    parser.add_argument("--full", nargs="+", default=[], metavar="G", help="with --quick: these goals in full size")
    parser.add_argument("--only", nargs="+", default=[], metavar="G", help="only these goals")
    parser.add_argument("--write", action="store_true", help="also write docs/guarantees_measured.md")
    parser.add_argument("--map", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.map:
        return print_hash_of_a_map()
    cache: dict[str, Done] = {}
    rows = []
    for goal in GOALS:
        is_wanted = not given.only or goal.name in given.only
        is_quick = given.quick and goal.name not in given.full
        rows.append((goal, measure(goal, is_quick, cache) if is_wanted else Found("", "not run"), is_quick))
        print(line(*rows[-1]), flush=True)
    if given.write:
        PAGE.write_text(page(rows), encoding="utf-8")
    return int(any(found.verdict in ("not met", "too few") and not is_quick for _, found, is_quick in rows))


def measure(goal: Goal, is_quick: bool, cache: dict[str, Done]) -> Found:
    """Run a goal's commands, each once for all goals, and take its figure."""
    commands = goal.quick if is_quick else goal.full
    if not (ROOT / goal.needs).exists():
        return Found("", "not there")
    if not commands:
        return Found("", "not run")
    runs = []
    for number, command in enumerate(commands):
        key = f"{command} {number}" if command == MAP else command
        if key not in cache:
            cache[key] = run(command)
        runs.append(cache[key])
    try:
        return goal.read(runs)
    except (ValueError, KeyError, IndexError) as error:  # a command that ended before it told its figures
        last = runs[0].text.strip().splitlines()[-1:] or ["nothing"]
        return Found(f"no figure ({type(error).__name__}): {last[0][:100]}", "not met")


def run(command: str) -> Done:
    """Run a command behind this interpreter."""
    import shlex

    surroundings: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *shlex.split(command)], cwd=ROOT, env=surroundings, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return Done(done.returncode, done.stdout)


def print_hash_of_a_map() -> int:
    """Map a sample scene in this process, and print the hash of the file."""
    from geoseg_cli.cli import main as geoseg

    os.environ["SOURCE_DATE_EPOCH"] = "1767312000"
    scene = ROOT / "sample_scenes" / "l2a_12_bands.tif"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "map.tif"
        try:
            geoseg(["classify", str(scene), "-o", str(out), "--engine", "onnx", "--device", "cpu", "-q"], "geoseg")
        except SystemExit as stop:
            if stop.code:
                return 1
        print(hashlib.sha256(out.read_bytes()).hexdigest())
    return 0


def line(goal: Goal, found: Found, is_quick: bool) -> str:
    """A row of the table for people at a terminal."""
    return f"{goal.name:4} {goal.wanted:66} {told(goal, found, is_quick):9} {found.figure}"


def told(goal: Goal, found: Found, is_quick: bool) -> str:
    """The verdict; a smaller number shows that the check works, not that the goal is met."""
    is_smaller = is_quick and goal.quick != goal.full
    return "quick" if is_smaller and found.verdict in ("met", "too few") else found.verdict


def page(rows: Sequence[tuple[Goal, Found, bool]]) -> str:
    """The page: goals, figures, commands and machine; no dates."""
    is_any_quick = any(is_quick for _, _, is_quick in rows)
    head = "Rows called quick hold smaller numbers than the goals ask for (`--quick`).\n\n" if is_any_quick else ""
    lines = [
        "# What was measured of the promises\n",
        f"{head}Written by `python scripts/guarantees.py --write` on {machine()}. What is promised stands in",
        "[guarantees.md](guarantees.md). Commands stand behind `python`.\n",
        "| | goal | measured | | commands |", "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for goal, found, is_quick in rows:
        commands = "<br>".join(f"`{one}`" for one in dict.fromkeys(goal.quick if is_quick else goal.full))
        lines.append(f"| {goal.name} | {goal.wanted} | {found.figure} | {told(goal, found, is_quick)} | {commands} |")
    return "\n".join(lines) + "\n"


def machine() -> str:
    """The machine in words that tell nobody whose it is."""
    return f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
