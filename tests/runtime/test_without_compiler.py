"""Production without a compiler: NumPy and einsumc are all that there is.

The processes here cannot import Numba, llvmlite, opt_einsum or anything else but NumPy: what they
have on their path is a folder with links to these two packages.
"""

import os
import subprocess
import sys
from pathlib import Path

import einsumc
import numpy as np
import pytest
from einsumc.runtime import kernels
from einsumc.runtime.decorator import compile_einsum
from einsumc.runtime.key import request
from einsumc.runtime.store import Store
from sweeps import every

CHECK = """
import sys, warnings
warnings.simplefilter("error")
import numpy as np, einsumc
from einsumc.runtime.kernels import KernelMissing, counts, toolchain
assert toolchain() == "none", toolchain()
for absent in ("numba", "llvmlite", "opt_einsum", "platformdirs", "click", "rich"):
    try:
        __import__(absent)
    except ModuleNotFoundError:
        continue
    raise AssertionError(absent)
random = np.random.default_rng(0)
"""
PRODUCTS = """
product = einsumc.compile_einsum("i,j->ij")
for i, j in [(8, 8), (24, 512), (2000, 2000)]:
    a, b = random.random(i), random.random(j)
    for _ in range(3):
        np.testing.assert_allclose(product(a, b), np.outer(a, b), rtol=1e-9)
assert counts.compiled == 0 < counts.stored
"""


@pytest.fixture
def bare(tmp_path: Path):
    """Runs a script with nothing but NumPy and einsumc."""
    packages = tmp_path / "packages"
    packages.mkdir()
    numpy = Path(np.__file__).parent
    for folder in (numpy, numpy.parent / "numpy.libs", Path(einsumc.__file__).parent):
        if folder.exists():
            name = "einsumc" if (folder / "compiler").exists() else folder.name
            (packages / name).symlink_to(folder)

    def run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        plain = {k: v for k, v in os.environ.items() if not k.startswith("EINSUMC_")}
        return subprocess.run(
            [sys.executable, "-S", "-P", "-c", CHECK + script],
            env=plain | {"PYTHONPATH": str(packages)} | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few_calls: None) -> Path:
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path / "store"))
    return tmp_path / "store"


def passes(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr


def built_elsewhere(monkeypatch: pytest.MonkeyPatch, versions: str) -> None:
    """Kernels are built by what says of itself that it has these versions."""
    monkeypatch.setattr(kernels, "toolchain", lambda: versions)


@pytest.mark.parametrize("versions", every(2, ["llvmlite 0.1.2, numba 0.0.1, Python 3.11", ""]))
def test_kernels_are_found_whoever_built_them(bare, store, monkeypatch, versions):
    if versions:
        built_elsewhere(monkeypatch, versions)
    made = compile_einsum("i,j->ij", signatures="f8[i], f8[j]").precompile()
    assert all(kernel.compiled for kernel in made)
    passes(bare(PRODUCTS, EINSUMC_CACHE_DIR=str(store), EINSUMC_COMPILE="never"))
    # The same if nothing forbids to compile, and in the directory that is the default.
    passes(bare(PRODUCTS, EINSUMC_CACHE_DIR=str(store)))
    (store.parent / "cache").mkdir()
    (store.parent / "cache" / "einsumc").symlink_to(store)
    passes(bare(PRODUCTS, XDG_CACHE_HOME=str(store.parent / "cache")))


NEEDLESS = """
a, b = random.random((64, 32)), random.random((32, 48))
np.testing.assert_allclose(einsumc.einsum("ij,jk->ik", a, b), a @ b)
needless = ("choose.framed", "choose.general", "choose.streamed", "evaluate", "finish", "formula",
    "frames", "loopnest", "margin", "merge", "pad", "regions", "rewrite.common", "slices", "trace")
print([name for name in needless if f"einsumc.compiler.{name}" in sys.modules])
"""


def test_a_product_imports_nothing_that_is_about_other_equations(bare, store):
    """What a process imports is most of what it pays before its first result."""
    compile_einsum("ij,jk->ik", signatures="f8[64,32], f8[32,48]").precompile()
    done = bare(NEEDLESS, EINSUMC_CACHE_DIR=str(store), EINSUMC_COMPILE="never")
    passes(done)
    assert done.stdout == "[]\n"


CHAINS = """
for equation in ("ij,jk,kl->il", "ij,jk,kl,lm->im", "ab,bc,cd,de,ef->af"):
    chain = einsumc.compile_einsum(equation)
    given = [random.random((40, 40)) for _ in range(equation.count(",") + 1)]
    expected = np.einsum(equation, *given, optimize=True)
    np.testing.assert_allclose(chain(*given), expected, rtol=1e-9)
assert counts.compiled == 0 < counts.stored
needless = ("chains", "families", "limits", "pad", "regions", "windows_path")
assert not {f"einsumc.compiler.{name}" for name in needless} & set(sys.modules)
"""


def test_several_operands_need_no_other_package(bare, store):
    for equation in ("ij,jk,kl->il", "ij,jk,kl,lm->im", "ab,bc,cd,de,ef->af"):
        signature = ", ".join(["f8[40,40]"] * (equation.count(",") + 1))
        compile_einsum(equation, signatures=signature).precompile()
    passes(bare(CHAINS, EINSUMC_CACHE_DIR=str(store), EINSUMC_COMPILE="never"))


def test_a_kernel_that_is_missing_is_an_error_that_says_so(bare, store):
    script = """
try:
    einsumc.einsum("ij,jk->ik", np.ones((3, 4)), np.ones((4, 5)))
except KernelMissing as error:
    print(error)
"""
    done = bare(script, EINSUMC_CACHE_DIR=str(store))
    passes(done)
    assert "without Numba it cannot be compiled" in done.stdout


def test_builds_of_several_versions_live_side_by_side(tmp_path, monkeypatch):
    keys = []
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path))
    for versions in ("llvmlite 1, numba 1, Python 3.12", "llvmlite 2, numba 2, Python 3.12"):
        built_elsewhere(monkeypatch, versions)
        made = compile_einsum("i,i->", signatures="f4[64], f4[64]").precompile()
        assert all(kernel.compiled for kernel in made)
        keys.append([kernel.key for kernel in made])
    first, second = keys
    store = Store(tmp_path)
    assert store.keys() == sorted(first + second)
    for key, other in zip(first, second, strict=True):
        assert request(key) == request(other)
        # Everybody finds their own; who has none finds the first; nobody finds what is damaged.
        assert [store.find(each).key for each in (key, other)] == [key, other]
        foreign = request(key) + "0" * 16
        assert store.find(foreign).key == min(key, other)
        assert store.get(foreign) is None
        assert store.remove(min(key, other))
        assert store.find(foreign).key == max(key, other)


