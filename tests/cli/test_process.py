"""The tool as a process of its own, with the shipped bundles: signals, limits, pipes, start-up."""

from __future__ import annotations

import array
import fcntl
import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window

from geoseg_cli.training.bundle_recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "sample_scenes" / "l2a_12_bands.tif"
GEOSEG = [sys.executable, "-m", "geoseg_cli"]
OPENVINO = importlib.util.find_spec("openvino") is not None
GRAPH_ENGINES = ("onnx", "openvino") if OPENVINO else ("onnx",)


@pytest.fixture(scope="module")
def large_scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample scene repeated 4 x 4, so that a run lasts long enough to be interrupted."""
    path = tmp_path_factory.mktemp("large") / "scene.tif"
    with rasterio.open(SAMPLE) as source:
        pixels, profile, names = source.read(), source.profile, source.descriptions
        scales, offsets = source.scales, source.offsets
    with rasterio.open(path, "w", **profile | {"height": 2048, "width": 2048}) as file:
        for row in range(4):
            for col in range(4):
                file.write(pixels, window=Window(512 * col, 512 * row, 512, 512))
        file.descriptions, file.scales, file.offsets = names, scales, offsets
    return path


def wait_for_work(folder: Path, process: subprocess.Popen[str]) -> None:
    """Return when the run has begun to write, or fail."""
    limit = time.monotonic() + 120
    while not any(path.name.startswith(".") for path in folder.iterdir()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_with_its_code_and_leaves_the_old_output(
    large_scene: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    output = tmp_path / "map.tif"
    output.write_bytes(b"old")
    process = subprocess.Popen(
        [*GEOSEG, "classify", str(large_scene), "-o", str(output), "--overwrite", "--tile", "64", "--overlap", "32"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_work(tmp_path, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, "")
    assert "interrupted" in err
    assert "Traceback" not in err
    # Finished rows may be there, given up by their process, for the next run.
    assert [path.name for path in tmp_path.iterdir() if ".map.tif.part-0-" not in path.name] == ["map.tif"]
    assert output.read_bytes() == b"old"


@pytest.mark.parametrize("place", ["a destructor", "an error of a library"])
def test_a_signal_is_not_lost_where_python_drops_exceptions(tmp_path: Path, place: str) -> None:
    """As inside GDAL's messages, which C calls back: what is raised there is dropped and the run goes on."""
    code = f"""
import os, signal, sys, time
import rasterio
from geoseg_cli.cli import main

class Dropped:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)

def run(*arguments, **options):
    if {place!r} == "a destructor":
        Dropped()
    else:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        except BaseException:
            raise ValueError("made of it")
    for _ in range(300):
        time.sleep(0.1)

rasterio.open = run
sys.argv = ["geoseg", "classify", {str(SAMPLE)!r}, "-o", {str(tmp_path / "map.tif")!r}]
main()
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, "")
    assert done.stderr.endswith("finished rows of a large scene are kept\n")
    assert time.monotonic() - began < 20
    assert not list(tmp_path.iterdir())


def test_a_signal_while_a_message_is_written_ends_with_its_code(tmp_path: Path) -> None:
    """Standard error is a full pipe: the signal meets a write that waits, and Python refuses a second one inside it."""
    many = [str(tmp_path / f"nowhere_{number}.tif") for number in range(1500)]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen([*GEOSEG, "classify", *many], stderr=subprocess.PIPE, text=True, env=buffered)
    assert process.stderr is not None
    waiting, before = array.array("i", [0]), -1
    while waiting[0] < 60_000 or waiting[0] != before:
        before = waiting[0]
        time.sleep(0.5)
        fcntl.ioctl(process.stderr, termios.FIONREAD, waiting)
        assert process.poll() is None, "more messages are needed to fill the pipe"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "geoseg: interrupted" in err
    assert "internal error" not in err


def test_a_killed_run_leaves_the_old_output_and_the_next_run_cleans_up(large_scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.tif"
    output.write_bytes(b"old")
    arguments = [*GEOSEG, "classify", str(large_scene), "-o", str(output), "--overwrite"]
    process = subprocess.Popen([*arguments, "--tile", "64", "--overlap", "32"], stderr=subprocess.PIPE, text=True)
    wait_for_work(tmp_path, process)
    process.kill()
    process.wait()
    assert output.read_bytes() == b"old"
    done = subprocess.run([*GEOSEG, "classify", str(SAMPLE), "-o", str(output), "--overwrite", "-q"], check=True)
    assert done.returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"map.tif", "map.tif.aux.xml", "map.qml", "map.json"}
    with rasterio.open(output) as file:
        assert file.shape == (512, 512)


def test_a_disk_that_fills_up_during_the_run_ends_with_74_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on file size stands for the full disk: the write fails where the disk would be full."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    done = subprocess.run(
        [*GEOSEG, "classify", str(SAMPLE), "-o", str(tmp_path / "map.tif"), "-q"],
        preexec_fn=limit, capture_output=True, text=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (74, "")
    assert "\n  -> " in done.stderr
    assert not list(tmp_path.iterdir())


def test_cuda_that_is_not_there_ends_with_69_and_the_reason(tmp_path: Path) -> None:
    done = subprocess.run(
        [*GEOSEG, "classify", str(SAMPLE), "-o", str(tmp_path / "map.tif"), "--device", "cuda:99"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (69, "")
    assert "cuda" in done.stderr.lower()
    assert not list(tmp_path.iterdir())


def test_auto_says_in_one_line_what_it_chose_and_why(tmp_path: Path) -> None:
    done = subprocess.run(
        [*GEOSEG, "classify", str(SAMPLE), "-o", str(tmp_path / "map.tif"), "--device", "cpu"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if "engine" in line]
    assert len(lines) == 1
    assert f"{'openvino' if OPENVINO else 'onnx'} on cpu" in lines[0]


@pytest.mark.parametrize("command", ["classify", "cloudmask"])
def test_all_engines_give_the_same_map_to_9999_of_10000_pixels(tmp_path: Path, command: str) -> None:
    maps = []
    for engine in (*GRAPH_ENGINES, "torch"):
        output = tmp_path / f"{engine}.tif"
        arguments = [command, str(ROOT / "sample_scenes" / "l1c_13_bands.tif"), "-o", str(output), "--engine", engine,
                     "--precision", "fp32"]  # fmt: skip
        subprocess.run([*GEOSEG, *arguments, "-q"], check=True, capture_output=True)
        with rasterio.open(output) as file:
            maps.append(file.read(1))
            assert file.tags()["GEOSEG_ENGINE"] == engine
    assert all((maps[0] == other).mean() >= 0.9999 for other in maps[1:])
    assert len(np.unique(maps[0])) > 2


@pytest.mark.parametrize("engine", [*GRAPH_ENGINES, "torch"])
def test_labels_do_not_depend_on_batch_or_threads(tmp_path: Path, engine: str) -> None:
    maps = []
    for batch, threads in (("1", "1"), ("5", "2")):
        output = tmp_path / f"{batch}.tif"
        subprocess.run(
            [*GEOSEG, "classify", str(SAMPLE), "-o", str(output), "--engine", engine, "--batch", batch, "-q"],
            check=True, env={**os.environ, "OMP_NUM_THREADS": threads},
        )  # fmt: skip
        with rasterio.open(output) as file:
            maps.append(file.read(1))
    np.testing.assert_array_equal(maps[0], maps[1])


def test_the_path_of_a_graph_on_a_cpu_never_loads_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from geoseg_cli.cli import main\n"
        f"sys.argv = ['geoseg', 'classify', {str(SAMPLE)!r}, '-o', {str(tmp_path / 'm.tif')!r}, '-q']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_nothing_is_written_under_home(tmp_path: Path) -> None:
    """ONNX Runtime would keep a data base of events there, OpenVINO an identifier, and may send them away."""
    home = tmp_path / "home"
    home.mkdir()
    arguments = ["classify", str(SAMPLE), "-o", str(tmp_path / "map.tif"), "-q"]
    env = {**os.environ, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([*GEOSEG, *arguments], check=True, env=env)
    assert not list(home.rglob("*"))


def test_the_path_on_stdout_feeds_a_pipeline(tmp_path: Path) -> None:
    script = f"'{sys.executable}' -m geoseg_cli classify '{SAMPLE}' --out-dir '{tmp_path}' -q | xargs ls"
    done = subprocess.run(script, shell=True, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(tmp_path / "l2a_12_bands_landcover.tif")


def test_a_reader_that_leaves_does_not_stop_the_maps(tmp_path: Path) -> None:
    scenes = f"'{SAMPLE}' '{SAMPLE.with_name('l1c_13_bands.tif')}'"
    script = f"'{sys.executable}' -m geoseg_cli classify {scenes} --out-dir '{tmp_path}' -q; echo code $? >&2"
    done = subprocess.run(f"({script}) | head -c 0", shell=True, check=True, capture_output=True, text=True)
    assert done.stderr == "code 0\n"
    assert len(list(tmp_path.glob("*.tif"))) == 2


def test_a_full_standard_output_is_named_and_the_map_is_there(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*GEOSEG, "classify", str(SAMPLE), "-o", str(tmp_path / "map.tif"), "-q"],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert done.returncode == 74
    assert "standard output" in done.stderr
    assert (tmp_path / "map.tif").exists()


@pytest.mark.parametrize("words", ["models list", "models list --json", "models show cloud-lale", "doctor"])
def test_a_full_standard_output_is_no_mistake_of_geoseg(words: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*GEOSEG, *words.split()], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 74
    assert "standard output" in done.stderr


def test_doctor_and_models_report_as_json() -> None:
    doctor = json.loads(subprocess.run([*GEOSEG, "doctor", "--json"], check=True, capture_output=True).stdout)
    runs = {engine["name"]: engine["runs"] for engine in doctor["engines"]}
    del runs["tensorrt"]  # it needs a GPU and libraries of its own
    assert runs == {"torch": True, "onnx": True, "openvino": OPENVINO}
    assert doctor["drivers"]["COG"] is True
    listed = json.loads(subprocess.run([*GEOSEG, "models", "list", "--json"], check=True, capture_output=True).stdout)
    assert [row["name"] for row in listed] == sorted(RECIPES)
    card = json.loads(
        subprocess.run([*GEOSEG, "models", "show", "landcover-lale", "--json"], check=True, capture_output=True).stdout
    )
    assert card["id"] == "landcover-lale"


def test_a_quiet_run_does_not_import_what_draws(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom geoseg_cli.cli import main\n"
        "try:\n    main(sys.argv[1:], 'geoseg')\nexcept SystemExit as end:\n    print(end.code)\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'rich'))"
    )
    arguments = ["cloudmask", str(SAMPLE), "-o", str(tmp_path / "map.tif"), "--quiet"]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1:] == ["0", "[]"], done


def test_ctrl_c_while_the_tool_is_still_imported_prints_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([*GEOSEG, "classify", str(SAMPLE)], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
