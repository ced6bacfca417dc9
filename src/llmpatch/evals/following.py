"""Whether an answer has the form that was asked for: checks that code can make, as IFEval (Zhou et al. 2023) defines them.

    follows("keywords:existence", {"keywords": ["dog"]}, "A dog barks.")       # True
    parse_checks([{"check": "punctuation:no_comma"}], where="row 1")           # [("punctuation:no_comma", {})]

The strict reading: the answer as it stands, and an empty one follows nothing. Where this differs from the authors' code, which
needs three packages and downloads: words asked for are words, not patterns; sentences are told by their punctuation, not by a
trained model; "in English, in capitals" checks the capitals. Letters asked for may be signs, such as "#", for which the
harness's copy of that code takes a random letter. Telling languages apart is not here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmpatch.errors import UsageError

Options = Mapping[str, Any]
Check = Callable[[str, Options], bool]

_ABBREVIATIONS = re.compile(r"\b(mr|mrs|ms|dr|prof|sr|jr|st|vs|etc|inc|ltd|e\.g|i\.e|a\.m|p\.m|u\.s)\.", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|$)")
_MAX_CHECKS = 16
_MAX_ITEMS = 64
_MAX_CHARS = 4096


def _related(count: int, relation: str, wanted: int) -> bool:
    return count < wanted if relation == "less than" else count >= wanted


def sentences(text: str) -> int:
    """How many sentences a text has, by their ends; what follows the last end counts as one."""
    plain = _ABBREVIATIONS.sub(lambda found: found[0].replace(".", ""), text.strip())
    ends = list(_SENTENCE_END.finditer(plain))
    return len(ends) + bool(plain[ends[-1].end() if ends else 0 :].strip())


def _occurrences(word: str, text: str) -> int:
    return len(re.findall(re.escape(word), text, re.IGNORECASE))


def _forbidden(text: str, o: Options) -> bool:
    return not any(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE) for word in o["forbidden_words"])


def _highlights(text: str, o: Options) -> bool:
    single = [part for part in re.findall(r"\*[^\n\*]*\*", text) if part.strip("*").strip()]
    double = [part for part in re.findall(r"\*\*[^\n\*]*\*\*", text) if part[2:-2].strip()]
    return len(single) + len(double) >= int(o["num_highlights"])


def _bullets(text: str, o: Options) -> bool:
    stars = re.findall(r"^\s*\*[^\*].*$", text, re.MULTILINE)
    dashes = re.findall(r"^\s*-.*$", text, re.MULTILINE)
    return len(stars) + len(dashes) == int(o["num_bullets"])


def _sections(text: str, o: Options) -> bool:
    return len(re.split(rf"\s?{re.escape(o['section_spliter'])}\s?\d+\s?", text)) - 1 >= int(o["num_sections"])


def _paragraphs(text: str, o: Options) -> bool:
    parts = re.split(r"\s?\*\*\*\s?", text)
    inner = parts[1:-1]
    if any(not part.strip() for part in inner):
        return False
    return sum(bool(part.strip()) for part in parts) == int(o["num_paragraphs"])


def _first_word(text: str, o: Options) -> bool:
    parts = text.split("\n\n")
    count, place = sum(bool(part.strip()) for part in parts), int(o["nth_paragraph"])
    if place > count or not parts[place - 1].strip():
        return False
    word = re.split(r"[.,?!'\"]", parts[place - 1].split()[0].lstrip("'").lstrip('"').lower())[0]
    return count == int(o["num_paragraphs"]) and word == str(o["first_word"]).lower()


def _postscript(text: str, o: Options) -> bool:
    marker = str(o["postscript_marker"]).lower()
    pattern = {"p.p.s": r"p\.\s?p\.\s?s", "p.s.": r"p\.\s?s\."}.get(marker, re.escape(marker))
    return bool(re.search(pattern, text.lower()))


def _json(text: str, _: Options) -> bool:
    bare = re.sub(r"^```(?:json)?", "", text.strip(), flags=re.IGNORECASE).removesuffix("```").strip()
    try:
        json.loads(bare)
    except (ValueError, RecursionError):
        return False
    return True


def _two_responses(text: str, _: Options) -> bool:
    parts = text.split("******")
    if any(not part.strip() for part in parts[1:-1]):
        return False
    found = [part.strip() for part in parts if part.strip()]
    return len(found) == 2 and found[0] != found[1]


def _capital_words(text: str, o: Options) -> bool:
    count = sum(word.isupper() for word in re.findall(r"\w[\w'-]*", text))
    return _related(count, o["capital_relation"], int(o["capital_frequency"]))


def _quoted(text: str, _: Options) -> bool:
    bare = text.strip()
    return len(bare) > 1 and bare[0] == bare[-1] == '"'


# Name, what it checks, and the options it needs: words (a list), a text, a number, or how two numbers relate.
CHECKS: dict[str, tuple[Check, dict[str, str]]] = {
    "change_case:capital_word_frequency": (
        _capital_words, {"capital_relation": "relation", "capital_frequency": "number"}),
    "change_case:english_capital": (lambda text, _: text.isupper(), {}),
    "change_case:english_lowercase": (lambda text, _: text.islower(), {}),
    "combination:repeat_prompt": (
        lambda text, o: text.strip().lower().startswith(o["prompt_to_repeat"].strip().lower()),
        {"prompt_to_repeat": "text"}),
    "combination:two_responses": (_two_responses, {}),
    "detectable_content:number_placeholders": (
        lambda text, o: len(re.findall(r"\[.*?\]", text)) >= int(o["num_placeholders"]), {"num_placeholders": "number"}),
    "detectable_content:postscript": (_postscript, {"postscript_marker": "text"}),
    "detectable_format:constrained_response": (
        lambda text, _: any(f"My answer is {word}." in text for word in ("yes", "no", "maybe")), {}),
    "detectable_format:json_format": (_json, {}),
    "detectable_format:multiple_sections": (_sections, {"section_spliter": "text", "num_sections": "number"}),
    "detectable_format:number_bullet_lists": (_bullets, {"num_bullets": "number"}),
    "detectable_format:number_highlighted_sections": (_highlights, {"num_highlights": "number"}),
    "detectable_format:title": (
        lambda text, _: any(found.lstrip("<").rstrip(">").strip() for found in re.findall(r"<<[^\n]+>>", text)), {}),
    "keywords:existence": (
        lambda text, o: all(_occurrences(word, text) for word in o["keywords"]), {"keywords": "words"}),
    "keywords:forbidden_words": (_forbidden, {"forbidden_words": "words"}),
    "keywords:frequency": (
        lambda text, o: _related(_occurrences(o["keyword"], text), o["relation"], int(o["frequency"])),
        {"keyword": "text", "relation": "relation", "frequency": "number"}),
    "keywords:letter_frequency": (
        lambda text, o: _related(text.lower().count(o["letter"].lower()), o["let_relation"], int(o["let_frequency"])),
        {"letter": "text", "let_relation": "relation", "let_frequency": "number"}),
    "length_constraints:nth_paragraph_first_word": (
        _first_word, {"num_paragraphs": "number", "nth_paragraph": "number", "first_word": "text"}),
    "length_constraints:number_paragraphs": (_paragraphs, {"num_paragraphs": "number"}),
    "length_constraints:number_sentences": (
        lambda text, o: _related(sentences(text), o["relation"], int(o["num_sentences"])),
        {"relation": "relation", "num_sentences": "number"}),
    "length_constraints:number_words": (
        lambda text, o: _related(len(re.findall(r"\w+", text)), o["relation"], int(o["num_words"])),
        {"relation": "relation", "num_words": "number"}),
    "punctuation:no_comma": (lambda text, _: "," not in text, {}),
    "startend:end_checker": (
        lambda text, o: text.strip().strip('"').lower().endswith(o["end_phrase"].strip().lower()), {"end_phrase": "text"}),
    "startend:quotation": (_quoted, {}),
}  # fmt: skip


def follows(check: str, options: Options, text: str) -> bool:
    """Whether a text passes a check; an empty one passes none.

    Args:
        check: A key of ``CHECKS``.
        options: Those the check needs, as :func:`parse_checks` gives them.
        text: The answer.
    """
    return bool(text.strip()) and CHECKS[check][0](text, options)


def parse_checks(found: object, *, where: str) -> list[tuple[str, Options]]:
    """Checks of one prompt, out of ``[{"check": name, option: value, ...}]``.

    Args:
        found: What a row holds.
        where: What to call it in an error.

    Raises:
        UsageError: no list of checks, an unknown check, or an option that is missing, unknown or of the wrong type.
    """
    if not isinstance(found, list) or not 1 <= len(found) <= _MAX_CHECKS:
        raise UsageError(f"{where} has no list `checks`", hint='as [{"check": "punctuation:no_comma"}]')
    parsed: list[tuple[str, Options]] = []
    for item in found:
        name = item.get("check") if isinstance(item, dict) else None
        if not isinstance(name, str) or name not in CHECKS:
            raise UsageError(f"{where} has an unknown check {str(name)[:60]!r}", hint=f"use one of {', '.join(CHECKS)}")
        options, wanted = {key: value for key, value in item.items() if key != "check"}, CHECKS[name][1]
        wrong = sorted(options.keys() ^ wanted.keys()) or [k for k, kind in wanted.items() if not _is(kind, options[k])]
        if wrong:
            needs = ", ".join(f"{key} ({kind})" for key, kind in wanted.items()) or "no options"
            raise UsageError(f"{where}: check {name} with a wrong `{wrong[0][:60]}`", hint=f"it takes {needs}")
        parsed.append((name, options))
    return parsed


def share_followed(checks: Sequence[tuple[str, Options]], text: str) -> float:
    """Share of a prompt's checks that an answer passes."""
    return sum(follows(name, options, text) for name, options in checks) / len(checks)


def _is(kind: str, value: object) -> bool:
    if kind == "words":
        return isinstance(value, list) and 0 < len(value) <= _MAX_ITEMS and all(_is("text", word) for word in value)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1 and value >= 0
    if kind == "relation":
        return value in ("less than", "at least")
    return isinstance(value, str) and 0 < len(value) <= _MAX_CHARS
