"""`einsum` and `compile_einsum`: forms of a call, results, decoration, exceptions."""

import copy
import sys
from types import ModuleType

import numpy as np
import opt_einsum
import pytest
from einsumc.compiler.errors import EinsumError, EinsumTypeError
from einsumc.runtime import memory
from einsumc.runtime.decorator import CompiledEinsum, compile_einsum, einsum
from einsumc.runtime.optimize import normalize_optimize

rng = np.random.default_rng(0)


@compile_einsum("ij,jk,kl->il")
def chain(a, b, c):
    """A product of three matrices."""


# --- forms of a call ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: einsum("ij,jk->ik", a, b),
        lambda a, b: einsum("ij,jk", a, b),
        lambda a, b: einsum("ij,jk->ik", [a, b]),
        lambda a, b: einsum("ij,jk->ik", (a, b)),
        lambda a, b: einsum("ij,jk->ik", a.tolist(), b.tolist()),
        lambda a, b: einsum(a, [0, 1], b, [1, 2], [0, 2]),
        lambda a, b: einsum(a, [0, 1], b, [1, 2]),
        lambda a, b: einsum(a, ("x", "y"), b, ("y", "z"), ("x", "z")),
        lambda a, b: einsum("row inner, inner column -> row column", a, b),
        lambda a, b: compile_einsum("ij,jk->ik")(a, b),
        lambda a, b: chain(a, np.eye(3), b),
        lambda a, b: chain(a, c=b, b=np.eye(3)),
    ],
)
def test_forms(call):
    a, b = rng.random((2, 3)), rng.random((3, 4))
    np.testing.assert_allclose(call(a, b), a @ b)


def test_a_list_is_the_operand_of_a_single_term():
    assert einsum("ij->", [[1, 2], [3, 4]]) == 10
    assert einsum("ij->", [np.ones((2, 2))]) == 4


def test_scalars_and_arrays_come_back_as_from_numpy():
    a = np.arange(3.0)
    for arguments in (("i->", a), ("i,i", a, a), ("->", 3), (",", 2, 3), ("i,i->i", a, a)):
        ours, numpys = einsum(*arguments), np.einsum(*arguments)
        assert type(ours) is type(numpys)
        assert np.array_equal(ours, numpys)


def test_the_result_of_a_matrix_is_an_array():
    masked = np.ma.masked_array([[1.0, 2.0]], [[True, False]])
    assert type(einsum("ij->ji", masked)) is np.ndarray
    assert einsum("ij,ij->", masked, masked) == 5


@pytest.mark.parametrize("code", ["O", "g", "G"])
def test_dtypes_without_kernels(code):
    a, b = np.arange(6).reshape(2, 3).astype(code), np.arange(12).reshape(3, 4).astype(code)
    result = einsum("ij,jk->ik", a, b)
    assert result.dtype == code
    assert np.array_equal(result, a @ b)


def test_no_arithmetic_is_a_type_error_but_views_need_none():
    texts = np.array([["a", "b"]])
    assert einsum("ij->ji", texts).shape == (2, 1)
    with pytest.raises(TypeError, match="no arithmetic for dtype <U1"):
        einsum("ij->", texts)


def test_views():
    a = np.arange(9.0).reshape(3, 3)
    einsum("ii->i", a)[:] = -1
    assert a.trace() == -3
    assert np.shares_memory(einsum("ij->ji", a), a)
    assert np.shares_memory(einsum("ij->ji", a, dtype="f8", order="F"), a)
    for options in ({"dtype": "c16"}, {"order": "C"}, {"dtype": "f4", "casting": "same_kind"}):
        copied = einsum("ij->ji", a, **options)
        assert not np.shares_memory(copied, a)
        assert np.array_equal(copied, a.T)
        assert copied.dtype == options.get("dtype", "f8")


