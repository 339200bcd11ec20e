"""Every hostile input is refused by name, or read without what it tries: nothing touched, opened, or executed."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hostile.attacks import ATTACKS
from tests.hostile.corpus import MARKER, Attack, Payload
from tests.hostile.meet import Watch

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Met:
    """What the command did."""

    name: str
    code: int
    err: str
    touched: list[str]
    events: list[str]
    left: list[str]
    is_marked: bool


@pytest.fixture(scope="module")
def met(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Met]:
    """All attacks, met in one child process; the port that they name is open, and nobody may come."""
    folder = tmp_path_factory.mktemp("hostile")
    with socket.create_server(("127.0.0.1", 0)) as server:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
               "GEOSEG_HOSTILE_PORT": str(server.getsockname()[1])}  # fmt: skip
        command = [sys.executable, "-m", "tests.hostile.meet", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-2000:]
        server.settimeout(0)
        with pytest.raises(BlockingIOError):  # nobody waits to be let in
            server.accept()
    return {one[0]: Met(*one) for one in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("attack", ATTACKS, ids=[attack.name for attack in ATTACKS])
def test_an_attack_ends_with_its_code_and_reason_and_does_nothing(met: dict[str, Met], attack: Attack) -> None:
    found = met[attack.name]
    assert found.code == attack.code, found.err
    assert attack.says in found.err
    assert "Traceback" not in found.err
    assert "nobody must ever read" not in found.err
    assert found.left == ([] if attack.code else ["map.json", "map.qml", "map.tif", "map.tif.aux.xml"])
    assert found.touched == []
    assert found.events == []
    assert not found.is_marked


def test_the_payload_would_execute_and_the_watch_would_see_it(tmp_path: Path) -> None:
    watch = Watch()
    watch.begin()
    pickle.loads(pickle.dumps(Payload(tmp_path)))
    with socket.socket() as one:
        one.settimeout(1)
        one.connect_ex(("127.0.0.1", 9))
    events = " ".join(watch.end())
    assert (tmp_path / MARKER).is_dir()
    assert "pickle.find_class" in events
    assert "socket.connect" in events
