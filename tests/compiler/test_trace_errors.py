"""What cannot be traced is one clear error, with the line of the user's code."""

import inspect
import pickle

import numpy as np
import pytest
from einsumc import EinsumError, compile_einsum
from einsumc.compiler.trace import TraceError
from einsumc.compiler.trace.location import Location

WRONG = {}


def wrong(message, *shapes):
    def declare(function):
        WRONG[function.__name__] = function, message, shapes or ((2, 3), (2, 3))
        return function

    return declare


@wrong("cannot branch on the values of an array; np.where chooses for each element")
def branch(a, b):
    if (a > 0).all():  # here
        return a
    return b


@wrong("cannot iterate over an array")
def loop(a, b):
    return [row for row in a]  # here  # noqa: C416


@wrong("np.sort is not traced")
def unknown_function(a, b):
    return np.sort(a)  # here


@wrong("np.linalg.inv is not traced")
def unknown_function_elsewhere(a, b):
    return np.linalg.inv(a)  # here


@wrong("np.arctan is not traced")
def unknown_ufunc(a, b):
    return np.arctan(a)  # here


@wrong("an array's .argmax is not traced")
def unknown_method(a, b):
    return a.argmax()  # here


@wrong(".sum with these arguments is not traced")
def unknown_argument(a, b):
    return a.sum(where=b > 0)  # here


@wrong("np.maximum.reduce is not traced")
def unknown_reduction(a, b):
    return np.maximum.reduce(a)  # here


@wrong("needs the values of an array")
def values(a, b):
    return np.asarray(a) + b  # here


@wrong("cannot take a value out of an array")
def one_value(a, b):
    return float(a.sum())  # here


@wrong("writing to elements of an array is not traced")
def write(a, b):
    a[0] = 1  # here
    return a


@wrong("writing in place is traced only for arrays that the function has just made")
def write_operand(a, b):
    a += b  # here
    return a


@wrong("writing in place is traced only for arrays that the function has just made")
def write_under_a_view(a, b):
    total = a * 2
    view = total.T
    total += b  # here
    return view


@wrong("a traced array has no elements that an array could take")
def write_elsewhere(a, b):
    return np.add(a, b, out=np.ones((2, 3)))  # here


@wrong("indexing with Symbol is not traced: only views are")
def fancy(a, b):
    return a[b > 0]  # here


@wrong("too many indices for an array of 2 axes")
def many_indices(a, b):
    return a[0, 0, 0]  # here


@wrong("index 2 is out of an axis of 2")
def outside(a, b):
    return a[2]  # here


@wrong("shapes (2, 3) and (3, 2) do not go together")
def shapes(a, b):
    return (
        a + b.T  # anywhere in the statement
    ) * 2


@wrong("index 'j' has size 3 in operand 0 (axis 1) but 2 in operand 1 (axis 0)")
def equation(a, b):
    return np.einsum("ij,jk->ik", a, b)  # here


@wrong("shapes (2, 1) and (3, 1) do not go together: ...ij,...jk->...ik", (2, 3), (1, 3))
def matmul_does_not_broadcast(a, b):
    return a @ b.T @ b.T  # here


@wrong("unexpected character '$'")
def text(a, b):
    return np.einsum("i$->i", a)  # here


@wrong("shape (2, 3) cannot become (4, 2): it has 6 elements")
def elements(a, b):
    return a.reshape(4, 2)  # here


@wrong("shape (2, 3) cannot become (3, 2) without a copy in another order")
def order(a, b):
    return a.reshape(3, 2)  # here


@wrong("cannot be walked together", (6, 2), (4, 3))
def merged_otherwise(a, b):
    return a.reshape(-1) + b.reshape(-1)  # here


@wrong("axis 2 is out of an array of 2 axes")
def axis(a, b):
    return a.sum(axis=2)  # here


@wrong("Integers to negative integer powers are not allowed.")
def negative_power(a, b):
    return (a > 0).astype(int) ** -1  # here


@wrong("numpy boolean negative")
def negative_mask(a, b):
    return -(a > 0)  # here


@wrong("Python integer 300 out of bounds for int8")
def out_of_bounds(a, b):
    return a.astype("i1") + 300  # here


@wrong("a list of traced arrays is no array")
def stacked(a, b):
    return np.where(a > 0, [a, b], 0)  # here


@wrong("there is no arithmetic for dtype datetime64")
def dates(a, b):
    return a.astype("M8[s]")  # here


@pytest.mark.parametrize("name", WRONG)
def test_the_error_says_what_is_wrong_and_where(name):
    function, message, shapes = WRONG[name]
    lines, first = inspect.getsourcelines(function)
    here = [n for n, line in enumerate(lines) if "# here" in line or "# anywhere" in line]
    with pytest.raises(EinsumError) as caught:
        compile_einsum(function)(*(np.ones(shape) for shape in shapes))
    error = caught.value
    assert isinstance(error, TraceError)
    assert message in str(error)
    assert error.where is not None
    assert error.where.file == __file__
    assert error.where.function == name
    assert abs(error.where.line - first - here[0]) <= (2 if "anywhere" in lines[here[0]] else 0)
    assert f'File "{__file__}", line {error.where.line}, in {name}' in str(error)
    assert error.where.text in str(error)


def test_sizes_that_do_not_fit_later_are_found_without_tracing_again():
    @compile_einsum
    def add(a, b):
        return a.reshape(-1) + b  # here

    assert add(np.ones((2, 3)), np.ones(6)).shape == (6,)
    with pytest.raises(TraceError, match=r"shapes \(6,\) and \(5,\) do not go") as caught:
        add(np.ones((2, 3)), np.ones(5))
    assert "# here" in caught.value.where.text


def test_errors_of_the_function_itself_are_its_own():
    @compile_einsum
    def refuse(a):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        refuse(np.ones(2))


def test_a_function_that_was_not_traced_may_be_tried_again():
    allowed = []

    @compile_einsum
    def later(a):
        return a + 1 if allowed else np.sort(a)

    with pytest.raises(TraceError, match="not traced"):
        later(np.ones(2))
    allowed.append(1)
    assert later(np.ones(2)).tolist() == [2, 2]


def test_an_error_can_be_sent_to_another_process():
    error = TraceError("what", Location("file.py", 3, "f"))
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert copy.where == error.where
