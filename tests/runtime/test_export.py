"""Exported einsums: called from C where there is a compiler, and by ctypes with any strides."""

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from einsumc.compiler.errors import EinsumError
from einsumc.compiler.resolve import resolve
from einsumc.compiler.subscripts import parse
from einsumc.runtime.cli import command
from einsumc.runtime.export import Exported, export, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sweeps import every, sweep

CC = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
needs_cc = pytest.mark.skipif(CC is None, reason="there is no C compiler")

CASES = {
    "product": ("ij,jk->ik", "f4[i,j], f4[j,k]"),
    "chain": ("ij,jk,kl->il", "f8[i,j], f8[j,k], f8[k,l]"),
    "batched": ("bij,bjk->bik", "c8[b,i,j], c8[b,j,k]"),
    "complexes": ("ij,kj->ki", "c16[i,j], c16[k,j]"),
    "halves": ("ij,jk,k->i", "f2[i,j], f2[j,k], f2[k]"),
    "whole": ("ij,j->i", "i4[i,j], i4[j]"),
    "bytes_": ("ij,jk->ik", "u1[i,j], u1[j,k]"),
    "truths": ("ij,jk->ik", "b1[i,j], b1[j,k]"),
    "dot": ("i,i->", "f4[i], f4[i]"),
    "diagonal": ("iij->j", "f8[i,i,j]"),
    "turned": ("abc->cab", "f4[a,b,c]"),
    "broadcast": ("...ij,...jk->...ik", "f4[b,i,j], f4[1,j,k]"),
    "fixed": ("ijk,jl->kil", "f8[i,3,k], f8[3,l]"),
    "many": ("abc,bd,ce,df,ef->a", "f8[a,b,c], f8[b,d], f8[c,e], f8[d,f], f8[e,f]"),
    "scalar": (",i->i", "f4, f4[i]"),
    "gradients": ("nti,nsi,ntj,nsj->n", "f4[n,t,i], f4[n,s,i], f4[n,t,j], f4[n,s,j]"),
}

_made: dict[str, Exported] = {}


def exported(name: str) -> Exported:
    if name not in _made:
        equation, signature = CASES[name]
        _made[name] = export(equation, signature, name)
    return _made[name]


