"""Python in a process of its own, for what a test must not do to its own process."""

import subprocess
import sys


def run_python(code: str, timeout: float = 120) -> str:
    """What the code prints; its failure, or running past the timeout, fails the test."""
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()
