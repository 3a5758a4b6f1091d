"""exp, log, tanh and powers of tiles, in vector instructions and without a library.

Each is a function of its own in a kernel, of one register: called for every register of a tile, it
is compiled once. Measured against higher precision the errors are below 1 unit in the last place
for exp and log, and below 2 for tanh (3 in f8); NaN, infinities, overflow and subnormal results are
NumPy's. The formulas are those of

- S. Moshier: Cephes mathematical library, 1992 (exp and tanh in f4),
- K. C. Ng: fdlibm, Sun Microsystems, 1993 (log),
- W. Cody, W. Waite: Software manual for the elementary functions, 1980 (reductions, tanh).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import factorial, inf, log, nan
from typing import Any

from llvmlite import ir

from ..records import dataclass
from .elementwise import (
    Planes,
    as_bits,
    call,
    converted,
    elementwise,
    is_nan,
    like,
)
from .emitter import Emitter


@dataclass(frozen=True)
class _Format:
    """What differs between f4 and f8."""

    fraction: int  # bits of a significand without its first one
    bias: int  # of the exponent
    low: float  # exp is zero below
    high: float  # and infinite above
    one: float  # from here on tanh is one
    log2: tuple[float, float]  # of e: its first bits, and the rest
    exp: tuple[float, ...]  # (exp(x) - 1 - x) / x**2, highest power first
    log: tuple[float, ...]  # (log((1 + s) / (1 - s)) - 2 s) / s, of s**2, from its first power on
    tanh: tuple[float, ...]  # (tanh(x) - x) / x**3 near zero, of x**2, from its lowest power on
    root: int  # the bits of sqrt(1/2)
    subnormal: int  # by which power of two a subnormal number is scaled

    @property
    def magic(self) -> float:
        """Added to a small integer, it leaves that in the last bits."""
        return 1.5 * 2.0**self.fraction


_FORMATS = {
    "f4": _Format(
        fraction=23,
        bias=127,
        low=-104.0,
        high=89.0,
        one=10.0,
        log2=(0.693359375, -2.12194440e-4),
        exp=(
            1.9875691500e-4,
            1.3981999507e-3,
            8.3334519073e-3,
            4.1665795894e-2,
            1.6666665459e-1,
            5.0000001201e-1,
        ),
        log=(0.66666662693, 0.40000972152, 0.28498786688, 0.24279078841),
        tanh=(
            -3.33332819422e-1,
            1.33314422036e-1,
            -5.37397155531e-2,
            2.06390887954e-2,
            -5.70498872745e-3,
        ),
        root=0x3F3504F3,
        subnormal=25,
    ),
    "f8": _Format(
        fraction=52,
        bias=1023,
        low=-746.0,
        high=710.0,
        one=22.0,
        log2=(6.93147180369123816490e-01, 1.90821492927058770002e-10),
        exp=tuple(1 / factorial(n) for n in range(13, 1, -1)),
        log=(
            6.666666666666735130e-01,
            3.999999999940941908e-01,
            2.857142874366239149e-01,
            2.222219843214978396e-01,
            1.818357216161805012e-01,
            1.531383769920937332e-01,
            1.479819860511658591e-01,
        ),
        tanh=(),
        root=0x3FE6A09E667F3BCD,
        subnormal=54,
    ),
}


# --- parts ----------------------------------------------------------------------------------------


def _clamped(e: Emitter, x: Any, low: float, high: float) -> Any:
    """A register within bounds; NaN stays."""
    b = e.builder
    x = b.select(b.fcmp_ordered(">", x, like(x, high)), like(x, high), x)
    return b.select(b.fcmp_ordered("<", x, like(x, low)), like(x, low), x)


def _reduced(e: Emitter, element: str, x: Any) -> tuple[Any, Any]:
    """The integer n and the small r of ``x = n log 2 + r``."""
    kind = _FORMATS[element]
    n = call(e, "rint", element, e.builder.fmul(x, like(x, 1 / log(2))))
    r = x
    for part in kind.log2:
        r = e.fma(element, n, like(x, -part), r)
    return n, r


def _small(e: Emitter, element: str, r: Any) -> Any:
    """``exp(r) - 1`` where r is at most half of log 2."""
    first, *others = _FORMATS[element].exp
    value = like(r, first)
    for coefficient in others:
        value = e.fma(element, value, r, like(r, coefficient))
    return e.fma(element, value, e.builder.fmul(r, r), r)


def _power_of_two(e: Emitter, element: str, n: Any) -> Any:
    """Two to a power that is an integer in the range of exponents."""
    b, kind = e.builder, _FORMATS[element]
    bits = as_bits(e, b.fadd(n, like(n, kind.magic)))
    bits = b.shl(b.add(bits, like(bits, kind.bias)), like(bits, kind.fraction))
    return b.bitcast(bits, n.type)


# --- functions of one register --------------------------------------------------------------------


def _exp(e: Emitter, element: str, x: Any) -> Any:
    b, kind = e.builder, _FORMATS[element]
    n, r = _reduced(e, element, _clamped(e, x, kind.low, kind.high))
    value = b.fadd(_small(e, element, r), like(x, 1.0))
    # In two factors, so that neither of them overflows, and subnormal results are rounded once.
    half = call(e, "rint", element, b.fmul(n, like(x, 0.5)))
    value = b.fmul(value, _power_of_two(e, element, half))
    return b.fmul(value, _power_of_two(e, element, b.fsub(n, half)))


def _log(e: Emitter, element: str, x: Any) -> Any:
    b, kind = e.builder, _FORMATS[element]
    tiny = b.fcmp_ordered("<", x, like(x, 2.0 ** (2 - kind.bias)))
    scaled = b.select(tiny, b.fmul(x, like(x, 2.0**kind.subnormal)), x)
    # x = 2**k (1 + f), of which the second factor is between sqrt(1/2) and sqrt(2).
    bits = as_bits(e, scaled)
    ahead = 2 * (kind.bias + 1)  # keeps what is shifted positive
    offset = (ahead << kind.fraction) - kind.root
    over = b.lshr(b.add(bits, like(bits, offset)), like(bits, kind.fraction))
    shift = b.shl(b.sub(over, like(bits, ahead)), like(bits, kind.fraction))
    f = b.fsub(b.bitcast(b.sub(bits, shift), x.type), like(x, 1.0))
    base = as_bits(e, like(x, 2.0**kind.fraction))
    k = b.fsub(b.bitcast(b.or_(over, base), x.type), like(x, 2.0**kind.fraction + ahead))
    k = b.fsub(k, b.select(tiny, like(x, float(kind.subnormal)), like(x, 0.0)))

    s = b.fdiv(f, b.fadd(f, like(x, 2.0)))
    z = b.fmul(s, s)
    w = b.fmul(z, z)
    halves = [_polynomial(e, element, w, kind.log[start::2]) for start in (0, 1)]
    r = e.fma(element, halves[0], z, b.fmul(halves[1], w))
    square = b.fmul(b.fmul(f, like(x, 0.5)), f)
    high, low = _LOG2[element]
    value = e.fma(element, s, b.fadd(square, r), b.fmul(k, like(x, low)))
    value = e.fma(element, k, like(x, high), b.fadd(f, b.fsub(value, square)))
    value = b.select(b.fcmp_ordered("==", x, like(x, inf)), x, value)
    value = b.select(b.fcmp_ordered("==", x, like(x, 0.0)), like(x, -inf), value)
    value = b.select(b.fcmp_ordered("<", x, like(x, 0.0)), like(x, nan), value)
    return b.select(is_nan(e, x), x, value)


_LOG2 = {
    "f4": (6.9313812256e-01, 9.0580006145e-06),
    "f8": (6.93147180369123816490e-01, 1.90821492927058770002e-10),
}
"""log 2: bits that k times are exact, and the rest."""


def _polynomial(e: Emitter, element: str, x: Any, coefficients: Sequence[float]) -> Any:
    """A polynomial by Horner's rule, lowest power first."""
    value = like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value = e.fma(element, value, x, like(x, coefficient))
    return value


