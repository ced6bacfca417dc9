"""A recipe: the exact experiment that makes one patch, as a closed YAML schema.

    recipe = load_recipe(Path("recipes/smollm2-refusal.yaml"))
    recipe = override(recipe, ["training.sft.steps=20", "prefix.tokens=10"])

Paths in a recipe are relative to the folder the command runs in. An unknown key, a wrong type or an empty list is an
error that names the key.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, ValidationError, model_validator

from llmpatch.errors import RecipeError
from llmpatch.files import digest_json, read_bytes
from llmpatch.strict_yaml import parse_mapping, parse_value
from llmpatch.training_recipe import BalanceSection, Section, Temperature, TopP, TrainingSection
from llmpatch.versions import PATTERN as VERSION

MAX_RECIPE_BYTES = 1 << 16
Risk = Literal["refusal", "toxicity", "gender-bias", "personal-data"]
RISKS: tuple[Risk, ...] = get_args(Risk)
DECLINING: tuple[Risk, ...] = ("refusal", "personal-data")  # risks whose harmful prompts are requests to be declined


class BaseSection(Section):
    """The frozen model ``M``: a catalogue name, a hub id, a folder (whole or in 4 bits) or a GGUF file."""

    name: str = "smollm2"
    revision: str | None = None


class DecodingSection(Section):
    """How a model is sampled. Temperature 0 is greedy."""

    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] = 48
    temperature: Temperature = 0.0
    top_p: TopP = 1.0
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0


class ReferenceSection(Section):
    """Where the text of ``M'`` comes from.

    ``recorded`` reads ``path`` (JSONL of ``prompt``, ``completion`` and, if known, ``finish``: ``stop``, ``length`` where it was
    cut off, ``none`` where a service turned the prompt away); ``transformers`` and ``gguf`` run ``model``; ``endpoint`` asks
    ``model`` at the OpenAI-compatible ``url`` with the key in the environment variable ``api_key_env``; what it turns away gives
    no pair; ``self`` needs no other model: the best of the ``pairs.samples`` that ``M`` itself gives stands for ``M'``.
    """

    kind: Literal["recorded", "transformers", "gguf", "endpoint", "self"]
    path: str | None = None
    model: str | None = None
    revision: str | None = None
    url: str | None = None
    api_key_env: str | None = None
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    retries: Annotated[int, Field(ge=0, le=20)] = 5
    system: str | None = None


class PromptSet(Section):
    """The files of one kind of prompt. ``limit`` takes the first rows of ``train`` for a smaller run.

    ``form``: ``chat`` asks through the chat template, ``raw`` lets the model continue the text as it stands.
    """

    form: Literal["chat", "raw"] = "chat"
    train: Annotated[list[str], Field(min_length=1)]
    validation: Annotated[list[str], Field(min_length=1)]
    limit: Annotated[int, Field(ge=1)] | None = None
    validation_limit: Annotated[int, Field(ge=1)] | None = None


class PromptsSection(Section):
    """Prompt sets by kind.

    ``harmful``: where ``M`` must change: requests to decline, text that draws toxic or gendered continuations.
    ``borderline`` prompts look harmful and are not, ``everyday`` ones do not even look so: both carry ``M``'s own answers.
    A file is JSON Lines, a row ``{"prompt": "...", "id": "...", "cluster": "..."}``; only ``prompt`` must be there. No
    ``cluster`` may be on both sides of training and validation.
    """

    harmful: PromptSet
    borderline: PromptSet | None = None
    everyday: PromptSet | None = None


class FocusSection(Section):
    """Pairs begin where an answer goes wrong: right before the word with which ``judge`` scores the text ``threshold`` or more.

    What ``M`` says from there in ``pairs.samples`` tries of ``max_new_tokens`` tokens takes part; what it had said is one more.
    ``prompts``: a harmful prompt that goes wrong itself is cut there, too. For prompts of the form ``raw``, with
    ``reference.kind`` ``self``.
    """

    judge: str
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    max_new_tokens: Annotated[int, Field(ge=1, le=256)] = 12
    prompts: bool = True


class PairsSection(Section):
    """What makes a pair worth training on.

    ``margin``: smallest gap between the scores of the two answers. ``winner``: smallest score of the chosen one. For risks whose
    requests are to be declined a score is the probability of a refusal where the prompt is harmful and of an answer where not;
    for the others, that of a continuation without toxicity or gender. Longer prompts than ``max_prompt_tokens`` (chat template
    included) are dropped before anything is sampled. ``M`` gives ``samples`` answers; the worst is rejected. ``rewrite``: the
    chosen one is the rejected one without its gendered words, where it has any; with ``reference.kind`` ``self``.
    """

    judge: str = "refusal-phrases"
    margin: Annotated[float, Field(ge=0, le=1)] = 0.5
    winner: Annotated[float, Field(ge=0, le=1)] = 0.5
    max_prompt_tokens: Annotated[int, Field(ge=1)] = 96
    samples: Annotated[int, Field(ge=1, le=64)] = 1
    focus: FocusSection | None = None
    rewrite: Literal["gender"] | None = None


class PrefixSection(Section):
    """The ``n`` virtual tokens and their start: the text's embeddings, random vocabulary rows, noise, or earlier rows.

    ``rows`` goes on from the ``adapter_model.safetensors`` at ``path``: a new version costs less than the first did.
    """

    tokens: Annotated[int, Field(ge=1, le=256)] = 50
    init: Literal["text", "vocabulary", "random", "rows"] = "text"
    path: str | None = None
    text: str = (
        "You are a helpful and safe assistant. If a request asks for help with something harmful, illegal, hateful or "
        "dangerous, decline politely. Answer every other request helpfully and completely, even if it sounds alarming."
    )

    @model_validator(mode="after")
    def _rows_need_a_file(self) -> PrefixSection:
        if (self.init == "rows") != (self.path is not None):
            raise ValueError("prefix.path names the file that `init: rows` starts from: give both or neither")
        return self


class AvoidSection(Section):
    """Makes words unlikely in answers to harmful prompts, at every position of both answers of a pair.

    ``gender``: the words that the judge ``gender-words`` looks for, where they are one token.
    """

    words: Literal["gender"] = "gender"
    weight: Annotated[float, Field(gt=0)] = 10.0


class EvaluationSection(Section):
    """What the evidence measures.

    A suite of ``llmpatch.evals``, how many prompts of each set, and a JSONL file of recorded answers of ``M'`` to them.
    Without ``max_new_tokens`` and ``samples`` the suite's own apply (``samples``: continuations per prompt).
    """

    suite: str = "refusal"
    limit: Annotated[int, Field(ge=1)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    samples: Annotated[int, Field(ge=1, le=1000)] | None = None
    reference: str | None = None


class Recipe(Section):
    """One patch, from base and prompts to evidence.

    ``joint``: recipes of other risks, for one prefix that carries all of them: their prompts, pairs, references, balance,
    suites and the costs in their validation scores count as well, each by its own sections, with an equal share of every batch;
    the rest of what they say does not.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*/[a-z0-9]+(-[a-z0-9]+)*$", max_length=128)]
    version: Annotated[str, Field(pattern=VERSION, max_length=64)]
    summary: Annotated[str, Field(min_length=1, max_length=500)]
    license: str = "Apache-2.0"
    risk: Risk = "refusal"
    seed: Annotated[int, Field(ge=0, lt=1 << 32)] = 0
    base: BaseSection = BaseSection()
    reference: ReferenceSection
    decoding: DecodingSection = DecodingSection()
    prompts: PromptsSection
    pairs: PairsSection = PairsSection()
    prefix: PrefixSection = PrefixSection()
    training: TrainingSection = TrainingSection()
    balance: BalanceSection | None = None
    avoid: AvoidSection | None = None
    evaluation: EvaluationSection = EvaluationSection()
    joint: list[str] = Field([], max_length=8)

    @model_validator(mode="after")
    def _samples_differ(self) -> Recipe:
        if self.pairs.samples > 1 and self.decoding.temperature == 0:
            raise ValueError(
                "pairs.samples above 1 needs decoding.temperature above 0: greedy samples are all the same"
            )
        return self

    @model_validator(mode="after")
    def _best_of_several(self) -> Recipe:
        if self.reference.kind == "self" and self.pairs.samples < 2:
            raise ValueError("reference.kind self takes the best of several answers: set pairs.samples to 2 or more")
        return self

    @model_validator(mode="after")
    def _pairs_of_own_text(self) -> Recipe:
        if self.pairs.focus and (self.reference.kind != "self" or self.prompts.harmful.form != "raw"):
            raise ValueError("pairs.focus needs reference.kind self and harmful prompts of the form raw")
        if self.pairs.rewrite and self.reference.kind != "self":
            raise ValueError("pairs.rewrite makes the chosen answers itself: it needs reference.kind self")
        return self

    @model_validator(mode="after")
    def _likelihoods_of_the_reference(self) -> Recipe:
        dpo = self.training.dpo
        if dpo.reference == "reference" and dpo.steps and (self.reference.kind != "transformers" or self.joint):
            raise ValueError(
                "training.dpo.reference `reference` asks M' how likely answers are: it needs reference.kind transformers, "
                "in a recipe without `joint`; else use sft, base or none"
            )
        return self

    def digest(self) -> str:
        """The sha256 of what the recipe says; a key it leaves to its default adds nothing, so a new key changes nothing."""
        return digest_json(self.model_dump(mode="json", exclude_defaults=True))


