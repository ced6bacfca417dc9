"""Bytes from a web server, a folder or the cache: bounded in size, in time and in speed, never decompressed.

    fetcher = open_fetcher("https://patches.example.org/", cache)
    fetcher.download_bytes("https://patches.example.org/metadata/timestamp.json", 16384)

TUF asks for each file with the largest size it may have. Knows nothing about what the bytes say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface

from llmpatch.artifact.strict_json import shown
from llmpatch.errors import LlmpatchError, UsageError
from llmpatch.files import expanded
from llmpatch.registry.web import Patience, SlowError, StatusError, stream

_BLOCK = 1 << 16


class WebFetcher(FetcherInterface):
    """Files over HTTP. A server that drips is given up, so that nobody is kept waiting for ever."""

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()

    def _fetch(self, url: str) -> Iterator[bytes]:
        """The body of a response, in blocks as they come."""
        try:
            yield from stream(url, self.patience, {})
        except StatusError as error:
            raise DownloadHTTPError(error.message, error.status) from None
        except SlowError as error:
            raise SlowRetrievalError(error.message) from None
        except LlmpatchError as error:
            raise DownloadError(error.message) from None


class FolderFetcher(FetcherInterface):
    """Files below a folder that is named by a ``file://`` address, such as a mirror carried into a closed network."""

    def _fetch(self, url: str) -> Iterator[bytes]:
        """The content of a regular file, in blocks."""
        path = folder_of(url)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            raise DownloadHTTPError(f"no such file: {shown(str(path), 200)}", 404) from None
        except OSError as error:
            raise DownloadError(f"cannot read {shown(str(path), 200)}: {error.strerror}") from None
        with os.fdopen(handle, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise DownloadError(f"{shown(str(path), 200)} is not a regular file")
            while block := file.read(_BLOCK):
                yield block


class CacheFetcher(FetcherInterface):
    """What was fetched before, for ``--offline``: the metadata of the last visit, which TUF checks again, and nothing else."""

    def __init__(self, metadata: Path) -> None:
        self.metadata = metadata

    def _fetch(self, url: str) -> Iterator[bytes]:
        """A metadata file of the last visit, under its name without a number."""
        asked = unquote(urlsplit(url).path).rpartition("/")[2]
        number, _, rest = asked.partition(".")
        if number.isdigit() and rest == "root.json":
            raise DownloadHTTPError("offline: no newer root is looked for", 404)
        path = self.metadata / quote(rest if number.isdigit() else asked, "")
        if not path.is_file():
            raise DownloadError(f"offline, and {shown(asked, 120)} was not fetched before")
        yield path.read_bytes()


def open_fetcher(url: str, cache: Path, *, offline: bool = False) -> FetcherInterface:
    """Who fetches from an address. ``offline`` keeps from the network, not from a folder."""
    if urlsplit(url).scheme == "file":
        return FolderFetcher()
    return CacheFetcher(cache) if offline else WebFetcher()


def check_url(text: str) -> str:
    """The address of a registry, with ``/`` at its end; a path becomes a ``file://`` one.

    Raises:
        UsageError: it is neither a folder nor an address by http, https or file.
    """
    if "://" not in text:
        path = expanded(text)
        if not path.is_dir():
            raise UsageError(f"{shown(text, 200)} is neither an address nor a folder", hint="https://..., or a folder")
        text = path.resolve().as_uri()
    try:
        parts = urlsplit(text) if text.isprintable() else None
    except ValueError:  # a bracket that opens no IPv6 address
        parts = None
    usable = parts is not None and not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts is None or not usable or parts.scheme not in ("http", "https", "file") or len(text) > 499:
        raise UsageError(
            f"{shown(text, 200)} is no address of a registry",
            hint="http://, https:// or file:// and a path; no user, query or fragment",
        )
    if bool(parts.netloc) == (parts.scheme == "file"):
        raise UsageError(
            f"{shown(text, 200)} names {'a' if parts.netloc else 'no'} host", hint="file:///PATH, https://HOST/"
        )
    return text if text.endswith("/") else text + "/"


def folder_of(url: str) -> Path:
    """The path that a ``file://`` address names."""
    return Path(unquote(urlsplit(url).path))
