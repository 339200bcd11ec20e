"""Stages in threads of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoseg_cli.ahead import ahead, usable_cores


def count(stop: int, log: list[str] | None = None) -> Generator[int, None, None]:
    try:
        yield from range(stop)
    finally:
        if log is not None:
            log.append(threading.current_thread().name)


@given(stop=st.integers(0, 30), depth=st.integers(0, 5), stages=st.integers(1, 3))
def test_items_arrive_whole_and_in_order_through_any_number_of_stages(stop: int, depth: int, stages: int) -> None:
    def chain(left: int) -> Generator[int, None, None]:
        if left == 0:
            yield from range(stop)
            return
        with ahead(chain(left - 1), depth, "test") as items:
            yield from items

    assert list(chain(stages)) == list(range(stop))


def test_the_generator_pauses_when_enough_items_wait() -> None:
    made: list[int] = []

    def source() -> Generator[int, None, None]:
        for number in range(50):
            made.append(number)
            yield number

    with ahead(source(), 3, "test") as items:
        assert next(items) == 0
        time.sleep(0.1)
        # One was taken, three wait, and one more is made and cannot be put down.
        assert len(made) == 5


def test_without_room_to_wait_the_next_item_is_made_once_the_one_before_was_taken() -> None:
    made: list[int] = []

    def source() -> Generator[int, None, None]:
        for number in range(50):
            made.append(number)
            yield number

    with ahead(source(), 0, "test") as items:
        for number in range(5):
            assert next(items) == number
            time.sleep(0.05)
            assert len(made) <= number + 2


def test_an_error_is_raised_before_items_that_wait() -> None:
    failed = threading.Event()

    def source() -> Generator[int, None, None]:
        try:
            yield 1
            yield 2
            raise OSError("disk gone")
        finally:
            failed.set()

    with ahead(source(), 5, "test") as items:
        assert failed.wait(5)
        time.sleep(0.05)
        with pytest.raises(OSError, match="disk gone"):
            next(items)


def test_leaving_the_block_closes_the_generator_in_its_own_thread() -> None:
    log: list[str] = []
    with ahead(count(1000, log), 2, "stage-x") as items:
        next(items)
    assert log == ["stage-x"]
    assert not [thread for thread in threading.enumerate() if thread.name == "stage-x"]


def test_an_error_of_the_consumer_stops_all_stages() -> None:
    log: list[str] = []

    def second() -> Generator[int, None, None]:
        with ahead(count(1000, log), 2, "first") as items:
            yield from items

    def consume() -> None:
        with ahead(second(), 2, "second") as items:
            next(items)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        consume()
    assert log == ["first"]
    assert not {"first", "second"} & {thread.name for thread in threading.enumerate()}


def test_an_error_while_closing_is_not_raised_over_that_of_the_consumer() -> None:
    def source() -> Generator[int, None, None]:
        try:
            yield from range(10)
        finally:
            raise ValueError("late")

    def consume() -> None:
        with ahead(source(), 1, "test") as items:
            next(items)
            raise KeyError

    with pytest.raises(KeyError):
        consume()


def test_at_least_one_core_is_usable() -> None:
    assert usable_cores() >= 1


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_does_not_wait_for_the_item_being_made(interrupt: type[BaseException]) -> None:
    may_end, ended = threading.Event(), threading.Event()

    def source() -> Generator[int, None, None]:
        try:
            yield 1
            may_end.wait(30)
            yield 2
        finally:
            ended.set()

    started = time.monotonic()
    with pytest.raises(interrupt):
        _leave(source(), interrupt)
    assert time.monotonic() - started < 10, "the item being made takes 30 s"
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(30), "the thread ends by itself once its item is made"


def test_an_error_waits_for_the_item_being_made() -> None:
    ended = threading.Event()

    def source() -> Generator[int, None, None]:
        try:
            yield 1
            time.sleep(1)
            yield 2
        finally:
            ended.set()

    with pytest.raises(ValueError):
        _leave(source(), ValueError)
    assert ended.is_set()


def _leave(source: Generator[int, None, None], by: type[BaseException]) -> None:
    """Take the first item, and leave while the second one is being made."""
    with ahead(source, 2, "slow") as items:
        assert next(items) == 1
        raise by
