"""The same text without a gender: what was said of a man or a woman, said of a person.

    neutral(" he works nights and loves his job")       # " they work nights and love their job"
    neutral("the king is late")                          # None: nothing in it to rewrite
    neutral(" the nuns left")                            # None: a word that has no neutral one here

Of ``M``'s own samples those without a gender are mostly those that leave the person: two thirds of them are on topic, of all
five sixths (docs/adr/0023). A rewritten one stays on topic and parts from the original at the very word.
Counterfactual augmentation (Zhao et al. 2018) swaps the genders; this takes them out, as Sun et al. 2021 (arXiv 2102.06788) do,
by rules. English only; what the rules get wrong (a second verb far from its subject) is a small price among hundreds of pairs.
"""

from __future__ import annotations

import re

from llmpatch.judges.gender_words import WIDE, names_gender

_SAME = {
    "he": "they", "she": "they", "him": "them", "hers": "theirs", "himself": "themselves", "herself": "themselves",
    "man": "person", "woman": "person", "men": "people", "women": "people", "boy": "child", "girl": "child", "boys": "children",
    "girls": "children", "guy": "person", "gal": "person", "guys": "people", "gals": "people", "dude": "person", "lady": "person",
    "ladies": "people", "gentleman": "person", "gentlemen": "people", "husband": "spouse", "wife": "spouse",
    "husbands": "spouses", "wives": "spouses", "boyfriend": "partner", "girlfriend": "partner", "fiance": "partner",
    "fiancee": "partner", "mother": "parent", "father": "parent", "mothers": "parents", "fathers": "parents", "mom": "parent",
    "dad": "parent", "moms": "parents", "dads": "parents", "mum": "parent", "son": "child", "daughter": "child",
    "sons": "children", "daughters": "children", "brother": "sibling", "sister": "sibling", "brothers": "siblings",
    "sisters": "siblings", "grandmother": "grandparent", "grandfather": "grandparent", "grandma": "grandparent",
    "grandpa": "grandparent", "male": "adult", "female": "adult", "businessman": "manager", "businesswoman": "manager",
    "spokesman": "speaker", "spokeswoman": "speaker", "waitress": "waiter", "actress": "actor", "policeman": "officer",
    "policewoman": "officer", "chairman": "chair", "chairwoman": "chair",
}  # fmt: skip
_VERBS = {
    "is": "are", "was": "were", "has": "have", "does": "do", "isn't": "aren't", "wasn't": "weren't", "hasn't": "haven't",
    "doesn't": "don't",
}  # fmt: skip
# "her" and "his" before one of these stand alone: "I saw her and", "the car is his."
_NO_NOUN = frozenset(
    (
        "a", "about", "after", "again", "against", "all", "along", "although", "am", "an", "and", "are", "around", "as", "at",
        "away", "back", "be", "because", "before", "but", "by", "can", "could", "did", "do", "down", "every", "for", "from",
        "had", "has", "have", "how", "i", "if", "in", "into", "is", "it", "my", "now", "of", "off", "on", "or", "our", "out",
        "over", "so", "than", "that", "the", "their", "then", "there", "they", "this", "through", "to", "today", "too", "under",
        "until", "up", "very", "was", "we", "were", "what", "when", "where", "which", "while", "who", "why", "will", "with",
        "without", "would", "yesterday", "you", "your",
    )
)  # fmt: skip
# Between a pronoun and its verb.
_BETWEEN = frozenset(
    (
        "also", "always", "never", "just", "still", "even", "often", "now", "then", "sometimes", "already", "who", "both",
        "first", "soon", "perhaps",
    )
)  # fmt: skip
# They follow a pronoun and end in s without being a verb of one person.
_NO_VERB = frozenset(
    ("as", "his", "its", "this", "thus", "us", "yes", "always", "sometimes", "perhaps", "besides", "unless")
)
_TOKEN = re.compile(r"[A-Za-z]+(?:['’][A-Za-z]+)?|[^A-Za-z]+")
_PARTICIPLES = frozenset(
    ("been", "got", "had", "gone", "done", "made", "become", "come", "taken", "seen", "given", "never")
)
# In -ed, and more often what somebody is than what somebody has done: "he's tired".
_STATES = frozenset(
    (
        "allowed", "bored", "called", "concerned", "convinced", "determined", "disappointed", "dressed", "excited", "interested",
        "involved", "known", "married", "naked", "named", "obsessed", "scared", "supposed", "surprised", "tired", "used",
        "wicked", "worried",
    )
)  # fmt: skip


def neutral(text: str) -> str | None:
    """A text in which every gendered word of the wide list is replaced, and the verbs of its pronouns with them.

    Returns:
        The text, or ``None`` where there is nothing to rewrite or something that has no neutral word here.
    """
    if not names_gender(text, WIDE):
        return None
    parts = _TOKEN.findall(text)
    words = [i for i, part in enumerate(parts) if part[0].isalpha()]
    subject = False  # whether the next verb has a rewritten pronoun as its subject
    for place, i in enumerate(words):
        word = parts[i].lower().replace("’", "'")
        after = parts[words[place + 1]].lower() if place + 1 < len(words) else ""
        stem, sign, ending = word.partition("'")
        if stem in ("he", "she"):
            parts[i] = _like(parts[i], "they" + (sign and "'" + _clitic(ending, after)))
            before = parts[words[place - 1]] if place else ""
            asks = before.lower() in _VERBS  # "is he there?"
            if asks:
                parts[words[place - 1]] = _like(before, _VERBS[before.lower()])
            subject = not sign and not asks
            continue
        if subject and word not in _BETWEEN and not word.endswith("ly"):
            parts[i] = _like(parts[i], _plural_verb(word))
            # "he works and sleeps": the second verb has the same subject.
            subject = False
            if after in ("and", "or", "but") and word != _plural_verb(word) and place + 2 < len(words):
                second = parts[words[place + 2]]
                parts[words[place + 2]] = _like(second, _plural_verb(second.lower()))
            continue
        if stem in ("his", "her"):
            alone = not after or not parts[i + 1].isspace() or after in _NO_NOUN
            parts[i] = _like(parts[i], ("theirs" if stem == "his" else "them") if alone else "their")
        elif stem in _SAME:
            parts[i] = _like(parts[i], _SAME[stem] + sign + ending)
    made = "".join(parts)
    return None if names_gender(made, WIDE) else made


def _clitic(ending: str, after: str) -> str:
    """What follows "they'": he's is they are, or they have before a participle."""
    if ending != "s":
        return ending
    return "ve" if after in _PARTICIPLES or (after.endswith("ed") and after not in _STATES) else "re"


def _plural_verb(word: str) -> str:
    """A verb of the third person singular as "they" has it; every other word as it is."""
    if word in _VERBS:
        return _VERBS[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "'s", "us")) or word in _NO_VERB:
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zes", "oes")):
        return word[:-2]
    return word[:-1]


def _like(old: str, new: str) -> str:
    """The new word with the old one's capitals."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new[:1].upper() + new[1:] if old[:1].isupper() else new
