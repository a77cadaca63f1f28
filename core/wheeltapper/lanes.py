"""Several sensors at once: a value of 8 or 4 numbers that the processor treats as one.

Sensors lie side by side in memory, so the same sum for 8 of them is one instruction. Left to itself the compiler kept
sums in memory and checked at every slot whether arrays overlap; with lanes they stay in registers over a whole run of
slots. Each lane has exactly the arithmetic of a plain number (no contraction, no reordering), so neither bits nor
results depend on how wide the processor is.

`load` and `store` take a contiguous array and an element offset: no bounds are checked, as everywhere in kernels.
"""

# Numba types neither its decorators nor its builders.
# mypy: disable-error-code="no-untyped-call,untyped-decorator"
from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

_intrinsic: Any = intrinsic  # what it makes is called from kernels only, with fewer arguments than it has here

WIDTH = 4  # rows of sensors are padded to a multiple of this

_ELEMENTS = {1: ir.IntType(1), 32: ir.FloatType(), 64: ir.DoubleType()}


class Lanes(types.Type):
    """`count` numbers of `bits` bits: 64 and 32 are floats, 1 is the outcome of a comparison."""

    def __init__(self, bits: int, count: int) -> None:
        self.bits, self.count = bits, count
        super().__init__(name=f"Lanes({bits}, {count})")

    @property
    def layout(self) -> ir.VectorType:
        return ir.VectorType(_ELEMENTS[self.bits], self.count)


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Lanes) -> None:
        super().__init__(manager, kind, kind.layout)


def _splat(builder: Any, value: Any, kind: Lanes) -> Any:
    empty = ir.Constant(kind.layout, ir.Undefined)
    first = builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(first, empty, zeros)


def _in_lanes(context: Any, builder: Any, value: Any, found: Any, kind: Lanes) -> Any:
    """A plain number in every lane; lanes as they are."""
    if isinstance(found, Lanes):
        return value
    return _splat(
        builder, context.cast(builder, value, found, types.float64 if kind.bits == 64 else types.float32), kind
    )


def _register(operation: Any, emit: str, comparison: str = "") -> None:
    """Let `operation` work on two lanes of the same kind, or on lanes and a number."""

    @infer_global(operation)
    class _Typing(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:  # noqa: ARG002  Numba's signature
            if len(args) != 2:
                return None
            kinds = [one for one in args if isinstance(one, Lanes)]
            if not kinds or any(one != kinds[0] for one in kinds):
                return None
            if not all(isinstance(one, (Lanes, types.Number)) for one in args):
                return None
            return signature(Lanes(1, kinds[0].count) if comparison else kinds[0], *args)

    def lower(context: Any, builder: Any, found: Any, args: Any) -> Any:
        kind = next(one for one in found.args if isinstance(one, Lanes))
        a, b = (_in_lanes(context, builder, arg, one, kind) for arg, one in zip(args, found.args, strict=True))
        return builder.fcmp_ordered(comparison, a, b) if comparison else getattr(builder, emit)(a, b)

    for pair in ((Lanes, Lanes), (Lanes, types.Number), (types.Number, Lanes)):
        lower_builtin(operation, *pair)(lower)


for _operation, _emit in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _register(_operation, _emit)
for _operation, _sign in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
):
    _register(_operation, "", _sign)


def _zeros(count: int) -> Any:
    kind = Lanes(64, count)

    @_intrinsic
    def zeros(typing: Any) -> Any:  # noqa: ARG001
        def emit(context: Any, builder: Any, found: Any, args: Any) -> Any:  # noqa: ARG001
            return ir.Constant(kind.layout, [0.0] * count)

        return kind(), emit

    return zeros


zeros_8 = _zeros(8)  # float64 lanes of 0.0; passed on, they say how many lanes a kernel works with
zeros_4 = _zeros(4)


def _address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, kind: Lanes) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), kind.layout.as_pointer())


@_intrinsic
def load(typing: Any, array: Any, offset: Any, like: Any) -> Any:  # noqa: ARG001
    """Lanes array[offset:offset + count] of the array's own type, as many as `like` has."""
    kind = Lanes(array.dtype.bitwidth, like.count)

    def emit(context: Any, builder: Any, found: Any, args: Any) -> Any:
        at = context.cast(builder, args[1], found.args[1], types.intp)
        instruction = builder.load(_address(context, builder, found.args[0], args[0], at, kind))
        instruction.align = kind.bits // 8
        return instruction

    return kind(array, offset, like), emit


