"""The table of goals: figures are taken from what commands print, and nothing counts that was not run."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "guarantees.py"
FUZZ = """            cases equal refused unjudged wrong traceback crash hang
tiff        2,500 672 1,826 0 1 1 0 0
all        20,000      3,515     16,483          0          1          1          0          0

20000 cases, seed 0, 2 processes, 157 s, 2 bad
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("guarantees", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["guarantees"] = module
    spec.loader.exec_module(module)
    return module


def faults(survived: int, total: int) -> str:
    return json.dumps({"possible": total, "faults": total, "survived": survived, "seconds": 1}) + "\n"


def test_every_goal_stands_in_the_table_once(script: ModuleType) -> None:
    assert [goal.name for goal in script.GOALS] == [f"G{number}" for number in range(1, 13)]


def test_files_and_tests_that_commands_name_are_there(script: ModuleType) -> None:
    words = {word for goal in script.GOALS for command in (*goal.full, *goal.quick) for word in command.split()}
    named = [word for word in words if word.startswith(("tests/", "scripts/", "benchmarks/"))]
    assert len(named) > 8
    assert [word for word in named if not (SCRIPT.parents[1] / word).exists()] == []


@pytest.mark.parametrize(
    ("survived", "total", "code", "verdict"),
    [(900, 900, 0, "met"), (899, 900, 1, "not met"), (499, 499, 0, "too few"), (900, 900, 1, "not met")],
)
def test_faults_are_met_by_all_of_at_least_five_hundred(
    script: ModuleType, survived: int, total: int, code: int, verdict: str
) -> None:
    found = script.read_faults([script.Done(code, faults(survived, total))])
    assert (found.figure, found.verdict) == (f"{survived}/{total} survived", verdict)


def test_one_wrong_answer_of_any_source_is_told(script: ModuleType) -> None:
    clean = FUZZ.replace("0          1          1 ", "0          0          2 ")
    passed = script.Done(0, "....\n120 passed, 3 deselected in 5.0s\n")
    good = [script.Done(0, clean), script.Done(0, faults(700, 700)), passed]
    assert script.read_silence(good) == script.Found("0 in 20,820 runs", "met")
    for place, bad in ((0, FUZZ), (1, faults(699, 700)), (2, "1 failed, 119 passed in 5.0s")):
        runs = [script.Done(0, bad) if number == place else run for number, run in enumerate(good)]
        found = script.read_silence(runs)
        assert (found.figure[:5], found.verdict) == ("1 in ", "not met")


def test_fuzzing_that_ended_badly_or_early_is_not_met(script: ModuleType) -> None:
    assert script.read_fuzz([script.Done(1, FUZZ)]) == script.Found("20,000 files, 2 ended badly", "not met")
    few = FUZZ.replace("20000 cases", "800 cases").replace("2 bad", "0 bad")
    assert script.read_fuzz([script.Done(0, few)]).verdict == "too few"


def test_nothing_that_passed_is_not_met_and_skips_are_told(script: ModuleType) -> None:
    read = script.all_passed("tests")
    assert read([script.Done(5, "no tests ran in 0.1s")]).verdict == "not met"
    assert read([script.Done(0, "3 passed, 2 skipped in 1s")]) == script.Found("3/3 tests, 2 skipped", "met")
    assert read([script.Done(1, "1 failed, 2 passed in 1s")]) == script.Found("2/3 tests", "not met")


def test_two_different_hashes_are_not_met(script: ModuleType) -> None:
    one, other = (script.Done(0, digit * 64 + "\n") for digit in "ab")
    assert script.read_same([one, one]).verdict == "met"
    assert script.read_same([one, other]).verdict == "not met"
    assert script.read_same([one, script.Done(1, "")]).verdict == "not met"


def test_what_is_not_there_or_not_run_says_so_and_a_silent_command_is_not_met(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    goal = script.Goal("G0", "x", ("full",), (), script.read_faults, "tests/no_such_folder")
    assert script.measure(goal, False, {}).verdict == "not there"
    there = script.Goal("G0", "x", ("full",), (), script.read_faults)
    assert script.measure(there, True, {}).verdict == "not run"
    monkeypatch.setattr(script, "run", lambda command: script.Done(1, "Killed\n"))
    assert script.measure(there, False, {}).verdict == "not met"


def test_smaller_numbers_are_never_called_met(script: ModuleType) -> None:
    goal = next(goal for goal in script.GOALS if goal.name == "G3")
    found = script.Found("800 files, 0 ended badly", "met")
    assert " quick " in script.line(goal, found, True)
    assert "`--quick`" in script.page([(goal, found, True)])
    assert "| met |" not in script.page([(goal, found, True)])
    assert "`--quick`" not in script.page([(goal, found, False)])
