"""Train ``toxicity-head`` on ``data/judges/toxicity``, measure both offline toxicity judges, write docs/judges.md.

    python scripts/train_toxicity.py            # weights/toxicity/*, docs
    python scripts/train_toxicity.py --measure  # measurements and docs only

RealToxicityPrompts has Perspective's scores as soft targets, the other sets have labels. Only rows of split ``train`` are
read in training, and none whose text is also in a test split; no text under a share-alike licence is among them. The judge
``profanity-check`` is measured and never trained on. Deterministic. Needs scikit-learn and alt-profanity-check (extras
``train-judges`` and ``judges``).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import time
import zipfile
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.linear_model import LogisticRegression

from llmpatch.files import write_bytes, write_json
from llmpatch.judges.text import BUCKETS, ngrams, normalise
from llmpatch.judges.toxicity import (
    CHAR_BUCKETS,
    TOXICITY_CHARS,
    WEIGHTS,
    ToxicityModel,
    char_buckets,
    load_toxicity,
    term_hash,
    tokens,
)
from toxicity_measure import DATA, Row, load, measure, same, write_docs

VERSION = "1"
STRENGTH = 4.0
WORDS, LEXICON = 0.6, 2.0  # lengths of these features beside the characters'
# Tweets are many and call every curse toxic; posts that were toxic to others first are noisy.
SOURCE_WEIGHTS = {
    "rtp": 3.0,
    "rtp_selection": 3.0,
    "davidson": 0.5,
    "civil": 0.3,
    "madlibs": 0.5,
    "hatecheck": 0.7,
    "authored": 2.0,
}
RARE = 3  # n-grams of fewer texts are noise to a reader and bytes to a package


def inverse_frequency(rows: list[list[int]], buckets: int) -> np.ndarray:
    counts = np.bincount([b for row in rows for b in row], minlength=buckets)
    return np.where(counts >= RARE, np.log((1 + len(rows)) / (1 + counts)) + 1, 0.0)


def matrix(rows: list[list[int]], idf: np.ndarray) -> csr_matrix:
    """Distinct buckets as unit-length rows of idf, as ``TextModel`` computes them."""
    flat = np.array([b for row in rows for b in row], dtype=np.int64)
    starts = np.cumsum([0, *(len(row) for row in rows)])
    found = csr_matrix((idf[flat], flat, starts), shape=(len(rows), len(idf)))
    norm = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    return csr_matrix(found.multiply(1 / np.maximum(norm, 1e-12)[:, None]))


def targets(rows: list[Row]) -> np.ndarray:
    """P(toxic) to learn: Perspective's score where there is one."""
    return np.array([row.get("score", float(row["toxic"])) for row in rows])


def fit(features: Any, soft: np.ndarray, weights: np.ndarray) -> LogisticRegression:
    """A logistic regression on soft targets: each row once as toxic and once as not, weighed by its target."""
    doubled = hstack([features.T, features.T]).T.tocsr()
    labels = np.repeat([1, 0], len(soft))
    share = np.concatenate([soft, 1 - soft]) * np.tile(weights, 2)
    keep = share > 0
    model = LogisticRegression(C=STRENGTH, solver="liblinear", random_state=0, max_iter=1000)
    return model.fit(doubled[keep], labels[keep], share[keep])


def lexicon(rows: list[Row]) -> dict[int, float]:
    """Severity from 0 to 1 by hash, as float16 keeps it."""
    found: dict[int, float] = {}
    for row in rows:
        found[term_hash(row["term"])] = float(np.float16(row["severity"] / 3))
    return found


def train(rows: list[Row], terms: dict[int, float]) -> dict[str, Any]:
    """The arrays of the head."""
    texts = [normalise(row["text"], TOXICITY_CHARS) for row in rows]
    spoken = [tokens(text) for text in texts]
    chars, words = [char_buckets(text) for text in texts], [ngrams(some, 2) for some in spoken]
    char_idf, word_idf = inverse_frequency(chars, CHAR_BUCKETS), inverse_frequency(words, BUCKETS)
    empty = ToxicityModel(None, None, terms, np.zeros(3))  # type: ignore[arg-type]
    signals = csr_matrix(np.array([empty.signals(some) for some in spoken]))
    features = hstack([matrix(chars, char_idf), matrix(words, word_idf) * WORDS, signals * LEXICON]).tocsr()
    weights = np.array([SOURCE_WEIGHTS.get(row["source"], 1.0) for row in rows])
    model = fit(features, targets(rows), weights)
    found = model.coef_[0]
    return {
        "char_weights": (found[:CHAR_BUCKETS] * char_idf).astype(np.float16),
        "char_squares": (char_idf**2).astype(np.float16),
        "word_weights": (found[CHAR_BUCKETS : CHAR_BUCKETS + BUCKETS] * word_idf * WORDS).astype(np.float16),
        "word_squares": (word_idf**2).astype(np.float16),
        "dense": (found[CHAR_BUCKETS + BUCKETS :] * LEXICON).astype(np.float32),
        "bias": np.float32(model.intercept_[0]),
        "terms": np.array(sorted(terms), dtype=np.uint32),
        "severities": np.array([terms[key] for key in sorted(terms)], dtype=np.float16),
    }


def pack(arrays: dict[str, Any]) -> bytes:
    """A compressed .npz whose bytes depend on the arrays only (numpy would put the time into it)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, values in sorted(arrays.items()):
            part = io.BytesIO()
            np.save(part, np.asarray(values), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), part.getvalue(), zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="keep the weights, measure again")
    start = time.process_time()
    rows, terms = load(DATA)
    tested = {same(row["text"]) for row in rows if row["split"] == "test"}
    if not parser.parse_args().measure:
        learned = [row for row in rows if row["split"] == "train" and same(row["text"]) not in tested]
        data = pack(train(learned, lexicon(terms)))
        write_bytes(WEIGHTS / "toxicity-head.npz", data)
        digest = hashlib.sha256(data).hexdigest()
        write_json(
            WEIGHTS / "index.json", {"toxicity-head": {"version": VERSION, "sha256": digest, "bytes": len(data)}}
        )
        load_toxicity.cache_clear()
        print(f"{len(learned)} texts, {len(data):,} bytes, {time.process_time() - start:.0f} s CPU", flush=True)
    found = measure([row for row in rows if row["split"] == "test"])
    write_json(WEIGHTS / "measurements.json", found)
    write_docs(found)
    print(f"done in {time.process_time() - start:.0f} s CPU")


if __name__ == "__main__":
    main()
