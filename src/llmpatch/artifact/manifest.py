"""``patch.json``: what a patch is, what it is for, what it fixes, as a closed schema.

    manifest = parse_manifest(Path("patches/smollm2/refusal/patch.json").read_bytes())
    manifest.name, manifest.base.fingerprint.tokenizer, manifest.fixes[0].after

The specification is docs/format/patch-v1.md; docs/format/patch.schema.json is written from this file. Knows nothing
about the other files of a patch but their names.
"""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmpatch.artifact.strict_json import parse_object, shown
from llmpatch.artifact.tensors import MAX_DIM, MAX_TOKENS
from llmpatch.errors import IntegrityError, UsageError
from llmpatch.versions import PATTERN as VERSION
from llmpatch.versions import range_text

SCHEMA = "llmpatch/patch/v1"
NO_DIGEST = "0" * 64
_INVISIBLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_JOINERS = "\u200c\u200d"  # several scripts and emoji need them, and they cannot reorder text
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|[+-][0-9]{2}:[0-9]{2})$"


def printable(text: str) -> str:
    """Refuse what would move a cursor, reorder or hide text in a terminal or a log."""
    for character in text:
        if unicodedata.category(character) in _INVISIBLE and character not in _JOINERS:
            raise ValueError(f"contains the control or invisible character U+{ord(character):04X}")
    return text