def _tanh(e: Emitter, element: str, x: Any) -> Any:
    """``t / (t + 2)`` for ``t = exp(2 |x|) - 1``, with the sign of x; in f4 a polynomial near 0."""
    b, kind = e.builder, _FORMATS[element]
    size = _clamped(e, call(e, "fabs", element, x), 0.0, kind.one)
    n, r = _reduced(e, element, b.fadd(size, size))
    scale = _power_of_two(e, element, n)
    t = e.fma(element, scale, _small(e, element, r), b.fsub(scale, like(x, 1.0)))
    value = b.fdiv(t, b.fadd(t, like(x, 2.0)))
    if kind.tanh:
        z = b.fmul(size, size)
        near = _polynomial(e, element, z, kind.tanh)
        near = e.fma(element, b.fmul(near, z), size, size)
        value = b.select(b.fcmp_ordered("<", size, like(x, 0.625)), near, value)
    return call(e, "copysign", element, value, x)


def _power(e: Emitter, element: str, x: Any, y: Any) -> Any:
    """``exp(y log |x|)``, in f8 also for f4; negative x only with integers y."""
    b = e.builder
    one, zero = like(x, 1.0), like(x, 0.0)
    size = call(e, "fabs", element, x)
    (wide_size,) = converted(e, element, "f8", [size])
    (wide_y,) = converted(e, element, "f8", [y])
    value = _exp(e, "f8", b.fmul(wide_y, _log(e, "f8", wide_size)))
    (value,) = converted(e, "f8", element, [value])
    value = b.select(b.fcmp_ordered("==", size, one), one, value)
    whole = b.fcmp_ordered("==", call(e, "floor", element, y), y)
    half = b.fmul(y, like(y, 0.5))
    odd = b.and_(whole, b.fcmp_ordered("!=", call(e, "floor", element, half), half))
    sign_bits = as_bits(e, x)
    negative = b.icmp_signed("<", sign_bits, like(sign_bits, 0))
    value = b.select(b.and_(odd, negative), b.fneg(value), value)
    wrong = b.and_(b.fcmp_ordered("<", x, zero), b.not_(whole))
    endless = b.fcmp_ordered("==", size, like(x, inf))
    value = b.select(b.and_(wrong, b.not_(endless)), like(x, nan), value)
    any_nan = b.fcmp_unordered("uno", x, y)
    value = b.select(any_nan, like(x, nan), value)
    certain = b.or_(b.fcmp_ordered("==", y, zero), b.fcmp_ordered("==", x, one))
    return b.select(certain, one, value)


# --- operations -----------------------------------------------------------------------------------


def _called(body: Callable[..., Any], name: str) -> Callable[..., Planes]:
    """The lowering of an operation on registers as a call of a function with that body."""

    def lower(e: Emitter, element: str, *planes: Planes) -> Planes:
        values = [plane[0] for plane in planes]
        kind = values[0].type
        lanes = kind.count if isinstance(kind, ir.VectorType) else 1
        title = f"einsumc_{name}_{element}_{lanes}"
        module = e.builder.module
        function = module.globals.get(title)
        if function is None:
            function = ir.Function(module, ir.FunctionType(kind, [kind] * len(values)), title)
            function.linkage = "internal"
            function.attributes.add("noinline")
            builder = ir.IRBuilder(function.append_basic_block("entry"))
            inner = Emitter(builder, fused=e.fused)
            builder.ret(body(inner, element, *function.args))
        return [e.builder.call(function, values)]

    lower.__doc__ = f"{name} of a tile."
    return lower


exp = elementwise(_called(_exp, "exp"), "exp", "f")
log_ = elementwise(_called(_log, "log"), "log", "f")
tanh = elementwise(_called(_tanh, "tanh"), "tanh", "f")
power = elementwise(_called(_power, "power"), "power", "f")
