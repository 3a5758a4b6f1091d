"""What is planned ahead for affine equations: plans and kernels in stores, manifests."""

import numpy as np
import pytest
from einsumc import EinsumError, compile_einsum, einsum
from einsumc.runtime.manifest import read_requests, to_text, use_of, uses_in
from einsumc.runtime.wanted import jobs_of

IMAGE, KERNEL = np.arange(9.0), np.array([1.0, 10, 100])


def test_plans_of_other_sizes_are_others():
    for extent in (3, 5, 7, 3):
        for _ in range(2):
            got = einsum("y+k-1, k -> y", IMAGE, KERNEL, sizes={"y": extent})
            expected = np.convolve(IMAGE, KERNEL[::-1], "same")[:extent]
            np.testing.assert_array_equal(got, expected)


def test_equal_results_of_other_sums_too():
    once = einsum("y+k -> y", IMAGE, sizes={"y": 5, "k": 3})
    more = einsum("y+k -> y", IMAGE, sizes={"y": 5, "k": 4})
    np.testing.assert_array_equal(more - once, IMAGE[3:8])


def test_a_manifest_has_sizes(tmp_path, few_calls):
    compiled = compile_einsum("y+k-1, k -> y", sizes={"y": 9}, signatures=["f8[h], f8[k]"])
    expression = compiled._resolve((IMAGE, KERNEL))
    use = use_of(compiled.equation, expression, [IMAGE, KERNEL], IMAGE.dtype, sizes=compiled.sizes)
    text = to_text([use])
    assert 'sizes = {"y" = 9}' in text
    assert uses_in(text) == [use]
    path = tmp_path / "kernels.toml"
    path.write_text(text)
    (request,) = read_requests(path)
    assert request.sizes == compiled.sizes
    assert compiled.request().sizes == compiled.sizes
    assert any(job.dtypes for job in jobs_of(request))


def test_wrong_sizes_in_a_manifest(tmp_path):
    path = tmp_path / "kernels.toml"
    path.write_text(
        '[[kernel]]\nequation="y+k, k -> y"\nsignatures=["f8[h], f8[k]"]\nsizes={y="a"}'
    )
    with pytest.raises(EinsumError, match=r"kernel 1, sizes: sizes\['y'\] must be an extent"):
        read_requests(path)
