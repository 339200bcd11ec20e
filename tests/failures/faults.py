"""Ways to run geoseg while something goes wrong beside it: the disk, a signal, another writer, a network."""

from __future__ import annotations

import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.failures.case import Done, Made
from tests.failures.shell import OLD, Shell

SECRET = "planted-secret"

Runner = Callable[[Shell, Made, list[str]], Done]


def while_the_scene_changes(shell: Shell, made: Made, arguments: list[str]) -> Done:
    """Somebody appends to the scene as soon as the network runs."""
    from geoseg_cli.engines.onnx_engine import OnnxEngine

    answer = OnnxEngine.run

    def run(engine: OnnxEngine, pixels: Any) -> Any:
        with made.scene.open("ab") as stream:
            stream.write(b"more")
        return answer(engine, pixels)

    shell.monkeypatch.setattr(OnnxEngine, "run", run)
    return shell.here(arguments)


def with_files_up_to(size_bytes: int) -> Runner:
    """No file may grow beyond a size: the write fails there as on a full disk."""

    def run(shell: Shell, made: Made, arguments: list[str]) -> Done:
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, most))
        try:
            return shell.here(arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
            signal.signal(signal.SIGXFSZ, before)

    return run


def while_another_run_holds_it(shell: Shell, made: Made, arguments: list[str]) -> Done:
    """The output's lock is taken."""
    from geoseg_cli.results.lock import OutputLock

    with OutputLock([shell.output]):
        return shell.here(arguments)


def without_room(shell: Shell, made: Made, arguments: list[str]) -> Done:
    """The file system says that 100 bytes are free."""
    import geoseg_cli.results.commit

    shell.monkeypatch.setattr(geoseg_cli.results.commit, "free_bytes", lambda folder: 100)
    return shell.here(arguments)


def without_permission(shell: Shell, made: Made, arguments: list[str]) -> Done:
    """Permission bits do not stop root, so the answer of the operating system is replaced."""
    allowed = os.access
    shell.monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK and allowed(path, mode))
    return shell.here(arguments)


def killed(times: int) -> Runner:
    """``kill -9`` at random times after the work began; each time the old map or the whole new one lies there."""

    def run(shell: Shell, made: Made, arguments: list[str]) -> Done:
        random.seed(0)
        hits = 0
        for _ in range(times):
            shell.output.write_bytes(OLD)
            before = set(shell.output.parent.iterdir())
            process = shell.start(arguments)
            while process.poll() is None and set(shell.output.parent.iterdir()) <= before:
                time.sleep(0.005)
            time.sleep(random.uniform(0, 0.15))
            process.send_signal(signal.SIGKILL)
            process.communicate()
            hits += process.returncode == -signal.SIGKILL
            assert shell.output.read_bytes() == OLD or _is_right(shell.output, made)
        assert hits, "every run had ended before it was killed"
        return shell.here(arguments)

    return run


def beside_each_other(count: int, rounds: int = 1) -> Runner:
    """Several processes map the same scene at the same time; all maps are right."""

    def run(shell: Shell, made: Made, arguments: list[str]) -> Done:
        for _ in range(rounds):
            outputs = [shell.folder / f"map_{number}.tif" for number in range(count)]
            place = arguments.index("-o") + 1
            commands = [[*arguments[:place], str(path), *arguments[place + 1 :], "--overwrite"] for path in outputs]
            processes = [shell.start(command) for command in commands]
            for process in processes:
                _, err = process.communicate(timeout=600)
                assert process.returncode == 0, err
            assert all(_is_right(path, made) for path in outputs)
        return shell.here(arguments)

    return run


def in_its_folder(shell: Shell, made: Made, arguments: list[str]) -> Done:
    """The scene is named without its folder."""
    shell.monkeypatch.chdir(made.scene.parent)
    named = made.scene.name if not made.scene.name.startswith("-") else f"./{made.scene.name}"
    return shell.here([named if word == str(made.scene) else word for word in arguments])


def with_environment(**environment: str) -> Runner:
    """In a process of its own with these variables."""
    return lambda shell, made, arguments: shell.child(arguments, environment)


def from_a_server(trouble: str = "") -> Runner:
    """The scene lies on a server of this machine, which is asked once and answers in its own way."""

    def run(shell: Shell, made: Made, arguments: list[str]) -> Done:
        from geoseg_cli.scenes import network

        shell.monkeypatch.setitem(network.GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY", "0")
        shell.monkeypatch.setitem(network.GDAL_OPTIONS, "GDAL_HTTP_TIMEOUT", "1")
        with served(made.scene.parent, trouble) as address:
            named = f"{address}/{made.scene.name}?signature={SECRET}"
            done = shell.here([named if word == str(made.scene) else word for word in arguments])
        assert SECRET not in done.out + done.err
        return done

    return run


@contextmanager
def served(folder: Path, trouble: str) -> Iterator[str]:
    """Address of a folder; ``trouble`` is a status such as ``500``, ``stall``, ``cut`` or nothing."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(folder, trouble))
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()


def _handler(folder: Path, trouble: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """HEAD and GET with ranges; ``late`` troubles begin behind the first 16 kB, where the pixels lie."""

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            self.answer()

        def answer(self) -> None:
            body = (folder / self.path.lstrip("/").partition("?")[0]).read_bytes()
            first, _, last = self.headers.get("Range", "bytes=0-").partition("=")[2].partition("-")
            start, stop = int(first), min(int(last or len(body)) + 1, len(body))
            is_late = start >= 16_384
            if trouble.isdigit() or (trouble == "late 500" and is_late):
                return self.send_error(int(trouble.rpartition(" ")[2]))
            if trouble == "stall" or (trouble == "late stall" and is_late):
                time.sleep(3)
                return None
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(body)}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(stop - start))
            self.end_headers()
            if self.command == "GET":
                cut = trouble == "late cut" and is_late
                self.wfile.write(body[start : start + (stop - start) // 2] if cut else body[start:stop])
            self.close_connection = True
            return None

        def log_message(self, format: str, *arguments: Any) -> None:
            """Tests are quiet."""

    return Handler


def _is_right(path: Path, made: Made) -> bool:
    import rasterio

    try:
        with rasterio.open(path) as file:
            return bool((file.read(1) == made.answer).all())
    except rasterio.errors.RasterioError:
        return False
