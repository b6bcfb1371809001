"""Verdicts, errors, and the sentences in them: they are what a user reads when something is in the way."""

from __future__ import annotations

import copy
import pickle

import pytest

from agent_rate_limiter import (
    AcquireTimeout,
    AllTargetsFailed,
    BudgetExceeded,
    ConfigError,
    Decision,
    Estimate,
    Limit,
    LimiterClosed,
    LimitExceeded,
    MultiProviderLimiter,
    Provider,
    QuotaExhausted,
    RateLimiter,
    RateLimiterError,
    RequestTooLarge,
    ReservationError,
    Resource,
    Scope,
    StoreUnavailable,
    Usage,
)
from agent_rate_limiter.testing import ManualClock

EPOCH = 1_767_225_600  # 2026-01-01 00:00:00 UTC, where a ManualClock starts


# ---------------------------------------------------------------- the family


@pytest.mark.parametrize(
    ("kind", "bases"),
    [
        (ConfigError, (RateLimiterError, ValueError)),
        (ReservationError, (RateLimiterError,)),
        (LimiterClosed, (RateLimiterError,)),
        (StoreUnavailable, (RateLimiterError,)),
        (AllTargetsFailed, (RateLimiterError,)),
        (LimitExceeded, (RateLimiterError,)),
        (RequestTooLarge, (LimitExceeded,)),
        (AcquireTimeout, (LimitExceeded, TimeoutError)),
        (QuotaExhausted, (LimitExceeded,)),
        (BudgetExceeded, (LimitExceeded,)),
    ],
)
def test_the_family(kind: type[BaseException], bases: tuple[type[BaseException], ...]) -> None:
    assert issubclass(kind, bases[0])
    assert all(issubclass(kind, base) for base in bases)


DECISION = Decision(
    admitted=False,
    target="openai:gpt-4",
    limit=Limit(Resource.TOKENS, 10, "minute", scope=Scope(agent="each")),
    scope="agent=a",
    requested=5,
    available=3,
    retry_after=12.5,
    available_at=99.5,
    reason="It is full.",
)


