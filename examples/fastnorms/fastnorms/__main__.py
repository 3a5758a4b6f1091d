"""`python -m fastnorms` checks the norms, and says where the kernels came from."""

import sys

import numpy as np
from einsumc.runtime.kernels import counts

from . import norms, sequence_norms


def main() -> None:
    random = np.random.default_rng(0)
    b, a = (random.standard_normal((32, n), dtype="f4") for n in (10, 784))
    gradients = np.einsum("ni,nj->nij", b, a)
    np.testing.assert_allclose(norms(b, a), np.sqrt((gradients**2).sum((1, 2))), rtol=1e-4)

    b, a = (random.standard_normal((8, 50, n), dtype="f4") for n in (64, 96))
    gradients = np.einsum("nti,ntj->nij", b, a)
    found = sequence_norms(b, a)
    np.testing.assert_allclose(found, np.sqrt((gradients**2).sum((1, 2))), rtol=1e-4)

    compilers = sorted({"numba", "llvmlite"} & set(sys.modules)) or "no compiler"
    print(f"{counts.stored} kernels loaded, {counts.compiled} compiled; {compilers} imported")


if __name__ == "__main__":
    main()
