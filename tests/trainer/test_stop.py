"""Being asked to end: heard at once, wherever the main thread is, and in time."""

import signal
import subprocess
import sys
import time

import pytest

WAITING = """
import ctypes, sys
from trainer.stop import Stop
stop = Stop(0.3, look=lambda: {look}, every=0.05)
stop.last_word = lambda: print("last word", flush=True)
print("listening", flush=True)
while {until}:
    ctypes.CDLL(None).sleep(60)  # as in a compiler or a collective, no line of Python runs
print("boundary", flush=True)
"""


@pytest.mark.parametrize("look", ["False", "True"], ids=["by a signal", "by a lease that is let go"])
def test_a_process_that_comes_to_no_boundary_ends_in_time_with_a_last_word(look: str) -> None:
    command = [sys.executable, "-c", WAITING.format(look=look, until="True")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    began = time.monotonic()
    if look == "False":
        process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)  # is the launcher's to hear
    assert process.communicate(timeout=30)[0] == "last word\n"
    assert process.returncode == 1
    assert time.monotonic() - began < 20


def test_a_process_that_comes_to_a_boundary_ends_there() -> None:
    command = [sys.executable, "-c", WAITING.format(look="False", until="not stop.asked")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[0]
    assert said in ("boundary\n", "last word\n")  # what comes first when the sleep was cut before the thread heard
    assert said == "boundary\n" or process.returncode == 1


def test_a_look_that_fails_is_told_once_and_a_signal_is_heard_all_the_same() -> None:
    look = 'open("/dev/null/lease")'  # as on a file system that went away
    command = [sys.executable, "-c", WAITING.format(look=look, until="True")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "listening\n"
    time.sleep(0.3)  # for some looks
    process.send_signal(signal.SIGTERM)
    printed, said = process.communicate(timeout=30)
    assert printed == "last word\n"
    assert said.startswith("pretrain: cannot tell whether the launcher is there: ")
    assert said.count("\n") == 1
