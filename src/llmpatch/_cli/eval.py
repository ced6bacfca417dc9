"""``llmpatch eval``: measure a base, and a patch on it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from llmpatch._cli.drawing import TEMPERATURE, TOP_P
from llmpatch._cli.opening import base_options, parallel_option
from llmpatch._cli.output import say, say_json, warn


@click.command(name="eval")
@click.argument("patches", metavar="[PATCH]...", nargs=-1)
@parallel_option
@base_options
@click.option(
    "--suite",
    default="refusal",
    show_default=True,
    help="The frozen prompt sets to measure on, whatever the patch is for: refusal, toxicity, gender-bias, personal-data, "
    "attacks, utility, facts, ifeval, long-context or distance.",
)
@click.option(
    "--prompts", "files", multiple=True, type=click.Path(path_type=Path),
    help="Your own JSON Lines in the suite's place: `prompt`, and `kind` harmful, borderline or everyday. Repeatable.",
)  # fmt: skip
@click.option(
    "--attacks", help="Of the suite `attacks`: which, as none,base64,gcg@24x24 (docs/attacks.md). Default: all."
)
@click.option(
    "--attacker", help="Of the suite `attacks`: a model that rewrites requests, a base or endpoint:MODEL@URL."
)
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="Recorded answers of the safer model (JSON Lines); a prompt may have several rows.",
)
@click.option("--limit", type=click.IntRange(1), help="Only the first N prompts of each set.")
@click.option(
    "--within", type=float, metavar="WIDTH",
    help="Ask only as many prompts of each set, in random order, as it takes for 95 % intervals of ± WIDTH (0.05: 5 points).",
)  # fmt: skip
@click.option("--max-new-tokens", type=click.IntRange(1, 4096), help="Length of an answer; by default the suite's own.")
@click.option(
    "--samples",
    type=click.IntRange(1, 1000),
    help="Continuations per prompt, where a suite continues text (toxicity: 10).",
)
@click.option("--temperature", type=TEMPERATURE, default=0.0, show_default=True,
              help="Draw the answers, as your engine may, of a risk that declines; 0 is greedy.")  # fmt: skip
@click.option("--top-p", type=TOP_P, default=1.0, show_default=True,
              help="The nucleus that is drawn from.")  # fmt: skip
@click.option(
    "--judge",
    "judges",
    multiple=True,
    help="Of the suite's measure, in place of its own. Repeatable; the first one leads.",
)
@click.option(
    "--scorer",
    "scorers",
    multiple=True,
    metavar="BASE",
    help="A model that says how fluent the answers are, beside the base itself: M' or an independent one. Repeatable.",
)
@click.option("--run", type=click.Path(path_type=Path), default=Path("runs/eval"), show_default=True,
              help="Folder of kept answers: repeating or continuing costs nothing.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Write the evidence to this JSON file.")
@click.option("--report", type=click.Path(path_type=Path), help="Write a self-contained page to this HTML file.")
@click.option("--json", "as_json", is_flag=True, help="Print the evidence as JSON.")
def command(
    patches: tuple[str, ...],
    parallel: bool,
    base: str,
    revision: str | None,
    suite: str,
    files: tuple[Path, ...],
    attacks: str | None,
    attacker: str | None,
    reference: Path | None,
    limit: int | None,
    within: float | None,
    max_new_tokens: int | None,
    samples: int | None,
    temperature: float,
    top_p: float,
    judges: tuple[str, ...],
    scorers: tuple[str, ...],
    run: Path,
    out: Path | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Measure a base, and a patch on it.

    Systems: the base, the base with PATCH, the base with a written safe prompt, and a recording with --reference. Several
    patches are one stack, in the order given; `llmpatch compose` says what each of them keeps in it.

    Rates come with n and a 95 % interval. The suite's prompts were in no training file of ours.
    """
    from llmpatch._cli.answer_file import check_out
    from llmpatch._cli.evidence_view import asked_lines, price_lines, results_table, scorer_lines, worse_lines
    from llmpatch._cli.opening import open_patched
    from llmpatch.errors import UsageError
    from llmpatch.evals import evaluate, usual_systems
    from llmpatch.evals.narrowing import check_within
    from llmpatch.evals.scorers import evaluate_scored
    from llmpatch.evals.suites import check_sampling, takes_safe_prompt
    from llmpatch.files import write_json, write_text
    from llmpatch.judges import open_judge
    from llmpatch.progress import console

    for path in (out, report):
        if path:
            check_out(path, *files, reference, *patches, base)
    if out and report and out.absolute() == report.absolute():
        raise UsageError(f"--out and --report are both {out}", hint="write them to two files")
    if within is not None:
        check_within(within)
    check_sampling(suite, temperature, top_p)
    chosen = [open_judge(name) for name in judges] or None  # before the base, which takes longer to fail
    opened = open_patched(base, revision, patches, parallel=parallel)

    safe_prompt = takes_safe_prompt(opened.base, suite)
    if not safe_prompt:
        warn(f"the chat template of {opened.base.name} takes no system message: the safe prompt is not measured")
    measure = partial(evaluate_scored, scorers=scorers) if scorers else evaluate
    evidence = measure(
        opened.base,
        usual_systems(opened.prefix, reference, safe_prompt=safe_prompt),
        suite=suite,
        prompts=files,
        attacks=attacks.split(",") if attacks else (),
        attacker=attacker,
        limit=limit,
        within=within,
        max_new_tokens=max_new_tokens,
        samples=samples,
        temperature=temperature,
        top_p=top_p,
        judges=chosen,
        store=run,
        progress=console(),
    )
    if out:
        write_json(out, evidence)
    if report:
        from llmpatch.reporting import render_html

        one = opened.patches[0] if len(opened.patches) == 1 else None
        manifest = one.manifest.model_dump(mode="json", by_alias=True) if one else None
        write_text(report, render_html(evidence, [], manifest))
    if as_json:
        say_json(evidence)
        return
    say(results_table(evidence))
    if lines := [*asked_lines(evidence), *price_lines(evidence), *scorer_lines(evidence), *worse_lines(evidence)]:
        say("\n" + "\n".join(lines))
