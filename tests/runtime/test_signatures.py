"""Signatures: the grammar, what fits an equation, and messages that point at the place."""

from itertools import count

import numpy as np
import pytest
from einsumc.compiler.errors import EinsumError, EinsumTypeError
from einsumc.compiler.subscripts import parse
from einsumc.runtime.arguments import Collection, static_of
from einsumc.runtime.operands import KERNEL_DTYPES
from einsumc.runtime.signatures import DTYPES, OperandSignature, Signature, parse_signature
from hypothesis import given, settings
from hypothesis import strategies as st

AXES = st.one_of(st.integers(0, 10**6), st.sampled_from(["i", "n", "batch", "_q1", "α", "ℵ"]))
OPERANDS = st.builds(
    OperandSignature,
    st.sampled_from(sorted(KERNEL_DTYPES, key=str)),
    st.lists(AXES, max_size=5).map(tuple),
)
SIGNATURES = st.lists(OPERANDS, min_size=1, max_size=4).map(lambda ops: Signature(tuple(ops)))


def test_every_dtype_with_kernels_has_a_code_and_a_name():
    assert set(DTYPES.values()) == KERNEL_DTYPES
    assert len(DTYPES) == 2 * len(KERNEL_DTYPES)


@given(SIGNATURES)
def test_printed_signature_reads_as_itself(signature):
    assert parse_signature(str(signature)) == signature


OPERAND = type("Operand", (), {"__repr__": lambda _: "OPERAND"})()
CONSTANTS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    st.complex_numbers(allow_nan=False, allow_infinity=False),
)
KEYS = CONSTANTS | st.sampled_from(["f4", "as", "None", "größe", ("a", (1, None)), ()])
VALUES = st.recursive(
    CONSTANTS | st.just(OPERAND),
    lambda items: st.one_of(
        *(st.lists(items, max_size=3), st.lists(items, max_size=3).map(tuple)),
        st.dictionaries(KEYS, items, max_size=3),
    ),
)


def node_of(value, numbers):
    """A value as a signature has it; operands are numbered."""
    if value is OPERAND:
        return next(numbers)
    if isinstance(value, dict):
        items = tuple(node_of(each, numbers) for each in value.values())
        return Collection("{}", items, tuple(node_of(key, numbers) for key in value))
    if isinstance(value, tuple | list):
        brackets = "()" if isinstance(value, tuple) else "[]"
        return Collection(brackets, tuple(node_of(each, numbers) for each in value))
    return static_of(value)


@settings(max_examples=50)
@given(st.lists(VALUES, max_size=3), VALUES, st.data())
def test_printed_structures_read_as_themselves(values, named, data):
    numbers = count()
    values, named = [*values, OPERAND], {"größe": named}
    arguments = [("", node_of(value, numbers)) for value in values]
    arguments += [(name, node_of(value, numbers)) for name, value in named.items()]
    operands = [OperandSignature(np.dtype("f4"), ("i",))] * next(numbers)
    same = []
    for number in range(len(operands)):
        same.append(data.draw(st.sampled_from([*{*same}, number])))
    signature = Signature.of(operands, arguments, same)
    again = parse_signature(str(signature))
    assert again == signature
    assert repr(again.filled([OPERAND] * len(operands), str)) == repr((values, named))


@pytest.mark.parametrize(
    ("text", "operands"),
    [
        ("f4", [("f4", ())]),
        ("f4[]", [("f4", ())]),
        ("float16[i]", [("f2", ("i",))]),
        (" f4 [ i , 12 ] , c16 ", [("f4", ("i", 12)), ("c16", ())]),
        ("bool[n],\n u1[n]", [("?", ("n",)), ("u1", ("n",))]),
        ("i8[0]", [("i8", (0,))]),
    ],
)
def test_grammar(text, operands):
    expected = tuple(OperandSignature(np.dtype(dtype), axes) for dtype, axes in operands)
    assert parse_signature(text).operands == expected