def test_another_generator_is_never_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(tmp_path))
    compile_einsum("i,i->", signatures="f4[64], f4[64]").precompile()
    there = Store(tmp_path).keys()
    monkeypatch.setattr("einsumc.compiler.describe.generator", lambda: "another")
    monkeypatch.setattr("einsumc.compiler.sources.sources", lambda files: "another")
    made = compile_einsum("i,i->", signatures="f4[64], f4[64]").precompile()
    assert all(kernel.compiled for kernel in made)
    assert not {request(kernel.key) for kernel in made} & set(map(request, there))


CROSSOVER = """
import sys
import numpy as np
from einsumc import compile_einsum

@compile_einsum(signatures=["f4[n,t,i], f4[n,t,j]"])
def squared_norms(b, a):
    gradient = np.einsum("nti,ntj->nij", b, a)
    return np.einsum("nij,nij->n", gradient, gradient)

if sys.argv[1:]:
    squared_norms.precompile()
else:
    rng, forms = np.random.default_rng(0), []
    for t in (8, 900):
        b, a = (rng.normal(size=(3, t, width)).astype("f4") for width in (120, 130))
        exact = (np.einsum("nti,ntj->nij", b, a, dtype="f8") ** 2).sum((1, 2))
        np.testing.assert_allclose(squared_norms(b, a), exact, rtol=1e-4)
        ran = [*squared_norms._plans.values()][-1]._execution.program.statements
        together = [{index[0] for index in each.indices} >= {"i", "j"} for each in ran]
        forms.append(any(together))
    assert forms == [False, True]  # products of all pairs of positions, then the gradient itself
    assert "numba" not in sys.modules
"""


@pytest.mark.slow
def test_sizes_on_both_sides_of_a_crossover(tmp_path):
    """Which form is faster is decided by the extents of a call, with kernels for any of them."""
    script = tmp_path / "crossover.py"
    script.write_text(CROSSOVER)
    shared = {**os.environ, "EINSUMC_CACHE_DIR": str(tmp_path / "store")}
    subprocess.run([sys.executable, str(script), "precompile"], check=True, env=shared)
    never = {**shared, "EINSUMC_COMPILE": "never"}
    done = subprocess.run([sys.executable, str(script)], env=never, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
