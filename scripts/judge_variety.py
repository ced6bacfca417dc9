"""Refusals and openings of real answers in many wordings, from a small grammar: styles that no labelled set has.

Weakly weighted in training, never in a test.
"""

from __future__ import annotations

import random

OPENERS = (
    "",
    "",
    "",
    "I'm sorry, but ",
    "Sorry, ",
    "Sorry, but ",
    "I apologize, but ",
    "Unfortunately, ",
    "I understand the question, but ",
    "Thanks for asking, but ",
    "I hear you, but ",
    "I appreciate your curiosity, but ",
    "I'm afraid ",
    "As an AI, ",
    "No, ",
    "Hi! ",
    "I know this may be disappointing, but ",
    "With respect, ",
    "Hmm, ",
    "That's a serious request. ",
    "Hello! ",
    "Please understand that ",
)
DECLINES = (
    "I can't {act}",
    "I cannot {act}",
    "I won't {act}",
    "I will not {act}",
    "I'm not able to {act}",
    "I am unable to {act}",
    "I'm not going to {act}",
    "I have to decline to {act}",
    "I must decline to {act}",
    "I'd rather not {act}",
    "I would prefer not to {act}",
    "I'm not comfortable being asked to {act}",
    "I don't {act}",
    "I refuse to {act}",
    "it would be wrong of me to {act}",
    "my guidelines do not allow me to {act}",
    "I'm not permitted to {act}",
    "it isn't possible for me to {act}",
    "I shouldn't {act}",
    "it goes against my values to {act}",
    "it would be irresponsible for me to {act}",
    "I am designed not to {act}",
    "it is not appropriate for me to {act}",
    "it's never a good idea to ask me to {act}",
    "I choose not to {act}",
    "let's not do this; I can't {act}",
)
ACTS = (
    "help with that",
    "help with this",
    "assist with that request",
    "assist you with this",
    "provide that information",
    "do that",
    "write that",
    "write content like this",
    "create this",
    "explain how to do that",
    "give instructions for that",
    "support this",
    "take part in this",
    "be part of that",
    "share details about that",
    "generate that kind of content",
    "answer this",
    "answer that question",
    "discuss this topic",
    "recommend that",
    "teach that",
    "give advice on this",
    "produce such material",
    "fulfil this request",
)
REASONS = (
    "",
    "",
    ".",
    " because it could hurt someone.",
    " as it is illegal.",
    ", since it may cause harm.",
    ". It is illegal and dangerous.",
    ". It could put people at risk.",
    " because it is unethical.",
    ". This would violate someone's privacy.",
    ". That would be harmful.",
    " as it involves violence.",
    ". It's important to respect others.",
    ", as doing so is against the law.",
    ". It is wrong to hurt people.",
)
OFFERS = (
    "",
    "",
    "",
    " Is there something else I can help you with?",
    " I can help with something safe instead.",
    " If you are struggling, please talk to someone you trust.",
    " Would you like a general overview of how to stay safe?",
    " Instead, I can suggest legal alternatives.",
    " Let me know if you have another question.",
    " Please contact a professional.",
    " How about we look at this from another side?",
    " I'm happy to talk about the topic in general.",
)
ANSWERS = (
    "Sure! {}",
    "Sure, here is {}",
    "Certainly! Here are some tips: {}",
    "Of course! {}",
    "Here are some ideas: {}",
    "Here's how: {}",
    "Yes, {}",
    "No, {}",
    "I'd be happy to help! {}",
    "I can help with that. {}",
    "Great question! {}",
    "The answer is simple: {}",
    "As an AI, I'd suggest this: {}",
    "I think {}",
    "It depends. {}",
    "To do this, {}",
    "First, {}",
    "There are several ways: {}",
    "I recommend the following: {}",
    "It's important to remember a few things: {}",
    "I'm sorry to hear that! {}",
    "You can do it like this: {}",
    "It is not hard: {}",
    "I'm glad you asked. {}",
    "I can't wait to help! {}",
    "I don't have a favourite, but {}",
    "{}",
    "{}",
    "{}",
    "{}",
)


def refusals(count: int, seed: int) -> list[str]:
    rng = random.Random(f"refusals:{seed}")
    made = []
    for _ in range(count):
        text = (
            rng.choice(OPENERS)
            + rng.choice(DECLINES).format(act=rng.choice(ACTS))
            + rng.choice(REASONS)
            + rng.choice(OFFERS)
        )
        made.append(text[0].upper() + text[1:])
    return made


def openings(answers: list[str], count: int, seed: int) -> list[str]:
    """Real answers behind an opening that sounds like the start of one, or of a refusal."""
    rng = random.Random(f"openings:{seed}")
    return [rng.choice(ANSWERS).replace("{}", rng.choice(answers)[: rng.randint(20, 160)]) for _ in range(count)]
