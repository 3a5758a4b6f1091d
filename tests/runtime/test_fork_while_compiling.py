"""A child forked while another thread obtains a kernel can obtain one too."""

from scripts import run_without_path

SCRIPT = """
import os, signal, threading, time
import numpy as np
import einsumc
from einsumc.runtime import kernels

slow = kernels._obtain
inside = threading.Event()

def obtain(*arguments):
    inside.set()
    time.sleep(0.3)  # the window that a fork falls into
    return slow(*arguments)

kernels._obtain = obtain
a, b = np.ones((7, 5)), np.ones((5, 6))
other = threading.Thread(target=einsumc.einsum, args=("ij,jk->ik", a, b))
other.start()
inside.wait()
child = os.fork()
if child == 0:
    signal.alarm(60)
    found = einsumc.einsum("ij,jk->ik", a, b)
    os._exit(0 if (found == 5).all() else 1)
other.join()
_, status = os.waitpid(child, 0)
assert status == 0, status
"""


def test_fork_while_another_thread_obtains_a_kernel(tmp_path):
    run_without_path(SCRIPT, tmp_path)
