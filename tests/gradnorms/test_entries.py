"""Gradient norms in `kernels.toml`: one line, and no compiler afterwards."""

import subprocess
import sys

import pytest
from einsumc import EinsumError
from einsumc.gradnorms.entries import read_entry
from einsumc.runtime.manifest import read_requests
from sweeps import every

RUN = """
import numpy as np
from einsumc import gradnorms
rng = np.random.default_rng(0)
def normal(*shape):
    return rng.normal(size=shape).astype("f4")
x, g = normal(6, 5, 16), normal(6, 5, 8)
layer = gradnorms.Linear(g, x)
gradient = np.einsum("nto,nti->noi", g, x)
squares = (gradient ** 2).sum((1, 2)) + (g.sum(1) ** 2).sum(1)
"""

ENTRIES = {
    "norms(Linear(f4[6,5,8], f4[6,5,16]))": """
np.testing.assert_allclose(gradnorms.norms(layer), np.sqrt(squares), rtol=1e-4)
""",
    "clipped_sums(fc=Linear(f4[6,5,8], f4[6,5,16]), weights=f4[6])": """
factors = np.minimum(1, 3.0 / np.sqrt(squares)) * np.arange(6)
sums = gradnorms.clipped_sums({"fc": layer}, 3.0, np.arange(6, dtype="f4"))
np.testing.assert_allclose(
    sums["fc"]["weight"], np.einsum("n,noi->oi", factors, gradient), rtol=1e-3, atol=1e-3
)
""",
    "dot_products(Linear(f4[6,5,8], f4[6,5,16], bias=False))": """
products = gradnorms.dot_products(gradnorms.Linear(g, x, bias=False))
np.testing.assert_allclose(
    products, np.einsum("noi,moi->nm", gradient, gradient), rtol=1e-3, atol=1e-2
)
""",
}
"""What computes with nothing but the kernels of an entry."""


@pytest.mark.parametrize("entry", every(3, ENTRIES, first=2))
def test_an_entry_is_all_that_it_takes(entry, tmp_path, monkeypatch):
    manifest, store = tmp_path / "kernels.toml", tmp_path / "store"
    manifest.write_text(f'[[kernel]]\ngradnorms = "{entry}"\n')
    command = [sys.executable, "-m", "einsumc.runtime.cli", "precompile", str(manifest)]
    subprocess.run([*command, "--output", str(store)], check=True, capture_output=True)
    monkeypatch.setenv("EINSUMC_CACHE_DIR", str(store))
    monkeypatch.setenv("EINSUMC_COMPILE", "never")
    subprocess.run([sys.executable, "-c", RUN + ENTRIES[entry]], check=True)


def test_what_an_entry_says():
    _, signature = read_entry(
        "clip_coefficients(a=Embedding(i8[n,t], f8[n,t,4]), b=RMSNorm(f8[n,4], f8[n,4]))"
    )
    assert str(signature) == "i8[n,t], f8[n,t,4], f8[n,4], f8[n,4], f8"
    _, signature = read_entry("dot_products(Linear(f4[n,4], f4[n,8]), Linear(f4[m,4], f4[m,8]))")
    assert str(signature) == "f4[n,4], f4[n,8], f4[m,4], f4[m,8]"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("norm(Linear(f4[n,1], f4[n,1]))", "there is no function 'norm'"),
        ("norms(Linera(f4[n,1], f4[n,1]))", "there is no layer 'Linera'"),
        ("norms(Linear(f4[n,1]))", "Linear misses its inputs"),
        ("norms(Linear(f4[n,1], x4[n,1]))", "there is no dtype 'x4'"),
        ("norms(Linear(f4[n,1], f4[n,1], bais=False))", "has no other field 'bais'"),
        ("norms()", "one layer, or several"),
        ("norms(", "cannot be read"),
        ("norms(__import__('os'))", "there is no layer '__import__'"),
        ("norms(Linear(f4[n,1], f4[n,1], bias=open('x')))", "expected an operand"),
    ],
)
def test_wrong_entries(tmp_path, entry, message):
    manifest = tmp_path / "kernels.toml"
    manifest.write_text(f'[[kernel]]\ngradnorms = "{entry}"\n')
    with pytest.raises(EinsumError, match=message) as found:
        read_requests(str(manifest))
    assert "kernel 1, gradnorms" in str(found.value)


def test_nothing_goes_beside_it(tmp_path):
    manifest = tmp_path / "kernels.toml"
    manifest.write_text(
        '[[kernel]]\ngradnorms = "norms(Linear(f4[n,1], f4[n,1]))"\noptimize = true\n'
    )
    with pytest.raises(EinsumError, match="beside gradnorms, expected nothing"):
        read_requests(str(manifest))
