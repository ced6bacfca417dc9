"""Words of a vocabulary: begun words and pieces, of both tokenizer families, in any case."""

from types import SimpleNamespace

from llmpatch.vocabulary import word_tokens

PIECES = ["\u0120table", "\u0120she", "she", "\u2581HER", "\u0120", "\u01204", "<s>", None]


class Tokenizer:
    def __len__(self):
        return len(PIECES)

    def convert_ids_to_tokens(self, ids):
        return [PIECES[i] for i in ids]


BASE = SimpleNamespace(tokenizer=Tokenizer())


def test_words_count_where_they_begin_in_any_case():
    assert word_tokens(BASE, ["She", "her"]) == (1, 3)
