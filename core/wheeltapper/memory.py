"""What kernels tell memory: which lines they will want, and where whole records of arrays stand.

Python hands a kernel its arguments one array at a time, about 0.13 µs each, and the block path has eighty. A `keeper`
writes them once, as the kernel sees them, into a table of bytes: a call then carries one array, the table.
"""

# Numba types neither its decorators nor its builders.
# mypy: disable-error-code="no-untyped-call,untyped-decorator"
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import typeof, types
from numba.core import cgutils
from numba.core.cpu import CPUContext
from numba.core.errors import TypingError
from numba.extending import intrinsic

_intrinsic: Any = intrinsic  # what it makes is called from kernels only, with fewer arguments than it has here

LINE = 64  # bytes that memory hands over at once


@_intrinsic
def prefetch(typing: Any, array: Any, byte: Any) -> Any:  # noqa: ARG001
    """Ask for the line at `byte` of an array's data without waiting for it. An address beyond it does no harm.

    A GPU hides what memory costs by itself: there it is nothing.
    """

    def emit(context: Any, builder: Any, found: Any, args: Any) -> Any:
        if not isinstance(context, CPUContext):
            return context.get_dummy_value()
        data = cgutils.create_struct_proxy(found.args[0])(context, builder, args[0]).data
        at = context.cast(builder, args[1], found.args[1], types.intp)
        address = builder.gep(builder.bitcast(data, ir.IntType(8).as_pointer()), [at])
        word = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        ask = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(ask, [address, word(0), word(3), word(1)])  # for reading, kept in all caches, data
        return context.get_dummy_value()

    return types.void(array, byte), emit


def keeper(specimen: Callable[[], Any]) -> tuple[Any, Any]:
    """(put, take) for kernels, for records of the type that `specimen` gives one of.

    put(table uint8 [bytes], record) writes a record into a table and says whether it had room; take(table) is that
    record. A record of another type is a TypingError when `put` is compiled, so `take` never reads one as another. The
    table holds addresses, not references: whoever keeps it keeps the arrays too.
    """

    @_intrinsic
    def put(typing: Any, table: Any, record: Any) -> Any:  # noqa: ARG001
        expected = typeof(specimen())
        if record != expected:
            raise TypingError(f"expected a record of type {expected}, found {record}")

        def emit(context: Any, builder: Any, found: Any, args: Any) -> Any:
            layout = context.get_value_type(found.args[1])
            array = cgutils.create_struct_proxy(found.args[0])(context, builder, args[0])
            size = context.get_constant(types.intp, context.get_abi_sizeof(layout))
            fits = builder.icmp_signed(">=", array.nitems, size)
            with builder.if_then(fits):
                builder.store(args[1], builder.bitcast(array.data, layout.as_pointer())).align = 8
            return fits

        return types.boolean(table, record), emit

    @_intrinsic
    def take(typing: Any, table: Any) -> Any:  # noqa: ARG001
        record = typeof(specimen())

        def emit(context: Any, builder: Any, found: Any, args: Any) -> Any:
            data = cgutils.create_struct_proxy(found.args[0])(context, builder, args[0]).data
            layout = context.get_value_type(found.return_type)
            loaded = builder.load(builder.bitcast(data, layout.as_pointer()))
            loaded.align = 8
            return loaded

        return record(table), emit

    return put, take


def table_for(record: Any) -> npt.NDArray[np.uint8]:
    """Room for a record: five words, its shape and its strides for an array, a word for a number."""
    return np.zeros(8 * _words(record), np.uint8)


def _words(part: Any) -> int:
    if isinstance(part, tuple):
        return sum(_words(one) for one in part)
    return 5 + 2 * part.ndim if isinstance(part, np.ndarray) else 1
