"""Files: atomic, bounded, and clear about the line that is wrong."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys

import pytest

from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.files import alone_in, read_bytes, read_jsonl, write_bytes, write_jsonl
from llmpatch.prompts import load_prompts


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [{"a": 1, "b": "wörld \u2028 line"}, {"c": [1, 2]}]
    write_jsonl(tmp_path / "deep" / "x.jsonl", rows)
    assert read_jsonl(tmp_path / "deep" / "x.jsonl") == rows
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["x.jsonl"]


@pytest.mark.parametrize("line", ["[1]", "{", "nonsense", '"text"', "\udcff", "1" * 5000, "[" * 5000])
def test_a_bad_line_is_named_by_number(tmp_path, line):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n' + line.encode("utf-8", "surrogateescape") + b"\n")
    with pytest.raises(UsageError, match=r"x\.jsonl:2"):
        read_jsonl(path)


def test_missing_folder_and_oversized(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read_bytes(tmp_path / "none", limit=10)
    with pytest.raises(UsageError, match="is a folder"):
        read_bytes(tmp_path, limit=10)
    (tmp_path / "big").write_bytes(b"x" * 11)
    with pytest.raises(IntegrityError, match="larger than 10"):
        read_bytes(tmp_path / "big", limit=10)


def test_a_full_disk_leaves_the_old_bytes(tmp_path):
    """A real write past a file-size limit, in a process of its own."""
    path = tmp_path / "x"
    path.write_bytes(b"old")
    code = (
        "import resource, signal, sys; from pathlib import Path; from llmpatch.files import write_bytes\n"
        "from llmpatch.errors import LlmpatchError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_bytes(Path(sys.argv[1]), b'y' * 5000)\n"
        "except LlmpatchError as e: print(e.message)\n"
    )
    found = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "cannot write" in found.stdout
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LlmpatchError, match="cannot write"):
        write_bytes(tmp_path / "file" / "x", b"")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no prompts"),
        ([{"text": "a"}], "row 1 has no text `prompt`"),
        ([{"prompt": "  "}], "row 1 has no text"),
        ([{"prompt": 3}], "row 1 has no text"),
        ([{"prompt": "a\ud800"}], "row 1 holds a lone surrogate"),
        ([{"prompt": "a", "id": "x"}, {"prompt": "b", "id": "x"}], "'x' appears twice"),
        ([{"prompt": "a", "kind": "evil"}], "kind 'evil'"),
    ],
)
def test_bad_prompt_sets(tmp_path, rows, message):
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UsageError, match=message):
        load_prompts(tmp_path / "p.jsonl")


def test_a_users_own_file_needs_prompts_only(tmp_path):
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "Hi"}, {"prompt": "hi "}])
    first, second = load_prompts(tmp_path / "p.jsonl")
    assert first.kind == "everyday"
    assert first.id != second.id
    assert first.cluster == second.cluster


def test_a_folder_that_somebody_worked_in_is_left_without_a_trace_of_that(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with alone_in(tmp_path), pytest.raises(UsageError, match="another process works in"), alone_in(tmp_path):
        pass
    with pytest.raises(ZeroDivisionError), alone_in(tmp_path):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / ".lock").write_text("of another program")
    with alone_in(tmp_path):
        pass
    assert (tmp_path / ".lock").read_text() == "of another program"


def test_nobody_works_beside_who_made_the_lock_anew(tmp_path, monkeypatch):
    """Between opening and locking its last holder takes the file away, and a third process makes and locks another one."""
    real, others, path = fcntl.flock, [], tmp_path / ".lock"

    def slow(handle, how):
        monkeypatch.setattr(fcntl, "flock", real)
        path.unlink()
        others.append(os.open(path, os.O_RDWR | os.O_CREAT))
        real(others[0], how)
        real(handle, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with pytest.raises(UsageError, match="another process works in"), alone_in(tmp_path):
        pytest.fail("two work in one folder")
    assert path.exists()
    os.close(others[0])


WORKER = """
import sys, time
from pathlib import Path
from llmpatch.errors import UsageError
from llmpatch.files import alone_in
folder, done = Path(sys.argv[1]), 0
while done < 100:
    try:
        with alone_in(folder):
            (folder / "here").touch(exist_ok=False)
            (folder / "here").unlink()
            done += 1
    except UsageError:
        time.sleep(0.0005)
"""


def test_processes_that_come_and_go_never_meet(tmp_path):
    workers = [subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)]) for _ in range(4)]
    assert [worker.wait(timeout=120) for worker in workers] == [0] * 4
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}
