"""The ``llmpatch`` command: finds the verb, and turns every failure into one line, one hint and an exit code.

    main(["show", "patches/smollm2/refusal"])   # returns the exit code

Exit codes: 0 done, 1 usage, 2 could not do it, 3 gate, 4 trust, 5 wrong base, 6 integrity, 130 interrupted.
"""

from __future__ import annotations

import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

import click

from llmpatch import __version__
from llmpatch._cli.output import note, one_line
from llmpatch.errors import INTERRUPTED, LlmpatchError

VERBS = (
    "demo", "models", "record", "pairs", "train", "build", "compose", "eval", "gate", "show", "pack", "unpack",
    "keys", "sign", "verify", "search", "lock", "install", "list", "activate", "deactivate", "rollback", "history",
    "upgrade", "pin", "revoke", "audit", "advisory", "sbom", "attestation", "gc", "doctor", "registry", "generate",
    "chat", "serve", "export", "gateway",
)  # fmt: skip


class _Lines(click.types.StringParamType):
    """Texts, in the environment one on each line: they may hold blanks."""

    envvar_list_splitter = "\n"


class Verbs(click.Group):
    """A group that imports a verb when it is asked for; verbs import the library when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The verbs, in the order of a user's way."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The verb's ``command``."""
        if cmd_name not in VERBS:
            return None
        found: click.Command = importlib.import_module(f"llmpatch._cli.{cmd_name}").command
        _name_in_environment(found, f"LLMPATCH_{cmd_name}")
        return found


def _name_in_environment(command: click.Command, prefix: str) -> None:
    """Let every option come from the variable that is named like its flag; click goes by what the function calls it."""
    for option in command.params:
        flag = next((text for text in option.opts if text.startswith("--")), None)
        if isinstance(option, click.Option) and option.envvar is None and flag:
            option.envvar = f"{prefix}_{flag[2:]}".upper().replace("-", "_")
            if option.multiple and option.type is click.STRING:
                option.type = _Lines()
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            _name_in_environment(below, f"{prefix}_{name}")


@click.command(
    cls=Verbs,
    context_settings={
        "auto_envvar_prefix": "LLMPATCH",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="Exit codes: 0 done, 1 usage, 2 could not do it, 3 gate, 4 trust, 5 wrong base, 6 integrity, "
    "130 interrupted. Every option can come from the environment, as LLMPATCH_GENERATE_BASE=smollm2; "
    "of one that is repeatable a value on each line.",
)
# LLMPATCH_VERSION=1.2.0 is what a build file calls the version to install: it must not turn every verb into --version.
@click.version_option(__version__, prog_name="llmpatch", allow_from_autoenv=False)
def root() -> None:
    """Safety patches for language models: build one, prove it, use it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Without the program's name; by default the process's own.

    Returns:
        The exit code.
    """
    # Nobody else's code checks our schemas, and looking for it among all installed packages takes a tenth of `verify`.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            if not _debugging():
                warnings.simplefilter("ignore")  # ours are printed as `warning:` lines; others' are for developers
            root.main(args=None if arguments is None else list(arguments), prog_name="llmpatch", standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        note("interrupted; what was done is kept: run the same command again to continue")
        return INTERRUPTED
    except click.exceptions.Exit as done:
        return done.exit_code
    except SystemExit as stop:
        told = sys.argv[1:] if arguments is None else arguments
        if stop.code in (None, 0) or (stop.code == 1 and {"-h", "--help", "--version"} & set(told)):
            return 0  # 1 is click's answer to a reader that closed the pipe: of a help text nothing is lost
        return _fail(f"something in it stopped the program with code {stop.code}", "the lines above may say why", 2)
    except BaseException as error:  # whatever it is, a user gets one line and a code
        return _explain(error)
    return 0


def _explain(error: BaseException) -> int:
    if _debugging():
        sys.excepthook(type(error), error, error.__traceback__)
    if isinstance(error, LlmpatchError):
        return _fail(error.message, error.hint, error.exit_code)
    if isinstance(error, click.ClickException):
        if type(error).__name__ == "NoArgsIsHelpError":  # click >= 8.2: no verb was given
            note(error.format_message())
            return 1
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "llmpatch"
        return _fail(error.format_message(), f"`{path} --help` shows what it takes", 1)
    reason = one_line(str(error)) or "no details"
    return _fail(f"unexpected {type(error).__name__}: {reason}", "LLMPATCH_DEBUG=1 shows the traceback", 2)


def _fail(message: str, hint: str, code: int) -> int:
    note(f"error: {one_line(message)}")
    if hint:
        note(f"hint: {one_line(hint)}")
    return code


def _debugging() -> bool:
    return os.environ.get("LLMPATCH_DEBUG", "") not in ("", "0")
