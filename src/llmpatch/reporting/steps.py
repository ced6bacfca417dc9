"""How to reproduce a report: commands, digests, versions, judges."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

Json = Mapping[str, Any]
Fact = tuple[str, str]


def commands(evidence: Json, manifest: Json) -> tuple[str, ...]:
    """The commands that make and measure the patch again."""
    base = shlex.quote(str(evidence["base"]["name"]))
    decoding = evidence.get("decoding") or {}
    told = [key for key in ("limit", "within") if decoding.get(key)]
    if decoding.get("temperature") and "samples" not in decoding:
        told += [key for key in ("temperature", "top_p") if key in decoding]
    told += [key for key in ("samples", "max_new_tokens") if decoding.get(key)]
    cut = "".join(f" --{key.replace('_', '-')} {shlex.quote(str(decoding[key]))}" for key in told)
    folder = shlex.quote(f"patches/{manifest['name']}") if manifest.get("name") else "PATCH"
    recipe = shlex.quote(str(evidence.get("recipe") or "RECIPE.yaml"))
    patched = "M+" in evidence["systems"]
    suite = str(evidence["suite"])
    what = f"--suite {shlex.quote(suite)}"
    if suite == "own prompts" or suite.endswith(" on own prompts"):  # the latter of what is no risk's suite
        named = suite.removesuffix("own prompts").removesuffix(" on ") or str(evidence.get("risk", "refusal"))
        what = "--prompts YOURS.jsonl" + (f" --suite {shlex.quote(named)}" if named != "refusal" else "")
    cut += _asked_otherwise(evidence)
    if evidence["systems"].get("M+", {}).get("side_by_side") and not manifest.get("arrangement"):
        cut += " --parallel"
    measure = f"llmpatch eval{f' {folder}' if patched else ''} --base {base} {what}{cut}"
    return (f"llmpatch build {recipe} -o {folder}", measure) if patched else (measure,)


def _asked_otherwise(evidence: Json) -> str:
    """Options of what the suite would not do by itself: single attacks, other judges, scorers, answers of ``M'``."""
    from llmpatch.evals.suites import JUDGES, RISK_JUDGES

    found = []
    if attacks := evidence.get("attacks"):
        budgets = {name: told.get("budget") for name, told in attacks.items()}
        named = [f"{name}@{told['rounds']}x{told['width']}" if told else name for name, told in budgets.items()]
        found += ["--attacks", ",".join(named)]
    usual = JUDGES if attacks else RISK_JUDGES.get(str(evidence.get("risk", evidence["suite"])), ())
    names = [str(judge["name"]) for judge in evidence.get("judges", [])]
    if usual and names and tuple(names) != usual:
        found += [word for name in names for word in ("--judge", name)]
    found += [word for scorer in evidence.get("scorers", []) for word in ("--scorer", str(scorer["name"]))]
    if "M'" in evidence["systems"]:
        recipe = (evidence.get("training") or {}).get("recipe") or {}
        found += ["--reference", str((recipe.get("evaluation") or {}).get("reference") or "RECORDING.jsonl")]
    return "".join(f" {shlex.quote(word)}" for word in found)


def facts(evidence: Json, manifest: Json) -> tuple[Fact, ...]:
    """Digests, seeds and versions, each with its name."""
    build, environment = manifest.get("build") or {}, evidence.get("environment") or {}
    decoding, fingerprint = evidence.get("decoding") or {}, evidence["base"].get("fingerprint") or {}
    found: list[Fact] = [("Measured", str(evidence.get("created", "")))]
    if build:
        found += [
            ("Recipe sha256", str(build.get("recipe_digest", ""))),
            ("Training seed", str(build.get("seed", ""))),
            ("Made by", f"{build.get('tool', '')} {build.get('tool_version', '')}".strip()),
        ]
    found += [
        ("Decoding", ", ".join(f"{key} {value}" for key, value in decoding.items() if value is not None)),
        ("Versions", ", ".join(f"{key} {value}" for key, value in environment.items())),
    ]
    found += [(f"Base {key}", str(value)) for key, value in fingerprint.items()]
    for name, system in evidence["systems"].items():
        if digest := system.get("prefix_sha256"):
            found.append((f"{name} prefix sha256", str(digest)))
        if message := system.get("system_message"):
            found.append((f"{name}: system message", str(message)))
    return tuple((name, value) for name, value in found if value)


def judge_lines(judges: Sequence[Json], lead: str) -> tuple[str, ...]:
    """One line per judge: what it measures and what identifies it."""
    lines = []
    for judge in judges:
        digest = f", sha256 {str(judge['sha256'])[:16]}…" if judge.get("sha256") else ""
        leads = " (used in the bars)" if judge["name"] == lead else ""
        lines.append(f"{judge['name']}{leads}: {judge['measures']}, version {judge.get('version', '?')}{digest}")
    return tuple(lines)