@pytest.mark.parametrize("dtype", ["f4", "i2", "O", "c16"])
def test_empty_sums_are_zero(dtype):
    a = np.ones((2, 0), dtype)
    assert np.array_equal(einsum("ij->i", a), [0, 0])
    assert einsum("ij->", a) == 0
    assert einsum("ij,jk->ik", a, np.ones((0, 3), dtype)).tolist() == [[0] * 3] * 2
    assert einsum("ij,jk->jk", a, np.ones((0, 3), dtype)).shape == (0, 3)
    out = np.ones((2, 2), dtype)
    einsum("ij->ii", a, out=out)
    assert not out.any()


def test_a_repeated_output_is_zero_off_the_diagonal():
    a = rng.random(4)
    assert np.array_equal(einsum("i->ii", a), np.diag(a))
    out = np.ones((8, 8))[::-2, ::2]
    assert einsum("i,i->ii", a, a, out=out) is out
    np.testing.assert_array_equal(out, np.diag(a * a))
    assert einsum("i->ii", a, order="F").flags.f_contiguous


def test_a_swapped_dtype_is_returned_swapped():
    a = np.arange(3, dtype="f8")
    result = einsum("i,i->i", a, a, dtype=">f8")
    assert result.dtype.str == ">f8"
    assert result.tolist() == [0, 1, 4]


# --- out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "out",
    [
        np.ones((2, 4)),
        np.ones((4, 2)).T,
        np.ones((4, 12))[::-2, ::3],
        np.ones((2, 4), ">f8"),
        np.ones((2, 4), "c16"),
        np.ones((2, 4), [("a", "u1"), ("b", "f8")])["b"],
        np.ones(65, "u1")[1:].view("f8").reshape(2, 4),
    ],
    ids=["C", "F", "steps", "swapped", "wider", "packed", "unaligned"],
)
def test_out_of_any_kind(out):
    a, b = rng.random((2, 3)), rng.random((3, 4))
    for _ in range(2):
        out[...] = 7
        assert einsum("ij,jk->ik", a, b, out=out) is out
        np.testing.assert_allclose(out, a @ b)


def test_out_may_be_an_operand_or_overlap_one():
    memory = rng.random(40)
    a, b = memory[:9].reshape(3, 3), memory[20:29].reshape(3, 3)
    for start in (0, 4, 20, 25, 30):
        here = memory.copy()
        expected = a @ b
        out = memory[start : start + 9].reshape(3, 3)
        einsum("ij,jk->ik", a, b, out=out)
        np.testing.assert_allclose(out, expected)
        memory[:] = here


def test_a_wider_out_is_computed_in_its_dtype():
    a = np.full(10, 100, "i1")
    out = np.zeros((), "i8")
    assert einsum("i,i->", a, a, out=out) == 100_000


def test_a_narrower_out_needs_casting():
    a, out = np.ones(3), np.zeros(3, "f4")
    with pytest.raises(TypeError, match="result would be cast for out from float64 to float32"):
        einsum("i,i->i", a, a, out=out)
    assert einsum("i,i->i", a, a, out=out, casting="same_kind").tolist() == [1, 1, 1]


# --- exceptions -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "exception", "message"),
    [
        ((), {}, ValueError, "there must be an equation"),
        (("ij->",), {}, ValueError, "the equation has 1 term but there are no operands"),
        (("i,i->", np.ones(2)), {}, ValueError, "the equation has 2 terms but there is 1 operand"),
        ((1, 2), {}, TypeError, "needs a list or tuple of indices"),
        (("i$", np.ones(2)), {}, ValueError, "unexpected character"),
        (("ij", np.ones(2)), {}, ValueError, "operand 0 has 1 axis"),
        (("i->", np.ones(2)), {"out": "text"}, TypeError, "out must be an array, not str"),
        (("i->", np.ones(2)), {"out": np.ones(1)}, ValueError, r"out has shape \(1,\), but"),
        (("i->", np.ones(2)), {"order": "W"}, ValueError, "order must be one of C, F, A, K"),
        (("i->", np.ones(2)), {"order": 3}, TypeError, "order must be a str, not int"),
        (("i->", np.ones(2)), {"casting": "no!"}, ValueError, "casting must be one of no, equiv"),
        (("i->", np.ones(2)), {"casting": "same_value"}, ValueError, "casting must be one of"),
        (("i->", np.ones(2)), {"dtype": "nonsense"}, TypeError, "nonsense"),
        (("i->", np.ones(2)), {"dtype": "i4"}, TypeError, "operand 0 would be cast from float64"),
        (("i->", np.ones(2)), {"optimize": 3}, TypeError, "optimize must be a bool"),
        (("i->", np.ones(2)), {"unknown": 3}, TypeError, "unknown"),
    ],
)
def test_wrong_calls(arguments, options, exception, message):
    with pytest.raises(exception, match=message):
        einsum(*arguments, **options)


