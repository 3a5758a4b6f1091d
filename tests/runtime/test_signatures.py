"""Signatures: the grammar, what fits an equation, and messages that point at the place."""

import numpy as np
import pytest
from einsumc.compiler.errors import EinsumError, EinsumTypeError
from einsumc.compiler.subscripts import parse
from einsumc.runtime.operands import KERNEL_DTYPES
from einsumc.runtime.signatures import DTYPES, OperandSignature, Signature, parse_signature
from hypothesis import given
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
        ("[i]", "a dtype is missing", (0, 0)),
        ("x4[i]", "there is no dtype 'x4'", (0, 2)),
        ("f4[i], O[j]", "there is no dtype 'O'", (7, 8)),
        ("f16", "there is no dtype 'f16'", (0, 3)),
        ("f4[i", "'[' is never closed", (2, 3)),
        ("f4]", "']' is not expected here", (2, 3)),
        ("f4[[i]]", "'[' is not expected here", (3, 4)),
        ("f4[i]]", "a ',' is missing", (5, 6)),
        ("f4[i] f4[j]", "a ',' is missing", (6, 7)),
        ("f4 f4", "a ',' is missing", (3, 4)),
        ("f4[i j]", "'i j' is neither an index name nor an extent", (3, 6)),
        ("f4[i,]", "an axis is missing", (5, 5)),
        ("f4[,i]", "an axis is missing", (3, 3)),
        ("f4[-1]", "'-1' is neither an index name nor an extent", (3, 5)),
        ("f4[2n]", "'2n' is neither an index name nor an extent", (3, 5)),
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


@given(st.text(alphabet="f48c1[], ijn2-é", max_size=12))
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
    ],
)
def test_what_does_not_fit_is_pointed_at(text, equation, message, marked):
    with pytest.raises(EinsumError) as caught:
        parse_signature(text, parse(equation))
    assert message in caught.value.message
    assert caught.value.span == marked