@_intrinsic
def store(typing: Any, array: Any, offset: Any, x: Any) -> Any:  # noqa: ARG001
    """Write the lanes of x to array[offset:], rounded to the array's type."""

    def emit(context: Any, builder: Any, found: Any, args: Any) -> Any:
        at = context.cast(builder, args[1], found.args[1], types.intp)
        kind, value = _rounded(builder, found, args[2])
        address = _address(context, builder, found.args[0], args[0], at, kind)
        builder.store(value, address).align = kind.bits // 8
        return context.get_dummy_value()

    return types.void(array, offset, x), emit


@_intrinsic
def store_some(typing: Any, array: Any, offset: Any, x: Any, count: Any) -> Any:  # noqa: ARG001
    """Like `store`, but only the first `count` lanes: for rows that are not padded."""

    def emit(context: Any, builder: Any, found: Any, args: Any) -> Any:
        at = context.cast(builder, args[1], found.args[1], types.intp)
        count = context.cast(builder, args[3], found.args[3], types.intp)
        kind, value = _rounded(builder, found, args[2])
        data = cgutils.create_struct_proxy(found.args[0])(context, builder, args[0]).data
        whole = builder.icmp_signed(">=", count, ir.Constant(count.type, kind.count))
        with builder.if_else(whole) as (all_of_them, some):
            with all_of_them:
                address = _address(context, builder, found.args[0], args[0], at, kind)
                builder.store(value, address).align = kind.bits // 8
            with some:
                for lane in range(kind.count - 1):
                    with builder.if_then(builder.icmp_signed("<", ir.Constant(count.type, lane), count)):
                        one = builder.extract_element(value, ir.Constant(ir.IntType(32), lane))
                        builder.store(one, builder.gep(data, [builder.add(at, ir.Constant(at.type, lane))]))
        return context.get_dummy_value()

    return types.void(array, offset, x, count), emit


def _rounded(builder: Any, found: Any, value: Any) -> tuple[Lanes, Any]:
    """The lanes as the array found.args[0] holds them."""
    kind = Lanes(found.args[0].dtype.bitwidth, found.args[2].count)
    return kind, builder.fptrunc(value, kind.layout) if kind.bits < found.args[2].bits else value


@_intrinsic
def widen(typing: Any, x: Any) -> Any:  # noqa: ARG001
    """float64 lanes of float32 ones; exact."""
    kind = Lanes(64, x.count)

    def emit(context: Any, builder: Any, found: Any, args: Any) -> Any:  # noqa: ARG001
        return builder.fpext(args[0], kind.layout) if found.args[0].bits < 64 else args[0]

    return kind(x), emit


@_intrinsic
def choose(typing: Any, condition: Any, yes: Any, no: Any) -> Any:  # noqa: ARG001
    """`yes` where the condition holds, else `no`: for plain numbers and, lane by lane, for lanes."""
    lanes = [one for one in (yes, no) if isinstance(one, Lanes)]
    result = lanes[0] if lanes else Lanes(64, condition.count) if isinstance(condition, Lanes) else types.float64

    def emit(context: Any, builder: Any, found: Any, args: Any) -> Any:
        if isinstance(result, Lanes):
            ways = [_in_lanes(context, builder, args[k], found.args[k], result) for k in (1, 2)]
        else:
            ways = [context.cast(builder, args[k], found.args[k], result) for k in (1, 2)]
        return builder.select(args[0], *ways)

    return result(condition, yes, no), emit


@_intrinsic
def root(typing: Any, x: Any) -> Any:  # noqa: ARG001
    """Square root, of a plain number or of lanes."""
    result = x if isinstance(x, Lanes) else types.float64

    def emit(context: Any, builder: Any, found: Any, args: Any) -> Any:
        if isinstance(result, Lanes):
            name, layout, value = f"llvm.sqrt.v{result.count}f{result.bits}", result.layout, args[0]
        else:
            name, layout, value = (
                "llvm.sqrt.f64",
                ir.DoubleType(),
                context.cast(builder, args[0], found.args[0], result),
            )
        square_root = cgutils.get_or_insert_function(builder.module, ir.FunctionType(layout, [layout]), name)
        return builder.call(square_root, [value])

    return result(x), emit
