"""Bodies of functions for tests: NumPy as people write it, and operands for each of them.

An entry is a function and the shapes of its operands by names of sizes. A name that ends in `?` is
an extent that may be 1 instead.
"""

import random
import warnings

import numpy as np

FLOATS = ("f4", "f8")
NUMBERS = ("f4", "f8", "i4", "i8", "c16", "f2")
ANY = (*NUMBERS, "?", "i1", "u2")

BODIES = {}


def body(*shapes, dtypes=FLOATS):
    def declare(function):
        BODIES[function.__name__] = function, shapes, dtypes
        return function

    return declare


def operands_of(name, seed, like=None):
    """A body and random operands of random sizes and dtypes."""
    function, shapes, dtypes = BODIES[name]
    choice = random.Random(f"{name} {seed}")
    sizes = {letter: choice.choice((1, 2, 3, 4, 5)) for letter in "ijkbmntspqdh"}
    if seed == 1:
        sizes = dict.fromkeys(sizes, 1)
    if seed == 2:
        sizes[choice.choice(sorted({*"".join(shapes)} - {*"? "}))] = 0
    arrays = []
    numbers = np.random.default_rng(seed)
    for position, shape in enumerate(shapes):
        extents = []
        for axis in shape.split():
            optional = axis.endswith("?") and choice.random() < 0.3
            extents.append(1 if optional else sizes[axis.rstrip("?")])
        wanted = dtypes[position] if isinstance(dtypes[0], tuple) else dtypes
        dtype = np.dtype(choice.choice(wanted) if like is None else like[position])
        arrays.append(array_of(numbers, extents, dtype, choice))
    return function, arrays


def array_of(numbers, shape, dtype, choice):
    """An array of random numbers, with strides of any kind."""
    if dtype.kind in "iu":
        values = numbers.integers(0 if dtype.kind == "u" else -4, 5, shape)
    elif dtype.kind == "b":
        values = numbers.random(shape) < 0.5
    else:
        values = numbers.standard_normal(shape)
        if dtype.kind == "c":
            values = values + 1j * numbers.standard_normal(shape)
    array = np.array(values, dtype)
    kind = choice.randrange(4)
    if kind == 1:
        array = np.asfortranarray(array)
    elif kind == 2 and array.ndim:
        array = array[::-1].copy()[::-1]
    elif kind == 3 and array.ndim:
        array = np.repeat(array, 2, axis=-1)[..., ::2]
    return array


