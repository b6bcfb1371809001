"""Running sums that forget, and so follow what changes: a mean, a distribution, how a model counts."""

from __future__ import annotations

from collections.abc import Mapping

ENOUGH = 8
"""Calls after which what was learned is used."""
MEMORY = 400
"""Calls after which older ones weigh half."""
_PACE = 0.05
"""The weight of a new call in what is learned of the input, once there are many."""
_FARTHEST = 5.0
"""Nobody's tokenizer is further from the rule of thumb than this; what is has another cause."""


class Mean:
    """A running mean that forgets: exact at first, then new values weigh a twentieth."""

    __slots__ = ("count", "value")

    def __init__(self, value: float = 0.0, count: int = 0) -> None:
        self.value = value
        self.count = count

    def add(self, value: float) -> None:
        """Take in one more."""
        self.count += 1
        self.value += (value - self.value) * max(_PACE, 1 / self.count)


class Sizes:
    """How often each size came, in eighths of an octave: at most an eighth off, and a few hundred numbers at most."""

    __slots__ = ("counts", "total")

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})
        self.total = sum(self.counts.values())

    def add(self, size: int) -> None:
        """Take in one more; the older ones weigh less and less."""
        shift = max(0, size.bit_length() - 4)
        place = 8 * shift + (size >> shift)
        self.counts[place] = self.counts.get(place, 0) + 1
        self.total += 1
        if self.total >= MEMORY:
            self.counts = {place: count // 2 for place, count in self.counts.items() if count > 1}
            self.total = sum(self.counts.values())

    def quantile(self, share: float) -> int:
        """The size that this share of them does not exceed, rounded up; 0 when there are none."""
        missing = share * self.total
        for place in sorted(self.counts):
            missing -= self.counts[place]
            if missing <= 1e-9:  # noqa: PLR2004 - of rounding
                shift = max(0, (place - 8) // 8)
                return ((place - 8 * shift + 1) << shift) - 1
        return 0


class Counted:
    """How many tokens a model counts, in terms of what is guessed from a text."""

    __slots__ = ("counted", "error", "guessed")

    def __init__(self, counted: Mean | None = None, guessed: Mean | None = None, error: Mean | None = None) -> None:
        self.counted = counted or Mean()
        self.guessed = guessed or Mean()
        self.error = error or Mean()

    @property
    def ratio(self) -> float | None:
        """What is counted for each token guessed; None while too little is known."""
        if self.counted.count < ENOUGH or not self.guessed.value:
            return None
        return min(_FARTHEST, max(1 / _FARTHEST, self.counted.value / self.guessed.value))

    def corrected(self, guess: int) -> int:
        """A guess, as the model is likely to count it."""
        ratio = self.ratio
        return guess if ratio is None else round(guess * ratio)

    def begin_with(self, known: Counted) -> None:
        """Take over what was known all along, unless more is known by now."""
        if self.counted.count < known.counted.count:
            self.counted, self.guessed, self.error = known.counted, known.guessed, known.error

    def add(self, guess: int, counted: int) -> None:
        """Take in one call; longer texts weigh more."""
        if guess and counted:
            self.error.add(abs(self.corrected(guess) - counted) / counted)
            self.counted.add(counted)
            self.guessed.add(guess)
