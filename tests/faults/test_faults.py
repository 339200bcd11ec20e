"""Faults at file operations: some of them always, all with ``-m slow``; and proof that a lost output is seen."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.campaign import (
    Fault,
    faults_of,
    faults_of_gdal,
    opened_stages,
    run_all,
    state_of,
    table_of,
    try_fault,
)
from tests.faults.shim import ACTS
from tests.faults.stage import Stage, disturbed, operations

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs fork, SIGKILL and /proc")
LEAST = 500


@pytest.fixture
def stages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Stage]]:
    for name in ("OMP_NUM_THREADS", "GEOSEG_CONFIG", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, "")  # what the stages set goes back to what it was
    with opened_stages(getattr(request, "param", ())) as made:
        yield made


def troubles(results: list[object]) -> list[object]:
    return [result for result in results if getattr(result, "trouble")]  # noqa: B009


@pytest.mark.parametrize("stages", [("over an older map",)], indirect=True)
def test_outputs_survive_faults_that_are_drawn_from_all(stages: dict[str, Stage]) -> None:
    (stage,) = stages.values()
    drawn = random.Random(0)
    faults = drawn.sample(faults_of(stage), 12) + faults_of_gdal(stage, 2)
    results = run_all(stages, faults, jobs=1)
    assert troubles(results) == [], table_of(results)
    assert {result.state for result in results} >= {"old", "new"}


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_outputs_survive_every_fault(stages: dict[str, Stage]) -> None:
    assert len(stages) == 4
    faults = [fault for stage in stages.values() for fault in (*faults_of(stage), *faults_of_gdal(stage, 60))]
    results = run_all(stages, faults)
    print(table_of(results))
    assert troubles(results) == [], table_of(results)
    assert len(results) >= LEAST


@pytest.mark.parametrize("stages", [("over an older map",)], indirect=True)
def test_every_kind_of_operation_is_met_and_a_lost_output_is_seen(stages: dict[str, Stage], tmp_path: Path) -> None:
    (stage,) = stages.values()
    met = [name.partition(" ")[0] for name in operations(stage, tmp_path / "out")]
    assert set(met) >= {"open", "write", "fsync", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"}
    assert {fault.kind for fault in faults_of(stage)} == set(ACTS)
    killed = stage.prepare(tmp_path / "killed")
    first_write = met.index("write") + 1
    assert disturbed(stage, killed, first_write, "KILL", tmp_path / "log").code == -9
    assert state_of(stage, dict(stage.old)) == "old"
    assert state_of(stage, dict(stage.new)) == "new"
    assert state_of(stage, {**stage.old, "map.tif": stage.new["map.tif"]}).startswith("torn: map.tif lies beside")
    assert state_of(stage, {**stage.old, "map.tif": b"half"}).startswith("torn: map.tif is neither")
    assert state_of(stage, {"sure.tif": stage.old["sure.tif"]}) == "torn: map.tif is gone"
    impossible = replace(stage, new={**stage.new, "map.tif": b"another"})
    assert "neither" in try_fault(impossible, Fault(stage.name, "KILL", len(met) + 99), 0).trouble
