"""How much text the suite ``long-context`` puts before a request, and what the sets of its evidence are called.

set_name(500), set_title(500)     # "after_500", "Harmful requests behind 500 tokens"
"""

from __future__ import annotations

LENGTHS = (0, 500, 1000, 2000)


def set_name(length: int) -> str:
    """The set of a length, in the evidence."""
    return f"after_{length}"


def set_title(length: int) -> str:
    """The set of a length, for people."""
    return f"Harmful requests behind {length:,} tokens" if length else "Harmful requests, bare"
