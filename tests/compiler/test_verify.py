"""The verifier of loop nests finds every way in which a pass could break one."""

from dataclasses import replace

import pytest
from einsumc.compiler.affine import Affine
from einsumc.compiler.choose import choose
from einsumc.compiler.geometry import canonical
from einsumc.compiler.loopnest import (
    Assign,
    Buffer,
    Kind,
    Loop,
    Ref,
    Scope,
    Tabulate,
    Term,
    Tiles,
    at,
    with_body,
)
from einsumc.compiler.pipeline import stages
from einsumc.compiler.verify import VerificationError, verify
from steps import Step

STEPS = {
    "product": Step("ij,jk->ik", dict.fromkeys("ijk", 200)),
    "composite": Step("iajb,jkbc->ikac", dict.fromkeys("iajbkc", 20)),
    "sum": Step("aij->ia", {"a": 20, "i": 30, "j": 50}),
}


def nest_of(name, after):
    """A sound nest to break."""
    step = STEPS[name]
    found = stages(choose(canonical(step.geometry()), step.machine).schedule)
    return dict(found.nests)[after]


def changed(nest, kind, change, where=lambda statement: True):
    """The nest with the first statement of a kind replaced by what ``change`` makes of it."""
    done = False

    def rewrite(statements):
        nonlocal done
        result = []
        for statement in statements:
            if not done and isinstance(statement, kind) and where(statement):
                done = True
                found = change(statement)
                result += found if isinstance(found, tuple) else (found,)
            elif isinstance(statement, Loop | Tiles):
                result.append(with_body(statement, rewrite(statement.body)))
            else:
                result.append(statement)
        return tuple(result)

    broken = replace(nest, body=rewrite(nest.body))
    assert done, "nothing to break"
    return broken


def of(index):
    return lambda loop: loop.index == index


def kind_is(kind):
    return lambda loop: loop.kind is kind


def writes(name):
    return lambda statement: statement.target.buffer == name


def is_tabulated(statement):
    return any(term.table for f in statement.factors for term in f.terms)


def shifted(ref, **term):
    """A reference whose first term is changed."""
    return replace(ref, terms=(replace(ref.terms[0], **term), *ref.terms[1:]))


LATE, EARLY = "tabulate", "fuse"

