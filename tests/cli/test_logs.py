"""``--log-file``: what stands in it, and that no secret does, there or in any other output."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Run
from tests.cli.test_scene_options import _WithRanges
from tests.conftest import write_scene
from tests.fakes.bundles import STEP

PASSWORD, SIGNATURE, KEY, TOKEN = "planted-password", "planted-signature", "planted/secret+key==", "planted-token-xyz"
HOME_NAME = "planted-home"
PLANTED = (PASSWORD, "planted-user", SIGNATURE, KEY, TOKEN, HOME_NAME, "AKIAPLANTEDPLANTED12")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with a scene in it, beside secrets in the environment; the current folder lies in it."""
    folder = tmp_path / HOME_NAME
    (folder / "data").mkdir(parents=True)
    codes = np.random.default_rng(0).integers(0, 4, (1, 40, 50)) * STEP
    write_scene(folder / "data" / "scene.tif", codes.astype(np.float32), bands=("red",))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPLANTEDPLANTED12")
    monkeypatch.setenv("MY_SERVICE_TOKEN", TOKEN)
    monkeypatch.chdir(folder / "data")
    return folder


@pytest.fixture
def address(home: Path) -> Iterator[str]:
    """The scene on a server, with a password and a signature."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_WithRanges, directory=str(home / "data"))) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{web.server_address[1]}"
        yield f"http://planted-user:{PASSWORD}@{host}/scene.tif?sig={SIGNATURE}"
        web.shutdown()


def leaks(folder: Path, *texts: str) -> list[tuple[str, str]]:
    """Where a planted text stands: in the bytes of a file, in its name, or in one of the texts."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "scene.tif"]
    held = {path.name: path.read_bytes() for path in files}
    held |= {f"text {number}": text.encode() for number, text in enumerate(texts)}
    return [
        (name, secret) for name, data in held.items() for secret in PLANTED if secret.encode() in data + name.encode()
    ]


OUTPUTS = ("--probabilities", "p.tif", "--confidence", "c.tif", "--entropy", "e.tif", "--radiometry", "reflectance")


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize("is_remote", [False, True], ids=["file", "address"])
@pytest.mark.parametrize("file_format", ["cog", "gtiff"])
def test_a_planted_secret_appears_in_no_output_of_a_run(
    run: Run, model: Path, home: Path, address: str, log_format: str, is_remote: bool, file_format: str
) -> None:
    scene = address if is_remote else "scene.tif"
    log = ("--log-file", "run.log", "--log-format", log_format)
    done = run(
        "cloudmask", scene, "-o", "map.tif", *OUTPUTS, "--format", file_format, "--model", model, "--allow-network",
        "--json", *log,
    )  # fmt: skip
    assert done.code == 0, done.err
    page = run("report", "map.tif", "-o", "page.html", *log)
    assert page.code == 0, page.err
    found = {path.name for path in (home / "data").iterdir()}
    assert found >= {"map.tif", "map.tif.aux.xml", "map.qml", "map.json", "p.tif", "page.html", "run.log"}
    assert leaks(home / "data", done.out, done.err, page.out, page.err) == []
    assert "published" in (home / "data" / "run.log").read_text()


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_planted_secret_appears_nowhere_when_a_run_fails(
    run: Run, model: Path, home: Path, address: str, log_format: str
) -> None:
    log = ("--log-file", "run.log", "--log-format", log_format, "--model", model)
    texts = []
    for scenes in (
        [address],  # networks are not allowed
        [address.replace("scene.tif", "gone.tif"), "--allow-network"],
        ["gone.tif"],
        ["gone.tif", "scene.tif", address.replace("scene", "absent"), "--allow-network"],
    ):
        done = run("cloudmask", *scenes, *log, "--json", "--radiometry", "reflectance", "--overwrite")
        assert done.code != 0
        texts.append(done.out)
        # A message may repeat a path that was typed or is worked on, never a secret.
        texts.append(done.err.replace(HOME_NAME, ""))
    assert leaks(home / "data", *texts) == []
    assert "failed" in (home / "data" / "run.log").read_text()


