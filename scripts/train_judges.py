"""Train the judges' weights on ``data/judges``, measure them, and write the table of ``docs/judges.md``.

    python scripts/train_judges.py            # weights/*.npz, weights/index.json, weights/measurements.json, docs
    python scripts/train_judges.py --measure  # the last two only

Splits by ``cluster`` (a quarter is for testing); a test answer whose text also occurs in training is left out of the
test. Deterministic, under a minute on one core. Needs scikit-learn (extra ``train-judges``).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import random
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from judge_measure import DATA, DOCS, Row, key, load, measure, test_rows, train_rows, write_docs
from judge_noise import TRAINED, broken
from judge_variety import openings, refusals
from llmpatch.files import write_bytes, write_json
from llmpatch.judges import heads
from llmpatch.judges.heads import EXTRAS, HARM_CHARS, WEIGHTS, TextModel, Views, expand, harm_views, refusal_rows
from llmpatch.judges.phrases import is_refusal
from llmpatch.judges.signals import SIGNALS, Seen, remember
from llmpatch.judges.text import BUCKETS, normalise, words

VERSIONS = {"refusal-head": "1", "harm-head": "1"}
FOLDS = 4
SEED = 20261124
BROKEN_EACH = 150
WORDINGS = 1500
ATTACKED = ("jailbreakbench", "refusal_direction", "aisafetylab")


def fold(row: Row) -> int:
    return int(hashlib.sha256(f"fold:{row['cluster']}".encode()).hexdigest(), 16) % FOLDS


def matrix(rows: list[list[int]], idf: np.ndarray) -> csr_matrix:
    """Distinct buckets as unit-length rows of idf, as ``TextModel`` computes them."""
    flat = np.array([b for row in rows for b in row], dtype=np.int64)
    starts = np.cumsum([0, *(len(row) for row in rows)])
    found = csr_matrix((idf[flat], flat, starts), shape=(len(rows), BUCKETS))
    norm = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    return csr_matrix(found.multiply(1 / np.maximum(norm, 1e-12)[:, None]))


def inverse_frequency(rows: list[list[int]]) -> np.ndarray:
    counts = np.bincount([b for row in rows for b in row], minlength=BUCKETS)
    return np.where(counts > 0, np.log((1 + len(rows)) / (1 + counts)) + 1, 0.0)


def regression(features: Any, labels: Any, strength: float, weights: Any = None) -> LogisticRegression:
    return LogisticRegression(C=strength, solver="liblinear", random_state=0, max_iter=2000).fit(
        features, labels, weights
    )


def half(value: np.ndarray) -> np.ndarray:
    """As it will be stored, so that measuring during training and after loading are one thing."""
    return value.astype(np.float16).astype(np.float32)


# The refusal head


def refusal_examples(rows: list[Row]) -> list[tuple[str, int, float]]:
    """``(answer, refusal, weight)``: human labels, and rows of the other sets where label and phrases agree."""
    found = []
    for row in rows:
        text, phrase = row["response"], is_refusal(row["response"])
        if "refusal" in row:
            found.append((text, row["refusal"], 3.0 if row["source"] == "authored" else 1.0))
        elif row["kind"] == "harmless_actadd":
            if phrase:
                found.append((text, 1, 0.1))
        elif row["kind"] == "harmless_baseline":
            if not phrase:
                found.append((text, 0, 0.15))
        elif phrase != bool(row["harmful"]):
            # An answer judged harmless without a refusing phrase is unsure and stays out.
            found.append((text, int(phrase), 0.1))
    return found


def train_refusal(rows: list[Row], noise: list[tuple[str, str, str]]) -> TextModel:
    answers = [row["response"] for row in rows if row.get("refusal") == 0]
    examples = refusal_examples(rows) + [(text, 0, 0.05) for _, _, text in noise if not is_refusal(text)]
    examples += [(text, 1, 0.2) for text in refusals(WORDINGS, SEED)]
    examples += [(text, 0, 0.2) for text in openings(answers, WORDINGS, SEED)]
    buckets = refusal_rows([text for text, _, _ in examples])
    idf = inverse_frequency(buckets)
    model = regression(matrix(buckets, idf), [y for _, y, _ in examples], 80.0, [w for _, _, w in examples])
    return TextModel(half(model.coef_[0] * idf), half(idf**2), float(model.intercept_[0]))


def unbiased(rows: list[Row], noise: list[tuple[str, str, str]], model: TextModel) -> TextModel:
    """Move the intercept until the head calls as many human-labelled answers refusals as people do, out of fold."""
    logits, truth = [], []
    for number in range(FOLDS):
        outside = [r for r in rows if fold(r) != number]
        told = {key(r): r for r in rows if fold(r) == number and "refusal" in r}
        new = [r for k, r in told.items() if k not in {key(o) for o in outside}]
        logits += list(train_refusal(outside, noise).logits(refusal_rows([r["response"] for r in new])))
        truth += [r["refusal"] for r in new]
    return replace(model, bias=model.bias - float(np.quantile(logits, 1 - np.mean(truth))))


# The harm head


def known_words(rows: list[Row]) -> Seen:
    texts = [row["response"] for row in rows] + sorted({row["prompt"] for row in rows})
    return remember([words(normalise(text, HARM_CHARS)) for text in texts])


def shortened(rows: list[Row]) -> list[Row]:
    """The rows, and each again cut to between 100 and 260 characters: the length of answers of 48 tokens."""
    rng = random.Random(SEED)
    cut = [{**row, "response": row["response"][: rng.randint(100, 260)]} for row in rows if len(row["response"]) > 120]
    return rows + cut


def harm_weight(row: Row) -> float:
    """Benign prompts are many and easy: at full weight they push every answer towards harmless."""
    if row["kind"].startswith("harmless"):
        return 0.2
    return {"xstest": 0.3, "authored": 3.0}.get(str(row["source"]), 1.0)


def join(parts: list[Views]) -> Views:
    return Views(
        [row for part in parts for row in part.rows],
        np.concatenate([part.signals for part in parts]),
        np.concatenate([part.extras for part in parts]),
    )


def harm_parts(rows: list[Row]) -> list[tuple[list[Row], Views, Views]]:
    """Per fold: its rows, their views, and views of broken answers made of them.

    The word list and the refusal head behind the views of a fold have not seen the fold.
    """
    parts = []
    for number in range(FOLDS):
        inside, outside = [r for r in rows if fold(r) == number], [r for r in rows if fold(r) != number]
        prompts = sorted({r["prompt"] for r in inside if r["prompt"]})
        noise = broken(TRAINED, prompts, [r["response"] for r in inside], BROKEN_EACH, SEED + number)
        seen, judge = known_words(outside), train_refusal(outside, noise)
        more = shortened(inside)
        real = harm_views(seen, judge, [r["prompt"] for r in more], [r["response"] for r in more])
        parts.append((more, real, harm_views(seen, judge, [p for _, p, _ in noise], [t for _, _, t in noise])))
    return parts


@dataclass(frozen=True)
class Fit:
    """``harm-head``'s regression of harm, in the pieces that are stored."""

    idf: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    coefficients: np.ndarray
    bias: float

    # Words, then standardised signals, then extras: the order in which the coefficients are stored.
    def features(self, views: Views) -> csr_matrix:
        """The views as one sparse matrix."""
        z = np.clip((views.signals - self.mean) / self.scale, -6, 6)
        return hstack([matrix(views.rows, self.idf), csr_matrix(np.concatenate([z, views.extras], axis=1))]).tocsr()

    def logits(self, views: Views) -> np.ndarray:
        """One logit per view."""
        return np.asarray(self.features(views) @ self.coefficients + self.bias)


