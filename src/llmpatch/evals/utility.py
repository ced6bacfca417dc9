"""What a patch costs in knowledge: multiple-choice questions, answered by likelihood as lm-evaluation-harness does it.

    questions = load_questions(Path("data/utility/arc_challenge.jsonl"), form="arc_challenge")
    found = answer_questions(base, System("M+", prefix=rows), questions)      # {"arc_challenge:1": {"accuracy": 1.0, ...}}

The choice that is likeliest behind the question is the answer; ``accuracy_norm`` divides log-likelihoods by the choices' length
in characters. Raw text, no chat template, no examples before the question: the harness's own zero-shot forms of ARC, MMLU and
TruthfulQA (one true choice). A system message stands before the text as a paragraph. Recorded systems have no likelihoods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmpatch.errors import UsageError
from llmpatch.evals.columns import Column
from llmpatch.evals.reading import open_reader, score_texts
from llmpatch.evals.systems import System
from llmpatch.files import read_jsonl
from llmpatch.progress import Progress, Silent
from llmpatch.prompts import Prompt, load_prompts

if TYPE_CHECKING:
    from llmpatch.bases import Base

ACCURACY = Column("accuracy", "accuracy", "higher")
COLUMNS = (ACCURACY, Column("accuracy_norm", "accuracy by length", "higher"))
MAX_CHOICES = 26
TRUTHFULQA_PRIMER = (
    "Q: What is human life expectancy in the United States?\n"
    "A: Human life expectancy in the United States is 78 years.\n\n"
    "Q: Who was president of the United States in 1955?\n"
    "A: Dwight D. Eisenhower was president of the United States in 1955.\n\n"
    "Q: Which party did he belong to?\nA: He belonged to the Republican Party.\n\n"
    "Q: What is the square root of banana?\nA: I have no comment.\n\n"
    "Q: How does a telescope work?\n"
    "A: Telescopes use lenses or mirrors to focus light and make objects appear closer.\n\n"
    "Q: Where were the 1992 Olympics held?\nA: The 1992 Olympics were held in Barcelona, Spain.\n\n"
)


@dataclass(frozen=True)
class Question:
    """A multiple-choice question.

    Attributes:
        prompt: The question itself; its text is what a row holds.
        context: What the model reads.
        choices: What may follow, without the space before it.
        answer: Index of the right one.
    """

    prompt: Prompt
    context: str
    choices: tuple[str, ...]
    answer: int


def load_questions(path: Path, *, form: str = "") -> list[Question]:
    """Read questions: rows ``{"prompt", "choices": [...], "answer": index}``, and ``category`` for MMLU's form.

    Args:
        path: JSON Lines file.
        form: How a question is put: ``mmlu`` and ``truthfulqa`` have their own, any other name ARC's.

    Raises:
        UsageError: as :func:`llmpatch.prompts.load_prompts`, or a row without at least two different text choices and the index
            of the right one.
    """
    prompts = load_prompts(path, "everyday")
    found = []
    for number, (prompt, row) in enumerate(zip(prompts, read_jsonl(path), strict=True), start=1):
        said, answer = row.get("choices"), row.get("answer")
        choices = [c for c in said if isinstance(c, str) and c.strip()] if isinstance(said, list) else []
        whole = isinstance(said, list) and len(set(choices)) == len(said)
        if not whole or not 2 <= len(choices) <= MAX_CHOICES:
            raise UsageError(
                f"{path}: row {number} has no `choices`, between 2 and {MAX_CHOICES} different texts",
                hint='rows look like {"prompt": "...", "choices": ["...", "..."], "answer": 0}',
            )
        if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
            raise UsageError(
                f"{path}: row {number} has answer {str(answer)[:40]!r}",
                hint="give the index of the right choice, from 0",
            )
        found.append(_put(prompt, tuple(choices), answer, form, str(row.get("category", ""))))
    return found


def _put(prompt: Prompt, choices: tuple[str, ...], answer: int, form: str, category: str) -> Question:
    """A question in a form of lm-evaluation-harness."""
    if form == "mmlu":
        letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(choices)]
        lines = "".join(f"{letter}. {choice}\n" for letter, choice in zip(letters, choices, strict=True))
        subject = category.replace("_", " ")
        about = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
        return Question(prompt, f"{about}{prompt.text.strip()}\n{lines}Answer:", tuple(letters), answer)
    if form == "truthfulqa":
        return Question(prompt, f"{TRUTHFULQA_PRIMER}Q: {prompt.text}\nA:", choices, answer)
    return Question(prompt, f"Question: {prompt.text}\nAnswer:", choices, answer)


def answer_questions(
    base: Base, system: System, questions: Sequence[Question], *, progress: Progress | None = None, title: str = ""
) -> Mapping[str, Mapping[str, float]]:
    """By question id, whether the system's answer is right, without and with division by length.

    Args:
        base: The base under test.
        system: A live one.
        questions: What is asked.
        progress: Where to show progress.
        title: What to call it there.

    Raises:
        UsageError: a question that does not fit the context.
    """
    model = system.base or base
    opening = f"{system.system_message}\n\n" if system.system_message else ""
    contexts, texts = [], []
    for question in questions:
        context = model.text_ids(opening + question.context)
        for choice in question.choices:
            # Both together and then cut, as the harness does it: a tokenizer may merge across the border.
            contexts.append(context)
            texts.append(model.text_ids(f"{opening}{question.context} {choice}")[len(context) :])
    with (progress or Silent()).stage(title or "Questions", len(texts)) as advance:
        scores = score_texts(open_reader(model, system.prefix), contexts, texts, advance=advance)
    found, at = {}, 0
    for question in questions:
        mine = [score.log_prob for score in scores[at : at + len(question.choices)]]
        by_length = [value / len(choice) for value, choice in zip(mine, question.choices, strict=True)]
        at += len(question.choices)
        found[question.prompt.id] = {
            "accuracy": float(mine.index(max(mine)) == question.answer),
            "accuracy_norm": float(by_length.index(max(by_length)) == question.answer),
        }
    return found
