"""Open what a command names: patches first, which is quick, then the base, then check them against each other.

opened = open_patched("smollm2", None, ["patches/smollm2/refusal"])
opened.base, opened.prefix  # of all patches in the order given, or None
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llmpatch._cli.drawing import TEMPERATURE
from llmpatch._cli.output import warn

if TYPE_CHECKING:
    from llmpatch.artifact import Patch
    from llmpatch.bases import Base
    from llmpatch.composing import Stack
    from llmpatch.prefix import Rows

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, eq=False)
class Opened:
    """A base and the patches for it.

    Attributes:
        base: The loaded base.
        patches: As given.
        prefix: Virtual tokens of all patches, or ``None`` without a patch.
    """

    base: Base
    patches: list[Patch]
    prefix: Rows | None


def find_own(patch: str) -> Path:
    """Where a patch lies that is verified, signed or packed; a name that means another patch to other verbs is refused.

    The store is looked at only where there is one: reading it costs more than verifying does.

    Raises:
        UsageError: no such patch, or two of that name.
    """
    from llmpatch.artifact import find_patch
    from llmpatch.catalogue import store_folder
    from llmpatch.versions import is_request

    named = is_request(patch) and not os.path.lexists(Path(patch).expanduser())
    if not named or not store_folder().is_dir():
        return find_patch(patch)
    from llmpatch.store import find_unambiguous

    return find_unambiguous(patch)


def check_revision(base: str | None, revision: str | None) -> None:
    """Refuse a revision of nothing.

    Raises:
        UsageError: there is one, and no base.
    """
    from llmpatch.errors import UsageError

    if revision and base is None:
        raise UsageError("--revision is of a base, and none is given", hint="add --base BASE")


def open_patched(base_name: str, revision: str | None, patch_names: Sequence[str], *, parallel: bool = False) -> Opened:
    """Read patches, load the base, check each patch against it, and put them one after another, or side by side.

    Raises:
        UsageError: no such patch or base; patches that cannot be put together, or too many for the base's context.
        IntegrityError: a damaged patch.
        WrongBaseError: a patch that was made for another base.
        LlmpatchError: the base cannot be loaded.
    """
    from llmpatch.bases import load_base
    from llmpatch.store import load_patch

    patches = [load_patch(name) for name in patch_names]
    stack = _stack(patches, parallel)
    base = load_base(base_name, revision)
    for patch in patches:
        for text in patch.check_base(base):
            warn(text)
    if len(patches) > 1:
        from llmpatch.prefix import check_room, check_side_by_side

        check_room(base, len(stack.rows) if stack else 0)
        if parallel:
            check_side_by_side(base)
        how = "side by side" if parallel else "one after another in the order given"
        warn(f"several patches are put {how}; `llmpatch compose` measures them together")
    return Opened(base, patches, stack.prefix if stack else None)


def _stack(patches: list[Patch], parallel: bool) -> Stack | None:
    """The patches as one stack, checked against each other before a model is loaded."""
    from llmpatch.composing import make_stack

    return make_stack(patches, parallel=parallel and len(patches) > 1) if patches else None


def base_options(function: F) -> F:
    """The options that choose a base."""
    function = click.option("--revision", help="Branch, tag or commit, for a base from the Hugging Face hub.")(function)
    text = "The base: a catalogue name (`llmpatch models list`), a hub id, a folder or a .gguf file."
    return click.option("--base", required=True, help=text)(function)


def parallel_option(function: F) -> F:
    """The option that puts several patches side by side."""
    text = "Several patches side by side: none reads another, and their order makes no difference."
    return click.option("--parallel", is_flag=True, help=text)(function)


def answer_options(max_new_tokens: int) -> Callable[[F], F]:
    """The options that say which patches answer, and how.

    Args:
        max_new_tokens: The default length of an answer.
    """
    options = [
        click.option(
            "--patch",
            "patches",
            multiple=True,
            help="A patch folder or name. Repeatable: rows go one after another, as given.",
        ),
        parallel_option,
        click.option("--max-new-tokens", type=click.IntRange(1, 4096), default=max_new_tokens, show_default=True),
        click.option("--temperature", type=TEMPERATURE, default=0.0, show_default=True, help="0 is greedy."),
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
        click.option("--system", help="A system message instead of the template's own."),
    ]

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate
