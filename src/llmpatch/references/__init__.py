"""References: where the text of the safer model ``M'`` comes from.

    reference = open_reference(recipe.reference, recipe.decoding)
    answers = collect(reference, prompts, Path("work/answers"), progress=console())

Four kinds behind one interface: a recording, a model in transformers, a GGUF in llama.cpp, an endpoint. Knows nothing
about pairs, scores or training.
"""

from __future__ import annotations

from pathlib import Path

from llmpatch.answers import Answer
from llmpatch.errors import RecipeError, UsageError
from llmpatch.recipe import DecodingSection, ReferenceSection
from llmpatch.references.base import Reference
from llmpatch.references.collecting import collect

__all__ = ["Answer", "Reference", "check_reference", "collect", "open_reference"]

# Per kind: the keys it needs, and the further keys it reads.
_KEYS: dict[str, tuple[set[str], set[str]]] = {
    "recorded": ({"path"}, set()),
    "transformers": ({"model"}, {"revision", "system"}),
    "gguf": ({"model"}, {"system"}),
    "endpoint": ({"model", "url"}, {"api_key_env", "requests_per_minute", "system"}),
    "self": (set(), set()),
}
_OPTIONAL = ("path", "model", "revision", "url", "api_key_env", "requests_per_minute", "system")


def open_reference(section: ReferenceSection, decoding: DecodingSection) -> Reference:
    """Make the reference that a recipe names. A model is loaded here; an endpoint is not asked yet.

    Raises:
        RecipeError: a key is missing for this kind, or is one that this kind would ignore.
        UsageError: the model, the file, an extra or the environment variable with the key is missing; or there is no
            other model (``self``: see :func:`llmpatch.pairs.make_pairs`).
        LlmpatchError: the model cannot be loaded.
    """
    check_reference(section)
    if section.kind == "self":
        raise UsageError(
            "reference.kind is self: the best of the base's own answers stands for M', there is no other model to ask",
            hint="name a model under `reference`, or build without a recording",
        )
    if section.kind == "recorded":
        from llmpatch.references.recorded import RecordedReference

        return RecordedReference(Path(section.path or ""))
    if section.kind == "transformers":
        from llmpatch.bases import load_base
        from llmpatch.references.local import TransformersReference

        return TransformersReference(load_base(section.model or "", section.revision), decoding, section.system)
    if section.kind == "gguf":
        return _open_gguf(section, decoding)
    return _open_endpoint(section, decoding)


def _open_gguf(section: ReferenceSection, decoding: DecodingSection) -> Reference:
    from llmpatch.catalogue import locate
    from llmpatch.references.llamacpp import LlamaCppReference

    path = locate(section.model or "")
    if path is None:
        raise UsageError(
            f"no GGUF called {section.model!r}: not a catalogue name and not a file",
            hint="`llmpatch models list` shows the catalogue; a file name ends in .gguf",
        )
    return LlamaCppReference(path, decoding, section.concurrency, section.system)


def _open_endpoint(section: ReferenceSection, decoding: DecodingSection) -> Reference:
    from llmpatch.references.endpoint import EndpointReference
    from llmpatch.references.replies import Secret

    reference = EndpointReference(
        section.url or "",
        section.model or "",
        decoding,
        api_key_env=section.api_key_env,
        system=section.system,
        concurrency=section.concurrency,
        requests_per_minute=section.requests_per_minute,
        timeout_seconds=section.timeout_seconds,
        retries=section.retries,
    )
    Secret.read(section.api_key_env)  # now rather than an hour into the run
    return reference


def check_reference(section: ReferenceSection) -> None:
    """Whether a recipe says all that its kind of reference needs, nothing that would be ignored, and no secret.

    Raises:
        RecipeError: it does not.
        UsageError: an address that is none; a secret in it, or in place of the name of a variable.
    """
    needed, read = _KEYS[section.kind]
    given = {name for name in _OPTIONAL if getattr(section, name) is not None}
    if missing := sorted(needed - given):
        raise RecipeError(
            f"reference: kind {section.kind} needs {', '.join(missing)}", hint="docs/recipes.md lists every key"
        )
    if ignored := sorted(given - needed - read):
        raise RecipeError(f"reference: kind {section.kind} does not use {', '.join(ignored)}", hint="take it out")
    if section.kind == "endpoint":
        from llmpatch.references.endpoint import check_secrets

        check_secrets(section.url or "", section.api_key_env)