class Library:
    """An exported einsum called by ctypes, on arrays of any strides."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        path = write(exported(name), folder)[0]
        self.library = ctypes.CDLL(path)
        self.equation, self.signature = CASES[name]

    def function(self, part: str, kind: Any = ctypes.c_int64) -> Callable[..., int]:
        function = getattr(self.library, self.name + part)
        function.restype = kind
        return function

    def prepared(
        self, operands: list[Any], out: Any, given: list[int] | None = None
    ) -> tuple[list[Any], Any, Any, Any, int]:
        tensors = [*operands, out]
        if given is None:
            expression = resolve(parse(self.equation), [a.shape for a in operands])
            given = [n for _, n in expression.extents]
        extents = (ctypes.c_int64 * 99)(*given)
        steps = [stride // a.itemsize for a in tensors for stride in a.strides]
        strides = (ctypes.c_int64 * 99)(*steps)
        pointers = [ctypes.c_void_p(a.__array_interface__["data"][0]) for a in tensors]
        size = self.function("_workspace")(extents)
        return pointers, extents, strides, _memory(size), self.function("_scratch")(extents)

    def __call__(self, operands: list[Any], out: Any, given: list[int] | None = None) -> int:
        pointers, extents, strides, workspace, scratch = self.prepared(operands, out, given)
        call = self.function("", ctypes.c_int)
        return call(*pointers, extents, strides, workspace, _memory(scratch))

    def in_tiles(self, operands: list[Any], out: Any, threads: int) -> None:
        pointers, extents, strides, workspace, scratch = self.prepared(operands, out)
        tensors = (ctypes.c_void_p * len(pointers))(*pointers)
        tiles = self.function("_tiles")
        run = self.function("_range", ctypes.c_int)
        step = 0
        while (count := tiles(ctypes.c_int64(step), extents, strides)) >= 0:
            order = iter(np.random.default_rng(step).permutation(count).tolist())
            lock = threading.Lock()

            def work(step: int = step, order: Any = order, lock: Any = lock) -> None:
                own = _memory(scratch)
                while True:
                    with lock:
                        tile = next(order, None)
                    if tile is None:
                        return
                    numbers = map(ctypes.c_int64, (step, tile, tile + 1))
                    assert run(*numbers, tensors, extents, strides, workspace, own) == 0

            workers = [threading.Thread(target=work) for _ in range(threads)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            step += 1
        assert step == self.steps()

    def steps(self) -> int:
        (line,) = (x for x in exported(self.name).header.splitlines() if "_STEPS" in x)
        return int(line.split()[-1])


_alive: list[Any] = []


def _memory(size: int) -> Any:
    """So many bytes on a cache line, full of what is surely wrong."""
    if not size:
        return None
    block = np.full(size + 64, 0xFF, np.uint8)
    _alive.append(block)
    del _alive[:-64]
    address = block.__array_interface__["data"][0]
    return ctypes.c_void_p(-(-address // 64) * 64)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Library]:
    loaded: dict[str, Library] = {}

    def library(name: str) -> Library:
        if name not in loaded:
            loaded[name] = Library(name, tmp_path_factory.mktemp(name))
        return loaded[name]

    return library


WINDOWS = {
    "convolution": ("n c y+k-1 x+l-1, o c k l -> n o y x", "f4[n,c,h,w], f4[o,c,3,3]"),
    "strided": ("n 2*y+2*k-3 c, k c o -> n y o", "f8[n,h,c], f8[k,c,o]"),
    "depthwise": ("n c 2*y+k-1 x-l, c k l -> n c y x", "f4[n,c,h,w], f4[c,k,l]"),
    "three": ("c z+j-1 y+k-1 x+l-1, o c j k l -> o z y x", "f4[c,d,h,w], f4[o,c,j,k,l]"),
    "taps": ("n c y+k-1 x+l-1, n o y x -> o c k l", "f4[n,c,h,w], f4[n,o,y,x]"),
    "image": ("n o y x, o c k l -> n c 2*y+k-1 3*x+2*l-1", "f4[n,o,y,x], f4[o,c,k,l]"),
    "meeting": ("y, k m -> 2*y+k+m", "f4[y], f4[k,m]"),
    "holes": ("y, k -> 4*y+2*k+1", "f4[y], f4[k]"),
    "back": ("y, k -> 2*y-3*k+2", "i4[y], i4[k]"),
    "bottleneck": (
        "n c h+k w+l, c r, r s k l, s o -> n o h w",
        "f4[n,c,y,x], f4[c,r], f4[r,s,3,3], f4[s,o]",
    ),
    "norms": ("n y+k, n y, n v+k, n v -> n", "f8[n,h], f8[n,y], f8[n,h], f8[n,v]"),
    "halves": ("y+k-1, k -> y", "f2[h], f2[k]"),
    "truths": ("c y+k-1, c k -> y", "b1[c,h], b1[c,k]"),
    "moved": ("n c 2*y+k-1 -> n c k y", "c8[n,c,h]"),
    # In these an index has not the extent of the axis that it is read at.
    "behind": ("x 2*y -> x-3 y", "f4[x,h]"),
    "spread": ("y x -> 4*y+1 x", "f4[y,x]"),
    # And in these two indices are as good as one with typical extents, but not with others.
    "summed": ("n 3*y+k -> n", "f8[n,h]"),
}


def by_loops(equation: str, operands: list[Any], sizes: dict[str, int], shape: Any) -> Any:
    """An equation with affine axes, every product of which is looked up or left out."""
    subscripts = parse(equation)
    names = [*sizes]
    at = dict(zip(names, np.indices(tuple(sizes.values())), strict=True))

    def places(axes: Any, lengths: Any) -> tuple[Any, Any]:
        found = [sum((c * at[n] for n, c in a.index.terms), a.index.constant) for a in axes]
        inside = np.full(tuple(sizes.values()), True)
        for place, n in zip(found, lengths, strict=True):
            inside &= (place >= 0) & (place < n)
        return tuple(np.where(inside, place, 0) for place in found), inside

    product: Any = np.ones(tuple(sizes.values()), "c16" if operands[0].dtype.kind == "c" else "f8")
    for term, array in zip(subscripts.inputs, operands, strict=True):
        where, inside = places(term.axes, array.shape)
        product = product * np.where(inside, array[where], 0)
    assert subscripts.output is not None
    where, inside = places(subscripts.output.axes, shape)
    out = np.zeros(shape, product.dtype)
    np.add.at(out, where, np.where(inside, product, 0))
    return out.astype(operands[0].dtype)


def shapes_of(name: str, extent: Callable[[str], int]) -> list[tuple[int, ...]]:
    from einsumc.runtime.signatures import parse_signature

    signature = parse_signature(CASES[name][1])
    return [
        tuple(axis if isinstance(axis, int) else extent(axis) for axis in operand.axes)
        for operand in signature.operands
    ]


def random_array(random: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> Any:
    """Small whole numbers, so that every sum is exact, in any memory order, with gaps, flipped."""
    rank = len(shape)
    axes = random.permutation(rank)
    gaps = random.choice([1, 1, 2, 3], rank)
    base = np.zeros([shape[axis] * gap for axis, gap in zip(axes, gaps, strict=True)], dtype)
    flips = tuple(slice(None, None, int(g * random.choice([1, -1]))) for g in gaps)
    view = base[(*flips, ...)].transpose(np.argsort(axes))
    view[...] = random.integers(0, 2 if np.dtype(dtype).kind == "b" else 4, shape)
    return view


def dtype_of(name: str) -> Any:
    from einsumc.runtime.signatures import parse_signature

    return parse_signature(CASES[name][1]).operands[0].dtype


# C


@needs_cc
@pytest.mark.parametrize("name", sweep(CASES, lambda name: name in list(CASES)[::6]))
def test_the_test_program_compiles_and_passes(name: str, tmp_path: Path) -> None:
    write(exported(name), tmp_path)
    build = [str(CC), "-std=c11", "-Wall", "-Wextra", "-Werror", f"{name}_test.c"]
    link = ["-L.", f"-l{name}", "-Wl,-rpath,.", "-o", "run"]
    done = subprocess.run([*build, *link], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(["./run"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(": 0 wrong") == 6


@needs_cc
def test_the_test_program_can_fail(tmp_path: Path) -> None:
    write(exported("dot"), tmp_path)
    other = export("i,j->", "f4[i], f4[j]", "dot")
    (tmp_path / "libdot.so").write_bytes(other.library)
    flags = ["-L.", "-ldot", "-Wl,-rpath,.", "-o", "run"]
    subprocess.run([str(CC), "dot_test.c", *flags], cwd=tmp_path, check=True)
    assert subprocess.run(["./run"], cwd=tmp_path, capture_output=True).returncode != 0


@needs_cc
def test_the_header_is_cplusplus_as_well(tmp_path: Path) -> None:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    write(exported("batched"), tmp_path)
    (tmp_path / "use.cpp").write_text('#include "batched.h"\nint use() { return BATCHED_STEPS; }\n')
    subprocess.run([compiler, "-Wall", "-Werror", "-c", "use.cpp"], cwd=tmp_path, check=True)


# Any strides


@pytest.mark.parametrize("name", every(2, CASES))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_any_extents_and_strides(name: str, seed: int, libraries: Callable[[str], Library]) -> None:
    random = np.random.default_rng(seed)
    sizes = {axis: int(random.choice([1, 2, 3, 7, 8, 9, 17, 33])) for axis in "abcdefijklnst"}
    shapes = shapes_of(name, sizes.__getitem__)
    if sum(len(shape) for shape in shapes) > 9:
        shapes = shapes_of(name, lambda axis: min(sizes[axis], 5))
    dtype = dtype_of(name)
    operands = [random_array(random, shape, dtype) for shape in shapes]
    expected = np.einsum(CASES[name][0], *operands, dtype="f8" if dtype == "f2" else None)
    out = random_array(random, expected.shape, dtype)
    assert libraries(name)(operands, out) == 0
    tolerance = 2e-3 if dtype == "f2" else 0
    np.testing.assert_allclose(out, expected, rtol=tolerance)


@pytest.mark.parametrize("name", ["product", "chain", "gradients", "turned", "whole"])
def test_tiles_in_any_order_on_any_threads(name: str, libraries: Callable[[str], Library]) -> None:
    random = np.random.default_rng(1)
    extent = 31 if name == "gradients" else 300 if name != "turned" else 60
    dtype = dtype_of(name)
    operands = [
        np.asarray(random.integers(-9, 9, shape) / (7 if dtype.kind == "f" else 1), dtype)
        for shape in shapes_of(name, lambda axis: extent + ord(axis) % 4)
    ]
    shape = np.einsum(CASES[name][0], *operands, optimize=True).shape
    library = libraries(name)
    once = np.zeros(shape, dtype)
    assert library(operands, once) == 0
    expected = np.einsum(CASES[name][0], *operands, optimize=True)
    np.testing.assert_allclose(once, expected, rtol=1e-3, atol=1e-3)
    for threads in (1, 3):
        tiled = np.full(shape, 7, dtype)
        library.in_tiles(operands, tiled, threads)
        assert tiled.tobytes() == once.tobytes()


def test_large_products_take_the_fast_kernel(libraries: Callable[[str], Library]) -> None:
    library = libraries("product")
    a, b = np.random.default_rng(0).random((2, 700, 700), "f4")
    out = np.empty((700, 700), "f4")
    for x, y in ((a, b), (a.T, b), (a, b.T), (a.T, b.T), (a[::-1], b[:, ::-1])):
        assert library([x, y], out) == 0
        np.testing.assert_allclose(out, x @ y, rtol=1e-4)


def test_wrong_extents_are_refused_and_nothing_is_written(
    libraries: Callable[[str], Library],
) -> None:
    library = libraries("fixed")
    out = np.full((2, 2, 2), 5.0)
    operands = [np.ones((2, 3, 2)), np.ones((3, 2))]
    pointers, extents, strides, workspace, scratch = library.prepared(operands, out)
    for place, wrong in ((0, 0), (0, -1), (1, 2), (1, 4)):
        before, extents[place] = extents[place], wrong
        memory = (workspace, _memory(scratch))
        assert library.function("", ctypes.c_int)(*pointers, extents, strides, *memory) == 1
        assert library.function("_tiles")(ctypes.c_int64(0), extents, strides) == -1
        extents[place] = before
    assert (out == 5).all()
    assert library.function("_tiles")(ctypes.c_int64(0), extents, strides) > 0
    for step in (-1, library.steps(), 1 << 40):
        assert library.function("_tiles")(ctypes.c_int64(step), extents, strides) == -1


# Windows


@needs_cc
@pytest.mark.parametrize("name", sweep(WINDOWS, lambda name: name in ("convolution", "image")))
def test_windows_in_c(name: str, tmp_path: Path) -> None:
    write(export(*WINDOWS[name], name), tmp_path)
    build = [str(CC), "-std=c11", "-Wall", "-Wextra", "-Werror", f"{name}_test.c"]
    link = ["-L.", f"-l{name}", "-Wl,-rpath,.", "-o", "run"]
    subprocess.run([*build, *link], cwd=tmp_path, check=True)
    done = subprocess.run(["./run"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.count(": 0 wrong") == 6


@pytest.mark.parametrize(
    "name", sweep(WINDOWS, lambda name: name in [*WINDOWS][:9:4] + [*WINDOWS][-2:])
)
def test_windows_of_any_extents_and_strides(name: str, tmp_path: Path) -> None:
    """Also of such extents as do not fit each other, so that whole windows lie outside."""
    equation, signature = WINDOWS[name]
    made = export(equation, signature, name)
    CASES[name], _made[name] = WINDOWS[name], made
    library = Library(name, tmp_path)
    fixed = {"k": 3, "l": 3} if "3,3" in signature else {}
    subscripts = parse(equation)
    assert subscripts.output is not None
    terms = (*subscripts.inputs, subscripts.output)
    names = dict.fromkeys(i for t in terms for axis in t.axes for i in axis.index.names)
    for seed in range(60):
        random = np.random.default_rng(seed)
        sizes = {i: fixed.get(i, int(random.choice([1, 2, 3, 5, 9]))) for i in names}

        def shape(term: Any, sizes: Any = sizes, random: Any = random) -> tuple[int, ...]:
            span = [sum(abs(c) * (sizes[n] - 1) for n, c in a.index.terms) for a in term.axes]
            return tuple(
                sizes[axis.index.names[0]]
                if axis.index.is_index
                else max(1, n + int(random.choice([1, 0, -1, 2, 9, -9])))
                for axis, n in zip(term.axes, span, strict=True)
            )

        dtype = dtype_of(name)
        operands = [random_array(random, shape(term), dtype) for term in subscripts.inputs]
        out = random_array(random, shape(subscripts.output), dtype)
        extents = [*sizes.values()]
        for term, array in zip(terms, [*operands, out], strict=True):
            listed = zip(term.axes, array.shape, strict=True)
            extents += [n for axis, n in listed if not axis.index.is_index]
        assert library(operands, out, extents) == 0
        expected = by_loops(equation, operands, sizes, out.shape)
        np.testing.assert_allclose(
            out, expected, rtol=2e-3 if dtype == "f2" else 0, err_msg=f"{sizes}"
        )


# The file


def test_equal_input_gives_equal_files() -> None:
    script = (
        "import sys, hashlib; from einsumc.runtime.export import export\n"
        "made = export('ij,jk,kl->il', 'f8[i,j], f8[j,k], f8[k,l]', 'chain')\n"
        "print({name: hashlib.sha256(data).hexdigest() for name, data in made.files.items()})"
    )
    printed = set()
    for seed in "01":
        environment = os.environ | {"PYTHONHASHSEED": seed, "EINSUMC_TARGET": "x86-64-v3"}
        roots = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment | {"PYTHONPATH": roots},
            capture_output=True,
            text=True,
            check=True,
        )
        printed.add(done.stdout)
    assert len(printed) == 1


def test_code_is_never_writable(libraries: Callable[[str], Library]) -> None:
    name = libraries("chain").name
    maps = [
        line for line in Path("/proc/self/maps").read_text().splitlines() if f"lib{name}" in line
    ]
    modes = [line.split()[1] for line in maps]
    assert sorted(modes) == ["r--p", "r--p", "r-xp"]


def test_it_is_for_the_level_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {}
    for level in ("x86-64-v2", "x86-64-v3", "x86-64-v4"):
        monkeypatch.setenv("EINSUMC_TARGET", level)
        made[level] = export("ij,jk->ik", "f4[i,j], f4[j,k]")
        assert made[level].target == level
        assert f"for {level}." in made[level].header
    assert len({one.library for one in made.values()}) == 3


@pytest.mark.parametrize(
    ("equation", "signature", "options", "message"),
    [
        ("ij,jk->ik", "f4[i,j], f8[j,k]", {}, "one dtype"),
        ("i->ii", "f4[i]", {}, "repeats no index"),
        ("y, k m -> 2*y+3*k+5*m", "f4[y], f4[k,m]", {}, "sums cannot be taken apart"),
        ("package.module:name", "f4[y]", {}, "name its equations one by one"),
        ("y, k -> y y+k", "f4[y], f4[k]", {}, "two of its axes have an index in common"),
        ("2*y+m, k -> y+k m", "f4[h], f4[k]", {"typical": {"z": 3}}, "no axis 'z'"),
        ("ij->j", "f4[i,j]", {"name": "a b"}, "no name of a C function"),
        ("ij->j", "f4[i,j]", {"name": "double"}, "no name of a C function"),
        ("ij->j", "f4[i,j]", {"typical": {"k": 3}}, "no axis 'k'"),
        ("ij->j", "f4[i]", {}, "operand 0 has 1 axis"),
        ("i,i->", "f4[0], f4[0]", {}, "no axes of extent 0"),
    ],
)
def test_what_cannot_be_exported(equation, signature, options, message) -> None:
    with pytest.raises(EinsumError, match=message):
        export(equation, signature, **options)


def test_the_command(tmp_path: Path) -> None:
    arguments = ["export", "ij,jk->ik", "--signature", "f4[i,j], f4[j,k]", "--name", "mm"]
    options = ["--output", str(tmp_path / "c"), "--target", "x86-64-v3", "--typical", "i=64"]
    before = os.environ.get("EINSUMC_TARGET")
    done = CliRunner().invoke(command, [*arguments, *options])
    if before is None:
        os.environ.pop("EINSUMC_TARGET", None)
    assert done.exit_code == 0, done.output
    assert "mm for x86-64-v3" in done.output
    assert "cc mm_test.c -L. -lmm -Wl,-rpath,. -o mm_test && ./mm_test" in done.output
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == ["libmm.so", "mm.h", "mm_test.c"]
    done = CliRunner().invoke(command, [*arguments, "--output", "x", "--typical", "64"])
    assert done.exit_code == 2
    assert "is no extent of an index" in done.output
