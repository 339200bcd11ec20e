from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoseg_cli.errors import AccessError, BusyError, OutputError, StorageError, UsageError
from geoseg_cli.results import cog as cog_module
from geoseg_cli.results import commit as commit_module
from geoseg_cli.results.cog import write_cog
from geoseg_cli.results.commit import OutputTransaction
from geoseg_cli.results.qgis_style import MARK
from geoseg_cli.results.raster import RasterSpec, WorkRaster

posix = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
MAP, SIDECAR, REPORT = "map.tif", "map.tif.aux.xml", "report.json"


def publish(folder: Path, content: str, *, overwrite: bool = True, names: tuple[str, ...] = (MAP, REPORT)) -> None:
    targets = [folder / name for name in names]
    with OutputTransaction(targets, overwrite) as transaction:
        for target in targets:
            transaction.path(target).write_text(content)
        transaction.commit()


def state(folder: Path) -> dict[str, str]:
    """Name -> content of the visible files."""
    return {p.name: p.read_text() for p in sorted(folder.iterdir()) if not p.name.startswith(".")}


def work_folders(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if ".part-" in p.name]


@pytest.fixture
def old(tmp_path: Path) -> dict[str, str]:
    """Old outputs with an old sidecar, in tmp_path."""
    for name in (MAP, SIDECAR, REPORT):
        (tmp_path / name).write_text(f"old {name}")
    return state(tmp_path)


def test_nothing_is_visible_before_the_commit_and_everything_after(tmp_path):
    targets = [tmp_path / MAP, tmp_path / REPORT]
    with OutputTransaction(targets) as transaction:
        for target in targets:
            transaction.path(target).write_text("new")
        transaction.scratch("work.tif").write_text("scratch")
        assert state(tmp_path) == {}
        transaction.commit()
        assert state(tmp_path) == {MAP: "new", REPORT: "new"}
    assert work_folders(tmp_path) == []


def test_leaving_without_commit_leaves_nothing(tmp_path, old):
    with OutputTransaction([tmp_path / MAP], overwrite=True) as transaction:
        transaction.path(tmp_path / MAP).write_text("half")
    assert state(tmp_path) == old
    assert work_folders(tmp_path) == []


@pytest.mark.parametrize("trouble", [ValueError, KeyboardInterrupt, SystemExit])
def test_any_exception_leaves_the_old_files_and_no_work_folder(tmp_path, old, trouble):
    def work() -> None:
        with OutputTransaction([tmp_path / MAP], overwrite=True) as transaction:
            transaction.path(tmp_path / MAP).write_text("half")
            raise trouble

    with pytest.raises(trouble):
        work()
    assert state(tmp_path) == old
    assert work_folders(tmp_path) == []


def test_files_in_several_folders_are_made_on_their_own_file_systems(tmp_path):
    targets = [tmp_path / "a" / MAP, tmp_path / "b" / MAP]
    for target in targets:
        target.parent.mkdir()
    with OutputTransaction(targets) as transaction:
        for target in targets:
            assert transaction.path(target).is_relative_to(target.parent)
            transaction.path(target).write_text(target.parent.name)
        transaction.commit()
    assert [target.read_text() for target in targets] == ["a", "b"]
    assert work_folders(tmp_path / "a") == work_folders(tmp_path / "b") == []


def test_relative_targets_stay_where_they_were_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with OutputTransaction([Path(MAP)]) as transaction:
        (tmp_path / "elsewhere").mkdir()
        transaction.path(Path(MAP)).write_text("new")
        monkeypatch.chdir(tmp_path / "elsewhere")
        transaction.commit()
    assert (tmp_path / MAP).read_text() == "new"


def test_published_files_have_the_permissions_of_ordinary_files(tmp_path):
    mask = os.umask(0o022)
    try:
        publish(tmp_path, "new")
    finally:
        os.umask(mask)
    assert (tmp_path / MAP).stat().st_mode & 0o777 == 0o644


def test_very_long_names_work(tmp_path):
    name = "ü" * 120 + ".tif"
    publish(tmp_path, "new", names=(name,))
    assert state(tmp_path) == {name: "new"}
    (tmp_path / name).unlink()


