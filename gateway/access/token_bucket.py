"""A token bucket: so many requests a second on average, so many at once."""


class TokenBucket:
    """Holds at most `burst` tokens and gains `rate_per_s` of them a second; full at first. Times in seconds."""

    __slots__ = ("_at_s", "_tokens", "burst", "rate_per_s")

    def __init__(self, rate_per_s: float, burst: float, now_s: float) -> None:
        self.rate_per_s, self.burst = rate_per_s, burst
        self._tokens, self._at_s = burst, now_s

    def take(self, now_s: float) -> float:
        """Take one token. Returns 0, or, where there is none, in how many seconds there will be one.

        What is refused takes nothing: a caller that tries again too early does not wait longer for it. A clock that
        is set back gives no tokens.
        """
        wait_s = self.wait_s(now_s)
        if not wait_s:
            self._tokens -= 1.0
        return wait_s

    def wait_s(self, now_s: float) -> float:
        """Say in how many seconds there will be a token; 0 where there is one now."""
        since_s = now_s - self._at_s
        if since_s > 0.0:
            tokens = self._tokens + since_s * self.rate_per_s
            self._tokens = min(self.burst, tokens)
            self._at_s = now_s
        return (1.0 - self._tokens) / self.rate_per_s if self._tokens < 1.0 else 0.0
