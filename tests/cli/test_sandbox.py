"""The command in a child with limits: the same map, no network, no secrets, and a named end at each limit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from geoseg_cli.cli.sandbox import Limits, kept_environment, run_limited
from geoseg_cli.errors import EngineError, StorageError
from tests.hostile.attacks import ATTACKS
from tests.hostile.corpus import build

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample_scenes" / "l2a_12_bands.tif"
GEOSEG = [sys.executable, "-m", "geoseg_cli"]
ENV = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
QUICK = ("--engine", "onnx", "--device", "cpu")

LOOK = """
import json, os, resource, socket, sys
from geoseg_cli.cli import sandbox
sandbox._is_inside = True
limits = sandbox.Limits(**json.loads(sys.argv[1]))
trouble = sandbox._leave_network()
sandbox._set_limits(limits)
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=5).close()
    connected = "connected"
except OSError as error:
    connected = type(error).__name__
kinds = ("AS", "NOFILE", "CORE", "FSIZE")
print(json.dumps([trouble, connected, [resource.getrlimit(getattr(resource, "RLIMIT_" + kind)) for kind in kinds]]))
"""


def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*GEOSEG, *map(str, arguments)], capture_output=True, text=True, env={**ENV, **more})


@pytest.mark.slow
def test_the_map_is_the_same_to_the_byte_and_the_limits_are_told(tmp_path: Path) -> None:
    maps = []
    for name, more in (("free", ()), ("boxed", ("--sandbox",))):
        output = tmp_path / name / "map.tif"
        output.parent.mkdir()
        done = run("cloudmask", SAMPLE, "-o", output, *QUICK, *more)
        assert (done.returncode, done.stdout) == (0, f"{output}\n"), done.stderr
        maps.append(output.read_bytes())
        assert ("sandbox: address space of" in done.stderr) == bool(more)
        assert done.stderr.count("sandbox:") == len(more)
    assert maps[0] == maps[1]


def test_inside_the_limits_are_set_and_nobody_can_be_reached() -> None:
    import json
    import socket

    limits = {"address_space": 3 << 30, "cpu_seconds": 60, "file_bytes": 1 << 20, "open_files": 99,
              "is_cut_off": True, "is_quiet": True}  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        command = [sys.executable, "-c", LOOK, json.dumps(limits), str(port)]
        done = subprocess.run(command, capture_output=True, text=True, env=ENV, check=True)
    trouble, connected, found = json.loads(done.stdout)
    assert found == [[3 << 30] * 2, [99] * 2, [0, 0], [1 << 20] * 2]
    if trouble:
        pytest.skip(f"this system allows no network namespace: {trouble}")
    assert connected == "OSError"


def test_the_exit_code_and_the_refusal_are_those_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "scene.tif").write_text("no raster\n" * 50)
    done = run("cloudmask", tmp_path / "scene.tif", "-q", "--sandbox", *QUICK)
    assert (done.returncode, done.stdout) == (65, "")
    assert "is no TIFF" in done.stderr
    assert done.stderr.count("geoseg:") == 1


def test_a_model_that_asks_for_too_much_memory_is_refused_by_name_and_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    attack = next(one for one in ATTACKS if one.name == "ONNX that asks for 256 GB")
    words = build(attack, tmp_path / "attack")
    arguments = [*words, "-o", str(tmp_path / "map.tif"), "--device", "cpu"]
    assert run_limited(Limits(address_space=2 << 30, cpu_seconds=100), arguments) == 69
    err = capfd.readouterr().err
    assert "ONNX Runtime failed" in err
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == ["attack"]


def test_a_child_that_is_killed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wait = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", lambda self: (wait(self) and 0) or -signal.SIGSEGV)
    with pytest.raises(StorageError, match="ended by SIGSEGV") as caught:
        run_limited(Limits(address_space=None, cpu_seconds=100, is_quiet=True), ["--version"])
    assert caught.value.exit_code == 74


def test_a_run_that_computes_for_too_long_is_ended_by_name(tmp_path: Path) -> None:
    arguments = ["cloudmask", str(SAMPLE), "-o", str(tmp_path / "map.tif"), "--tile", "32", "--overlap", "16", *QUICK]
    with pytest.raises(EngineError, match="more than 1 seconds of processor time") as caught:
        run_limited(Limits(address_space=None, cpu_seconds=1), arguments)
    assert caught.value.exit_code == 69
    assert not (tmp_path / "map.tif").exists()


def test_a_signal_reaches_the_child_and_ends_both(tmp_path: Path) -> None:
    command = [*GEOSEG, "cloudmask", str(SAMPLE), "-o", str(tmp_path / "map.tif"), "--tile", "32", "--overlap", "16",
               "--sandbox", *QUICK]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENV)
    assert process.stderr is not None
    assert "sandbox:" in process.stderr.readline()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert not (tmp_path / "map.tif").exists()


def test_keys_of_clouds_stay_outside_and_what_a_run_needs_does_not() -> None:
    given = {"AWS_SECRET_ACCESS_KEY": "x", "GOOGLE_APPLICATION_CREDENTIALS": "x", "GITHUB_TOKEN": "x", "PATH": "/bin",
             "OMP_NUM_THREADS": "2", "LC_ALL": "C", "GDAL_HTTP_USERPWD": "x", "https_proxy": "x", "LD_PRELOAD": "x",
             "GDAL_DRIVER_PATH": "x"}  # fmt: skip
    assert set(kept_environment(given)) == {"PATH", "OMP_NUM_THREADS", "LC_ALL", "MALLOC_ARENA_MAX"}