def test_gdal_can_write_files_with_very_long_names(tmp_path, grid, labels, make_work):
    out = tmp_path / ("x" * 250 + ".tif")
    with OutputTransaction([out]) as transaction:
        work = make_work(RasterSpec(grid(1100, 1100)), labels(1100, 1100)[None], transaction.scratch("labels.tif"))
        write_cog(work, transaction.path(out))
        transaction.commit()
    assert [p.name for p in tmp_path.iterdir()] == [out.name]


def test_names_longer_than_the_file_system_allows_are_refused_before_work(tmp_path):
    refusal(OutputError, tmp_path / ("x" * 300 + ".tif"))


def test_forgetting_a_target_is_a_mistake_of_ours(tmp_path, old):
    with OutputTransaction([tmp_path / MAP, tmp_path / REPORT], overwrite=True) as transaction:
        transaction.path(tmp_path / MAP).write_text("new")
        with pytest.raises(RuntimeError, match="not written"):
            transaction.commit()
    assert state(tmp_path) == old


# What is refused before any work


def refusal(error: type[Exception], *targets: Path, **options: object) -> Exception:
    with pytest.raises(error) as caught, OutputTransaction(targets, **options):
        pytest.fail("the block must not start")
    assert all(not work_folders(t.parent) for t in targets if t.parent.is_dir())
    return caught.value


def test_an_existing_target_needs_overwrite(tmp_path, old):
    error = refusal(OutputError, tmp_path / MAP)
    assert (error.exit_code, str(tmp_path / MAP) in error.message, "--overwrite" in error.hint) == (73, True, True)
    assert state(tmp_path) == old


def test_a_dangling_link_counts_as_existing(tmp_path):
    (tmp_path / MAP).symlink_to(tmp_path / "nowhere")
    refusal(OutputError, tmp_path / MAP)


def test_a_missing_folder_is_named(tmp_path):
    error = refusal(OutputError, tmp_path / "gone" / MAP)
    assert "mkdir -p" in error.hint


def test_a_file_in_place_of_the_folder_is_named(tmp_path, old):
    refusal(OutputError, tmp_path / MAP / "map.tif")


def test_a_folder_in_place_of_the_target_is_named(tmp_path):
    (tmp_path / MAP).mkdir()
    refusal(OutputError, tmp_path / MAP, overwrite=True)


def test_a_folder_without_write_permission_is_an_access_error(tmp_path, monkeypatch):
    # os.access is replaced because root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    error = refusal(AccessError, tmp_path / MAP)
    assert error.exit_code == 77


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_an_access_error(tmp_path):
    tmp_path.chmod(0o555)
    try:
        refusal(AccessError, tmp_path / MAP)
    finally:
        tmp_path.chmod(0o755)


