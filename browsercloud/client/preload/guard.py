"""Run beside a script as a process of its own: ends it when the program that started it is killed.

Its standard input is a pipe that only that program holds; it ends when the program does. A program
that ends in order kills this first. Arguments: the script's process id, and the run's folder.
"""

import os
import shutil
import signal
import sys
import time

PATIENCE = 5.0


def end(pid: int) -> None:
    """SIGTERM; SIGKILL when that does not help."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                os.kill(pid, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return


os.read(0, 1)  # nothing is ever written
end(int(sys.argv[1]))
shutil.rmtree(sys.argv[2], ignore_errors=True)