def _real_time(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not a date and time that exists") from None
    return text


_PLAIN = AfterValidator(printable)
_NO_CONTROLS = r"^[^\u0000-\u001F\u007F-\u009F]+$"
Text = Annotated[str, Field(min_length=1, max_length=200, pattern=_NO_CONTROLS), _PLAIN]
LONG_TEXT = 500  # characters of a summary or method
LongText = Annotated[str, Field(min_length=1, max_length=LONG_TEXT, pattern=_NO_CONTROLS), _PLAIN]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(max_length=128, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*/[a-z0-9]+(-[a-z0-9]+)*$")]
Version = Annotated[str, Field(max_length=64, pattern=VERSION)]
RangeText = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^(\*|[0-9a-z.<>=!~, -]+)$"), AfterValidator(range_text)
]
Time = Annotated[
    str, Field(max_length=40, pattern=_TIME, json_schema_extra={"format": "date-time"}), AfterValidator(_real_time)
]
Amount = Annotated[float, Field(ge=0)]


class _Section(BaseModel):
    """A frozen part of the manifest that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FingerprintSection(_Section):
    """sha256 of each part of the base that changes what the virtual tokens mean, and the base's quantisation."""

    config: Sha256
    tokenizer: Sha256
    chat_template: Sha256
    embeddings: Sha256
    quantisation: Text


class BaseSection(_Section):
    """The base the patch was made for. ``tested_on``: what else the evidence was measured on, as ``gguf:Q4_1``."""

    name: Text
    purl: Annotated[str, Field(max_length=300, pattern=r"^pkg:[a-z0-9.+-]+/[A-Za-z0-9._/%@:?=&-]+$")] | None = None
    revision: Text | None = None
    model_type: Text
    hidden_size: Annotated[int, Field(ge=1, le=MAX_DIM)]
    vocab_size: Annotated[int, Field(ge=1, le=1 << 24)]
    fingerprint: FingerprintSection
    tested_on: Annotated[tuple[Text, ...], Field(max_length=64)] = ()


class NormSection(_Section):
    """Row norms of the virtual tokens, and the 99.9th percentile of those of the base's own input embeddings."""

    min: Amount
    mean: Amount
    max: Amount
    base_p999: Annotated[float, Field(gt=0)]


class PrefixSection(_Section):
    """The virtual tokens: how many, where they go, how they are stored; ``digest`` is of the stored tensor bytes.

    ``scale: post`` says that they are input embeddings after any scaling the model applies to its own.
    """

    tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    dim: Annotated[int, Field(ge=1, le=MAX_DIM)]
    dtype: Literal["F32", "F16", "BF16"] = "F32"
    position: Literal["before_bos"] = "before_bos"
    scale: Literal["post"] = "post"
    norm: NormSection
    digest: Sha256


class Fix(_Section):
    """One measured improvement: a metric without (``before``) and with (``after``) the patch, on ``n`` prompts."""

    risk: Text
    metric: Text
    before: float
    after: float
    n: Annotated[int, Field(ge=1)]
    advisory: Text | None = None


class Relation(_Section):
    """Another patch, by name and version range (``>=1.2.0,<2``; ``*`` is any)."""

    name: Name
    versions: RangeText = "*"


class BuildSection(_Section):
    """How the patch was made: enough to make it again. ``source``: the commit of the tool or recipe it was made with."""

    tool: Text
    tool_version: Text
    seed: Annotated[int, Field(ge=0)]
    recipe_digest: Sha256
    data_digests: Annotated[dict[Text, Sha256], Field(max_length=64)]
    method: LongText
    source: Text | None = None


class Loss(_Section):
    """What one patch of a sequence loses in it: its own measure ``alone`` and ``together``, on ``n`` prompts."""

    patch: Sha256 | Literal["self"]
    risk: Text
    metric: Text
    alone: float
    together: float
    n: Annotated[int, Field(ge=1)]


class Composition(_Section):
    """Evidence of how this patch works together with others.

    ``patches`` are digests in the order of their rows; ``self`` stands for this patch, whose digest covers this text.
    ``evidence`` is the sha256 of the evidence that was measured on exactly that order. ``losses`` are what was found to be
    lost in it: with any, the order is known not to work.
    """

    patches: Annotated[tuple[Sha256 | Literal["self"], ...], Field(min_length=2, max_length=16)]
    evidence: Sha256
    losses: Annotated[tuple[Loss, ...], Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.patches.count("self") != 1 or len(set(self.patches)) != len(self.patches):
            raise ValueError("patches names `self` not once, or another patch twice")
        if any(loss.patch not in self.patches for loss in self.losses or ()):
            raise ValueError("losses names a patch that is not one of `patches`")
        return self


class Member(_Section):
    """A patch whose rows are part of this one, as it was composed."""

    name: Name
    version: Version
    digest: Sha256
    tokens: Annotated[int, Field(ge=1, le=MAX_TOKENS)]


class Threshold(_Section):
    """What a metric must be with the patch: at least ``min``, at most ``max``."""

    risk: Text
    metric: Text
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError(f"the threshold of {self.metric} has neither min nor max")
        return self


class GateSection(_Section):
    """The gate the patch passed before it was released, for a customer to run again.

    ``policy_digest`` is the sha256 of the policy, ``suite_digests`` those of the suites by name; ``utility_tolerance`` is
    the largest loss of utility that was accepted, as a share.
    """

    policy: Text
    policy_digest: Sha256
    suite_digests: Annotated[dict[Text, Sha256], Field(max_length=64)]
    thresholds: Annotated[tuple[Threshold, ...], Field(max_length=256)] = ()
    utility_tolerance: Annotated[float, Field(ge=0, le=1)] | None = None


FileName = Literal["README.md", "adapter_config.json", "adapter_model.safetensors", "evidence.json"]
Relations = Annotated[tuple[Relation, ...], Field(max_length=64)]


class Manifest(_Section):
    """The content of ``patch.json``.

    ``members`` are the patches it was composed of, in the order of their rows, which are all of its rows. With
    ``arrangement: parallel`` they stand side by side, so that none reads another, and not one after another.

    ``files`` holds the sha256 of every other file and ``checksum`` that of this one, taken with 64 zeros in its place:
    together they find damage. Only a signature finds a forger, who can compute both anew.
    """

    schema_: Annotated[Literal["llmpatch/patch/v1"], Field(alias="schema")]
    name: Name
    version: Version
    released: Time
    summary: LongText
    license: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9(][A-Za-z0-9.+() -]*$")]
    contact: Text | None = None
    base: BaseSection
    prefix: PrefixSection
    fixes: Annotated[tuple[Fix, ...], Field(max_length=64)]
    cumulative: bool = False
    supersedes: Relations = ()
    requires: Relations = ()
    conflicts: Relations = ()
    composition: Annotated[tuple[Composition, ...], Field(min_length=1, max_length=64)] | None = None
    gate: GateSection | None = None
    members: Annotated[tuple[Member, ...], Field(min_length=2, max_length=16)] | None = None
    arrangement: Literal["parallel"] | None = None
    build: BuildSection
    min_client: Version | None = None
    expires: Time | None = None
    files: Annotated[dict[FileName, Sha256], Field(min_length=4)]
    checksum: Sha256

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.prefix.dim != self.base.hidden_size:
            raise ValueError(f"prefix.dim {self.prefix.dim} is not base.hidden_size {self.base.hidden_size}")
        norm = self.prefix.norm
        if not norm.min <= norm.mean <= norm.max:
            raise ValueError("prefix.norm is not in the order min <= mean <= max")
        if self.members is not None:
            if sum(member.tokens for member in self.members) != self.prefix.tokens:
                raise ValueError(f"members have not the {self.prefix.tokens} tokens of prefix.tokens together")
            if any(len({getattr(m, key) for m in self.members}) != len(self.members) for key in ("digest", "name")):
                raise ValueError("members names a patch twice")
        elif self.arrangement:
            raise ValueError("arrangement says how members stand, and there are none")
        return self

    def expired(self, now: datetime | None = None) -> bool:
        """Whether ``expires`` lies in the past."""
        if self.expires is None:
            return False
        return datetime.fromisoformat(self.expires) < (now or datetime.now(UTC))


def parse_manifest(data: bytes, *, where: str = "patch.json") -> Manifest:
    """Read a manifest.

    Raises:
        IntegrityError: not strict JSON, not of this schema, or its checksum does not match.
    """
    mapping = parse_object(data, where=where)
    if mapping.get("schema") != SCHEMA:
        raise IntegrityError(
            f"{where}: schema {shown(str(mapping.get('schema')))}, this llmpatch reads {SCHEMA}",
            hint="a later format needs a later llmpatch; anything else is not a patch",
        )
    try:
        manifest = _validate(mapping)
    except ValidationError as error:
        from llmpatch.recipe import describe  # late: a recipe's schema is not needed to verify a patch

        raise IntegrityError(
            f"{where}: {shown(describe(error), 300)}", hint="docs/format/patch-v1.md lists every key"
        ) from None
    if manifest.checksum != _checksum(data, manifest.checksum):
        raise IntegrityError(
            f"{where} does not match its own checksum: it was changed or damaged", hint="fetch it again"
        )
    return manifest


def make_manifest(mapping: Mapping[str, Any]) -> Manifest:
    """Check a mapping made by a caller against the schema, without its checksum.

    Raises:
        UsageError: an unknown or missing key, a wrong value; names the key.
    """
    try:
        return _validate({"schema": SCHEMA, "checksum": NO_DIGEST, **mapping})
    except ValidationError as error:
        from llmpatch.recipe import describe

        raise UsageError(
            f"patch manifest: {shown(describe(error), 300)}", hint="docs/format/patch-v1.md lists every key"
        ) from None
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"patch manifest: not JSON: {error}", hint="use plain numbers, text, lists and mappings"
        ) from None


def check_fields(mapping: Mapping[str, Any]) -> None:
    """Check some of a manifest's keys, before the others are known.

    Raises:
        UsageError: one of them has a value that the schema does not take; names the key.
    """
    try:
        _validate({"schema": SCHEMA, "checksum": NO_DIGEST, **mapping})
    except ValidationError as error:
        wrong = [found for found in error.errors() if found["loc"] and found["loc"][0] in mapping]
        if wrong:
            said = "; ".join(f"{'.'.join(map(str, found['loc']))}: {found['msg']}" for found in wrong[:3])
            raise UsageError(
                f"the patch's manifest would not take {shown(said, 300)}",
                hint="docs/format/patch-v1.md lists every key",
            ) from None


def render_manifest(manifest: Manifest) -> bytes:
    """The bytes of ``patch.json``, with the checksum filled in; the same manifest gives the same bytes."""
    mapping = manifest.model_dump(mode="json", by_alias=True, exclude_none=True)
    mapping["checksum"] = NO_DIGEST
    data = (json.dumps(mapping, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
    field = f'"checksum": "{NO_DIGEST}"'.encode()
    digest = hashlib.sha256(data).hexdigest()
    head, _, tail = data.rpartition(field)
    return head + field.replace(NO_DIGEST.encode(), digest.encode()) + tail


def release_time() -> str:
    """Now in UTC to the second for ``released``; ``SOURCE_DATE_EPOCH`` overrides the clock for repeatable builds."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    if epoch and not (epoch.isascii() and epoch.isdecimal() and len(epoch) <= 11):
        raise UsageError(
            f"SOURCE_DATE_EPOCH={shown(epoch)} is not a number of seconds", hint="unset it, or set an integer"
        )
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _validate(mapping: Mapping[str, Any]) -> Manifest:
    # Through JSON, so that strictness applies to values and not to Python's choice of containers.
    return Manifest.model_validate_json(json.dumps(mapping, allow_nan=False))


def _checksum(data: bytes, declared: str) -> str:
    """The sha256 of ``data`` with zeros for its checksum; empty, equal to nothing, unless that is there once."""
    if data.count(declared.encode()) != 1:
        return ""
    return hashlib.sha256(data.replace(declared.encode(), NO_DIGEST.encode())).hexdigest()