def test_two_equal_targets_are_a_contradiction(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    refusal(UsageError, tmp_path / MAP, tmp_path / MAP)
    refusal(UsageError, tmp_path / MAP, tmp_path / "link" / MAP)


def test_an_input_cannot_be_a_target_under_any_name(tmp_path, old):
    (tmp_path / "soft.tif").symlink_to(tmp_path / MAP)
    os.link(tmp_path / MAP, tmp_path / "hard.tif")
    for name in (MAP, "soft.tif", "hard.tif"):
        error = refusal(UsageError, tmp_path / name, overwrite=True, inputs=[tmp_path / MAP])
        assert "both input and output" in error.message


def test_too_little_space_is_refused(tmp_path):
    with OutputTransaction([tmp_path / MAP]) as transaction:
        transaction.require_space(1)
        with pytest.raises(StorageError, match=r"1000000000000 MB") as caught:
            transaction.require_space(10**18, tmp_path / MAP)
    assert caught.value.exit_code == 74


# Sidecars and links


def test_stale_sidecars_go_with_the_old_file(tmp_path, old):
    publish(tmp_path, "new")
    assert state(tmp_path) == {MAP: "new", REPORT: "new"}


def test_sidecars_that_appear_for_a_new_file_go_too(tmp_path):
    (tmp_path / SIDECAR).write_text("from a file long gone")
    publish(tmp_path, "new", overwrite=False)
    assert state(tmp_path) == {MAP: "new", REPORT: "new"}


def test_a_sidecar_that_is_published_itself_stays(tmp_path, old):
    publish(tmp_path, "new", names=(MAP, SIDECAR))
    assert state(tmp_path) == {MAP: "new", SIDECAR: "new", REPORT: old[REPORT]}


def test_a_link_is_replaced_and_what_it_points_to_is_kept(tmp_path):
    (tmp_path / "precious.tif").write_text("precious")
    (tmp_path / MAP).symlink_to("precious.tif")
    publish(tmp_path, "new", names=(MAP,))
    assert not (tmp_path / MAP).is_symlink()
    assert state(tmp_path) == {MAP: "new", "precious.tif": "precious"}


# Two runs at once


def test_a_target_that_appears_meanwhile_is_not_overwritten(tmp_path):
    with OutputTransaction([tmp_path / REPORT, tmp_path / MAP]) as transaction:
        transaction.path(tmp_path / REPORT).write_text("mine")
        transaction.path(tmp_path / MAP).write_text("mine")
        (tmp_path / MAP).write_text("theirs")
        with pytest.raises(OutputError, match="appeared while"):
            transaction.commit()
    assert state(tmp_path) == {MAP: "theirs"}, "and the other file of the pair is not there either"


def _race(folder: Path, barrier: object, refused: object, name: str) -> None:
    barrier.wait()
    try:
        with OutputTransaction([folder / MAP]) as transaction:
            transaction.path(folder / MAP).write_text(name)
            for _ in range(7):
                assert refused.acquire(timeout=60)
            transaction.commit()
    except BusyError as error:
        refused.release()
        sys.exit(error.exit_code)


@posix
def test_of_eight_runs_at_once_exactly_one_wins(tmp_path):
    context = get_context("fork")
    barrier, refused = context.Barrier(8), context.Semaphore(0)
    runs = [context.Process(target=_race, args=(tmp_path, barrier, refused, str(i))) for i in range(8)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert sorted(run.exitcode for run in runs) == [0] + [75] * 7
    winner = next(i for i, run in enumerate(runs) if run.exitcode == 0)
    assert state(tmp_path) == {MAP: str(winner)}
    assert [path.name for path in tmp_path.iterdir()] == [MAP]


# Faults at every step: every file operation of a commit fails, is interrupted, or is the process's last


def at_operation(wanted: int, act: Callable[[], None]) -> list[int]:
    """From now on, call ``act`` before the ``wanted``-th file operation; returns the counter."""
    operations = ("os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "open", "os.listdir", "os.scandir")
    counter = [0]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in operations and counter[0] >= 0:
            counter[0] += 1
            if counter[0] == wanted:
                act()

    sys.addaudithook(hook)
    os.fsync = lambda descriptor: hook("open", ())
    return counter


def in_child(body: Callable[[], int]) -> int:
    """Exit code of a function in a forked process; -9 where it was killed. Audit hooks end with it."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = body()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def operations_of_a_run(folder: Path) -> int:
    def body() -> int:
        counter = at_operation(-1, lambda: None)
        publish(folder, "new")
        return counter[0]

    return in_child(body)


def prepare(folder: Path) -> dict[str, str]:
    folder.mkdir()
    for name in (MAP, SIDECAR, REPORT):
        (folder / name).write_text(f"old {name}")
    return state(folder)


@pytest.fixture
def quick_sync(monkeypatch):
    """No waiting for the disk: these tests kill processes, not the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@posix
@pytest.mark.usefixtures("quick_sync")
def test_killed_at_any_operation_every_file_is_old_or_new_and_the_next_run_cleans_up(tmp_path):
    prepare(tmp_path / "count")
    total = operations_of_a_run(tmp_path / "count")
    assert total > 15
    kept_old = 0
    for step in range(1, total + 1):
        folder = tmp_path / str(step)
        before = prepare(folder)

        def body(step: int = step, folder: Path = folder) -> int:
            at_operation(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
            publish(folder, "new")
            return 0

        assert in_child(body) == -signal.SIGKILL
        found = state(folder)
        for name in (MAP, REPORT):
            assert found[name] in (before[name], "new"), f"step {step}"
        assert not (found[MAP] == "new" and SIDECAR in found), f"step {step}: new file with the old file's sidecar"
        kept_old += found == before
        publish(folder, "newer")
        assert state(folder) == {MAP: "newer", REPORT: "newer"}
        assert work_folders(folder) == [], f"step {step}"
    assert 0 < kept_old < total


BESIDE = ("map.tif", "map.tif.aux.xml", "map.qml", "map.json")
OURS = {
    "map.qml": f"<!-- {MARK} -->",
    "map.json": '{"stac_version": "", "properties": {"processing:software": {"geoseg": ""}}',
}


def publish_set(folder: Path, content: str) -> None:
    targets = [folder / name for name in BESIDE]
    with OutputTransaction(targets, overwrite=True) as transaction:
        for target in targets:
            transaction.path(target).write_text(described(target.name, content))
        transaction.commit()


def described(name: str, content: str) -> str:
    return f"{OURS[name]}, {json.dumps(content)}: 0}}" if name == "map.json" else f"{OURS.get(name, '')}{content}"


@posix
@pytest.mark.usefixtures("quick_sync")
def test_killed_at_any_operation_no_new_map_lies_beside_what_described_the_old_one(tmp_path):
    def body(folder: Path, step: int) -> int:
        counter = at_operation(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
        publish_set(folder, "new")
        return counter[0]

    old, new = ({name: described(name, content) for name in BESIDE} for content in ("old", "new"))
    (tmp_path / "count").mkdir()
    publish_set(tmp_path / "count", "old")
    total = in_child(lambda: body(tmp_path / "count", -1))
    assert total > 20
    halves = 0
    for step in range(1, total + 1):
        folder = tmp_path / str(step)
        folder.mkdir()
        publish_set(folder, "old")
        assert state(folder) == old
        assert in_child(lambda folder=folder, step=step: body(folder, step)) == -signal.SIGKILL
        found = state(folder)
        whole = new if found[MAP] == new[MAP] else old
        assert found.items() <= whole.items(), f"step {step}: the map is of another run than what lies beside it"
        halves += len(found) < len(BESIDE)
        publish_set(folder, "new")
        assert state(folder) == new
        assert work_folders(folder) == [], f"step {step}"
    assert halves > 0, "some kills fell between the renames"


@posix
@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_fault_at_any_operation_leaves_all_old_or_all_new(tmp_path, fault):
    prepare(tmp_path / "count")
    total = operations_of_a_run(tmp_path / "count")
    expected = {OSError: StorageError, KeyboardInterrupt: KeyboardInterrupt}[type(fault)]
    outcomes = set()
    for step in range(1, total + 1):
        folder = tmp_path / str(step)
        before = prepare(folder)

        def body(step: int = step, folder: Path = folder) -> int:
            def fail() -> None:
                raise fault

            at_operation(step, fail)
            try:
                publish(folder, "new")
            except expected:
                return 1
            except OSError:
                return 2  # writing the content is this test's own part
            return 0

        code = in_child(body)
        found = state(folder)
        assert found in (before, {MAP: "new", REPORT: "new"}), f"step {step}"
        if code == 0:
            assert found != before, f"step {step}: success was claimed"
        assert code in (0, 1, 2), f"step {step}"
        outcomes.add((code, found == before))
        publish(folder, "newer")
        assert state(folder) == {MAP: "newer", REPORT: "newer"}
        assert work_folders(folder) == [], f"step {step}"
    assert (1, True) in outcomes


@posix
@pytest.mark.parametrize("moment", ["rows", "copy", "read back", "commit"])
def test_killed_while_a_map_is_made_the_old_one_stays_and_the_next_run_completes(
    tmp_path, grid, labels, monkeypatch, moment
):
    out = tmp_path / MAP
    out.write_text("old")
    pixels = labels(1100, 600)[None]

    def make(doomed: str = "") -> int:
        def die_at(now: str) -> None:
            if now == doomed:
                os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(cog_module, "check_cog", lambda path, work: die_at("read back"))
        with OutputTransaction([out], overwrite=True) as transaction:
            with WorkRaster(transaction.scratch("work.tif"), RasterSpec(grid(1100, 600)), out) as work:
                work.write(0, pixels[:, :800])
                die_at("rows")
                work.write(800, pixels[:, 800:])
            die_at("copy")
            write_cog(work, transaction.path(out))
            die_at("commit")
            transaction.commit()
        return 0

    assert in_child(lambda: make(moment)) == -signal.SIGKILL
    assert state(tmp_path) == {MAP: "old"}
    assert len(work_folders(tmp_path)) == 1
    assert in_child(make) == 0
    assert work_folders(tmp_path) == []
    with rasterio.open(out) as file:
        assert np.array_equal(file.read(), pixels)


def test_where_putting_back_fails_the_old_files_are_kept_and_named(tmp_path, old, monkeypatch):
    real_replace = os.replace

    def replace(source: os.PathLike[str], target: os.PathLike[str]) -> None:
        if "aside" in str(source) or Path(target).name == REPORT:
            raise OSError(5, "Input/output error")
        real_replace(source, target)

    monkeypatch.setattr(commit_module.os, "replace", replace)
    with pytest.raises(StorageError, match="could not be put back") as caught:
        publish(tmp_path, "new")
    monkeypatch.undo()
    (work,) = work_folders(tmp_path)
    assert str(work) in caught.value.hint
    assert sorted(p.read_text() for p in (work / "aside").iterdir()) == sorted(old.values())


def test_without_hard_links_files_are_published_all_the_same(tmp_path, monkeypatch):
    def no_links(*args: object, **kwargs: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(commit_module.os, "link", no_links)
    publish(tmp_path, "new", overwrite=False)
    publish(tmp_path, "newer")
    assert state(tmp_path) == {MAP: "newer", REPORT: "newer"}
    with OutputTransaction([tmp_path / "c.tif"]) as transaction:
        transaction.path(tmp_path / "c.tif").write_text("mine")
        (tmp_path / "c.tif").write_text("theirs")
        with pytest.raises(OutputError):
            transaction.commit()
    assert (tmp_path / "c.tif").read_text() == "theirs"


def test_a_link_to_a_device_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for end in ("/dev/null", tmp_path / "pipe"):
        link = tmp_path / "link.tif"
        link.symlink_to(end)
        with pytest.raises(OutputError, match="device or a pipe"), OutputTransaction([link], overwrite=True):
            pass
        assert link.is_symlink()
        link.unlink()


def test_the_link_by_which_a_system_names_a_stream_is_not_replaced(tmp_path):
    """/dev/stdout leads to a plain file where the shell sends it into one."""
    with open(tmp_path / "sent.txt", "w") as file:
        link = tmp_path / "stdout"
        link.symlink_to(f"/proc/self/fd/{file.fileno()}")
        with pytest.raises(OutputError, match="device or a pipe"), OutputTransaction([link], overwrite=True):
            pass
        assert link.is_symlink()


def test_a_name_that_no_file_system_takes_is_an_output_error(tmp_path):
    (tmp_path / "scene.tif").touch()
    target = tmp_path / ("m" * 300 + ".tif")
    with pytest.raises(OutputError, match="too long"), OutputTransaction([target], inputs=[tmp_path / "scene.tif"]):
        pass


@pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")
def test_a_file_that_replaces_another_one_keeps_its_mode_and_new_ones_follow_the_umask(tmp_path: Path) -> None:
    out, sidecar, fresh = (tmp_path / name for name in ("map.tif", "map.tif.aux.xml", "new.tif"))
    for path, mode in ((out, 0o640), (sidecar, 0o600)):
        path.write_text("old")
        path.chmod(mode)
    with OutputTransaction([out, sidecar, fresh], overwrite=True) as transaction:
        for target in transaction.targets:
            transaction.path(target).write_text("new")
        usual = stat.S_IMODE(transaction.path(fresh).stat().st_mode)
        transaction.commit()
    assert out.read_text() == sidecar.read_text() == "new"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (out, sidecar, fresh)] == [0o640, 0o600, usual]


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes")
def test_a_name_that_is_not_utf_8_is_refused_before_work_starts(tmp_path: Path) -> None:
    out = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xffmap.tif"))
    with pytest.raises(OutputError, match="UTF-8"), OutputTransaction([out]):
        pass
    assert not list(tmp_path.iterdir())
