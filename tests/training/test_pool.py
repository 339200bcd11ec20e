"""A pool keeps the newest chips, whole, and goes on where it stopped."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geoseg_cli.training.chips import Chip
from geoseg_cli.training.pool import ScenePool


def make_chip(seed: int) -> Chip:
    dn = np.full((2, 4, 4), seed, np.int16)
    return Chip("simulated", ("red", "nir"), dn, np.full((4, 4), seed % 7, np.uint8))


def seeds(pool: ScenePool) -> list[int]:
    return [int(chip.dn[0, 0, 0]) for chip in pool]


def test_chips_come_back_as_they_were_made(tmp_path: Path) -> None:
    pool = ScenePool(tmp_path, make_chip, size=3, first_seed=100)
    pool.fill(3)
    wanted = make_chip(102)
    assert pool[2].bands == wanted.bands
    assert (pool[2].dn == wanted.dn).all()
    assert (pool[2].target == wanted.target).all()
    assert pool[2].target.dtype == np.uint8


def test_a_full_pool_without_workers_stays_as_it_is(tmp_path: Path) -> None:
    pool = ScenePool(tmp_path, make_chip, size=3, first_seed=100)
    for _ in range(8):
        pool.pump()
    assert seeds(pool) == [100, 101, 102]


def test_new_chips_push_the_oldest_out(tmp_path: Path) -> None:
    pool = ScenePool(tmp_path, make_chip, size=3, first_seed=100)
    for _ in range(5):
        pool.pump(wait=True)
    assert seeds(pool) == [102, 103, 104]
    assert sorted(path.name for path in tmp_path.glob("*.npy")) == ["00000002.npy", "00000003.npy", "00000004.npy"]
    assert pool.made == 5


def test_a_pool_goes_on_where_it_stopped(tmp_path: Path) -> None:
    ScenePool(tmp_path, make_chip, size=3, first_seed=100).fill(2)
    pool = ScenePool(tmp_path, make_chip, size=3, first_seed=100)
    assert seeds(pool) == [100, 101]
    pool.fill(3)
    assert seeds(pool) == [100, 101, 102]


def test_unfinished_files_are_no_chips(tmp_path: Path) -> None:
    (tmp_path / ".00000000.npy").write_bytes(b"half")
    assert len(ScenePool(tmp_path, make_chip, size=3, first_seed=0)) == 0


def test_workers_fill_the_pool_and_renew_it(tmp_path: Path) -> None:
    with ScenePool(tmp_path, make_chip, size=4, first_seed=0, workers=1) as pool:
        pool.fill(4)
        first = seeds(pool)
        # The worker may have renewed a chip already.
        assert first == list(range(first[0], first[0] + 4))
        for _ in range(12):
            pool.pump(wait=True)
        assert len(pool) == 4
        assert seeds(pool)[0] > first[0]
