"""Functions of tuples, lists and dicts: recorded, compiled ahead, called without a compiler."""

from pathlib import Path

import numpy as np
import pytest
from einsumc import compile_einsum
from einsumc.compiler.errors import EinsumError
from einsumc.runtime import covering, kernels, programs, stored_program, trouble
from einsumc.runtime import record as record_module
from einsumc.runtime.kernels import KernelMissing
from einsumc.runtime.manifest import read_requests
from einsumc.runtime.plan import planned
from einsumc.runtime.precompile import build
from einsumc.runtime.signatures import parse_signature
from einsumc.runtime.store import Store
from einsumc.runtime.trouble import StoreWarning
from einsumc.runtime.uses import FunctionUse, to_text, uses_in
from einsumc.runtime.wanted import jobs_of

MODULE = """
import collections
import numpy as np
from einsumc import compile_einsum

Layer = collections.namedtuple("Layer", "w b")

class Odd(list):
    pass

@compile_einsum
def scaled(p, x, *more, kind="plain", **options):
    sums = (x * p["größe"][1] * p[3].w).sum(axis=1)
    for each in more:
        sums = sums + each["y"]
    return sums * options.get("by", 1) * (2 if p["kind"] is None else len(p[3].b))

@compile_einsum
def near(pair, rate, power=1, *more, mask=None):
    far = np.exp(-np.square(pair[0] - pair[1]).sum(axis=1)) * rate["rate"] ** power
    for each in more:
        far = far + each
    return far if mask is None else far * mask

@compile_einsum
def plain(x):
    return x.sum()
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> Path:
    monkeypatch.setenv("EINSUMC_RECORD", str(tmp_path / "used.toml"))
    monkeypatch.setattr(record_module, "_records", {})
    return tmp_path / "used.toml"


@pytest.fixture
def nested(module_of):
    return module_of("nested_bodies", MODULE)


def calls(nested, rows: int, columns: int):
    numbers = np.random.default_rng(rows)
    x, w = numbers.random((rows, columns)), numbers.random(columns)
    layers = {"größe": ((), w), 3: nested.Layer(w, b=[[], {}]), "kind": None, "a.b": ("x", True)}
    yield nested.scaled, (layers, x), {}
    yield nested.scaled, (layers, x, {"y": x[:, 0]}), {"by": 2, "kind": ["other"]}
    yield nested.near, ([x, x], {"rate": 0.5}, 1, x[:, 0]), {}
    yield nested.near, ([x, x + 1], {"rate": 0.5}), {"mask": x[:, 0]}


LAYERS = "{'größe': ((), f8[i] as x), 3: Layer(w=x, b=[[], {}]), kind: None, 'a.b': ('x', True)}"
SIGNATURES = [
    f"{LAYERS}, f8[j,i]",
    f"{LAYERS}, f8[j,i], {{y: f8[j]}}, kind=['other']",
    "[f8[i,j] as x, x], {rate: 0.5}, f8[i]",
    "[f8[i,j], f8[i,j]], {rate: 0.5}, mask=f8[i]",
]


def check(function, args, named) -> None:
    np.testing.assert_allclose(function(*args, **named), function.__wrapped__(*args, **named))


def test_what_a_run_recorded_is_compiled_and_runs_without_a_compiler(
    path, nested, tmp_path, monkeypatch
):
    for call in calls(nested, 3, 4):
        check(*call)
    text = path.read_text()
    requests = {str(each.signatures[0]): each for each in read_requests(path)}
    assert requests.keys() == {*SIGNATURES}
    arguments = [dict(requests[signature].arguments) for signature in SIGNATURES]
    assert arguments == [{}, {"by": 2}, {"power": 1}, {}]
    assert requests[SIGNATURES[1]].layouts == (("C", "C", "C", "C*"),)
    assert text.endswith(f"\n\n{to_text(uses_in(text))}\n")

    monkeypatch.setattr(covering, "SHAPES", 1)
    needed = set()
    for number, signature in enumerate(SIGNATURES):
        jobs = jobs_of(requests[signature])

        def obtain(schedule, target, known=frozenset(job.schedule for job in jobs)):
            if schedule not in known:
                raise KernelMissing(str(schedule))
            needed.add(schedule)
            return planned(schedule, target)

        for rows, columns in [(1, 1), (70, 300)]:
            function, args, named = [*calls(nested, rows, columns)][number]
            programs.prepare_program(*function._planned(args, named), obtain=obtain)

    store = Store(str(tmp_path / "other"))
    wanted = [job for job in jobs if job.schedule in needed or not job.dtypes]
    build(wanted, store=store, jobs=1)
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(store.path))
    monkeypatch.setenv("EINSUMC_COMPILE", "never")
    monkeypatch.setattr(kernels, "_kernels", {})
    check(*[*calls(nested, 70, 300)][3])
    with pytest.raises(KernelMissing) as caught:
        check(*next(calls(nested, 70, 300)))
    assert f'"{SIGNATURES[0]}",' in str(caught.value)


def test_what_is_one_array_here_may_be_several_there(monkeypatch):
    """Kernels for operands that are the same serve others, and the other way around."""
    monkeypatch.setattr(covering, "SHAPES", 1)
    function = compile_einsum(lambda pair: np.tanh(pair[0] * pair[1] + pair[0]))
    both = covering.schedules_for_function(function, parse_signature("[f4[i,j] as x, x]"))
    others = covering.schedules_for_function(function, parse_signature("[f4[i,j], f4[i,j]]"))
    assert both > others

    def prepare(program, *rest):
        if program.inputs[0] == program.inputs[1]:
            raise KernelMissing("the store has no kernel for a square")
        return real(program, *rest)

    real = stored_program.prepare
    monkeypatch.setattr(stored_program, "prepare", prepare)
    x = np.random.default_rng(0).random((3, 4))
    np.testing.assert_allclose(function([x, x]), np.tanh(x * x + x))
    np.testing.assert_allclose(function([x, x], out=np.empty((3, 4), "f8")), np.tanh(x * x + x))


@pytest.mark.parametrize(
    ("name", "signature", "message"),
    [
        ("near", "{w: f8[i]}, Layer(w=f8[i], c=1)", r"Layer cannot be made: .* 'c'"),
        ("near", "{w: f8[i]}, Odd(w=f8[i])", "there is no named tuple 'Odd' in nested_bodies"),
        ("near", "{w: f8[i]}, nowhere:Layer(w=f8[i])", "there is no module 'nowhere'"),
        ("near", "[f8[i], f8[i]]", "there are too few arguments: 'rate' gets none"),
        ("plain", "f8[i], 1", "there are 2 arguments by place, 1 too many"),
        ("near", "[f8[i]], {}, width=2", "the function has no argument 'width'"),
    ],
)
def test_signatures_that_do_not_fit_the_function(nested, name, signature, message, monkeypatch):
    monkeypatch.setattr(covering, "SHAPES", 1)
    with pytest.raises(EinsumError, match=message):
        covering.schedules_for_function(getattr(nested, name), parse_signature(signature))


def test_what_no_signature_can_say_is_one_warning_that_says_what(path, nested, monkeypatch):
    x = np.ones((2, 2))
    for pair, rate, what in [
        (nested.Odd([x, x]), {"rate": 2}, "nested_bodies.Odd is no named tuple"),
        ((x, x), {"rate": 2, "dtype": int}, "no word for the type that its argument 'rate'"),
        ((x, x), {"rate": 2, b"x": x}, "no word for the bytes that its argument 'rate'"),
    ]:
        monkeypatch.setattr(trouble, "_warned", {})
        with pytest.warns(StoreWarning, match=f"cannot be written down: .*{what}"):
            nested.near(pair, rate)
    monkeypatch.setattr(trouble, "_warned", {})
    with pytest.warns(StoreWarning, match=r"would not be understood: .*, a.b=f8"):
        nested.scaled({"größe": [0, x], 3: nested.Layer(x, [0]), "kind": 0}, x, **{"a.b": x + 1})
    assert not path.exists()


def test_tensors_are_recorded_as_the_arrays_that_they_are(path, nested):
    torch = pytest.importorskip("torch")
    nested.near([torch.ones(3, 4), torch.ones(3, 4)], {"rate": torch.ones(3)})
    assert [str(each.signatures[0]) for each in read_requests(path)] == [
        "[f4[i,j], f4[i,j]], {rate: f4[i]}"
    ]


def test_layouts_are_of_so_many_operands():
    uses = [
        FunctionUse("m:f", "{'a, b': f4[i]}", "C*"),
        FunctionUse("m:f", "[f4[i], f4[j]]", "C, C*"),
    ]
    assert to_text(uses).count("[[kernel]]") == 2