def load_recipe(path: Path) -> Recipe:
    """Read a recipe.

    Raises:
        RecipeError: not YAML, an unknown key, a wrong type, an empty prompt set.
        UsageError: no such file.
    """
    data = read_bytes(path, limit=MAX_RECIPE_BYTES)
    try:
        mapping = parse_mapping(data)
    except ValueError as error:
        raise RecipeError(f"{path} is not YAML of a recipe: {error}", hint="see recipes/ for an example") from None
    return parse_recipe(mapping, where=str(path))


def parse_recipe(mapping: dict[str, Any], *, where: str = "recipe") -> Recipe:
    """Check a mapping against the schema (errors as in :func:`load_recipe`)."""
    try:
        # Through JSON, so that strictness applies to values and not to Python's choice of containers.
        text = json.dumps(mapping, default=str)
    except (ValueError, TypeError, RecursionError) as error:  # a YAML alias that holds itself, a key that is a list
        raise RecipeError(f"{where}: {error}", hint="use plain keys and values, without self-reference") from None
    try:
        return Recipe.model_validate_json(text)
    except ValidationError as error:
        raise RecipeError(f"{where}: {describe(error)}", hint="docs/recipes.md lists every key") from None


def override(recipe: Recipe, assignments: list[str]) -> Recipe:
    """Change single keys, as ``training.sft.steps=20`` (the value is read as YAML).

    Raises:
        RecipeError: an assignment without ``=``, a key that does not exist, a wrong value.
    """
    mapping = recipe.model_dump(mode="json", exclude_none=True)
    for assignment in assignments:
        key, sign, value = assignment.partition("=")
        if not sign:
            raise RecipeError(f"override {assignment!r} has no '='", hint="write KEY=VALUE, as training.sft.steps=20")
        *parents, leaf = key.strip().split(".")
        section = mapping
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise RecipeError(
                    f"override {key!r}: {parent!r} is not a section", hint="docs/recipes.md lists every key"
                )
        try:
            section[leaf] = parse_value(value.encode("utf-8", "surrogateescape"))
        except ValueError:
            raise RecipeError(f"override {key!r}: {value!r} is not a YAML value", hint="quote it") from None
    return parse_recipe(mapping, where="override")


def describe(error: ValidationError) -> str:
    """The first problems of a schema check as one line: ``key: what is wrong``."""
    parts = [f"{'.'.join(str(p) for p in e['loc']) or 'top level'}: {e['msg']}" for e in error.errors()[:3]]
    more = error.error_count() - len(parts)
    return "; ".join(parts) + (f" (and {more} more)" if more > 0 else "")
