"""Scripts that tests run in processes of their own, and pieces of them."""

import subprocess
import sys
from pathlib import Path


def run_without_path(script: str, store: Path) -> None:
    """Run a script that finds no programs, with a new store; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={
            "PATH": "",
            "EINSUMC_CACHE_DIR": str(store),
            "HOME": str(store),
            "PYTHONPATH": ":".join(sys.path),
        },
        timeout=120,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def interrupted(work: str) -> str:
    """Lines that press Ctrl-C 0.3 s into this work, and print the seconds until it ended.

    They need os, signal, threading and time.
    """
    return f"""
sent = []
def interrupt():
    time.sleep(0.3)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    {work}
except KeyboardInterrupt:
    print(time.monotonic() - sent[0])
"""