def test_messages_name_the_operands():
    with pytest.raises(EinsumError) as caught:
        chain(np.ones((2, 3)), np.ones((4, 5)), np.ones((5, 6)))
    assert str(caught.value) == (
        "index 'j' has size 3 in operand 0 (a) (axis 1) but 4 in operand 1 (b) (axis 0)\n"
        "    ij,jk,kl->il\n"
        "       ^"
    )
    with pytest.raises(TypeError, match=r"operand 2 \(c\) would be cast from float64 to float32"):
        chain(*np.ones((2, 3, 3), "f4"), np.ones((3, 3)), dtype="f4")


def test_a_result_that_cannot_fit_is_refused_up_front(executor, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 1 << 30)
    a = np.broadcast_to(1.0, 20_000)
    with pytest.raises(MemoryError, match=r"shape \(20000, 20000\) of float64, 3.0 GiB, does not"):
        einsum("i,j->ij", a, a)
    assert not executor.prepared


# --- optimize -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        (True, True),
        (None, False),
        (np.True_, True),
        ("greedy", "greedy"),
        (("greedy", 10), ("greedy", 10)),
        (["optimal", np.int64(10)], ("optimal", 10)),
        (("greedy", 1e9), ("greedy", 1e9)),
        ([(1, 2), (0, 1)], ((1, 2), (0, 1))),
        (["einsum_path", (1, 2), (0, 1)], ((1, 2), (0, 1))),
        (["einsum_path"], ()),
        ([[np.int64(0), 1]], ((0, 1),)),
        (len, len),
    ],
)
def test_optimize_is_normalized(given, normal):
    assert normalize_optimize(given) == normal
    hash(normalize_optimize(given))


@pytest.mark.parametrize("given", [3, [], ("greedy", "much"), ("greedy", 1, 2), [3], ["path", ()]])
def test_what_optimize_is_not(given):
    with pytest.raises(EinsumTypeError, match="optimize must be a bool"):
        normalize_optimize(given)


@pytest.mark.parametrize("path", [[(0, 1)], [(1, 2), (0, 3)], [(0, 0), (0, 1)], [(), (0, 1, 2)]])
def test_paths_that_do_not_contract_everything(path):
    with pytest.raises(RuntimeError, match="invalid path"):
        compile_einsum("ij,jk,kl->il", optimize=path)


@pytest.mark.parametrize(
    "optimize",
    [
        *(True, False, None, "greedy", "optimal", "auto", "dp", ("greedy", 5), ("optimal", 10**6)),
        *([(0, 1), (0, 1)], ["einsum_path", (1, 2), (0, 1)], [(0, 1, 2)]),
        *(opt_einsum.DynamicProgramming(), opt_einsum.RandomGreedy(max_repeats=2)),
    ],
    ids=lambda given: type(given).__name__ if callable(given) else str(given),
)
def test_every_optimize_computes(optimize):
    a, b, c = rng.random((2, 3)), rng.random((3, 4)), rng.random((4, 5))
    result = einsum("ij,jk,kl->il", a, b, c, optimize=optimize)
    np.testing.assert_allclose(result, a @ b @ c)


def test_the_executor_gets_what_was_asked_for(executor):
    a = np.ones((2, 2))
    einsum("ij,jk->ik", a, a, optimize=["einsum_path", (0, 1)])
    assert executor.prepared[0][3] == ((0, 1),)


# --- as a decorator -------------------------------------------------------------------------------


