"""Four clients share one cache, one store and one server while the vendor goes on publishing: nothing lost, no error."""

import os
import subprocess
import sys
from pathlib import Path

from llmpatch.registry import look
from llmpatch.store import Store, load
from llmpatch.versions import parse_version
from registry.webkit import serve
from registrykit import customer, release, seen

TESTS = Path(__file__).parent.parent
CLIENTS, ROUNDS, RELEASES = 4, 10, 6


def test_four_clients_share_one_cache(site, made, tmp_path):
    with serve(site) as (url, _):
        registry = customer(url, root=site / "metadata/1.root.json")
        command = [sys.executable, str(TESTS / "registry/client_worker.py"), str(tmp_path / "store"), str(ROUNDS)]
        environment = {**os.environ, "PYTHONPATH": str(TESTS), "OMP_NUM_THREADS": "1"}
        workers = [
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(CLIENTS)
        ]
        for number in range(1, RELEASES):
            release(site, made, f"1.{number}.0")
        answers = [worker.communicate(timeout=500) for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * CLIENTS, [error for _, error in answers]
        got = [out.split() for out, _ in answers]
        assert [len(lines) for lines in got] == [ROUNDS] * CLIENTS
        for lines in got:
            assert lines == sorted(lines, key=parse_version)
        assert len(look(registry).targets) == RELEASES
    installed = {entry.version for entry in load(Store(tmp_path / "store")).state.installed}
    assert installed == {version for lines in got for version in lines}
    assert seen(registry)["roles"]["acme"] == RELEASES