def fit_harm(order: list[Row], views: Views, mean: np.ndarray, scale: np.ndarray) -> Fit:
    blank = Fit(inverse_frequency(views.rows), mean, scale, np.zeros(0), 0.0)
    model = regression(blank.features(views), [r["harmful"] for r in order], 1.0, [harm_weight(r) for r in order])
    return replace(blank, coefficients=model.coef_[0], bias=float(model.intercept_[0]))


def train_harm(rows: list[Row]) -> dict[str, np.ndarray]:
    """Both factors, and the intercept with which as many answers to attacks are called harmful as are labelled so."""
    parts = harm_parts(rows)
    natural, gibberish = join([real for _, real, _ in parts]), join([bad for _, _, bad in parts])
    order = [row for more, _, _ in parts for row in more]
    mean, scale = natural.signals.mean(axis=0), natural.signals.std(axis=0) + 0.02
    # Steered answers that loop are natural text by origin only: neither side.
    sound = np.array([r["kind"] != "harmless_actadd" for r in order])
    both = expand(np.concatenate([natural.signals[sound], gibberish.signals]), mean, scale)
    coherent = regression(both, np.r_[np.ones(sound.sum()), np.zeros(len(gibberish.rows))], 0.3)
    trusted = coherent.predict_proba(expand(natural.signals, mean, scale))[:, 1]
    outside = np.concatenate(
        [
            fit_harm(
                [r for k, p in enumerate(parts) if k != i for r in p[0]],
                join([p[1] for k, p in enumerate(parts) if k != i]),
                mean,
                scale,
            ).logits(part[1])
            for i, part in enumerate(parts)
        ]
    )
    attacked = np.array([r["source"] in ATTACKED and not r["kind"].startswith("harmless") for r in order])
    truth = np.mean([r["harmful"] for r, a in zip(order, attacked, strict=True) if a])
    # sigmoid(logit + shift) * trusted >= 1/2 is logit + shift >= logit(1 / (2 trusted)), never if trusted < 1/2.
    needed = np.where(trusted > 0.5, -np.log(np.maximum(2 * trusted - 1, 1e-9)), 50.0)
    shift = -float(np.quantile((outside - needed)[attacked], 1 - truth))
    harm = fit_harm(order, natural, mean, scale)
    return {
        "weights": (harm.coefficients[:BUCKETS] * harm.idf).astype(np.float16),
        "squares": (harm.idf**2).astype(np.float16),
        "bias": np.float64(harm.bias + shift),
        "dense": harm.coefficients[BUCKETS:],
        "coherence": coherent.coef_[0],
        "coherence_bias": coherent.intercept_[0],
        "mean": mean,
        "scale": scale,
        "seen": np.packbits(known_words(rows).bits),
    }