def test_a_decorated_stub_keeps_its_face():
    assert isinstance(chain, CompiledEinsum)
    assert chain.__name__ == "chain"
    assert chain.__doc__ == "A product of three matrices."
    assert chain.__module__ == __name__
    assert chain.names == ("a", "b", "c")
    assert repr(chain) == "CompiledEinsum(chain: 'ij,jk,kl->il')"


def test_copies():
    assert copy.copy(chain) is chain  # as a function is
    twin = copy.copy(compile_einsum("ij->i", signatures="f4[i,j]", optimize="greedy"))
    assert (twin.equation, str(*twin.signatures), twin.optimize) == ("ij->i", "f4[i,j]", "greedy")
    assert twin(np.ones((2, 3))).tolist() == [3, 3]


def one(a):
    pass


def defaults(a, b=1):
    pass


def starred(*a):
    pass


def keywords(a, *, b):
    pass


def option(a, out):
    pass


def body(a, b):
    return a @ b


@pytest.mark.parametrize(
    ("stub", "message"),
    [
        (one, "one has 1 parameter, but the equation ij,jk->ik has 2 terms"),
        (defaults, "name the operands, but b=1 has a default"),
        (starred, r"name the operands, but \*a is not positional"),
        (keywords, "name the operands, but b is not positional"),
        (option, "name the operands, but out has the name of an option"),
        (body, "body has a body, which would be ignored"),
    ],
)
def test_stubs_that_do_not_fit(stub, message):
    with pytest.raises(EinsumTypeError, match=message):
        compile_einsum("ij,jk->ik")(stub)


def test_harmless_bodies():
    @compile_einsum("i->")
    def documented(a):
        """What it is."""
        ...

    @compile_einsum("i->")
    def returning(a, /):
        return None

    assert documented([1, 2]) == returning([1, 2]) == returning(a=[1, 2]) == 3


@pytest.mark.parametrize(
    ("arguments", "named", "message"),
    [
        ((1, 2), {}, "the equation has 3 terms but there are 2 operands"),
        ((1, 2), {"d": 3}, "chain has no operand 'd'"),
        ((1, 2), {"b": 3}, "chain got its operand 'b' twice"),
        ((1,), {"b": 3}, "chain misses its operand 'c'"),
    ],
)
def test_operands_by_name(arguments, named, message):
    with pytest.raises((TypeError, ValueError), match=message):
        chain(*arguments, **named)


def test_wrong_decorations_of_a_body():
    with pytest.raises(EinsumError, match="there is no dtype"):
        compile_einsum(signatures=["x4[n]"])
    with pytest.raises(EinsumTypeError, match="the equation must be a str, or a function"):
        compile_einsum(3)  # type: ignore[call-overload]


def test_signatures_are_checked_and_kept():
    made = compile_einsum("ij,jk->ik", signatures=["f4[i,j], f4[j,k]", "f8[i,4],f8[4,k]"])
    assert [str(signature) for signature in made.signatures] == [
        "f4[i,j], f4[j,k]",
        "f8[i,4], f8[4,k]",
    ]
    assert made(np.ones((2, 3)), np.ones((3, 2))).tolist() == [[3, 3], [3, 3]]
    with pytest.raises(EinsumError, match="axis 1 of operand 0 is 'j' in the equation"):
        compile_einsum("ij,jk->ik", signatures=["f4[i,k], f4[j,k]"])


def test_wrong_equations_are_found_when_decorating():
    with pytest.raises(EinsumError, match="output index 'z'"):
        compile_einsum("ij->z")


def test_explain_gets_prepared_operands(monkeypatch):
    module = ModuleType("einsumc.runtime.explain")
    module.explain = lambda *arguments: arguments  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    a = np.ones((2, 2), ">f4")
    expression, arrays, optimize, names, limit = chain.explain(a, a, c=np.ones((2, 2), "f8"))
    assert str(expression) == "ij,jk,kl->il"
    assert all(array.dtype == np.dtype("f8") for array in arrays)
    assert arrays[0] is arrays[1]
    assert (optimize, names, limit) == (True, ("a", "b", "c"), None)
