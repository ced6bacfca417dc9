"""The Hugging Face Hub as a second way to carry patches: ``hf://ORG/REPO@REVISION``. It needs no ``tuf``.

    push(Path("refusal"), "hf://acme/refusal-smollm2")         # one commit; the README is the model card
    path = pull("hf://acme/refusal-smollm2@v1.0.0", folder)    # a .lpatch, to be verified like any other

Only the six names of a patch are fetched, each no larger than it may be, all of one commit. The Hub says nothing about what is
newest or who signed: a branch and a tag can move, so pin a commit, and the signature is verified after.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmpatch.artifact import pack_members, parse_patch, read_contents
from llmpatch.artifact.layout import ALL_LIMITS, LIMITS, SIGNATURE_FILE
from llmpatch.artifact.strict_json import shown
from llmpatch.errors import IntegrityError, LlmpatchError, TrustError, UsageError
from llmpatch.files import write_bytes

PREFIX = "hf://"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9])?"
_ADDRESS = re.compile(rf"hf://(?P<repo>{_PART}/{_PART})(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{{0,127}}))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Address:
    """A repository on the Hub, and a branch, tag or commit; ``None`` is its main branch."""

    repo: str
    revision: str | None


@dataclass(frozen=True)
class Pulled:
    """What came from the Hub.

    Attributes:
        path: The patch as a ``.lpatch``.
        origin: The address with the commit it had.
    """

    path: Path
    origin: str


def parse_address(text: str) -> Address:
    """Read ``hf://ORG/REPO`` or ``hf://ORG/REPO@REVISION``.

    Raises:
        UsageError: it is not one.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or ".." in text or "--" in found["repo"]:
        raise UsageError(f"{shown(text, 200)} is no address on the Hub", hint="hf://ORG/REPO or hf://ORG/REPO@REVISION")
    return Address(found["repo"], found["revision"])


def push(patch: Path, address: str, *, private: bool = False) -> str:
    """Upload a signed patch as one commit, to the repository's main branch or the branch that the address names.

    The repository is made if it is not there. Who may do so is in ``HF_TOKEN``, or whoever logged in by ``hf auth login``.

    Returns:
        The address with the new commit.

    Raises:
        UsageError: no such address.
        TrustError: the patch is not signed.
        IntegrityError: it is damaged.
        LlmpatchError: the Hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    where = parse_address(address)
    contents = read_contents(patch)
    manifest = parse_patch(contents.files, patch).manifest
    if contents.signature is None:
        raise TrustError(f"{patch} is not signed", hint=f"llmpatch sign {patch} --key KEY")
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in contents.members.items()
    ]
    with _explained(address):
        api = HfApi(library_name="llmpatch")
        api.create_repo(where.repo, exist_ok=True, private=private)
        done = api.create_commit(
            where.repo, operations, commit_message=f"{manifest.name} {manifest.version}", revision=where.revision
        )
    return f"{PREFIX}{where.repo}@{done.oid}"


def push_one(sources: Sequence[Path], address: str, *, keys: bool, private: bool) -> str:
    """:func:`push` of exactly one patch, as the command line asks for it.

    Raises:
        UsageError: not one patch, or keys, which the Hub has no use for.
    """
    if len(sources) != 1 or keys:
        raise UsageError(
            "the Hub takes one patch, already signed, and no --key", hint=f"registry publish {address} PATCH"
        )
    return push(sources[0], address, private=private)


def pull(address: str, folder: Path) -> Pulled:
    """Download a patch and keep it as a ``.lpatch`` in a folder. Nothing in it has been verified then.

    Raises:
        UsageError: no such address, repository or revision.
        IntegrityError: a file of a patch is missing, larger than it may be, or not as long as the Hub says.
        LlmpatchError: the Hub refuses, is too slow, or cannot be reached.
    """
    from huggingface_hub import HfApi, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    where = parse_address(address)
    with _explained(address):
        api = HfApi(library_name="llmpatch")
        commit = api.model_info(where.repo, revision=where.revision).sha
        if commit is None or not _COMMIT.fullmatch(commit):
            raise IntegrityError(f"{address}: the Hub names no commit", hint="try again")
        sizes = _sizes(api.get_paths_info(where.repo, sorted(ALL_LIMITS), revision=commit), address)
        headers = build_hf_headers(library_name="llmpatch")
        members = {}
        for name, size in sizes.items():
            url = hf_hub_url(where.repo, name, revision=commit, endpoint=api.endpoint)
            members[name] = _fetch(url, size, headers, f"{address}: {name}")
    origin = f"{PREFIX}{where.repo}@{commit}"
    path = folder / f"{where.repo.replace('/', '--')}-{commit}.lpatch"
    write_bytes(path, pack_members(members))
    return Pulled(path, origin)


def _sizes(listed: list[Any], address: str) -> dict[str, int]:
    """The patch's files in a repository, with sizes that are allowed. Other files there are never asked for."""
    sizes = {found.path: found.size for found in listed if found.path in ALL_LIMITS and hasattr(found, "size")}
    if missing := sorted(LIMITS.keys() - sizes.keys()):
        raise IntegrityError(f"{address} is not a patch: {', '.join(missing)} missing", hint="check the address")
    for name, size in sizes.items():
        if not isinstance(size, int) or not 0 <= size <= ALL_LIMITS[name]:
            raise IntegrityError(
                f"{address}: {name} is larger than {ALL_LIMITS[name]:,} bytes", hint="not a patch of ours"
            )
    return {name: sizes[name] for name in sorted(sizes, key=lambda name: name == SIGNATURE_FILE)}


def _fetch(url: str, size: int, headers: dict[str, str], where: str) -> bytes:
    """A file of exactly this size."""
    from llmpatch.registry.web import read_web

    data = read_web(url, limit=size, headers=headers, where=where)
    if len(data) != size:
        raise IntegrityError(f"{where} has {len(data):,} bytes, the Hub says {size:,}", hint="try again")
    return data


@contextmanager
def _explained(address: str) -> Iterator[None]:
    """Turn what the Hub's library raises into one clear error."""
    from huggingface_hub import errors

    # Its network errors are those of httpx or httpx2, by its version, and its own HfHubHTTPError is one of them.
    network: tuple[type[Exception], ...] = tuple(
        kind for kind in errors.HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError" and issubclass(kind, Exception)
    )
    expected: tuple[type[Exception], ...] = (
        *network,
        errors.HFValidationError,
        RuntimeError,
        OSError,
        ValueError,
        KeyError,
        TypeError,
    )
    try:
        yield
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError):
        raise UsageError(
            f"{address}: no such repository or revision, or it is private",
            hint="check it; HF_TOKEN=... for a private one",
        ) from None
    except errors.OfflineModeIsEnabled:
        raise LlmpatchError(f"{address}: the Hub is switched off by HF_HUB_OFFLINE", hint="unset it") from None
    except expected as error:
        reason = shown(" ".join(str(error).split()), 200)
        raise LlmpatchError(f"{address}: {reason}", hint="check the network, HF_ENDPOINT and HF_TOKEN") from None