def numpys(function, arrays):
    """What NumPy makes of a body; it warns of the mean of nothing."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice|Degrees of freedom", RuntimeWarning)
        return function(*arrays)


def check(found, expected, arrays=()):
    """The same structure, dtypes, shapes, and nearly the same numbers.

    Numbers differ by as much as the least precise of the operands and the result says.
    """
    if isinstance(expected, dict | list | tuple):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        if isinstance(expected, dict):
            assert list(found) == list(expected)
            found, expected = found.values(), expected.values()
        for one, other in zip(found, expected, strict=True):
            check(one, other, arrays)
        return
    if not isinstance(expected, np.ndarray | np.generic):
        assert found == expected
        return
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    tolerances = (TOLERANCES.get(array.dtype.str[1:], 1e-9) for array in (*arrays, expected))
    tolerance = max(tolerances)
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


TOLERANCES = {"f2": 3e-2, "f4": 1e-4, "c8": 1e-4}


# --- products -------------------------------------------------------------------------------------


@body("n t i", "n t j", dtypes=NUMBERS)
def gradient_norms(b, a):
    g = np.einsum("nti,ntj->nij", b, a)
    return np.einsum("nij,nij->n", g, g)


@body("i j", "j k", dtypes=ANY)
def matmul_2d(a, b):
    return a @ b


@body("j", "j k", dtypes=NUMBERS)
def matmul_vector(a, b):
    return a @ b, np.matmul(b.T, a), a @ a


@body("b? i j", "b? j k", dtypes=NUMBERS)
def matmul_batched(a, b):
    return np.matmul(a, b)


@body("i j", "b h j k", dtypes=NUMBERS)
def matmul_more_axes(a, b):
    return a @ b


@body("i j k", "k j m", dtypes=NUMBERS)
def tensordot(a, b):
    return np.tensordot(a, b, axes=([1, 2], [1, 0])), np.tensordot(a, b, 1)


@body("i j", "m j k", dtypes=NUMBERS)
def dot(a, b):
    return np.dot(a, b), a.dot(a.T), np.dot(a, 2)


@body("i j", "m j", dtypes=NUMBERS)
def inner_outer(a, b):
    return np.inner(a, b), np.outer(a, b)


@body("i j", "i j", dtypes=NUMBERS)
def vdot(a, b):
    return np.vdot(a, b)


@body("i i", "i j", dtypes=NUMBERS)
def traces(a, b):
    return np.trace(a), np.trace(a @ a, 1), a.diagonal(), np.diagonal(b, -1), np.diag(a, 1)


@body("i j", "j k", dtypes=NUMBERS)
def einsum_forms(a, b):
    return (
        np.einsum("ij,jk", a, b),
        np.einsum(a, [0, 1], b, [1, 2], [2, 0]),
        np.einsum("...j,j...->...", a, b[:, :1]),
        np.einsum("ij->ji", a),
        np.einsum("ij->", a),
    )


@body("n i", "n j", dtypes=FLOATS)
def multi_dot(a, b):
    return np.linalg.multi_dot([a.T, b, b.T])


# --- elements -------------------------------------------------------------------------------------


@body("i? j", "j?", dtypes=FLOATS)
def arithmetic(a, b):
    return 2 * a + b / 3 - 1, -a * b, a**2, +a, abs(a), a**3


@body("i j", "i j", dtypes=((*FLOATS, "i4", "?"), (*FLOATS, "i8", "f2")))
def promotion(a, b):
    return a + b, a * b, a * np.float32(2), b - np.float64(0.5), a * 2, b / 2


@body("i j", dtypes=FLOATS)
def functions(a):
    return np.sqrt(np.abs(a)), np.exp(a), np.tanh(a), np.log(np.abs(a) + 1), np.square(a)


@body("i j", dtypes=FLOATS)
def powers(a):
    b = np.abs(a) + 0.5
    return b**0.5, b**-1, b**1.5, np.power(b, a), 2**a, np.reciprocal(b)


@body("i j?", "j", dtypes=FLOATS)
def choices(a, b):
    return np.minimum(a, b), np.maximum(a, 0), np.where(a > b, a, 0.0), np.clip(a, -1, 0.5)


@body("i j", "i j", dtypes=("f4", "i4", "f8"))
def masks(a, b):
    both = (a > 0) & (b <= 1)
    return both, both | (a == b), ~both, both ^ (a != b), (a > 0) * b, both.sum(), (a > b).mean()


@body("n", "n", "n i", dtypes=(("i8", "i4"), ("i8",), FLOATS))
def equal_ids(ids, others, g):
    same = ids[:, None] == others[None, :]
    return np.where(same, g @ g.T, 0), same.sum(axis=1), (same * (g @ g.T)).sum(axis=1)


@body("i j", dtypes=("f4", "?", "i4"))
def logic(a):
    return np.logical_and(a, a > 0), np.logical_not(a), np.any(a, axis=0), np.all(a, axis=1)


@body("i j", dtypes=("c8", "c16"))
def complex_numbers(a):
    return a.conj(), abs(a), a * 1j, (a * a.conj()).sum(), np.linalg.norm(a, axis=1)


@body("i j", dtypes=ANY)
def casts(a):
    return a.astype("f8"), a.astype("f4").sum(), np.einsum("ij->i", a, dtype="c16")


@body("i j", dtypes=FLOATS)
def constants(a):
    table = np.arange(6.0).reshape(2, 3)
    return a.sum() * table, np.ones_like(a) + np.zeros_like(a), np.full_like(a, 3), table


@body("i j", dtypes=FLOATS)
def in_place(a):
    total = a * 2
    total += 1
    total *= a
    return total


@body("i j", dtypes=("f4", "f8", "i8"))
def small_parts(a):
    return np.isnan(a), np.sign(a), np.positive(a), np.count_nonzero(a, axis=0)


# --- sums -----------------------------------------------------------------------------------------


@body("i j k", dtypes=ANY)
def sums(a):
    return (
        a.sum(),
        a.sum(0),
        np.sum(a, axis=(0, 2)),
        a.sum(axis=-1, keepdims=True),
        np.add.reduce(a, axis=1),
        a.sum(dtype="f8"),
    )


@body("i j k", dtypes=("f4", "f8", "i4", "?"))
def means(a):
    return a.mean(), a.mean(0), np.mean(a, axis=(1, 2), keepdims=True)


@body("i j", dtypes=FLOATS)
def spread(a):
    return a.var(axis=0), np.std(a, axis=1, keepdims=True), np.var(a)


@body("i j k", dtypes=("f4", "f8", "i4"))
def norms(a):
    norm = np.linalg.norm
    return norm(a), norm(a, axis=1), norm(a, 1, 0), norm(a, axis=(1, 2), keepdims=True)


@body("i j", "i? j", dtypes=FLOATS)
def sums_of_formulas(a, b):
    return (a * b).sum(1), ((a - b) ** 2).sum(), np.exp(a).sum(axis=0), (a + b).mean(axis=0)


@body("i", "j", dtypes=FLOATS)
def sums_of_repeated(a, b):
    wide = np.broadcast_to(a[:, None], (a.shape[0], b.shape[0]))
    return wide.sum(axis=1), wide.sum(), wide, (wide * b).sum(0), (wide + 1).sum(1)


# --- views ----------------------------------------------------------------------------------------


@body("i j k", dtypes=ANY)
def transposes(a):
    return (
        a.T,
        a.transpose(1, 0, 2),
        np.transpose(a, (2, 0, 1)),
        a.swapaxes(0, -1),
        np.moveaxis(a, 0, -1),
        np.moveaxis(a, (0, 1), (2, 0)),
        a.mT,
    )


@body("i j k", dtypes=FLOATS)
def new_axes(a):
    b = np.expand_dims(a, (0, 2))
    return b, np.squeeze(b, axis=0), a[None, ..., None], a[:, None] * a[:, :, None]


@body("i j k", dtypes=FLOATS)
def slices(a):
    return a[1:], a[..., ::-1], a[:, ::2, -1:], a[:-1] - a[1:], a[1:, :-1].sum(0), np.flip(a, 1)


@body("m? i", dtypes=FLOATS)
def positions(a):
    return (a[-1], a[0, ...], a.T[..., 0]) if a.shape[0] and a.shape[1] else a


@body("i j k", "k m", dtypes=FLOATS)
def merged_axes(a, w):
    flat = a.reshape(a.shape[0] * a.shape[1], a.shape[-1])
    return (
        flat @ w,
        flat[::-1],
        (flat @ w).reshape(*a.shape[:2], w.shape[1]),
        a.ravel(),
        flat.sum(1),
    )


@body("n d", "d", dtypes=FLOATS)
def split_axes(a, g):
    b = np.repeat(g, 2) if isinstance(g, np.ndarray) and False else g
    parts = (a * b).reshape(a.shape[0], 1, a.shape[1], 1)
    return parts, parts.squeeze(axis=(1, 3)), parts.reshape(-1)


@body("n h d", dtypes=FLOATS)
def heads(a):
    n, h, d = a.shape
    merged = a.reshape(n, h * d)
    back = merged.reshape(n, h, d).swapaxes(0, 1)
    return merged.T, back, (merged * 2).reshape((n, h, d)), merged.T.copy().sum(0)


@body("i j", dtypes=FLOATS)
def at_least(a):
    return np.atleast_1d(a.sum()), np.atleast_2d(a[:, :1].sum(1)), np.atleast_3d(a)


# --- whole functions ------------------------------------------------------------------------------


@body("n h t d", "n h s d", "n h s d", dtypes=FLOATS)
def attention_without_max(q, k, v):
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1])
    weights = np.exp(scores)
    return weights / weights.sum(axis=-1, keepdims=True) @ v


@body("n t d", "d", "d", dtypes=FLOATS)
def layer_norm(x, scale, shift):
    middle = x - x.mean(axis=-1, keepdims=True)
    spread = np.sqrt((middle**2).mean(axis=-1, keepdims=True) + 1e-5)
    return {"out": middle / spread * scale + shift, "spread": spread[..., 0]}


@body("n t i", "n t j", dtypes=FLOATS)
def clipped(b, a):
    g = np.einsum("nti,ntj->nij", b, a)
    norms = np.sqrt((g**2).sum(axis=(1, 2)))
    factors = np.minimum(1.0, 0.5 / (norms + 1e-6))
    return {
        "norms": norms,
        "sums": [np.einsum("n,nij->ij", factors, g), np.tensordot(factors, g, 1)],
    }


@body("n d", "d h", "h", dtypes=FLOATS)
def network(x, w, b):
    hidden = np.maximum(x @ w + b, 0)
    return hidden, (hidden > 0).sum(axis=1), x, 3, None, x.shape[0] * 2
