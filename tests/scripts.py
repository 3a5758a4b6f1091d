"""Pieces of scripts that tests run in processes of their own."""


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
