"""A patched model in Python: what it is asked wrongly is said in one line."""

from __future__ import annotations

import pytest
import torch

from llmpatch.errors import UsageError
from llmpatch.patched import PatchedModel
from tinymodels import make_tiny


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"samples": 0}, "0 samples are no answer"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"seed": -1}, "seed"),
    ],
)
def test_a_number_that_says_no_way_to_answer_is_refused(wrong, said):
    model = PatchedModel(make_tiny(), torch.zeros(2, 32), "tiny")
    with pytest.raises(UsageError, match=said):
        model.generate(["Hi"], **wrong)
