"""What the tests of kernel stores share."""

import os
import random
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from einsumc.runtime.key import ABI_VERSION, kernel_key
from einsumc.runtime.store import (
    Store,
    StorePath,
    StoreWarning,
)

ROOT = os.geteuid() == 0
NOBODY = 65534


def sample(number: int = 0, size: int = 80) -> tuple[str, dict[str, Any], bytes]:
    """Return key, header and image of a made-up kernel."""
    fields = {"kind": "kernel", "text": f"kernel {number}", "abi": ABI_VERSION}
    image = random.Random(number).randbytes(size)
    return kernel_key(fields), {"fields": fields, "entries": [0, 16], "features": ["avx2"]}, image


def path_of(store: Store, key: str) -> Path:
    return Path(store.path, key[:2], key + ".kernel")


def overwrite(path: Path, blob: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(blob)
    path.chmod(0o444)


def filled(path: Path, count: int = 1) -> Store:
    store = Store(path)
    for number in range(count):
        assert store.put(*sample(number))
    return store


def holds(store: Store | StorePath, number: int = 0, size: int = 80) -> bool:
    """Whether the store has this kernel; what it has must be right."""
    key, header, image = sample(number, size)
    found = store.get(key)
    if found is not None:
        assert found.key == found.header["key"] == key
        assert found.image == image
        assert header.items() <= found.header.items()
    return found is not None


def caught(action: Callable[[], object]) -> list[str]:
    """Return what `action` warns of."""
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        action()
    assert all(warning.category is StoreWarning for warning in record), record
    return [str(warning.message) for warning in record]


def quiet(action: Callable[[], Any]) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StoreWarning)
        return action()


def fork(action: Callable[[], object]) -> int:
    """Run `action` in a child process; return the child's id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def run(action: Callable[[], object]) -> None:
    """Run `action` in a child process; fail if it fails."""
    assert os.waitpid(fork(action), 0)[1] == 0


def python(script: str, *prefix: str) -> subprocess.CompletedProcess[str]:
    roots = os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))
    return subprocess.run(
        [*prefix, sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": roots},
        capture_output=True,
        check=False,
        text=True,
    )


def no_leftovers(path: Path) -> bool:
    return not [file for file in path.rglob("*") if file.name.endswith(".tmp")]