def test_paths_below_the_home_folder_are_logged_with_a_tilde(run: Run, model: Path, home: Path) -> None:
    scene = home / "data" / "scene.tif"
    done = run("cloudmask", scene, "--model", model, "--log-file", "run.log", "--radiometry", "reflectance")
    assert done.code == 0, done.err
    assert done.out == f"{home / 'data' / 'scene_cloudmask.tif'}\n"  # what a program goes on with
    assert HOME_NAME not in (home / "data" / "run.log").read_text()
    (published,) = [row for row in lines(home / "data" / "run.log") if row["event"] == "published"]
    assert published["scene"] == "~/data/scene.tif"
    assert published["outputs"] == {"labels": "~/data/scene_cloudmask.tif"}


def test_a_json_log_tells_run_time_level_scene_and_event_of_every_line(run: Run, model: Path, home: Path) -> None:
    for _ in range(2):
        done = run(
            "cloudmask", "scene.tif", "gone.tif", "-q", "--model", model, "--log-file", "run.log", "--overwrite",
            "--radiometry", "reflectance",
        )  # fmt: skip
        assert done.code == 1
    rows = lines(home / "data" / "run.log")
    assert all(list(row)[:3] == ["time", "run", "level"] and row["event"] for row in rows)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", row["time"]) for row in rows)
    runs = [row["run"] for row in rows]
    assert len(set(runs)) == 2
    assert runs == sorted(runs, key=runs.index)
    first = [row for row in rows if row["run"] == runs[0]]
    assert first[0]["event"] == "start"
    assert "scene.tif gone.tif" in first[0]["arguments"]
    assert {row.get("scene") for row in first if row["event"] in ("resolved", "published")} == {"scene.tif"}
    (failed,) = [row for row in first if row["event"] == "failed"]
    assert (failed["scene"], failed["level"], failed["exit_code"]) == ("gone.tif", "error", 66)
    assert first[-1] == first[-1] | {"event": "end", "exit_code": 1, "level": "info"}
    assert "scene" not in first[-1]


def test_a_text_log_is_one_line_an_event_whatever_a_name_holds(run: Run, model: Path, home: Path) -> None:
    done = run(
        "cloudmask", "a\nb.tif", "--model", model, "--log-file", "run.log", "--log-format", "text", "--overwrite"
    )
    assert done.code == 66
    text = (home / "data" / "run.log").read_text().splitlines()
    assert all(re.match(r"\d{4}-\S+Z (INFO|ERROR) [0-9a-f]{8} \w+", line) for line in text)
    assert [line.split()[3] for line in text if " ERROR " in line] == ["failed"]
    assert text[-1].endswith(" end exit_code=66")


@pytest.mark.parametrize("name", ["map.tif", "map.json", "probabilities.tif", "link.log"])
def test_a_log_where_an_output_goes_is_refused(run: Run, model: Path, home: Path, name: str) -> None:
    """Publishing would put the output in the place of the log."""
    (home / "data" / "link.log").symlink_to("map.tif")
    done = run(
        "cloudmask", "scene.tif", "-o", "map.tif", "--probabilities", "probabilities.tif", "--model", model,
        "--overwrite", "--log-file", name, "--radiometry", "reflectance",
    )  # fmt: skip
    assert done.code == 2, done.err
    assert "the log goes to" in done.err
    assert b'"event": "start"' in (home / "data" / name).read_bytes()


def test_a_file_that_is_no_log_is_left_as_it_is(run: Run, model: Path, home: Path) -> None:
    before = (home / "data" / "scene.tif").read_bytes()
    done = run("cloudmask", "scene.tif", "--model", model, "--log-file", "scene.tif")
    assert done.code == 73
    assert "no log of geoseg" in done.err
    assert (home / "data" / "scene.tif").read_bytes() == before
    assert run("cloudmask", "scene.tif", "--model", model, "--log-file", "nowhere/run.log").code == 73


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_too_full_for_the_log_costs_no_map(run: Run, model: Path, home: Path) -> None:
    done = run("cloudmask", "scene.tif", "--model", model, "--log-file", "/dev/full", "--radiometry", "reflectance")
    assert (done.code, done.out) == (0, "scene_cloudmask.tif\n")
    assert done.err.count("cannot be written any more") == 1


def test_without_a_log_file_a_failure_is_told_once(run: Run, model: Path, home: Path) -> None:
    done = run("cloudmask", "gone.tif", "--model", model)
    assert done.err.count("gone.tif") == 1


@pytest.mark.parametrize(
    "command", ["classify", "cloudmask", "evaluate", "train", "export", "bench", "polygons", "preview", "report"]
)
def test_every_command_that_computes_takes_a_log(run: Run, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = run(command, "--help").out
    assert "--log-file" in text
    assert "--log-format" in text
