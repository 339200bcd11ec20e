"""Threads that read the files of a scene beside each other, each file in one thread at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")


def share_cores(files: int, cores: int, decodes_beside: bool) -> tuple[int, int]:
    """How many files to read beside each other, and how many threads each of them may decode with.

    Args:
        files: Files that are read for a window.
        cores: Processor cores that may be used; the product of both numbers is never above.
        decodes_beside: Whether GDAL decodes blocks of one file beside each other, as it does JPEG 2000. Files differ
            in size by 36 times in a Sentinel-2 product, so a thread a file would leave most threads waiting for the
            largest; then only about the square root of the cores go to files, the rest to blocks.
    """
    most = math.ceil(math.sqrt(cores)) if decodes_beside else cores
    readers = max(1, min(files, most, cores))
    return readers, max(1, cores // readers)


class FileThreads:
    """A pool of threads; none where one file at a time is to be read. :meth:`each` may be called by many threads.

    Attributes:
        count: Items that are worked on at the same time.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = ThreadPoolExecutor(count, "geoseg-files") if count > 1 else None

    def each(self, do: Callable[[T], None], items: Sequence[T]) -> None:
        """Call ``do`` with every item and wait until all are done.

        Raises:
            Exception: The first one in the order of the items, as if they were done one after the other.
        """
        if self._pool is None or len(items) < 2:
            for item in items:
                do(item)
            return
        # Started in order: whatever fails, all items before it were started as well and are waited for.
        futures = [self._pool.submit(do, item) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            started = [future for future in futures if not future.cancel()]
            wait(started)
        for future in started:
            future.result()

    def close(self) -> None:
        """End the threads; waits for what they are doing."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
