import json
import os
import shlex
import subprocess
import sys
import time

import click
import pytest

import llmpatch._cli.show
from llmpatch import __version__, errors
from llmpatch._cli.main import VERBS, main, root

HELP = "import sys; from llmpatch._cli.main import main; code = main(['--help']); "


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize(("asked", "code"), [(None, 0), (1, 2), (3, 2)])
def test_what_ends_the_program_from_within_is_no_success(monkeypatch, capsys, asked, code):
    """1 is click's answer to a pipe that was closed; 3 is, say, uvicorn's where it cannot start."""
    monkeypatch.setattr(root, "main", lambda **_: sys.exit(asked))
    assert main([]) == code
    assert (f"with code {asked}" in capsys.readouterr().err) == (code == 2)


def test_a_help_text_that_nobody_reads_to_the_end_is_a_success(monkeypatch):
    monkeypatch.setattr(root, "main", lambda **_: sys.exit(1))
    assert main(["show", "--help"]) == 0


def _options(command, prefix):
    for option in command.params:
        if isinstance(option, click.Option) and option.opts[0].startswith("-"):
            yield prefix, option
    for name, below in getattr(command, "commands", {}).items():
        yield from _options(below, f"{prefix}_{name}")


def test_every_option_comes_from_the_variable_that_is_named_like_its_flag():
    """A container with LLMPATCH_SERVE_PATCH must not serve something else in silence."""
    found = [pair for verb in VERBS for pair in _options(root.get_command(None, verb), f"LLMPATCH_{verb}")]
    assert len(found) > 200
    for prefix, option in found:
        flag = next(text for text in option.opts if text.startswith("--"))
        assert option.envvar == f"{prefix}_{flag[2:]}".upper().replace("-", "_")


def test_an_option_out_of_the_environment_counts(workspace, cli, monkeypatch):
    monkeypatch.setenv("LLMPATCH_SHOW_JSON", "1")
    assert json.loads(cli("show", "tiny/refusal").out)
    monkeypatch.setenv("LLMPATCH_GATE_POLICY", "no-such-policy.yaml")
    found = cli("gate", "tiny/refusal", "--evidence", "patches/tiny/refusal/evidence.json")
    assert (found.code, "no-such-policy.yaml" in found.err) == (1, True)


def test_a_repeatable_option_has_a_value_on_each_line_of_its_variable(monkeypatch):
    got = []
    monkeypatch.setattr("llmpatch._cli.generate.command.callback", lambda **options: got.append(options["patches"]))
    monkeypatch.setenv("LLMPATCH_GENERATE_PATCH", "my patches/one\ntwo")
    assert main(["generate", "--base", "b", "--prompts", "p.jsonl", "--out", "o.jsonl"]) == 0
    assert got == [("my patches/one", "two")]


@pytest.mark.parametrize(
    ("package", "command", "said"),
    [
        ("fastapi", ("serve", "--base", "x"), "the server needs fastapi"),
        (
            "tuf",
            ("registry", "add", "acme", "https://x.example/", "--root", "root.json"),
            "registries need the package tuf",
        ),
    ],
)
def test_what_an_extra_lacks_is_one_line(package, command, said, tmp_path):
    code = (
        f"import importlib.util, sys; sys.modules[{package!r}] = None; real = importlib.util.find_spec;"
        f"importlib.util.find_spec = lambda name, *more: None if name == {package!r} else real(name, *more);"
        f"from llmpatch._cli.main import main; sys.exit(main({list(command)!r}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert said in found.stderr
    assert "pip install 'llmpatch[" in found.stderr


def test_a_version_in_the_environment_is_no_order_to_print_ours(monkeypatch, cli):
    """Build files call the version to install LLMPATCH_VERSION: a gate must not end with 0 for it, unasked."""
    for value in ("1", "1.2.0"):
        monkeypatch.setenv("LLMPATCH_VERSION", value)
        found = cli("gate", "no-such-patch")
        assert found.code == 1
        assert "no-such-patch" in found.err


@pytest.mark.alone
def test_help_is_quick_and_loads_no_heavy_library():
    report = "print(sorted({m.partition('.')[0] for m in sys.modules}), code, file=sys.stderr)"
    best = min(_timed(HELP + report) for _ in range(3))
    assert best < 0.3
    loaded = python(HELP + report).stderr
    assert loaded.rstrip().endswith("] 0")
    for name in ("torch", "transformers", "pydantic", "numpy", "httpx", "rich", "yaml"):
        assert f"'{name}'" not in loaded


def _timed(code):
    start = time.perf_counter()
    assert python(code).returncode == 0
    return time.perf_counter() - start


def test_every_verb_has_help(cli):
    for verb in VERBS:
        found = cli(verb, "--help")
        assert found.code == 0
        assert found.out.startswith(f"Usage: llmpatch {verb}")
        assert "\\b" not in found.out, "a raw docstring: click runs the lines of its examples together"
    assert cli("--help").out.count("\n  ") > len(VERBS)


def test_a_script_and_a_module_are_the_same_program():
    found = subprocess.run([sys.executable, "-m", "llmpatch", "--version"], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == f"llmpatch, version {__version__}"


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["build"], ["show", "x", "--nonsense"], ["generate", "--base", "b", "--samples", "0"], []],
)
def test_usage_errors_exit_with_1(cli, arguments):
    found = cli(*arguments)
    assert found.code == 1
    assert found.out == ""
    assert "Traceback" not in found.err
    if arguments:
        error, hint = found.err.splitlines()
        assert error.startswith("error: ")
        assert hint.startswith("hint: `llmpatch")


