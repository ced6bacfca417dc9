"""The registries of this machine: an address, a pinned root, and what was seen there. Needs ``tuf`` only to add one.

    add_registry("acme", "https://patches.acme.example/", Path("root.json"))
    load_registry("acme").url

    $LLMPATCH_HOME/registries/NAME/registry.json   the address
                                   root.json       the pinned root: all trust begins here
                                   seen.json       the newest that was seen
                                   metadata/       TUF's cache
                                   files/          fetched targets
                                   lock            held while asking

Root, cache and high-water marks lie together, so that losing the marks means losing the pinned root, too.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.catalogue import models_folder
from llmpatch.errors import IntegrityError, LlmpatchError, UsageError
from llmpatch.files import read_bytes
from llmpatch.registry.layout import MAX_ROOT_BYTES
from llmpatch.store.disk import add_folder, disk_errors, make_folder, remove_folder

CONFIG_FILE, ROOT_FILE = "registry.json", "root.json"
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MAX_CONFIG = 4096


class _Config(BaseModel):
    """``registry.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_: Annotated[Literal["llmpatch/registry/v1"], Field(alias="schema")] = "llmpatch/registry/v1"
    url: Annotated[str, Field(min_length=8, max_length=500)]


@dataclass(frozen=True)
class Registry:
    """A registry that is asked for patches.

    Attributes:
        name: What the user calls it.
        url: Where it is, with ``/`` at its end.
        root: The pinned root metadata.
        folder: Where all of it lies.
    """

    name: str
    url: str
    root: bytes = field(repr=False)
    folder: Path

    @property
    def metadata(self) -> Path:
        """TUF's cache."""
        return self.folder / "metadata"

    @property
    def files(self) -> Path:
        """Fetched targets, by sha256."""
        return self.folder / "files"


def registries_folder() -> Path:
    """``registries`` beside the models and the store (``$LLMPATCH_HOME``, or the user's cache folder)."""
    return models_folder().parent / "registries"


def add_registry(name: str, url: str, root: Path) -> Registry:
    """Configure a registry. Nothing is fetched.

    Args:
        name: What to call it.
        url: Its address, or a folder.
        root: A root metadata file, which came another way than the registry's own address.

    Raises:
        UsageError: no such file or folder, a name that is taken, an address of another kind, a file that is no root.
        LlmpatchError: the disk refuses.
    """
    with needing_tuf():
        from llmpatch.registry.fetching import check_url
        from llmpatch.registry.repository import parse_root

    _check_name(name)
    data = read_bytes(root, limit=MAX_ROOT_BYTES)
    parse_root(data, where=str(root))
    config = _Config(url=check_url(url)).model_dump_json(by_alias=True).encode()
    parent = registries_folder()
    if (parent / name).exists():
        raise UsageError(
            f"there is a registry {name} already", hint=f"another name, or first `llmpatch registry remove {name}`"
        )
    with disk_errors(parent, what="registries"):
        make_folder(parent)
        try:
            add_folder(parent, name, {CONFIG_FILE: config, ROOT_FILE: data})
        except FileExistsError:
            raise UsageError(f"there is a registry {name} already", hint="choose another name") from None
        (parent / name).chmod(0o755)  # its cache and marks come to lie there
    return load_registry(name)


@contextlib.contextmanager
def needing_tuf() -> Iterator[None]:
    """Around an import: say once what to install.

    Raises:
        LlmpatchError: the package tuf is not there.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("tuf", "securesystemslib"):
            raise
        raise LlmpatchError(
            "registries need the package tuf, which is not installed", hint="pip install 'llmpatch[registry]'"
        ) from None


def remove_registry(name: str) -> None:
    """Forget a registry, its pinned root and what was seen there. Installed patches stay.

    Raises:
        UsageError: there is none of that name.
        LlmpatchError: the disk refuses.
    """
    folder = _folder_of(name)  # not loaded: a damaged one is removed by this, too
    with disk_errors(folder, what="registries"):
        remove_folder(folder)


def load_registry(name: str) -> Registry:
    """A configured registry.

    Raises:
        UsageError: there is none of that name.
        IntegrityError: its files are damaged.
    """
    folder = _folder_of(name)
    try:
        config = _read_config(folder / CONFIG_FILE)
        return Registry(name, config.url, read_bytes(folder / ROOT_FILE, limit=MAX_ROOT_BYTES), folder)
    except (UsageError, IntegrityError) as error:
        raise IntegrityError(
            error.message, hint=f"llmpatch registry remove {name}, then add it again with its root"
        ) from None


def _folder_of(name: str) -> Path:
    _check_name(name)
    folder = registries_folder() / name
    if not folder.is_dir():
        known = ", ".join(registry_names()) or "none"
        raise UsageError(
            f"no registry {name}; configured: {known}", hint="llmpatch registry add NAME URL --root ROOT.json"
        )
    return folder


def load_registries() -> list[Registry]:
    """All configured registries, by name (errors as in :func:`load_registry`)."""
    return [load_registry(name) for name in registry_names()]


def registry_names() -> list[str]:
    """The names of all configured registries, sorted, whole or not.

    Raises:
        LlmpatchError: the disk refuses.
    """
    parent = registries_folder()
    try:
        return sorted(path.name for path in parent.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LlmpatchError(f"cannot read {parent}: {error.strerror}", hint="check its permissions") from None


def chosen_registries(name: str | None) -> list[Registry]:
    """The registries of :func:`chosen_names` (errors as there, and as in :func:`load_registry`)."""
    return [load_registry(each) for each in chosen_names(name)]


def chosen_names(name: str | None) -> list[str]:
    """This name; without one those of all that are configured, at least one.

    Raises:
        UsageError: none is configured.
        LlmpatchError: the disk refuses.
    """
    found = [name] if name is not None else registry_names()
    if not found:
        raise UsageError("no registry is configured", hint="llmpatch registry add NAME URL --root ROOT.json")
    return found


def _read_config(path: Path) -> _Config:
    data = read_bytes(path, limit=_MAX_CONFIG)
    parse_object(data, where=str(path))
    try:
        return _Config.model_validate_json(data)
    except ValidationError:
        raise IntegrityError(f"{path} is not the configuration of a registry", hint="") from None


def _check_name(name: str) -> None:
    if len(name) > 64 or not _NAME.fullmatch(name):
        raise UsageError(f"{shown(name)!r} cannot be a registry's name", hint="lower-case letters, digits and '-'")
