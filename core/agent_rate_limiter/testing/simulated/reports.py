"""What a simulated provider saw: every request, and exact sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Literal

from agent_rate_limiter.testing.simulated.calls import Tokens

Outcome = Literal["completed", "refused", "failed", "dropped"]


@dataclass(frozen=True)
class RequestRecord:
    """One request.

    Args:
        at: simulated seconds from the provider's start to its arrival.
        seconds: simulated seconds from its arrival to the last byte of its answer.
        api: `chat`, `responses`, `embeddings`, `messages` or `generate`.
        account: `default`, or a number in order of appearance where each key is an account of its own.
        status: the HTTP status; 0 if the connection broke before there was one.
        outcome: `completed`; `refused` (429, a 413 that never fits, or a refusal inside a 200); `failed` (any
            other error, a broken connection or stream); `dropped` by the client before the end.
        admitted: the limits let it through, and charged it.
        fault: the kind of the fault that was injected, if any.
        headers: the request's headers, without keys, cookies or anything else that could be a secret.
    """

    at: float
    seconds: float
    api: str
    model: str
    account: str
    status: int
    outcome: Outcome
    admitted: bool
    stream: bool
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    dollars: float
    fault: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class LimitReport:
    """One limit over a run.

    Args:
        limit: as it is now.
        used: units charged to it, as its provider counts; for `concurrency` the most calls at once.
        allowed: the most that it would have let through from the first request to the last.
    """

    limit: int
    used: int
    allowed: int

    @property
    def share(self) -> float:
        """Used of allowed, 1.0 being all of it."""
        return self.used / self.allowed if self.allowed else 0.0


@dataclass(frozen=True)
class Counts:
    """Sums over requests. `received` = completed + refused + failed + dropped."""

    received: int = 0
    admitted: int = 0
    completed: int = 0
    refused: int = 0
    failed: int = 0
    dropped: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    dollars: float = 0.0


@dataclass(frozen=True)
class ModelReport(Counts):
    """What one model was asked, answered and charged; models of one pool share their limits' reports."""

    limits: Mapping[str, LimitReport] = field(default_factory=dict[str, LimitReport])

    @property
    def allowed(self) -> dict[str, int]:
        """By limit: the most that it would have let through from the first request to the last."""
        return {name: limit.allowed for name, limit in self.limits.items()}

    @property
    def used_share(self) -> float:
        """The share used of the limit that was used the most: 1.0 is the edge."""
        rates = [limit.share for name, limit in self.limits.items() if name != "concurrency"]
        return max(rates, default=0.0)


@dataclass(frozen=True)
class Report(Counts):
    """Everything since the start, or the last reset.

    Args:
        models: by name.
        account: the limits that all models share, if there are any.
        span: simulated seconds from the first request to the last.
    """

    models: Mapping[str, ModelReport] = field(default_factory=dict[str, ModelReport])
    account: Mapping[str, LimitReport] = field(default_factory=dict[str, LimitReport])
    span: float = 0.0

    def __getitem__(self, model: str) -> ModelReport:
        """One model's report; all zeros if it was never asked."""
        return self.models.get(model, ModelReport())

    @property
    def used_share(self) -> float:
        """The share used of the limit that was used the most, over all models."""
        shared = [limit.share for name, limit in self.account.items() if name != "concurrency"]
        return max([*shared, *(model.used_share for model in self.models.values())], default=0.0)


class Tally(Counter[str]):
    """Running sums of one model's requests."""

    def note(self, record: RequestRecord) -> None:
        """Add a request."""
        self["received"] += 1
        self["admitted"] += record.admitted
        self[record.outcome] += 1
        self["input_tokens"] += record.input_tokens
        self["output_tokens"] += record.output_tokens
        self["cached_tokens"] += record.cached_tokens

    @property
    def tokens(self) -> Tokens:
        """All that was used."""
        return Tokens(self["input_tokens"], self["output_tokens"], self["cached_tokens"])


def model_report(tally: Tally, dollars: Decimal, limits: Mapping[str, LimitReport]) -> ModelReport:
    """The sums of one model, with what its tokens cost."""
    return ModelReport(**tally, dollars=float(dollars), limits=limits)


def whole_report(
    models: Mapping[str, ModelReport], dollars: Decimal, account: Mapping[str, LimitReport], span: float
) -> Report:
    """The sums of all models."""
    names = [spec.name for spec in fields(Counts) if spec.name != "dollars"]
    sums = {name: sum(getattr(model, name) for model in models.values()) for name in names}
    return Report(**sums, dollars=float(dollars), models=models, account=account, span=span)