@pytest.mark.parametrize("kind", [LimitExceeded, RequestTooLarge, AcquireTimeout, QuotaExhausted, BudgetExceeded])
def test_a_refusal_carries_its_decision_across_processes(kind: type[LimitExceeded]) -> None:
    error = kind(DECISION)
    for twin in (error, pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert type(twin) is kind
        assert twin.decision == DECISION
        assert (str(twin), twin.retry_after, twin.available_at) == ("It is full.", 12.5, 99.5)


class Unpicklable(Exception):
    """As SDKs' errors are: made of more than they say."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)


def test_all_targets_failed_names_each_cause_in_order_and_survives_pickling() -> None:
    error = AllTargetsFailed({"a:m": LimitExceeded(DECISION), "b:m": ConnectionError("refused")})
    for twin in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own
        assert str(twin) == "No target could serve the call. a:m: It is full; b:m: refused"
        assert list(twin.causes) == ["a:m", "b:m"]
        assert pickle.dumps(twin.causes["a:m"]) == pickle.dumps(error.causes["a:m"])
    sdks = pickle.loads(pickle.dumps(AllTargetsFailed({"a:m": Unpicklable(503, "busy")})))  # noqa: S301 - our own
    assert str(sdks) == "No target could serve the call. a:m: Unpicklable: busy"


def test_a_refusal_is_falsy_and_an_admission_truthy() -> None:
    assert not DECISION
    assert Decision(admitted=True)
    assert pickle.loads(pickle.dumps(DECISION)) == DECISION  # noqa: S301 - our own


# ---------------------------------------------------------------- sentences

AT_1_06 = "2026-01-01 00:01:06"
WAIT = "wait that long (timeout), or use a fallback."
AFFORD = "wait that long (timeout), raise the budget, or take a cheaper model."
SHORTEN = "Shorten the prompt, lower max_tokens, or raise the limit."
CHEAPEN = "Lower max_tokens, take a cheaper model, or raise the budget."


@pytest.mark.parametrize(
    ("limit", "taken", "asked", "numbers", "says"),
    [
        (
            "500 requests/minute",
            Usage(500),
            Estimate(),
            (1, 0, 0.12),
            f"1 request requested, 0 requests available. It frees in 0.12 s, at 2026-01-01 00:00:00 UTC: {WAIT}",
        ),
        (
            "9,000 tokens/day",
            Usage(input_tokens=9_000),
            Estimate(input_tokens=400, max_output_tokens=500),
            (900, 0, 8_640),
            f"900 tokens requested, 0 tokens available. It frees in 2 h 24 min, at 2026-01-01 02:24:00 UTC: {WAIT}",
        ),
        (
            "10,000 tokens/minute",
            None,
            Estimate(input_tokens=10_001),
            (10_001, 10_000, None),
            f"10,001 tokens requested, but it never holds more than 10,000 tokens. {SHORTEN}",
        ),
        (
            "$5.00/week",
            Usage(cost=4.5),
            Estimate(cost=0.75),
            (0.75, 0.5, 4 * 86_400),  # the clock starts on a Thursday
            f"$0.75 requested, $0.50 available. It frees in 4 d, at 2026-01-05 00:00:00 UTC: {AFFORD}",
        ),
        (
            "$5.00/week",
            None,
            Estimate(cost=5.0625),
            (5.0625, 5, None),
            f"$5.0625 requested, but it never holds more than $5.00. {CHEAPEN}",
        ),
        (
            "100 requests in total",
            Usage(99),
            Estimate(2),
            (2, 1, None),
            "2 requests requested, 1 request available. It does not reset by itself: raise it, or start a new scope.",
        ),
        (
            "10 output tokens/minute",
            Usage(output_tokens=19),
            Estimate(output_tokens=2),
            (2, 0, 66),
            f"2 output tokens requested, 0 output tokens available. It frees in 1 min 6 s, at {AT_1_06} UTC: {WAIT}",
        ),
    ],
)
def test_sentences(
    limit: str, taken: Usage | None, asked: Estimate, numbers: tuple[float, float, float | None], says: str
) -> None:
    """What a call is told after another one has used so much."""
    limiter = RateLimiter(limit.removesuffix(" in total"), target="openai:gpt-4", clock=ManualClock())
    if taken is not None:
        limiter.acquire(Estimate(requests=0)).settle(taken)
    decision = limiter.try_acquire(asked)
    assert isinstance(decision, Decision)
    assert decision.reason == f"openai:gpt-4 is refused by '{limit}': {says}"
    assert decision.limit == limiter.limits[0]
    assert (decision.target, decision.scope, decision.admitted) == ("openai:gpt-4", "", False)
    assert (decision.requested, decision.available, decision.retry_after) == numbers
    assert decision.available_at == (None if decision.retry_after is None else EPOCH + decision.retry_after)


def test_the_sentence_of_a_full_concurrency_limit(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(concurrency=2, clock=manual_clock)
    calls = [limiter.acquire(), limiter.acquire()]
    decision = limiter.try_acquire()
    assert isinstance(decision, Decision)
    assert decision.reason == (
        "default:default is refused by '2 at once': 1 slot requested, 0 slots available. "
        "It frees when a call in flight ends: wait longer (timeout), or raise the limit."
    )
    assert (decision.retry_after, decision.available_at) == (None, None)
    del calls


def test_the_sentence_names_whom_the_limit_is_for(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(Limit(Resource.REQUESTS, 1, "day", scope=Scope(agent="each")), clock=manual_clock)
    with limiter.scope(agent="researcher"):
        limiter.acquire().settle()
        decision = limiter.try_acquire()
    assert isinstance(decision, Decision)
    assert decision.scope == "agent=researcher"
    assert "refused by '1 requests/day' (agent=researcher): 1 request requested" in decision.reason


def test_the_limit_that_frees_last_is_the_one_that_is_named(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(["1 requests/minute", "1 requests/hour", "1 tokens/second"], clock=manual_clock)
    limiter.acquire(input_tokens=1).settle(Usage(input_tokens=1))
    for asked, binding in (
        (Estimate(input_tokens=1), "1 requests/hour"),
        (Estimate(input_tokens=2), "1 tokens/second"),
    ):
        decision = limiter.try_acquire(asked)  # the second never fits, which is worse than late
        assert isinstance(decision, Decision)
        assert decision.limit is not None
        assert decision.limit.name == binding


@pytest.mark.parametrize(
    ("limits", "asked", "timeout", "kind"),
    [
        ("1 tokens/minute", Estimate(input_tokens=2), None, RequestTooLarge),
        ("1 tokens/minute", Estimate(input_tokens=2), 1, RequestTooLarge),
        ("1 requests/minute", Estimate(), 59, AcquireTimeout),
        ("1 requests", Estimate(), None, QuotaExhausted),
        ("$1/day", Estimate(cost=2), None, BudgetExceeded),
        ("$1/day", Estimate(cost=0.5), None, BudgetExceeded),
        ("$1/day", Estimate(cost=0.5), 60, BudgetExceeded),
    ],
)
def test_what_is_raised(
    limits: str, asked: Estimate, timeout: float | None, kind: type[LimitExceeded], manual_clock: ManualClock
) -> None:
    limiter = RateLimiter(limits, clock=manual_clock)
    limiter.acquire(Estimate(cost=0.75)).settle(Usage(cost=0.75))
    with pytest.raises(LimitExceeded) as refused:
        limiter.acquire(asked, timeout=timeout)
    assert type(refused.value) is kind
    decision = limiter.try_acquire(asked)
    assert refused.value.decision == decision
    assert str(refused.value) == refused.value.decision.reason


@pytest.mark.parametrize("unknown", ["openai:gpt4", "opnai:gpt-4", "local:x"])
def test_a_target_that_is_not_configured(unknown: str) -> None:
    limiter = MultiProviderLimiter([Provider("openai", {"gpt-4": None, "o5": None})])
    with pytest.raises(ConfigError) as refused:
        limiter.acquire(unknown)
    hint = "" if unknown == "local:x" else "did you mean 'openai:gpt-4'? "
    assert str(refused.value) == (
        f"target is '{unknown}': {hint}It is not configured. Configured: 'openai:gpt-4', 'openai:o5'. "
        "Add it to its Provider's models, or a model '*' for all others."
    )


def test_many_configured_targets_are_shortened() -> None:
    limiter = MultiProviderLimiter([Provider("p", {f"m{n}": None for n in range(20)})])
    with pytest.raises(ConfigError, match=r"Configured: 'p:m0', .*'p:m7', …\. Add it") as refused:
        limiter.acquire("q:x")
    assert "'p:m8'" not in str(refused.value)


def test_nobody_means_the_star() -> None:
    limiter = MultiProviderLimiter([Provider("openai", {"*": None})])
    with pytest.raises(ConfigError) as refused:
        limiter.acquire("openia:gpt-4")
    assert "did you mean 'openai:*'" not in str(refused.value)


def test_a_provider_without_models_reads_well() -> None:
    limiter = MultiProviderLimiter([Provider("openai")])
    with pytest.raises(ConfigError) as refused:
        limiter.acquire("openai:gpt-4")
    assert "Configured: ." not in str(refused.value)
