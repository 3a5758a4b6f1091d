"""A child forked while another thread imports a part of einsumc can import it too.

A child inherits the lock of a module that another thread is importing, and would wait for it for
ever. So all imports after those that a program writes itself are made by who holds the lock that a
fork waits for (`compiler/alone.py`).
"""

import pytest

from scripts import run_without_path

ACTIONS = """
import os, sys, threading, time
import numpy as np
import einsumc
from einsumc import compile_einsum, einsum

a, b = np.ones((5, 6)), np.ones((6, 7))

def calls():
    for _ in range(4):
        einsum("ij,jk->ik", a, b)
    einsum(a, [0, 1], b, [1, 2])
    einsum("ij,jk,kl->il", a, b, np.ones((7, 400)), memory_limit="4 KiB")

def wrong():
    for text in ("ij,kj->ik", "ijk,jk->i", "ij,jk->i k", "ij,jé->i", "ij,jk->iz"):
        try:
            einsum(text, a, b)
        except ValueError:
            pass

def objects():
    einsum("ij,jk->ik", a.astype(object), b.astype(object))

def explain():
    str(compile_einsum("ij,jk->ik", signatures=["f4[i,j], f4[j,k]"]).explain(a, b))

def function():
    @compile_einsum
    def made(x, y):
        return {"all": np.exp(x @ y).sum(axis=1), "part": np.where(x > 0, x, 0).T}
    made(a, b)
    str(made.explain(a, b))

def record():
    os.environ["EINSUMC_RECORD"] = os.path.join(os.environ["EINSUMC_CACHE_DIR"], "used.toml")
    einsum("ij,jk->k", a, b)

def missing():
    os.environ["EINSUMC_COMPILE"] = "never"
    try:
        einsum("ij,jk,kl->li", a, b, np.ones((7, 3)))
    except RuntimeError as error:
        assert "precompile" in str(error)

def versions():
    einsumc.show_versions()
"""

WATCH = """
from einsumc.compiler.alone import alone

loose = []

class Watch:
    def find_spec(self, name, path=None, target=None):
        if not alone._is_owned():
            loose.append(name)

sys.meta_path.insert(0, Watch())
for action in (calls, wrong, objects, explain, function, record, missing, versions):
    action()
    assert not loose, (action.__name__, loose)
"""

FORK = """
import signal

inside = threading.Event()

class Slow:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is other and not inside.is_set():
            inside.set()
            time.sleep(0.3)  # the window that a fork falls into

sys.meta_path.insert(0, Slow())
other = threading.Thread(target=ACTION)
other.start()
inside.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)
    ACTION()
    os._exit(0)
other.join()
_, status = os.waitpid(child, 0)
assert status == 0, status
"""


def run(script, store):
    run_without_path(ACTIONS + script, store)


def test_every_later_import_holds_the_lock_that_a_fork_waits_for(tmp_path):
    run(WATCH, tmp_path)


@pytest.mark.parametrize("action", ["explain", "objects"])
def test_fork_while_another_thread_imports(action, tmp_path):
    run(FORK.replace("ACTION", action), tmp_path)