@pytest.mark.parametrize(
    ("text", "message", "marked"),
    [
        ("", "a dtype is missing", (0, 0)),
        ("f4,", "a dtype is missing", (3, 3)),
        ("[i]", "there is no dtype 'i'", (1, 2)),
        ("x4[i]", "there is no dtype 'x4'", (0, 2)),
        ("f4[i], O[j]", "there is no dtype 'O'", (7, 8)),
        ("f16", "there is no dtype 'f16'", (0, 3)),
        ("f4[i", "'[' is never closed", (2, 3)),
        ("f4]", "']' is not expected here", (2, 3)),
        ("f4[[i]]", "'[' is not expected here", (3, 4)),
        ("f4[i]]", "']' is not expected here", (5, 6)),
        ("f4[i] f4[j]", "a ',' is missing", (6, 7)),
        ("f4 f4", "a ',' is missing", (3, 4)),
        ("f4[i j]", "'i j' is neither an index name nor an extent", (3, 6)),
        ("f4[i,]", "an axis is missing", (5, 5)),
        ("f4[,i]", "an axis is missing", (3, 3)),
        ("f4[-1]", "'-1' is neither an index name nor an extent", (3, 5)),
        ("f4[2n]", "'2n' is neither an index name nor an extent", (3, 5)),
        ("(f4[i])", "a tuple of one has a ',': (f4[i],)", (0, 7)),
        ("(f4, [f4}", "'}' is not expected here", (8, 9)),
        ("{w: [f4, ", "'[' is never closed", (4, 5)),
        ("{w: f4 b: f4}", "a ',' is missing", (7, 8)),
        ("{w f4}", "a ':' is missing", (3, 4)),
        ("{: f4}", "a key is missing", (1, 1)),
        ("{a.b: f4}", "'a.b' is no plain name", (1, 4)),
        ("{1: f4, True: f4}", "True is there twice", (8, 12)),
        ("{'w: f4}", "the text is never closed", (1, 2)),
        ("{'\\x': f4}", "Python cannot read this text", (1, 5)),
        ("{w: relu}, f4", "there is no dtype 'relu'", (4, 8)),
        ("L(f4)", "expected the name of a field", (2, 2)),
        ("m:L(w=f4, w=f4)", "'w' is there twice", (10, 11)),
        ("f4 as f8", "a name for the operand is missing", (6, 8)),
        ("f4 as x, f4 as x", "another operand is called 'x'", (15, 16)),
        ("x, f4 as x", "there is no dtype 'x'", (0, 1)),
        ("a=f4, f4", "after an argument with a name every one needs", (6, 8)),
        ("a=f4, a=f4", "the argument 'a' is there twice", (6, 7)),
        ("{}, None", "there is no operand in it", (0, 8)),
    ],
)
def test_wrong_syntax_is_pointed_at(text, message, marked):
    with pytest.raises(EinsumError) as caught:
        parse_signature(text)
    assert message in caught.value.message
    assert caught.value.span == marked
    assert caught.value.text == text


def test_what_is_no_text_is_a_type_error():
    with pytest.raises(EinsumTypeError, match="must be a str, not Float32DType"):
        parse_signature(np.dtype("f4"))


@given(st.text(alphabet="f48c1[], ijn2-é(){}:='as", max_size=12))
def test_any_text_is_read_or_refused(text):
    try:
        signature = parse_signature(text)
    except EinsumError as error:
        start, end = error.span
    else:
        start = end = 0
        assert parse_signature(str(signature)) == signature
    assert 0 <= start <= end <= len(text)


@pytest.mark.parametrize(
    ("text", "equation"),
    [
        ("f4[i,j], f4[j,k]", "ij,jk->ik"),
        ("f4[i,128], f8[128,k]", "ij,jk->ik"),
        ("f4[i,128], f4[1,k]", "ij,jk->ik"),
        ("f4[i,128], f4[j,k]", "ij,jk->ik"),
        ("f4, f4[i]", ",i->i"),
        ("f4[i,i]", "ii->i"),
        ("f4[i,j], f4[j,k]", "...ij,...jk->...ik"),
        ("f4[b,h,i,j], f4[h,j,k]", "...ij,...jk->...ik"),
        ("f4[3,i,j], f4[1,j,k]", "...ij,...jk->...ik"),
        ("f4[batch,q,d], f4[batch,k,d]", "batch q d, batch k d -> batch q k"),
        ("f4[a,b,c,d], f4[c,d]", "ab cd, cd -> ab"),
        ("f4[ab,cd], f4[cd]", "ab cd, cd -> ab"),
    ],
)
def test_what_fits_the_equation(text, equation):
    assert parse_signature(text, parse(equation)) == parse_signature(text)


@pytest.mark.parametrize(
    ("text", "equation", "message", "marked"),
    [
        ("f4[i,j]", "ij,jk->ik", "has 1 operand, but the equation ij,jk->ik has 2", (0, 7)),
        ("f4,f4,f4[k]", ",->", "has 3 operands, but the equation ,-> has 2", (6, 11)),
        ("f4[i], f4[j,k]", "ij,jk->ik", "operand 0 has 1 axis here, but 2", (0, 5)),
        ("f4[i,j], f4", "ij,...jk->ik", "operand 1 has no axes here, but 2 or more", (9, 11)),
        ("f4[i,j], f4[k,j]", "ij,jk->ik", "axis 0 of operand 1 is 'j'", (12, 13)),
        ("f4[m,n]", "ij->", "axis 0 of operand 0 is 'i'", (3, 4)),
        ("f4[i,3], f4[4,k]", "ij,jk->ik", "index 'j' is 3 in operand 0 (axis 1) but 4", (12, 13)),
        ("f4[k,i,j], f4[j,k]", "...ij,jk->...ik", "axis 0 of operand 0 is an axis of '", (3, 4)),
        ("f4[b,i], f4[h,i]", "...i,...i->...", "an axis of '...' is b in operand 0", (12, 13)),
        ("f4[2,i], f4[3,i]", "...i,...i->...", "an axis of '...' is 2 in operand 0", (12, 13)),
        ("f4[i], [f4[i]]", "i,i->", "a signature of an equation has operands alone", (7, 14)),
        ("f4[i] as x, x", "i,i->", "a signature of an equation has operands alone", (0, 10)),
        ("f4[i], b=f4[i]", "i,i->", "a signature of an equation has operands alone", (7, 14)),
    ],
)
def test_what_does_not_fit_is_pointed_at(text, equation, message, marked):
    with pytest.raises(EinsumError) as caught:
        parse_signature(text, parse(equation))
    assert message in caught.value.message
    assert caught.value.span == marked
