import sys

import pytest

from llmpatch.errors import RecipeError, UsageError
from llmpatch.recipe import DecodingSection, ReferenceSection
from llmpatch.references import open_reference
from llmpatch.references.endpoint import EndpointReference
from llmpatch.references.recorded import RecordedReference

DECODING = DecodingSection()


def opened(**section):
    return open_reference(ReferenceSection(**section), DECODING)


def test_each_kind_opens_its_own_backend(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_KEY", "sk-123456789")
    assert isinstance(opened(kind="recorded", path="x.jsonl"), RecordedReference)
    made = opened(kind="endpoint", url="https://host/v1", model="m", api_key_env="SOME_KEY", retries=2, concurrency=3)
    assert isinstance(made, EndpointReference)
    assert (made.retries, made.concurrency) == (2, 3)


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"kind": "recorded"}, "path"),
        ({"kind": "transformers"}, "model"),
        ({"kind": "gguf"}, "model"),
        ({"kind": "endpoint", "url": "https://host"}, "model"),
        ({"kind": "endpoint"}, "model, url"),
        ({"kind": "recorded", "path": "x", "system": "Be safe."}, "system"),
        ({"kind": "gguf", "model": "x", "revision": "main"}, "revision"),
        ({"kind": "transformers", "model": "x", "url": "https://host"}, "url"),
    ],
)
def test_a_key_that_is_missing_or_would_be_ignored_is_named(section, named):
    with pytest.raises(RecipeError, match=named):
        opened(**section)


def test_a_key_that_is_not_set_is_found_before_the_run(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(UsageError, match="NO_SUCH_KEY"):
        opened(kind="endpoint", url="https://host", model="m", api_key_env="NO_SUCH_KEY")


def test_a_gguf_must_be_a_file_of_that_kind(tmp_path):
    with pytest.raises(UsageError, match="not a catalogue name"):
        opened(kind="gguf", model="org/model")
    with pytest.raises(UsageError, match="no such model"):
        opened(kind="gguf", model=str(tmp_path / "missing.gguf"))
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match="not a GGUF"):
        opened(kind="gguf", model=str(fake)).identity()


def test_without_llama_cpp_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    fake = tmp_path / "fake.gguf"
    fake.write_bytes(b"GGUF")
    with pytest.raises(UsageError) as caught:
        opened(kind="gguf", model=str(fake)).identity()
    assert caught.value.hint == 'pip install "llmpatch[llamacpp]"'