@pytest.fixture
def failing(monkeypatch):
    """Makes `show` raise what it is given."""

    def make(error):
        @click.command(name="show")
        def command():
            raise error

        monkeypatch.setattr(llmpatch._cli.show, "command", command)

    return make


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.LlmpatchError, 2), (errors.UsageError, 1), (errors.RecipeError, 1), (errors.ReferenceFailedError, 2),
        (errors.GateError, 3), (errors.TrustError, 4), (errors.WrongBaseError, 5), (errors.IntegrityError, 6),
    ],
)  # fmt: skip
def test_deliberate_errors_are_a_line_a_hint_and_their_code(cli, failing, error, code):
    failing(error("what\nand \x1b[31mwhere", hint="what to do"))
    found = cli("show")
    assert (found.code, found.out) == (code, "")
    assert found.err == "error: what and \\x1b[31mwhere\nhint: what to do\n"


def test_an_unexpected_error_is_one_line_without_and_a_traceback_with_debugging(cli, failing, monkeypatch):
    failing(ZeroDivisionError("by zero"))
    found = cli("show")
    assert found.code == 2
    assert found.err == "error: unexpected ZeroDivisionError: by zero\nhint: LLMPATCH_DEBUG=1 shows the traceback\n"
    monkeypatch.setenv("LLMPATCH_DEBUG", "1")
    assert "Traceback" in cli("show").err


def test_an_interrupt_exits_with_130_and_says_that_work_is_kept(cli, failing):
    failing(KeyboardInterrupt())
    found = cli("show")
    assert found.code == 130
    assert "run the same command again" in found.err


def test_a_reader_that_leaves_is_no_error():
    command = f"{shlex.quote(sys.executable)} -m llmpatch models list | head -c 1; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert found.stdout == "n0\n"
    assert found.stderr == ""


def test_a_reader_that_leaves_does_not_change_what_a_verb_does_or_says(workspace):
    """A pipeline that shows the first lines of a failed gate has failed, too."""
    verb = "gate tiny/refusal --evidence patches/tiny/refusal/evidence.json --max-new-tokens 4"
    command = f"{shlex.quote(sys.executable)} -m llmpatch {verb} 2>&1 | head -c 1; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1].endswith("3")


def test_a_closed_pipe_is_quiet(cli, failing):
    failing(BrokenPipeError(32, "Broken pipe"))
    found = python(
        "import os, sys; from llmpatch._cli.main import main; "
        "r, w = os.pipe(); os.close(r); os.dup2(w, 1); sys.exit(main(['models', 'list']))"
    )
    assert found.returncode == 0
    assert found.stderr == ""


def test_options_come_from_the_environment(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("LLMPATCH_GENERATE_PROMPTS", str(tmp_path / "from-the-environment.jsonl"))
    found = cli("generate", "--base", "x", "--out", tmp_path / "o.jsonl")
    assert found.code == 1
    assert "from-the-environment.jsonl" in found.err


def test_warnings_of_libraries_stay_with_developers(cli, monkeypatch):
    @click.command(name="show")
    def command():
        import warnings

        warnings.warn("for developers", UserWarning, stacklevel=1)

    monkeypatch.setattr(llmpatch._cli.show, "command", command)
    assert cli("show").err == ""


def test_verbs_and_group_agree():
    context = click.Context(root)
    assert root.list_commands(context) == list(VERBS)
    assert all(root.get_command(context, verb).name == verb for verb in VERBS)
    assert main(["--version"]) == 0
