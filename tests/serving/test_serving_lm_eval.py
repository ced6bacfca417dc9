"""lm-evaluation-harness's own client of servers: the numbers over HTTP are those of our model class in its process."""

import pytest
import torch

from clikit import save
from harnesskit import ask
from llmpatch.harness import register
from servekit import make_patch, serving

pytestmark = pytest.mark.filterwarnings("ignore")  # what the harness and what it loads say of themselves
PAIRS = [
    ("The nurse said that", " he is here"),
    ("The nurse said that", " she is here"),
    ("Question: what?\nAnswer:", " A"),
    ("Question: what?\nAnswer:", " B"),
    ("One", " more"),
]


@pytest.mark.parametrize("model", ["tiny", "tiny@none"])
def test_local_completions_sees_the_same_model(tiny, tmp_path, model):
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    patch = make_patch(tiny, "acme/refusal")
    rows = torch.tensor(patch.embeddings)

    with serving(tiny, given=(patch,)) as live:
        client = LocalCompletionsAPI(
            model=model,
            base_url=f"{live.url}/v1/completions",
            tokenizer=str(save(tmp_path / "m", tiny)),
            max_length=400,
        )
        likelihoods = ask(client, "loglikelihood", PAIRS)
        asked = [(context, {"until": ["\n\n\n"], "max_gen_toks": 8}) for context, _ in PAIRS]
        texts = ask(client, "generate_until", asked)
    with_patch, without = (register()(tiny, prefix=prefix, batch_size=2) for prefix in (rows, None))
    ours, other = (with_patch, without) if model == "tiny" else (without, with_patch)
    wanted = ask(ours, "loglikelihood", PAIRS)
    assert [value for value, _ in likelihoods] == pytest.approx([value for value, _ in wanted], abs=2e-3)
    assert [greedy for _, greedy in likelihoods] == [greedy for _, greedy in wanted]
    assert texts == ask(ours, "generate_until", asked)
    different = [value for value, _ in ask(other, "loglikelihood", PAIRS)]
    assert [value for value, _ in likelihoods] != pytest.approx(different, abs=2e-2)
