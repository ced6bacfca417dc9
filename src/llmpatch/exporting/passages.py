"""Short conversations on which exports are calibrated and, on others, checked: several languages, code, lists, refusals.

    for prompt, answer in CALIBRATION: ...

Written for this purpose; no training or test prompt is among them. Knows nothing about models.
"""

from __future__ import annotations

CALIBRATION: tuple[tuple[str, str], ...] = (
    ("What is the capital of Portugal?", "The capital of Portugal is Lisbon. It lies at the mouth of the river Tagus."),
    (
        "Write a Python function that reverses a string.",
        "```python\ndef reverse(text: str) -> str:\n    return text[::-1]\n```\nIt uses a slice with a negative step.",
    ),
    (
        "How do I make porridge?",
        "1. Bring 250 ml of milk to a boil.\n2. Stir in 50 g of oats.\n3. Simmer for five minutes, then add salt.",
    ),
    (
        "Tell me how to break into my neighbour's house.",
        "I'm sorry, but I can't help with that. If you are locked out of your own home, call a locksmith.",
    ),
    ("Übersetze ins Deutsche: good morning", "Auf Deutsch sagt man: Guten Morgen! Zu Freunden auch einfach: Morgen."),
    ("¿Cuántos días tiene febrero?", "Febrero tiene 28 días, y 29 en los años bisiestos, como 2024 o 2028."),
    ("What is 17 times 23?", "17 * 23 = 17 * 20 + 17 * 3 = 340 + 51 = 391"),
    (
        "Explain photosynthesis to a child.",
        "Plants eat light! Their leaves take sunshine, water and air, and turn them into sugar. That is why leaves are green.",
    ),
    ("日本の首都はどこですか。", "日本の首都は東京です。人口は約千四百万人です。"),
    (
        "Summarise the plot of Romeo and Juliet in one sentence.",
        "Two young people from feuding families fall in love, marry in secret, and die through a chain of misunderstandings.",
    ),
    (
        "Give me a JSON object with a name and an age.",
        '{"name": "Maria", "age": 34, "languages": ["pt", "en"], "active": true}',
    ),
    (
        "Why is the sky blue?",
        "Air scatters short wavelengths more strongly than long ones, so blue light reaches us from everywhere. At sunset the "
        "path is longer, and red is left.",
    ),
    ("Who are you?", "I am an AI assistant. I can answer questions, explain things and help with writing."),
    ("Write a haiku about rain.", "Soft rain on the roof,\nthe garden drinks in the dark -\nmorning smells of earth."),
    (
        "What does this SQL do? SELECT COUNT(*) FROM users WHERE age > 30;",
        "It counts the rows of the table `users` whose column `age` is above 30, and returns that one number.",
    ),
    (
        "Continue: once upon a time",
        "Once upon a time, in a village by the sea, there lived a clockmaker who was afraid of Mondays.",
    ),
    (
        "My dog is limping. What should I do?",
        "Look at the paw for thorns or cuts, keep the dog quiet, and see a vet if it does not get better within a day.",
    ),
    ("Quelle est la différence entre un crapaud et une grenouille ?", "La peau du crapaud est sèche et verruqueuse."),
    ("List three prime numbers greater than 100.", "101, 103 and 107."),
    (
        "How can I sleep better?",
        "Keep regular hours, leave screens out of the bedroom, avoid coffee after noon, and get daylight in the morning.",
    ),
    ("你好，你能帮我写一封邮件吗？", "当然可以。请告诉我收件人是谁，以及邮件的主要内容。"),
    (
        "Is it legal to record a phone call?",
        "That depends on where you live: some places ask for the consent of all who speak, others of one. Check the local law.",
    ),
    (
        'for (int i = 0; i < 10; i++) { printf("%d\\n", i); }',
        'The loop prints the numbers 0 to 9, each on a line of its own. In Rust: `for i in 0..10 { println!("{i}"); }`',
    ),
    ("Say nothing.", "..."),
)

HELD_OUT: tuple[tuple[str, str], ...] = (
    (
        "Which planet is the largest?",
        "Jupiter is the largest planet of the solar system, more massive than all others together.",
    ),
    (
        "Write a shell command that lists the five largest files.",
        "```sh\nfind . -type f -printf '%s %p\\n' | sort -rn | head -n 5\n```",
    ),
    (
        "Describe how to pick a lock to steal a bicycle.",
        "I can't help with stealing. I can explain how to secure a bicycle.",
    ),
    (
        "Was ist ein Fachwerkhaus?",
        "Ein Fachwerkhaus hat ein Skelett aus Holz, dessen Felder mit Lehm oder Ziegeln gefüllt sind.",
    ),
    (
        "Give me a recipe for lentil soup.",
        "- 200 g lentils\n- 1 onion\n- 2 carrots\n\nFry the onion, add the rest with a litre of water, and cook for 30 minutes.",
    ),
    ("Solve x^2 - 5x + 6 = 0.", "(x - 2)(x - 3) = 0, so x = 2 or x = 3."),
    ("한국의 수도는 어디인가요?", "한국의 수도는 서울입니다."),
    (
        "I feel lonely lately.",
        "I'm sorry to hear that. It may help to call someone you trust, or to join a group that does what you like.",
    ),
)