BREAKS = {
    "a buffer is declared twice": lambda: replace(
        (n := nest_of("product", LATE)), buffers=(*n.buffers, n.buffers[0])
    ),
    "tiles are not outermost": lambda: changed(
        nest_of("product", LATE),
        Tiles,
        lambda t: Loop("z", Affine(()), (at("M"),), 1, Kind.SERIAL, (t,)),
    ),
    "tiles are not outermost ": lambda: replace(
        n := nest_of("product", LATE), body=(*n.body, *n.body)
    ),
    "unknown extent": lambda: changed(
        nest_of("product", LATE),
        Tiles,
        lambda t: replace(t, axes=((t.axes[0][0], "Q", 1), *t.axes[1:])),
    ),
    "bad step 0": lambda: changed(nest_of("product", LATE), Loop, lambda s: replace(s, step=0)),
    "bad step Q": lambda: changed(nest_of("product", LATE), Loop, lambda s: replace(s, step="Q")),
    "a bound of loop": lambda: changed(
        nest_of("product", LATE), Loop, lambda s: replace(s, stop=(at("nowhere"),))
    ),
    "is bound twice": lambda: changed(
        nest_of("product", EARLY), Loop, lambda s: replace(s, index="m"), of("n")
    ),
    "is empty": lambda: changed(
        nest_of("product", EARLY), Loop, lambda s: replace(s, body=()), of("k")
    ),
    "encloses several statements": lambda: changed(
        nest_of("product", LATE), Loop, lambda s: replace(s, body=s.body * 2), kind_is(Kind.VECTOR)
    ),
    "encloses rows": lambda: changed(
        nest_of("product", LATE),
        Loop,
        lambda s: replace(s, kind=Kind.VECTOR, body=(replace(s.body[0], kind=Kind.UNROLLED),)),
        kind_is(Kind.UNROLLED),
    ),
    "encloses no assignment": lambda: changed(
        nest_of("composite", LATE),
        Loop,
        lambda s: replace(s, body=(Tabulate("x1_n_at", "n", 1, Affine(()), (at("N"),)),)),
        kind_is(Kind.VECTOR),
    ),
    "a bound of table": lambda: changed(
        nest_of("composite", LATE), Tabulate, lambda s: replace(s, start=at("nowhere"))
    ),
    "is not in scratch": lambda: changed(
        nest_of("composite", LATE), Tabulate, lambda s: replace(s, table="x0")
    ),
    "v is not composite": lambda: changed(
        nest_of("sum", LATE), Tabulate, lambda s: replace(s, group="v")
    ),
    "q is not composite": lambda: changed(
        nest_of("composite", LATE), Tabulate, lambda s: replace(s, group="q")
    ),
    "operand x0 is written": lambda: changed(
        nest_of("product", EARLY), Assign, lambda s: replace(s, target=Ref("x0")), writes("out")
    ),
    "unknown buffer": lambda: changed(
        nest_of("product", EARLY), Assign, lambda s: replace(s, factors=(Ref("y"),)), writes("out")
    ),
    "acc is read before it is written": lambda: changed(
        nest_of("product", EARLY), Assign, lambda s: replace(s, target=Ref("out")), writes("acc")
    ),
    "panel is read before it is written": lambda: changed(
        nest_of("product", LATE),
        Assign,
        lambda s: replace(s, target=replace(s.target, buffer="acc")),
        writes("x1_panel"),
    ),
    "an access of x0": lambda: changed(
        nest_of("product", EARLY),
        Assign,
        lambda s: replace(s, factors=(shifted(s.factors[0], position=at("z")), *s.factors[1:])),
        lambda s: len(s.factors) == 2,
    ),
    "has unknown stride": lambda: changed(
        nest_of("product", EARLY),
        Assign,
        lambda s: replace(s, factors=(shifted(s.factors[0], stride="x0_z"), *s.factors[1:])),
        lambda s: len(s.factors) == 2,
    ),
    "is read before it is filled": lambda: changed(
        nest_of("composite", LATE), Tabulate, lambda s: (), lambda s: s.slot == 1
    ),
    "out is never written": lambda: changed(
        nest_of("product", EARLY), Assign, lambda s: replace(s, target=Ref("acc")), writes("out")
    ),
    "unknown loop": lambda: changed(
        nest_of("product", LATE), Assign, lambda s: replace(s, add="z_block"), writes("out")
    ),
}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("after", [EARLY, LATE])
def test_sound_nests_pass(name, after):
    verify(nest_of(name, after))


@pytest.mark.parametrize("message", BREAKS)
def test_broken_nests_do_not(message):
    with pytest.raises(VerificationError, match=message.strip()):
        verify(BREAKS[message](), after="a bad pass")


def test_the_message_names_the_pass():
    nest = nest_of("product", EARLY)
    with pytest.raises(VerificationError, match=r"^after pack: a buffer"):
        verify(replace(nest, operands=nest.operands * 2), after="pack")


def test_scratch_may_not_be_read_through_an_unfilled_table():
    table = Buffer("x0_k_at", "i8", Scope.SCRATCH, (1,))
    nest = replace(nest_of("product", EARLY), buffers=(Buffer("acc", "f4", Scope.REGISTERS), table))
    broken = changed(
        nest,
        Assign,
        lambda s: replace(s, factors=(Ref("x0", (Term(at("k"), table="x0_k_at"),)),)),
        lambda s: len(s.factors) == 2,
    )
    with pytest.raises(VerificationError, match="before it is filled"):
        verify(broken)
