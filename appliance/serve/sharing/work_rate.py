"""How fast an engine works, measured by what it has done: the base of each `Retry-After`."""

from __future__ import annotations

import math

_FIRST_GUESS = (250.0, 5.0)
_KEPT = 0.75
"""Of the measurements before, at each new one: the rate follows the load within a few pieces."""
_MIN_RATE = 0.1
MAX_RETRY_S = 120


class WorkRate:
    """The rate of one engine, in tokens per second of all its slots together."""

    def __init__(self) -> None:
        self._tokens, self._seconds = _FIRST_GUESS
        self._since = 0.0

    @property
    def tokens_per_s(self) -> float:
        """The rate while the engine works."""
        return max(_MIN_RATE, self._tokens / max(self._seconds, 1e-6))

    def begin(self, now: float, *, is_idle: bool) -> None:
        """A piece starts.

        Args:
            now: seconds, monotonic.
            is_idle: whether no other piece runs.
        """
        if is_idle:
            self._since = now

    def end(self, now: float, tokens: int) -> None:
        """A piece has ended.

        Args:
            now: seconds, monotonic.
            tokens: of the engine's work on it.
        """
        self._tokens = self._tokens * _KEPT + tokens
        self._seconds = self._seconds * _KEPT + max(0.0, now - self._since)
        self._since = now

    def retry_after_s(self, tokens: float) -> int:
        """Whole seconds, 1 to `MAX_RETRY_S`, after which the engine will have done so much work."""
        return max(1, min(MAX_RETRY_S, math.ceil(tokens / self.tokens_per_s)))
