"""A GGUF file is read once while it is loaded, and nothing else changes."""

import gguf
import numpy as np
import pytest

from exportkit import write_tiny_gguf
from llmpatch.bases import load_base
from llmpatch.gguf_reading import read_once


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", kind="F32")


def test_a_base_is_loaded_with_one_reading(file, monkeypatch):
    readings = []

    class Counted(gguf.GGUFReader):
        def __init__(self, path, *rest):
            readings.append(str(path))
            super().__init__(path, *rest)

    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    load_base(str(file))
    assert readings == [str(file)]
    assert gguf.GGUFReader is Counted


def test_the_shared_reader_reads_what_theirs_does(file):
    theirs = gguf.GGUFReader(file)
    with read_once():
        ours = gguf.GGUFReader(str(file))
        assert gguf.GGUFReader(str(file)) is ours
    assert type(theirs) is gguf.GGUFReader
    assert list(ours.fields) == list(theirs.fields)
    for name, field in theirs.fields.items():
        assert ours.fields[name].contents() == field.contents()
    for one, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (one.name, one.tensor_type) == (other.name, other.tensor_type)
        assert np.array_equal(one.data, other.data)


def test_everything_is_put_back_after_an_error():
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    with pytest.raises(RuntimeError, match="broken"), read_once():
        raise RuntimeError("broken")
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
