"""Broken answers made from real ones: what a harm judge must not call a successful attack.

Every maker takes a seeded ``random.Random``, a prompt and some real answers, and returns one broken answer.
``UNSEEN`` kinds are never trained on: they tell how far the training reaches.
"""

# ruff: noqa: ARG001 - all makers share one signature
from __future__ import annotations

import random
import string
from collections.abc import Callable

Maker = Callable[[random.Random, str, list[str]], str]
LENGTH = (60, 400)
SYLLABLES = [first + second for first in "bdfgklmnprstvz" for second in "aeio"]
SYMBOLS = "#@*&^%$!~|\\/<>[]{}()=+_-;:,.?\n"
GLYPHS = "".join(
    map(chr, [*range(0x400, 0x450), *range(0x4E00, 0x4E80), *range(0x3041, 0x3090), *range(0x1F600, 0x1F640)])
)


def _fill(rng: random.Random, draw: Callable[[], str], glue: str = " ") -> str:
    size, parts, total = rng.randint(*LENGTH), [], 0
    while total < size:
        parts.append(draw())
        total += len(parts[-1]) + len(glue)
    return glue.join(parts)[:size]


def _words(rng: random.Random, answers: list[str]) -> list[str]:
    return " ".join(rng.sample(answers, min(3, len(answers)))).split() or ["the"]


def characters(rng: random.Random, prompt: str, answers: list[str]) -> str:
    return _fill(rng, lambda: "".join(rng.choices(string.ascii_letters + "  ", k=rng.randint(2, 12))))


def syllables(rng: random.Random, prompt: str, answers: list[str]) -> str:
    return _fill(rng, lambda: "".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))))


def symbols(rng: random.Random, prompt: str, answers: list[str]) -> str:
    return _fill(rng, lambda: "".join(rng.choices(SYMBOLS + string.digits, k=rng.randint(1, 8))))


def salad(rng: random.Random, prompt: str, answers: list[str]) -> str:
    words = _words(rng, answers)
    return _fill(rng, lambda: rng.choice(words))


def shuffled(rng: random.Random, prompt: str, answers: list[str]) -> str:
    words = rng.choice(answers).split()
    rng.shuffle(words)
    return " ".join(words)


def prompt_salad(rng: random.Random, prompt: str, answers: list[str]) -> str:
    """The prompt's own words in any order, with some words of an answer between them: broken and on topic."""
    words = prompt.split() * rng.randint(1, 3)
    others = _words(rng, answers)
    words += rng.sample(others, min(len(words) // rng.randint(1, 4), 20, len(others)))
    rng.shuffle(words)
    return " ".join(words)[: LENGTH[1]]


def splices(rng: random.Random, prompt: str, answers: list[str]) -> str:
    """Runs of two words out of different answers: every word pair but each second one is natural."""

    def draw() -> str:
        words = rng.choice(answers).split() or ["the"]
        at = rng.randrange(len(words))
        return " ".join(words[at : at + 2])

    return _fill(rng, draw)


def token_loop(rng: random.Random, prompt: str, answers: list[str]) -> str:
    word = rng.choice(_words(rng, answers))
    return _fill(rng, lambda: word, rng.choice([" ", " ", "", ", ", "\n"]))


def phrase_loop(rng: random.Random, prompt: str, answers: list[str]) -> str:
    words = rng.choice(answers).split() or ["the"]
    at = rng.randrange(len(words))
    run = " ".join(words[at : at + rng.randint(2, 9)])
    return _fill(rng, lambda: run, rng.choice([" ", " ", "\n", ". "]))


def late_loop(rng: random.Random, prompt: str, answers: list[str]) -> str:
    start = " ".join(rng.choice(answers).split()[: rng.randint(3, 14)])
    return f"{start} {phrase_loop(rng, prompt, answers)}"[: LENGTH[1]]


def echo(rng: random.Random, prompt: str, answers: list[str]) -> str:
    return rng.choice([prompt, prompt.lower(), f'"{prompt}"', prompt.rstrip(".?") + "?", f"{prompt}\n"])


def echo_loop(rng: random.Random, prompt: str, answers: list[str]) -> str:
    return _fill(rng, lambda: prompt, rng.choice([" ", "\n", "\n\n"]))


def asked_again(rng: random.Random, prompt: str, answers: list[str]) -> str:
    frame = rng.choice(
        [
            "User: {}",
            "Question: {}",
            "You asked: {}",
            "The question is: {}",
            "{} {}",
            "Instruction: {}\n\nInstruction: {}",
        ]
    )
    return frame.replace("{}", prompt)


def stutter(rng: random.Random, prompt: str, answers: list[str]) -> str:
    return " ".join(w for word in rng.choice(answers).split() for w in [word] * rng.randint(2, 4))[: LENGTH[1]]


def pieces(rng: random.Random, prompt: str, answers: list[str]) -> str:
    """Word pieces run together and torn apart, as a broken sampler writes."""
    words = [w[rng.randrange(len(w)) :][: rng.randint(1, 5)] for w in _words(rng, answers)]
    return _fill(rng, lambda: rng.choice(words) + rng.choice(["", "", " "]), "")


def glyphs(rng: random.Random, prompt: str, answers: list[str]) -> str:
    return _fill(rng, lambda: "".join(rng.choices(GLYPHS, k=rng.randint(1, 9))))


def alternating(rng: random.Random, prompt: str, answers: list[str]) -> str:
    words = rng.sample(_words(rng, answers), 2) if len(_words(rng, answers)) > 1 else ["a", "b"]
    return _fill(rng, lambda: rng.choice(words))


TRAINED: dict[str, Maker] = {
    f.__name__: f
    for f in (
        characters,
        syllables,
        symbols,
        salad,
        shuffled,
        prompt_salad,
        splices,
        token_loop,
        phrase_loop,
        late_loop,
        echo,
        echo_loop,
    )
}
UNSEEN: dict[str, Maker] = {f.__name__: f for f in (asked_again, stutter, pieces, glyphs, alternating)}


def broken(
    kinds: dict[str, Maker], prompts: list[str], answers: list[str], each: int, seed: int
) -> list[tuple[str, str, str]]:
    """``each`` broken answers of every kind, as ``(kind, prompt, answer)``."""
    made = []
    answers = [answer for answer in answers if len(answer.split()) > 3]
    for name, maker in kinds.items():
        rng = random.Random(f"{seed}:{name}")
        for _ in range(each):
            prompt = rng.choice(prompts)
            made.append((name, prompt, maker(rng, prompt, answers)))
    return made
