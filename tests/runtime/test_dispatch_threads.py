"""Plans are made anew when the number of threads is set."""

import numpy as np
import pytest
from einsumc import compile_einsum, get_num_threads, set_num_threads


@pytest.fixture(autouse=True)
def _restore():
    yield
    set_num_threads(None)


def test_work_is_shared_out_again_and_the_bits_stay():
    rng = np.random.default_rng(0)
    a, b = rng.random((150, 90)), rng.random((90, 130))
    product = compile_einsum("ij,jk->ik")
    results = []
    for count in (1, 2, 5):
        set_num_threads(count)
        assert get_num_threads() == count
        results.append(product(a, b).tobytes())
        assert len(product._plans) == 1
    assert len(set(results)) == 1
