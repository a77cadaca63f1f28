"""The order in which the rows of a block are handled: asset by asset, each in order of event time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from wheeltapper.kernel import heapless_kernel, merged_kernel

Longs = npt.NDArray[np.int64]


@heapless_kernel
def order_rows(rows: Longs, times: Longs, order: Longs, spare: Longs) -> None:
    """Fill order[:n] with the positions of rows int64 [n] by (row, time); equal ones stay as they came.

    A block that is in order already, as most are, costs one look at each row. Others are merged from runs of twice the
    length each pass, between `order` and `spare`, int64 [n or more].
    """
    n = rows.size
    sorted_already = True
    for i in range(n):
        order[i] = i
        if i > 0 and _before(rows, times, i, i - 1):
            sorted_already = False
    if sorted_already:
        return
    run = 1
    while run < n:
        for begin in range(0, n, 2 * run):
            _merge(rows, times, order, spare, begin, min(begin + run, n), min(begin + 2 * run, n))
        for i in range(n):
            order[i] = spare[i]
        run *= 2


@merged_kernel
def _before(rows: Longs, times: Longs, a: int, b: int) -> bool:
    return bool(rows[a] < rows[b] or (rows[a] == rows[b] and times[a] < times[b]))


@heapless_kernel
def _merge(rows: Longs, times: Longs, order: Longs, spare: Longs, begin: int, middle: int, end: int) -> None:
    """spare[begin:end] = order[begin:middle] and order[middle:end], both in order, as one."""
    left, right = begin, middle
    for at in range(begin, end):
        if left < middle and (right == end or not _before(rows, times, order[right], order[left])):
            spare[at] = order[left]
            left += 1
        else:
            spare[at] = order[right]
            right += 1
