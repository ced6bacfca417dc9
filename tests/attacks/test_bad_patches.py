"""Bad patches, each refused with its class of error and one printable line.

The digests are right in all of them: a forger can compute them as well as we can. What remains is the format itself.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import numpy as np
import pytest

from llmpatch.artifact import load_patch, read_patch
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from patchkit import contents, embeddings, forge, safetensors, save, seal

GOOD = contents()
ROWS = embeddings().tobytes()
ENTRY = {"dtype": "F32", "shape": [4, 32], "data_offsets": [0, 512]}
CONFIG = json.loads(GOOD["adapter_config.json"])
MANIFEST = json.loads(GOOD["patch.json"])
SECOND = ENTRY | {"data_offsets": [512, 1024]}
TALL = ENTRY | {"shape": [257, 1], "data_offsets": [0, 1028]}
LOUDER = (embeddings() * 1.01).tobytes()
NAMES = sorted(GOOD)


def tensor(header: object, raw: bytes = ROWS, *, size: int | None = None) -> dict[str, bytes]:
    return forge(GOOD, tensor=safetensors(header, raw, size=size))


def entry(**changes) -> dict[str, bytes]:
    return tensor({"prompt_embeddings": ENTRY | changes})


def values(change) -> dict[str, bytes]:
    """Other numbers in the tensor, with norms in the manifest that fit where they can."""
    rows = embeddings()
    change(rows)
    lengths = np.linalg.norm(np.nan_to_num(rows.astype(np.float64), posinf=9, neginf=9), axis=1)
    norms = {"min": float(lengths.min()), "mean": float(lengths.mean()), "max": float(lengths.max())}

    def edit(manifest):
        manifest["prefix"]["norm"] |= norms

    return forge(GOOD, edit, tensor=safetensors({"prompt_embeddings": ENTRY}, rows.tobytes()))


def config(**changes) -> dict[str, bytes]:
    return forge(GOOD, config=json.dumps(CONFIG | changes).encode())


def manifest(path: str, value: object) -> dict[str, bytes]:
    """One key of the manifest (``base.name``) set to a value, or removed for ``...``."""

    def edit(mapping):
        *parents, leaf = path.split(".")
        for parent in parents:
            mapping = mapping[parent]
        if value is ...:
            del mapping[leaf]
        else:
            mapping[leaf] = value

    return forge(GOOD, edit)


def raw_manifest(old: bytes, new: bytes) -> dict[str, bytes]:
    assert old in GOOD["patch.json"]
    return GOOD | {"patch.json": seal(GOOD["patch.json"].replace(old, new, 1))}


def set_value(row: int, column: int, value: float):
    return lambda rows: rows.__setitem__((row, column), value)


TENSORS = {
    "empty": lambda: forge(GOOD, tensor=b""),
    "seven bytes": lambda: forge(GOOD, tensor=b"\x01" * 7),
    "header cut": lambda: forge(GOOD, tensor=GOOD["adapter_model.safetensors"][:40]),
    "data cut by a byte": lambda: tensor({"prompt_embeddings": ENTRY}, ROWS[:-1]),
    "a byte too many": lambda: tensor({"prompt_embeddings": ENTRY}, ROWS + b"\0"),
    "header of 2**63 bytes": lambda: tensor({"prompt_embeddings": ENTRY}, size=1 << 63),
    "header of 100 MB": lambda: tensor({"prompt_embeddings": ENTRY}, size=100_000_000),
    "header over 4 kB": lambda: tensor(json.dumps({"prompt_embeddings": ENTRY}).encode() + b" " * 4096),
    "header length zero": lambda: tensor(b"", size=0),
    "header one byte short": lambda: tensor({"prompt_embeddings": ENTRY}, size=80),
    "header is a list": lambda: tensor([1, 2]),
    "header is not JSON": lambda: tensor(b"\x80\x04pickle."),
    "header is not UTF-8": lambda: tensor(b'{"prompt_embeddings\xff": 1}'),
    "header with a BOM": lambda: tensor(b"\xef\xbb\xbf" + json.dumps({"prompt_embeddings": ENTRY}).encode()),
    "no tensor": lambda: tensor({}, b""),
    "metadata only": lambda: tensor({"__metadata__": {"format": "pt"}}, b""),
    "extra tensor": lambda: tensor({"prompt_embeddings": ENTRY, "more": SECOND}, ROWS * 2),
    "overlapping tensor": lambda: tensor({"prompt_embeddings": ENTRY, "more": ENTRY}),
    "empty extra tensor": lambda: tensor(
        {"prompt_embeddings": ENTRY, "x": {"dtype": "F32", "shape": [0], "data_offsets": [512, 512]}}
    ),
    "other name": lambda: tensor({"embeddings": ENTRY}),
    "traversal name": lambda: tensor({"../../etc/passwd": ENTRY}),
    "terminal escape in a name": lambda: tensor({"\x1b[2J\x07": ENTRY}),
    "duplicate name": lambda: tensor(
        b'{"prompt_embeddings":%s,"prompt_embeddings":%s}' % ((json.dumps(ENTRY).encode(),) * 2)
    ),
    "duplicate shape": lambda: tensor(
        b'{"prompt_embeddings":{"dtype":"F32","shape":[1,1],"shape":[4,32],"data_offsets":[0,512]}}'
    ),
    "foreign metadata": lambda: tensor({"__metadata__": {"format": "pt", "x": "y"}, "prompt_embeddings": ENTRY}),
    "metadata null": lambda: tensor({"__metadata__": None, "prompt_embeddings": ENTRY}),
    "unknown key": lambda: entry(code="x"),
    "entry is a list": lambda: tensor({"prompt_embeddings": [1]}),
    "entry without dtype": lambda: tensor({"prompt_embeddings": {"shape": [4, 32], "data_offsets": [0, 512]}}),
    "dtype F64": lambda: entry(dtype="F64", shape=[4, 16]),
    "dtype unknown": lambda: entry(dtype="EVIL"),
    "dtype a list": lambda: entry(dtype=["F32"]),
    "dtype other than the manifest": lambda: entry(dtype="F16", shape=[4, 64]),
    "shape of one number": lambda: entry(shape=[128]),
    "shape of three numbers": lambda: entry(shape=[1, 4, 32]),
    "shape swapped": lambda: entry(shape=[32, 4]),
    "shape negative": lambda: entry(shape=[-4, -32]),
    "shape zero": lambda: tensor({"prompt_embeddings": ENTRY | {"shape": [0, 32], "data_offsets": [0, 0]}}, b""),
    "shape of floats": lambda: entry(shape=[4.0, 32.0]),
    "shape of booleans": lambda: entry(shape=[True, 128]),
    "shape overflows": lambda: entry(shape=[1 << 62, 1 << 62]),
    "257 tokens": lambda: tensor({"prompt_embeddings": TALL}, b"\0" * 1028),
    "offsets negative": lambda: entry(data_offsets=[-512, 0]),
    "offsets shifted": lambda: entry(data_offsets=[1, 513]),
    "offsets beyond the file": lambda: entry(data_offsets=[0, 1 << 40]),
    "offsets reversed": lambda: entry(data_offsets=[512, 0]),
    "offsets text": lambda: entry(data_offsets="ab"),
    "NaN": lambda: values(set_value(0, 0, np.nan)),
    "infinity": lambda: values(set_value(3, 31, np.inf)),
    "minus infinity": lambda: values(set_value(1, 5, -np.inf)),
    "absurd norm, declared": lambda: values(set_value(2, 0, 1e4)),
    "norm not as declared": lambda: tensor({"prompt_embeddings": ENTRY}, LOUDER),
    "over 4 MiB": lambda: forge(GOOD, tensor=b"\0" * ((4 << 20) + 1)),
}  # fmt: skip
CONFIGS = {
    "auto_mapping": lambda: config(auto_mapping={"base_model_class": "X", "parent_library": "os"}),
    "trust_remote_code": lambda: config(trust_remote_code=True),
    "tokenizer_kwargs": lambda: config(
        prompt_tuning_init="TEXT", tokenizer_name_or_path="evil/repo", tokenizer_kwargs={"trust_remote_code": True}
    ),
    "another kind of adapter": lambda: config(peft_type="LORA"),
    "another base": lambda: config(base_model_name_or_path="evil/repo"),
    "training mode": lambda: config(inference_mode=False),
    "number for a boolean": lambda: config(inference_mode=1),
    "float for an integer": lambda: config(num_virtual_tokens=4.0),
    "a key missing": lambda: forge(GOOD, config=json.dumps({k: CONFIG[k] for k in list(CONFIG)[1:]}).encode()),
    "a key twice": lambda: forge(GOOD, config=GOOD["adapter_config.json"].replace(b"{", b'{"peft_type": "LORA",', 1)),
    "null key added": lambda: config(auto_mapping=None),
    "empty": lambda: forge(GOOD, config=b""),
    "a list": lambda: forge(GOOD, config=b"[]"),
    "over its limit": lambda: forge(GOOD, config=GOOD["adapter_config.json"] + b" " * (16 << 10)),
}
MANIFESTS = {
    "empty": lambda: GOOD | {"patch.json": b""},
    "BOM": lambda: GOOD | {"patch.json": b"\xef\xbb\xbf" + GOOD["patch.json"]},
    "not UTF-8": lambda: raw_manifest(b"Declines", b"Declin\xff\xfe"),
    "UTF-16": lambda: GOOD | {"patch.json": GOOD["patch.json"].decode().encode("utf-16")},
    "cut": lambda: GOOD | {"patch.json": GOOD["patch.json"][:-20]},
    "text after the end": lambda: GOOD | {"patch.json": GOOD["patch.json"] + b"{}"},
    "100,000 brackets": lambda: GOOD | {"patch.json": b"[" * 100_000},
    "deep value": lambda: manifest("contact", [[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]]),
    "over its limit": lambda: GOOD | {"patch.json": GOOD["patch.json"] + b" " * (256 << 10)},
    "duplicate key": lambda: raw_manifest(b'"name":', b'"name": "evil/name", "name":'),
    "duplicate nested key": lambda: raw_manifest(b'"hidden_size": 32', b'"hidden_size": 64, "hidden_size": 32'),
    "NaN": lambda: raw_manifest(b'"before": 0.04', b'"before": NaN'),
    "Infinity": lambda: raw_manifest(b'"before": 0.04', b'"before": -Infinity'),
    "1e999": lambda: raw_manifest(b'"before": 0.04', b'"before": 1e999'),
    "5,000 digits": lambda: raw_manifest(b'"seed": 7', b'"seed": ' + b"7" * 5000),
    "2**64": lambda: manifest("build.seed", 1 << 64),
    "lone surrogate": lambda: raw_manifest(b"Declines", b"\\ud800"),
    "later schema": lambda: manifest("schema", "llmpatch/patch/v2"),
    "no schema": lambda: manifest("schema", ...),
    "unknown key": lambda: manifest("post_install", "rm -rf /"),
    "terminal escape in a key": lambda: manifest("\x1b]0;owned\x07", 1),
    "unknown nested key": lambda: manifest("base.trust_remote_code", True),
    "a key missing": lambda: manifest("build", ...),
    "text for a number": lambda: manifest("base.hidden_size", "32"),
    "boolean for a number": lambda: manifest("prefix.tokens", True),
    "number for a boolean": lambda: manifest("cumulative", 1),
    "traversal in the name": lambda: manifest("name", "../evil"),
    "capital in the name": lambda: manifest("name", "Tiny/refusal"),
    "new line after the name": lambda: manifest("name", "tiny/refusal\n"),
    "no SemVer": lambda: manifest("version", "1.2"),
    "leading zero": lambda: manifest("version", "1.02.0"),
    "other digits": lambda: manifest("version", "1.2.٣"),
    "February 30": lambda: manifest("released", "2026-02-30T00:00:00Z"),
    "no time zone": lambda: manifest("released", "2026-02-03T00:00:00"),
    "terminal escape": lambda: manifest("summary", "fine \x1b[31m"),
    "C1 control": lambda: manifest("summary", "fine \x9b31m"),
    "right-to-left override": lambda: manifest("summary", "safe\u202egpj"),
    "zero width": lambda: manifest("base.name", "smol\u200blm2"),
    "line separator": lambda: manifest("contact", "a\u2028b"),
    "tag characters": lambda: manifest("summary", "hi\U000e0041"),
    "endless summary": lambda: manifest("summary", "a" * 501),
    "markup in the licence": lambda: manifest("license", "MIT\n---"),
    "script in the purl": lambda: manifest("base.purl", "pkg:huggingface/a/b<script>"),
    "digest in capitals": lambda: manifest("build.recipe_digest", "A" * 64),
    "digest too short": lambda: manifest("base.fingerprint.config", "1" * 63),
    "position unknown": lambda: manifest("prefix.position", "after_bos"),
    "width other than the base": lambda: manifest("base.hidden_size", 64),
    "tokens other than the tensor": lambda: manifest("prefix.tokens", 5),
    "tensor digest of another": lambda: manifest("prefix.digest", "0" * 64),
    "file digest of another": lambda: manifest("files", dict.fromkeys(MANIFEST["files"], "0" * 64)),
    "a file without digest": lambda: manifest("files", {"README.md": "0" * 64}),
    "a digest of a foreign file": lambda: manifest("files", MANIFEST["files"] | {"setup\x07.py": "0" * 64}),
    "norms out of order": lambda: manifest("prefix.norm.min", 1e3),
    "base norm zero": lambda: manifest("prefix.norm.base_p999", 0),
    "65 fixes": lambda: manifest("fixes", MANIFEST["fixes"] * 65),
    "n zero": lambda: manifest("fixes", [MANIFEST["fixes"][0] | {"n": 0}]),
    "checksum of another": lambda: GOOD | {"patch.json": GOOD["patch.json"].replace(b"answers", b"Answers")},
    "checksum twice": lambda: raw_checksum_twice(),
}  # fmt: skip
OTHERS = {
    "evidence empty": lambda: forge(GOOD, evidence=b""),
    "evidence a list": lambda: forge(GOOD, evidence=b"[1]"),
    "evidence NaN": lambda: forge(GOOD, evidence=b'{"rate": NaN}'),
    "evidence overflows": lambda: forge(GOOD, evidence=b'{"rate": -1e400}'),
    "evidence deep": lambda: forge(GOOD, evidence=b'{"a":' * 17 + b"1" + b"}" * 17),
    "evidence very deep": lambda: forge(GOOD, evidence=b'{"a":' * 90_000 + b"1" + b"}" * 90_000),
    "evidence duplicate": lambda: forge(GOOD, evidence=b'{"rate": 0.1, "rate": 0.9}'),
    "evidence over 1 MiB": lambda: forge(GOOD, evidence=b'{"a": "' + b"a" * (1 << 20) + b'"}'),
    "card not UTF-8": lambda: forge(GOOD, card=b"# \xff\xfe"),
    "card over its limit": lambda: forge(GOOD, card=b"a" * ((256 << 10) + 1)),
    "card changed, not sealed": lambda: GOOD | {"README.md": GOOD["README.md"] + b"\n"},
    "evidence changed, not sealed": lambda: GOOD | {"evidence.json": GOOD["evidence.json"].replace(b"0.93", b"0.99")},
    "config spaced, not sealed": lambda: GOOD | {"adapter_config.json": GOOD["adapter_config.json"] + b" "},
}
CONTENT = {
    f"{kind}: {name}": case
    for kind, cases in (("tensor", TENSORS), ("config", CONFIGS), ("manifest", MANIFESTS), ("other", OTHERS))
    for name, case in cases.items()
}


def raw_checksum_twice() -> dict[str, bytes]:
    """A checksum that is also the contact: zeroing both would let a forger choose among two readings."""
    checksum = MANIFEST["checksum"].encode()
    return GOOD | {"patch.json": GOOD["patch.json"].replace(b"safety@example.org", checksum)}


def refused(folder: Path, kind: type[LlmpatchError]) -> LlmpatchError:
    with pytest.raises(LlmpatchError) as caught:
        read_patch(folder)
    assert type(caught.value) is kind
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 600
    assert caught.value.hint
    return caught.value


def test_the_forgers_tools_make_good_patches(tmp_path):
    """Else every case below could pass for the wrong reason."""
    assert read_patch(save(tmp_path / "a", forge(GOOD))).manifest.name == "tiny/refusal"
    assert read_patch(save(tmp_path / "b", tensor({"prompt_embeddings": ENTRY}))).embeddings.shape == (4, 32)
    assert read_patch(save(tmp_path / "c", values(set_value(0, 0, 0.5)))).embeddings[0, 0] == 0.5
    assert read_patch(save(tmp_path / "d", config())).manifest.prefix.tokens == 4
    assert read_patch(save(tmp_path / "e", raw_manifest(b"Declines", b"Refuses"))).manifest.summary.startswith(
        "Refuses"
    )
    assert read_patch(save(tmp_path / "f", forge(GOOD, evidence=b'{"a":' * 16 + b"1" + b"}" * 16))).evidence
    assert read_patch(save(tmp_path / "g", manifest("contact", ...))).manifest.contact is None


@pytest.mark.parametrize("name", CONTENT)
def test_bad_content_is_refused(tmp_path, name):
    refused(save(tmp_path / "p", CONTENT[name]()), IntegrityError)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(tmp_path, name):
    folder = save(tmp_path / "p", GOOD)
    (folder / name).unlink()
    assert name in refused(folder, IntegrityError).message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["link", "dangling link", "folder", "pipe", "socket", "device link"])
def test_only_regular_files_are_read(tmp_path, monkeypatch, name, kind):
    folder = save(tmp_path / "p", GOOD)
    path = folder / name
    (tmp_path / "elsewhere").write_bytes(GOOD[name])
    path.unlink()
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")  # the very same bytes
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "device link":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # a reader without O_NONBLOCK would wait for ever
    else:
        monkeypatch.chdir(folder)  # socket paths are short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
    assert name in refused(folder, IntegrityError).message


@pytest.mark.parametrize(
    "name",
    ["setup.py", "adapter_model.bin", ".git", "PATCH.JSON", "patch.json~", "\x1b[2J", "patch.sig.d", ".gitattributes2"],
)
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_other_files_are_refused(tmp_path, name, kind):
    folder = save(tmp_path / "p", GOOD)
    (folder / name).mkdir() if kind == "folder" else (folder / name).write_bytes(b"x")
    assert "no part of a patch" in refused(folder, IntegrityError).message


def test_a_name_that_is_not_text_is_refused(tmp_path):
    folder = save(tmp_path / "p", GOOD)
    (Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe"))).write_bytes(b"x")
    refused(folder, IntegrityError)


def test_a_file_is_no_patch(tmp_path):
    (tmp_path / "p").write_bytes(GOOD["patch.json"])
    refused(tmp_path / "p", UsageError)
    refused(tmp_path / "p" / "q", UsageError)


def test_a_sparse_file_of_a_terabyte_is_not_read(tmp_path):
    folder = save(tmp_path / "p", GOOD)
    with (folder / "README.md").open("wb") as file:
        file.truncate(1 << 40)
    assert "larger" in refused(folder, IntegrityError).message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_no_damage(tmp_path):
    folder = save(tmp_path / "p", GOOD)
    (folder / "README.md").chmod(0)
    refused(folder, LlmpatchError)


def test_a_folder_that_is_a_link_is_followed(tmp_path):
    """The link is the user's own (a store's ``current``); links inside a patch are the publisher's."""
    (tmp_path / "current").symlink_to(save(tmp_path / "p", GOOD))
    assert load_patch(tmp_path / "current").manifest.name == "tiny/refusal"
