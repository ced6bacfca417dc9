"""A process that keeps its pages takes no new ones for what it has freed before."""

import subprocess
import sys

import pytest

from llmpatch import heap

STEPS = """
import resource, sys, torch
if sys.argv[1] == "keep":
    from llmpatch.heap import keep_pages
    keep_pages()
def step():
    a = torch.ones(40_000_000)
    return float((a * 2).sum())
for _ in range(8):
    step()
before = resource.getrusage(0).ru_minflt
for _ in range(4):
    assert step() == 80_000_000
print(resource.getrusage(0).ru_minflt - before)
"""


def faults(how):
    found = subprocess.run([sys.executable, "-c", STEPS, how], capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_used_again():
    assert faults("keep") < 0.25 * faults("give")  # now and then a block finds no place among the freed ones


@pytest.mark.parametrize("broken", [OSError, AttributeError])
def test_another_c_library_is_left_alone(broken, monkeypatch):
    def fail(*_):
        raise broken

    monkeypatch.setattr(heap.ctypes, "CDLL", fail)
    heap.keep_pages()
