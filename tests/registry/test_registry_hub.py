"""The Hugging Face Hub as a second transport: the real client library against a double of the Hub's HTTP API."""

import pytest
from huggingface_hub import _commit_api, constants

from llmpatch.artifact import read_contents
from llmpatch.errors import IntegrityError, LlmpatchError, TrustError, UsageError
from llmpatch.registry.hub import parse_address, pull, push, push_one
from llmpatch.registry.sourcing import install_from
from llmpatch.signing import trust_key
from llmpatch.store import Store, signed_by
from patchkit import save
from registry.hubkit import running_hub
from registrykit import archive
from signkit import public, signed
from storekit import files

REPO = "hf://acme/refusal-tiny"


@pytest.fixture
def hub(monkeypatch):
    with running_hub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        template = found.url + "/{repo_id}/resolve/{revision}/{filename}"  # as HF_ENDPOINT makes it when it is imported
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            _commit_api, "is_xet_available", lambda: False
        )  # its protocol is not HTTP that we could double
        monkeypatch.setenv("HF_TOKEN", "hf_secret")
        yield found


@pytest.fixture
def verify():
    return signed_by(trust_key(public("vendor")))


def test_a_patch_goes_up_as_one_commit_and_comes_down_verified(hub, tmp_path, made, verify):
    path = archive(made)
    address = push(path, REPO)
    commit = address.rpartition("@")[2]
    assert hub.repos["acme/refusal-tiny"]["main"] == commit
    assert set(hub.commits[commit]) == {*read_contents(path).members, ".gitattributes"}
    assert "Bearer hf_secret" in hub.tokens  # what goes to the storage of large files has none
    pulled = pull(REPO, tmp_path / "down")
    assert pulled.origin == address
    assert pulled.path.read_bytes() == path.read_bytes()
    assert not any(".gitattributes" in asked for _, asked in hub.asked)
    store = Store(tmp_path / "store")
    entry = install_from(store, REPO, verify)
    assert (entry.version, entry.source, entry.signer) == ("1.0.0", address, public("vendor").id)


def test_a_revision_is_what_it_was(hub, tmp_path, made, verify):
    first = push(archive(made), REPO)
    second = push(archive(made, version="1.1.0"), REPO)
    assert first != second
    store = Store(tmp_path / "store")
    assert install_from(store, first, verify).version == "1.0.0"
    assert install_from(store, REPO, verify).version == "1.1.0"


def test_a_folder_that_people_pushed_by_git_is_taken_too(hub, tmp_path, verify):
    members = signed(files())
    hub.commit(
        "acme/refusal-tiny", {**members, ".gitattributes": b"x", "pytorch_model.bin": b"\x80\x04.", "more/a": b""}
    )
    assert install_from(Store(tmp_path / "store"), REPO, verify).version == "1.0.0"
    assert not any("pytorch_model" in asked for _, asked in hub.asked)


def test_what_the_hub_changed_does_not_verify(hub, tmp_path, made, verify):
    push(archive(made), REPO)
    original = hub.commits[hub.repos["acme/refusal-tiny"]["main"]]["README.md"]
    hub.serve["README.md"] = original[:-1] + b"?"
    store = Store(tmp_path / "store")
    with pytest.raises((IntegrityError, TrustError)):
        install_from(store, REPO, verify)
    evil = signed(files(), "evil")
    hub.serve = dict(evil)
    with pytest.raises((IntegrityError, TrustError)):
        install_from(store, REPO, verify)
    assert not (store.root / "current").exists()


@pytest.mark.parametrize(
    "misbehave",
    [
        lambda hub: hub.sizes.update({"evidence.json": 1 << 40}),
        lambda hub: hub.sizes.update({"patch.json": -1}),
        lambda hub: hub.sizes.update({"patch.json": "12"}),
        lambda hub: hub.serve.update({"README.md": bytes(1 << 22)}),
        lambda hub: hub.serve.update({"README.md": b""}),
        lambda hub: hub.commits[hub.repos["acme/refusal-tiny"]["main"]].pop("evidence.json"),
    ],
)
def test_sizes_are_bounded_and_files_are_all_there(hub, tmp_path, made, misbehave):
    push(archive(made), REPO)
    misbehave(hub)
    with pytest.raises((IntegrityError, LlmpatchError)):
        pull(REPO, tmp_path / "down")
    assert not (tmp_path / "down").exists()


def test_what_is_not_there_or_not_allowed_is_said(hub, tmp_path, made):
    with pytest.raises(UsageError, match="no such repository"):
        pull(REPO, tmp_path)
    push(archive(made), REPO)
    with pytest.raises(UsageError, match="no such repository or revision"):
        pull(f"{REPO}@v9", tmp_path)
    hub.status = 403
    with pytest.raises(LlmpatchError, match="403"):
        pull(REPO, tmp_path)
    with pytest.raises(LlmpatchError, match="403"):
        push(archive(made), REPO)


def test_offline_mode_is_respected(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(LlmpatchError, match="HF_HUB_OFFLINE"):
        pull(REPO, tmp_path)
    assert hub.asked == []


def test_a_hub_that_cannot_be_reached_is_one_clear_error(tmp_path, made, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(LlmpatchError, match="hf://acme/refusal-tiny: "):
        pull(REPO, tmp_path)


def test_only_one_signed_whole_patch_goes_up(hub, tmp_path, made):
    with pytest.raises(TrustError, match="is not signed"):
        push(save(tmp_path / "plain", files()), REPO)
    for sources, keys in (([], False), ([archive(made)] * 2, False), ([archive(made)], True)):
        with pytest.raises(UsageError):
            push_one(sources, REPO, keys=keys, private=False)
    assert hub.asked == []


BAD = ["acme", "acme/x/y", "../x", "acme/x@", "a--b/x", "acme/x@../../y", "acme/x@a b", "/a/b", "acme/x\n"]


@pytest.mark.parametrize("text", BAD)
def test_addresses_are_checked(text):
    with pytest.raises(UsageError):
        parse_address(f"hf://{text}")


def test_an_address_is_read():
    found = parse_address("hf://acme/refusal.x_1@refs/pr/1")
    assert (found.repo, found.revision) == ("acme/refusal.x_1", "refs/pr/1")
    assert parse_address(REPO).revision is None
