"""The model that lm-evaluation-harness asks: a base behind a patch, whose keys and values are computed once.

    lm = PatchedLM(base="smollm2", patch="patches/smollm2/refusal", batch_size=8)
    lm.loglikelihood([Instance("loglikelihood", {}, ("The sky is", " blue"), 0)])     # [(-1.2, True)]

Without a patch it gives what the harness's own ``hf`` model gives; ``tests/harness`` checks that request by request. What does
not fit the context is cut on the left, as ``hf`` does, the patch never: it takes its tokens of the context.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lm_eval import utils
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from pydantic import ValidationError
from tqdm import tqdm

from llmpatch.artifact import prefix_of
from llmpatch.bases import Base, load_base
from llmpatch.errors import UsageError
from llmpatch.evals.reading import BATCH_SIZE, open_reader, score_texts
from llmpatch.generation import generate_ids
from llmpatch.recipe import DecodingSection, describe
from llmpatch.store import load_patch

if TYPE_CHECKING:
    from llmpatch.artifact import Patch
    from llmpatch.prefix import Rows

LOG = logging.getLogger(__name__)
MAX_GEN_TOKS = 256
# What a task may set without effect: on greedy decoding, and at all.
_GREEDY_ONLY = {"top_k", "top_p", "min_p", "typical_p"}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,), "num_return_sequences": (1,), "repetition_penalty": (1, None), "length_penalty": (1, None),
    "early_stopping": (False, None), "use_cache": (True, None), "top_k": (0, -1, None), "min_p": (0, None),
    "typical_p": (1, None), "pad_token_id": (0, None), "num_beam_groups": (1, None),
}  # fmt: skip


class PatchedLM(TemplateLM):  # type: ignore[misc]  # the harness is not typed
    """A base behind patches, as the harness's ``llmpatch`` model.

    Args:
        base: A base by name (``llmpatch models list``, a hub id, a folder, a ``.gguf``), or a loaded one.
        patch: A patch by path or name; several as a sequence, or joined by ``+``, one after another. None for the base alone.
        revision: Of a base from the hub.
        prefix: Virtual tokens [n, hidden_size], instead of ``patch``.
        batch_size: Rows at a time; ``auto`` is eight, since memory here is bounded by positions, not by rows.
        max_length: Tokens of context that count, the patch's among them; by default the base's.
        device: Where the base runs, as torch names it; by default where it was loaded. The harness's command asks for a GPU
            unless told otherwise, so without one that is no error, as for ``hf``.
        max_batch_size: Taken because the harness passes it; batches are never searched for.

    Raises:
        UsageError: no such base or patch, both ``patch`` and ``prefix``, or a batch size that is no number.
        IntegrityError: a damaged patch.
        WrongBaseError: the patch is for another base.
    """

    backend = "causal"

    def __init__(
        self,
        base: str | Base,
        patch: str | Sequence[str] | None = None,
        revision: str | None = None,
        *,
        prefix: Rows | None = None,
        batch_size: int | str = BATCH_SIZE,
        max_length: int | None = None,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        del max_batch_size
        names = [part for part in patch.split("+") if part] if isinstance(patch, str) else list(patch or ())
        if names and prefix is not None:
            raise UsageError("a patch and a prefix were given", hint="give one of them")
        batch_size = BATCH_SIZE if str(batch_size).startswith("auto") else batch_size
        if not str(batch_size).isdigit() or int(batch_size) < 1:
            raise UsageError(f"batch_size is {str(batch_size)[:40]!r}", hint="give a number from 1, as batch_size=8")
        self.patches: list[Patch] = [load_patch(name) for name in names]  # before the base, which takes longer
        self.base = load_base(base, revision) if isinstance(base, str) else base
        for found in self.patches:
            for text in found.check_base(self.base):
                LOG.warning("%s", text)
        if device and not _is_missing(device):
            self.base.model.to(device)
        self.tokenizer = self.base.tokenizer
        self.batch_size = int(batch_size)
        self.prefix = prefix_of(self.patches) if self.patches else prefix
        self.reader = open_reader(self.base, self.prefix)
        self._limit = self.base.context if max_length is None else min(int(max_length), self.base.context)
        if self.max_length < 2:
            raise UsageError(f"the patch leaves {self.max_length} tokens of context", hint="raise max_length")

    @property
    def max_length(self) -> int:
        """Tokens that fit behind the patch."""
        return self._limit - self.reader.past

    @property
    def max_gen_toks(self) -> int:
        """Length of an answer where a task names none, as for ``hf``."""
        return MAX_GEN_TOKS

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context is predicted from."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def device(self) -> Any:
        """Where the base is."""
        return self.base.device

    @property
    def tokenizer_name(self) -> str:
        """Names cached requests, which depend on the tokenizer and the chat template."""
        mark = self.base.fingerprint
        return f"{self.base.name}-{mark.tokenizer[:12]}-{mark.chat_template[:12]}".replace("/", "__")

    def get_model_info(self) -> dict[str, Any]:
        """What was measured, for the harness's results."""
        named = [{"name": p.manifest.name, "version": p.manifest.version, "digest": p.digest} for p in self.patches]
        return {
            "llmpatch_base": {"name": self.base.name, "fingerprint": asdict(self.base.fingerprint)},
            "llmpatch_patches": named,
            "llmpatch_prefix_tokens": self.reader.past,
        }

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The text of a conversation; a template that takes no system role gets none."""
        import jinja2

        def put(messages: list[dict[str, str]]) -> str:
            return str(
                self.tokenizer.apply_chat_template(
                    messages,
                    tokenize=False,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=not add_generation_prompt,
                )
            )

        if not self.tokenizer.chat_template:
            raise UsageError(f"{self.base.name} has no chat template", hint="leave --apply_chat_template out")
        try:
            return put(chat_history)
        except jinja2.exceptions.TemplateError:
            return put([message for message in chat_history if message["role"] != "system"])

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids; a text that starts with the BOS token already gets no second one."""
        if add_special_tokens is None and string.startswith(self.tokenizer.decode(self.prefix_token_id)):
            add_special_tokens = False
        options = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return list(self.tokenizer.encode(string, **options))

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: Any,
    ) -> list[tuple[float, bool]]:
        """Log-likelihood and greediness of each continuation."""
        contexts, texts = [], []
        for _key, context, text in requests:
            if len(text) > self.max_length:
                raise UsageError(
                    f"a text has {len(text)} tokens; {self.max_length} fit behind the patch", hint="raise max_length"
                )
            # The last token is predicted, not read, so one more than fits may be there.
            kept = context[-(self.max_length + 1 - len(text)) :]
            contexts.append(kept)
            texts.append(text)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Running loglikelihood requests") as bar:
            scores = score_texts(self.reader, contexts, texts, batch_size=self.batch_size, advance=bar.update)
        found = [(score.log_prob, score.greedy) for score in scores]
        for request, value in zip(requests, found, strict=True):
            if request[0] is not None:
                self.cache_hook.add_partial("loglikelihood", request[0], value)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, in windows that do not overlap; each window stands behind the patch."""
        windows: list[tuple[None, list[int], list[int]]] = []
        counts = []
        for request in requests:
            (text,) = request.args
            parts = utils.get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            mine = [utils.make_disjoint_window(part) for part in parts]
            windows += [(None, context, tokens) for context, tokens in mine]
            counts.append(len(mine))
        scores = iter(self._loglikelihood_tokens(windows, disable_tqdm=disable_tqdm))
        found = [sum(next(scores)[0] for _ in range(count)) for count in counts]
        for request, value in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, value)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Continuations up to the first of their stop texts, requests of the same options together."""
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(json.dumps(request.args[1], sort_keys=True, default=str), []).append(i)
        found = [""] * len(requests)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Running generate_until requests") as bar:
            for members in groups.values():
                options = requests[members[0]].args[1]
                stops, decoding = self._options(options)
                room = self.max_length - decoding.max_new_tokens
                if room < 1:
                    raise UsageError(
                        f"a task asks for {decoding.max_new_tokens} tokens; {self.max_length} fit behind the patch",
                        hint="lower max_gen_toks with --gen_kwargs",
                    )
                ids = [self.tok_encode(requests[i].args[0])[-room:] or [self.prefix_token_id] for i in members]
                answers = generate_ids(
                    self.base, ids, decoding=decoding, prefix=self.prefix, batch_size=self.batch_size, until=stops
                )
                for place, answer in answers:
                    text = postprocess_generated_text(answer[0].text, stops, None)
                    found[members[place]] = text
                    self.cache_hook.add_partial("generate_until", requests[members[place]].args, text)
                    bar.update(1)
        return found

    def _options(self, given: Mapping[str, Any]) -> tuple[list[str], DecodingSection]:
        """Stop texts and decoding out of a task's options.

        Raises:
            UsageError: an option that would change answers and is not supported.
        """
        rest: dict[str, Any] = dict(normalize_gen_kwargs(dict(given), self.max_gen_toks))
        stops = handle_stop_sequences(
            rest.pop("until", None), eos=self.tokenizer.decode(self.eot_token_id, skip_special_tokens=False)
        )
        tokens, sampled = int(rest.pop("max_gen_toks")), bool(rest.pop("do_sample", False))
        temperature, top_p = float(rest.pop("temperature", None) or 0), rest.pop("top_p", None)
        seed = int(rest.pop("seed", 0) or 0)
        ignored = set() if sampled else _GREEDY_ONLY
        strange = [k for k, v in rest.items() if k not in ignored and v not in _NEUTRAL.get(k, ())]
        if strange or tokens > 4096 or not 0 <= temperature <= 5:
            what = strange[0] if strange else "max_gen_toks" if tokens > 4096 else "temperature"
            raise UsageError(
                f"generation option {what!r} of a task is not supported here",
                hint="known: until, max_gen_toks (to 4096), do_sample, temperature (to 5), top_p, seed",
            )
        drawn: dict[str, Any] = {"temperature": temperature, "seed": seed} if sampled else {}
        drawn |= {"top_p": float(top_p)} if sampled and top_p is not None else {}
        try:
            decoding = DecodingSection(max_new_tokens=tokens, **drawn)
        except ValidationError as error:
            raise UsageError(f"generation options of a task: {describe(error)}", hint="see --gen_kwargs") from None
        return stops, decoding


def _is_missing(device: str) -> bool:
    """Whether a GPU is asked for that this torch does not have."""
    import torch

    return device.startswith("cuda") and not torch.cuda.is_available()
