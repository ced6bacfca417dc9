"""How much an adaptive attacker may spend on one request.

Budget(rounds=24, width=24).evaluations   # 576 tries at most
"""

from __future__ import annotations

from dataclasses import dataclass

from llmpatch.errors import UsageError

MAX_ROUNDS, MAX_WIDTH = 10_000, 4_096


@dataclass(frozen=True)
class Budget:
    """Rounds, and tries in each.

    Attributes:
        rounds: Steps of a search, 1 to 10,000.
        width: Tries per step, 1 to 4,096.

    Raises:
        UsageError: one is out of its range.
    """

    rounds: int
    width: int

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= MAX_ROUNDS or not 1 <= self.width <= MAX_WIDTH:
            raise UsageError(
                f"an attack budget of {self.rounds}x{self.width} is out of range",
                hint=f"write ROUNDSxWIDTH, 1 to {MAX_ROUNDS} and 1 to {MAX_WIDTH}, as gcg@24x24",
            )

    @property
    def evaluations(self) -> int:
        """Tries at most, per request."""
        return self.rounds * self.width
