"""Failures of files, disks, names and networks: rows 24 to 31 and 40 to 43."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import rasterio

from tests.conftest import TEN_METRES
from tests.failures import faults
from tests.failures.case import Case, Failure, Made
from tests.failures.scenes import draw, red, write_red
from tests.failures.shell import OLD, Shell

CUTS = 20
LIMITS = (5_000, 10_000, 20_000, 25_000)
"""Bytes: between what the messages of a test take and the size of a map of 300 x 300 random classes."""

NAMES = ("http:x.tif", "a#b.tif", "a%20b.tif", "a b.tif", "été ☃.tif", "a:b.tif", "-o.tif", "zip+a!b.tif", "a'b\"c.tif")
POISON = (
    "<PAMDataset><SRS>EPSG:3857</SRS><GeoTransform>1, 2, 0, 3, 0, 2</GeoTransform>"
    '<PAMRasterBand band="1"><NoDataValue>0</NoDataValue></PAMRasterBand></PAMDataset>'
)


def tiled(folder: Path) -> Made:
    """Compressed in tiles, so that what is lost can lie anywhere."""
    return red(folder, 400, 300, tiled=True, blockxsize=64, blockysize=64, compress="deflate")


def cut(folder: Path, share: float) -> Made:
    made = tiled(folder)
    content = made.scene.read_bytes()
    made.scene.write_bytes(content[: int(share * len(content))])
    return Made(made.scene)


def damaged(folder: Path) -> Made:
    """Every tile of compressed pixels begins with zeros, which no deflate stream does."""
    made = tiled(folder)
    with rasterio.open(made.scene) as file:
        ends = [file.get_tag_item(f"BLOCK_OFFSET_{x}_{y}", "TIFF", bidx=1) for x in range(5) for y in range(7)]
    content = bytearray(made.scene.read_bytes())
    for offset in filter(None, ends):
        content[int(offset) : int(offset) + 16] = bytes(16)
    made.scene.write_bytes(content)
    return Made(made.scene)


def noise(folder: Path) -> Made:
    return red(folder, 300, 300)


def named(folder: Path, name: str) -> Made:
    return write_red(folder / name, draw(90, 70))


def beside_poison(folder: Path) -> Made:
    made = red(folder)
    made.scene.with_name("scene.tif.aux.xml").write_text(POISON)
    write_red(folder / "trap.tif", np.zeros((90, 70), np.uint8))
    os.replace(folder / "trap.tif", folder / "scene.tif.ovr")
    return made


def with_old_sidecars(folder: Path) -> Made:
    out = folder.parent / "out"
    (out / "map.tif.aux.xml").write_text(POISON)
    write_red(out / "map.tif.ovr", np.zeros((45, 35), np.uint8))
    return red(folder)


def old_sidecars_are_gone(shell: Shell, made: Made) -> None:
    """Read as users do, with whatever lies beside the map."""
    assert not (shell.output.parent / "map.tif.ovr").exists()
    with rasterio.open(shell.output) as file:
        assert (file.transform, file.crs.to_epsg(), file.nodata) == (TEN_METRES, 32631, 255)


def behind_a_link(folder: Path) -> Made:
    (folder / "precious.tif").write_bytes(b"precious")
    (folder.parent / "out" / "map.tif").symlink_to(folder / "precious.tif")
    return red(folder)


def what_the_link_led_to_is_kept(shell: Shell, made: Made) -> None:
    assert (made.scene.parent / "precious.tif").read_bytes() == b"precious"
    assert not shell.output.is_symlink()


def what_the_link_led_to_is_untouched(shell: Shell, made: Made) -> None:
    assert (made.scene.parent / "precious.tif").read_bytes() == b"precious"
    assert shell.output.is_symlink()


def onto_a_folder(folder: Path) -> Made:
    (folder.parent / "out" / "map.tif").mkdir()
    return red(folder)


def onto_a_map(folder: Path) -> Made:
    (folder.parent / "out" / "map.tif").write_bytes(OLD)
    return red(folder)


def is_dated_in_utc(shell: Shell, made: Made) -> None:
    with rasterio.open(shell.output) as file:
        text = file.tags()["TIFFTAG_DATETIME"]
    written = datetime.strptime(text, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    assert abs(time.time() - written) < 600


ROWS = (
    Failure(
        24, "The scene is truncated or damaged",
        "Ends with the lost rows and columns; no map. What a compression stores without a checksum can change unseen:"
        " neither GDAL nor geoseg can tell such a pixel from a right one.",
        (
            *(Case(f"cut_{number:02}", f"GeoTIFF of which {number}/{CUTS + 1} are there",
                   lambda f, number=number: cut(f, number / (CUTS + 1)), code=74, message=("truncated",),
                   remedy=("copy or download it again",), has_old_map=True) for number in range(1, CUTS + 1)),
            Case("damaged", "GeoTIFF whose compressed tiles begin with zeros", damaged, code=74,
                 message=("cannot read rows",), remedy=("copy or download it again",), has_old_map=True),
        ),
        ("tests/scenes/test_museum.py::test_a_truncated_file_is_refused_or_reads_as_if_it_were_whole",
         "tests/scenes/test_safe.py::test_an_image_that_is_damaged_in_the_zip_is_a_storage_error"),
    ),
    Failure(
        25, "The scene changes during the run", "Looks again before the map is published, and does not publish it.",
        (Case("grows", "a file that grows while the network runs", red, code=74, message=("changed while it was read",),
              remedy=("run again",), has_old_map=True, run=faults.while_the_scene_changes),),
        ("tests/test_predict.py::test_a_scene_that_changes_during_the_run_is_refused",
         "tests/scenes/test_safe.py::test_a_file_of_the_product_that_changes_is_noticed"),
    ),
    Failure(
        26, "The disk is full", "Checks the room before anything is computed; whenever a write fails, removes what is"
        " unfinished and keeps the old map.",
        (
            Case("beforehand", "100 bytes are free", red, code=74, message=("writing can need", "MB are free"),
                 names="map.tif", remedy=("make room",), has_old_map=True, run=faults.without_room),
            *(Case(f"after_{size}", f"no file may grow beyond {size:,} bytes", noise, code=74,
                   message=("cannot write",),
                   remedy=("make room",), names="map.tif", has_old_map=True, run=faults.with_files_up_to(size))
              for size in LIMITS),
        ),
        ("tests/results/test_storage.py::test_a_full_disk_is_an_error_and_keeps_the_old_output",
         "tests/results/test_storage.py::test_threads_asked_for_by_the_environment_do_not_hide_a_full_disk",
         "tests/results/test_commit.py::test_a_fault_at_any_operation_leaves_all_old_or_all_new",
         "tests/results/test_promises.py::test_room_is_looked_for_again_before_the_finished_file_is_made",
         "tests/faults/test_faults.py::test_outputs_survive_faults_that_are_drawn_from_all",
         "tests/faults/test_faults.py::test_outputs_survive_every_fault",
         "tests/cli/test_process.py::test_a_disk_that_fills_up_during_the_run_ends_with_74_and_leaves_nothing"),
    ),
    Failure(
        27, "The run is killed, or the power fails",
        "The old map or the whole new one lies there; the next run for the same output cleans up and completes.",
        (
            Case("killed", "kill -9, 2 times at random", noise, has_old_map=True, run=faults.killed(2)),
            Case("killed_often", "kill -9, 50 times at random", noise, has_old_map=True, run=faults.killed(50),
                 is_slow=True),
        ),
        ("tests/faults/test_faults.py::test_outputs_survive_every_fault",
         "tests/results/test_promises.py::test_old_sidecars_are_gone_on_the_disk_before_the_new_map_has_its_name",
         "tests/test_resume.py::test_killed_at_any_row_of_tiles_the_next_run_gives_the_bytes_of_an_undisturbed_one",
         "tests/results/test_commit.py::test_killed_at_any_operation_every_file_is_old_or_new_and_the_next_run_cleans_up",
         "tests/results/test_commit.py::test_killed_while_a_map_is_made_the_old_one_stays_and_the_next_run_completes",
         "tests/cli/test_process.py::test_a_signal_ends_the_run_with_its_code_and_leaves_the_old_output"),
    ),
    Failure(
        28, "Two runs write the same output",
        "One run for one output: while it works a lock file beside the output names it, and any other run, with"
        " --overwrite too, is refused at once, before it computes anything. The lock of a run that died is taken over.",
        (
            Case("is_held", "another run holds the output", red, code=75, message=("is held by process", "since"),
                 names="map.tif", remedy=("wait until that run has ended", "another name"), has_old_map=True,
                 run=faults.while_another_run_holds_it),
        ),
        ("tests/results/test_commit.py::test_of_eight_runs_at_once_exactly_one_wins",
         "tests/results/test_lock.py::test_a_second_run_is_refused_and_told_who_holds_the_output_since_when",
         "tests/results/test_lock.py::test_the_lock_of_a_killed_process_is_free_at_once",
         "tests/results/test_lock.py::test_the_lock_of_a_process_that_died_here_is_taken_over_with_a_note",
         "tests/results/test_lock.py::test_another_machines_lock_holds_until_it_has_been_silent_too_long",
         "tests/results/test_commit.py::test_a_target_that_appears_meanwhile_is_not_overwritten"),
    ),
    Failure(
        29, "The output cannot be written, or is something else",
        "Refused before anything is computed. A symbolic link is replaced itself, with --overwrite; there is no option"
        " to write through it, because only a rename in the link's own folder is all or nothing: name the file that it"
        " leads to.",
        (
            Case("exists", "an older map, no --overwrite", onto_a_map, code=73, message=("exists already",),
                 remedy=("--overwrite",), names="map.tif"),
            Case("no_folder", "a folder that is not there", red, ("-o", "{folder}/none/map.tif"), code=73,
                 message=("there is no folder",), remedy=("mkdir -p",), names="none/map.tif"),
            Case("is_a_folder", "a folder of that name", onto_a_folder, ("--overwrite",), code=73,
                 message=("is a folder",), remedy=("name a file",), names="map.tif"),
            Case("is_a_device", "-o /dev/null", red, ("-o", "/dev/null", "--overwrite"), code=73,
                 message=("is a device",), remedy=("name a file",), names="/dev/null"),
            Case("no_permission", "a folder that may not be written to", red, code=77, message=("no permission",),
                 remedy=("choose another folder",), names="map.tif", run=faults.without_permission),
            Case("is_the_scene", "the scene itself", red, ("-o", "{folder}/in/scene.tif", "--overwrite"), code=2,
                 message=("both input and output",), remedy=("another file",)),
            Case("is_a_link", "a link to another file", behind_a_link, code=73, message=("exists already",),
                 remedy=("--overwrite",), names="map.tif", after=what_the_link_led_to_is_untouched),
            Case("replaces_a_link", "the same", behind_a_link, ("--overwrite",), after=what_the_link_led_to_is_kept),
        ),
        ("tests/results/test_commit.py::test_a_link_is_replaced_and_what_it_points_to_is_kept",),
    ),
    Failure(
        30, "Stale or poisoned sidecars", "Those of the scene are not read, with a warning; those of an older map go"
        " before the new one comes.",
        (
            Case("of_the_scene", "scene.tif.aux.xml with another grid, scene.tif.ovr with other pixels", beside_poison,
                 message=("scene.tif.aux.xml", "is not read")),
            Case("of_the_map", "map.tif.aux.xml with another grid, map.tif.ovr with other pixels", with_old_sidecars,
                 has_old_map=True, after=old_sidecars_are_gone),
        ),
        ("tests/scenes/test_museum.py::test_files_beside_the_scene_are_ignored",
         "tests/results/test_commit.py::test_stale_sidecars_go_with_the_old_file"),
    ),
    Failure(
        31, "The network fails",
        "Tries four times more, at least a second apart, then ends with 75, which tells schedulers to try later; never"
        " a map with holes. What is not there is 66. Networks are asked only with --allow-network.",
        (
            Case("not_allowed", "an address without --allow-network", tiled, code=65, message=("lies on a network",),
                 remedy=("--allow-network",), run=faults.from_a_server()),
            Case("works", "a server that does", tiled, ("--allow-network",), run=faults.from_a_server()),
            *(Case(name, given, tiled, ("--allow-network",), code=75, message=("network",), remedy=("try again",),
                   has_old_map=True, run=faults.from_a_server(trouble))
              for name, given, trouble in (
                  ("fails", "a server that answers 500", "500"),
                  ("forbids", "a server that answers 403", "403"),
                  ("stalls", "a server that does not answer", "stall"),
                  ("fails_later", "a server that answers 500 once the pixels are read", "late 500"),
                  ("stalls_later", "a server that stops answering once the pixels are read", "late stall"),
                  ("sends_half", "a server that sends half of the pixels", "late cut"),
            )),
            Case("is_not_there", "a server that answers 404", tiled, ("--allow-network",), code=66,
                 message=("no such file",), remedy=("check",), run=faults.from_a_server("404")),
        ),
        ("tests/scenes/test_network.py::test_a_server_that_fails_during_the_read_is_an_error_and_no_zeros",
         "tests/scenes/test_network.py::test_time_and_tries_of_gdal_are_bounded_while_a_file_is_open"),
    ),
    Failure(
        40, "Locale, time zone, unusual names",
        "Neither changes a number or a time; a name is a name.",
        (
            *(Case(f"name_{number}", f"a scene and a map called {name}", lambda f, name=name: named(f, name),
                   output=name, run=faults.in_its_folder) for number, name in enumerate(NAMES)),
            Case("locale_and_time_zone", "LC_ALL=de_DE.UTF-8, TZ=Pacific/Kiritimati", red, after=is_dated_in_utc,
                 run=faults.with_environment(LC_ALL="de_DE.UTF-8", LC_NUMERIC="de_DE.UTF-8", TZ="Pacific/Kiritimati")),
        ),
        ("tests/scenes/test_museum.py::test_odd_names_are_only_names",
         "tests/results/test_cog.py::test_odd_file_names_work",
         "tests/cli/test_scene_options.py::test_control_characters_in_a_name_reach_neither_the_terminal_nor_the_map"),
    ),
    Failure(
        41, "A map of other input, options or model is taken for this run's",
        "A file of that name is never taken for the result because it exists: it is refused, or replaced with"
        " --overwrite. A folder's journal keeps for each map the hash of what was published and a key of everything"
        " that decides its pixels (scene, model, card, options, version); another key or hash means another run. Rows"
        " that a killed run left are gone on with only where such a key is the same and their checksums are right.",
        (
            Case("is_not_taken", "an older map", onto_a_map, code=73, message=("exists already",),
                 remedy=("--overwrite",), names="map.tif"),
            Case("is_replaced", "an older map, --overwrite", red, has_old_map=True),
        ),
        ("tests/results/test_verify.py::test_one_changed_pixel_is_found",
         "tests/batch/test_rerun.py::test_only_what_changed_or_is_gone_is_done_again",
         "tests/batch/test_rerun.py::test_other_options_or_another_model_give_other_maps_and_are_no_reason_to_ask",
         "tests/batch/test_rerun.py::test_a_map_that_somebody_changed_is_not_touched_without_leave",
         "tests/batch/test_rerun.py::test_skip_existing_keeps_only_what_proves_to_be_the_same",
         "tests/batch/test_journal.py::test_a_line_that_was_torn_by_a_full_disk_does_not_take_the_next_one_with_it",
         "tests/test_resume.py::test_work_that_is_not_the_same_or_not_whole_is_not_gone_on_with",
         "tests/test_resume.py::test_other_options_begin_anew_and_leave_nothing_of_the_old_work",
         "tests/test_resume.py::test_another_model_begins_anew",
         "tests/test_resume.py::test_pixels_that_the_disk_lost_cost_their_rows_and_no_more"),
    ),
    Failure(
        42, "Wrong pixels or deadlocks where several processes read",
        "One handle for each file and one reader at a time; processes share nothing.",
        (
            Case("two_runs", "2 runs of a scene of 108 tiles at the same time", tiled, ("--tile", "32"),
                 run=faults.beside_each_other(2)),
            Case("sixteen_runs", "16 runs of a scene of 400 tiles at the same time, 3 times",
                 lambda f: red(f, 640, 640), ("--tile", "48"), run=faults.beside_each_other(16, 3), is_slow=True),
        ),
        ("tests/scenes/test_stack.py::test_many_threads_read_the_right_windows",
         "tests/scenes/test_raster_file.py::test_many_threads_read_the_same_as_one"),
    ),
    Failure(
        43, "Secrets in messages, tags or reports",
        "Addresses are told without user names, passwords and queries; tags hold names, not paths. What looks like a"
        " secret, and the values of variables that name one, are hidden in messages, logs, journals and reports; the"
        " home folder is told as ~.",
        elsewhere=("tests/cli/test_logs.py::test_a_planted_secret_appears_in_no_output_of_a_run",
                   "tests/cli/test_logs.py::test_a_planted_secret_appears_nowhere_when_a_run_fails",
                   "tests/cli/test_logs.py::test_paths_below_the_home_folder_are_logged_with_a_tilde",
                   "tests/batch/test_rerun.py::test_the_journal_holds_no_password_of_an_address",
                   "tests/test_redaction.py::test_no_address_in_a_text_keeps_user_password_or_query",
                   "tests/test_redaction.py::test_what_looks_like_a_secret_is_hidden_and_nothing_else",
                   "tests/scenes/test_network.py::test_secrets_of_an_address_are_not_told",
                   "tests/cli/test_scene_options.py::test_an_address_is_refused_without_leave_and_its_secrets_stay_unsaid",
                   "tests/results/test_stac.py::test_no_path_of_the_machine_stands_in_any_sidecar"),
    ),
)  # fmt: skip