def pack(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key: np.asarray(value) for key, value in arrays.items()})
    return buffer.getvalue()


def train(rows: list[Row]) -> None:
    prompts = sorted({r["prompt"] for r in rows if r["prompt"]})
    noise = broken(TRAINED, prompts, [r["response"] for r in rows], BROKEN_EACH, SEED)
    refusal = unbiased(rows, noise, train_refusal(rows, noise))
    arrays = {
        "refusal-head": {
            "weights": refusal.weights.astype(np.float16),
            "squares": refusal.squares.astype(np.float16),
            "bias": refusal.bias,
        },
        "harm-head": train_harm(rows),
    }
    index = {}
    for name, values in arrays.items():
        data = pack(values)
        write_bytes(WEIGHTS / f"{name}.npz", data)
        index[name] = {"version": VERSIONS[name], "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    write_json(WEIGHTS / "index.json", index)
    heads.load_refusal.cache_clear()
    heads.load_harm.cache_clear()
    print({name: entry["bytes"] for name, entry in index.items()}, f"{len(SIGNALS)} signals, {len(EXTRAS)} extras")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="keep the weights, measure again")
    start = time.process_time()
    rows = load(DATA)
    if not parser.parse_args().measure:
        train(train_rows(rows))
        print(f"trained in {time.process_time() - start:.0f} s CPU")
    found = measure(test_rows(rows))
    write_json(WEIGHTS / "measurements.json", found)
    write_docs(DOCS, found)
    print(f"done in {time.process_time() - start:.0f} s CPU")


if __name__ == "__main__":
    main()
