"""What a limiter says about itself, in numbers and in words."""

from __future__ import annotations

import asyncio
import json

import pytest

from agent_rate_limiter import (
    Estimate,
    Explanation,
    Limit,
    LimitStatus,
    MultiProviderLimiter,
    Price,
    Provider,
    RateLimiter,
    Resource,
    Scope,
    Snapshot,
    Usage,
)
from agent_rate_limiter.providers import Failure, FailureKind, Quota
from agent_rate_limiter.testing import ManualClock, run_virtual
from tests.core.reporting import limited_many_ways


@pytest.fixture
def limiter(manual_clock: ManualClock) -> MultiProviderLimiter:
    return limited_many_ways(manual_clock)


def by_name(found: Snapshot | Explanation) -> dict[str, LimitStatus]:
    return {status.name: status for status in found.limits}


# ---------------------------------------------------------------- snapshot


def test_a_fresh_limiter_has_nothing_to_say(limiter: MultiProviderLimiter, manual_clock: ManualClock) -> None:
    snapshot = limiter.snapshot()
    assert snapshot == Snapshot(manual_clock.now() / 1000, (), 0, 0, 0)
    assert str(snapshot) == "0 in flight, 0 waiting, $0.0000 spent"


def test_every_limit_as_it_stands(limiter: MultiProviderLimiter) -> None:
    with limiter.scope(agent="a"):
        call = limiter.acquire("p:m", input_tokens=2_000)
    status = by_name(limiter.snapshot())
    assert list(status) == [
        "budget $10.00/day",
        "per agent",
        "1,000 requests/day",
        "2 at once",
        "6,000 tokens/minute",
        "60 requests/minute",
    ]
    assert status["60 requests/minute"] == LimitStatus(
        "p:m", "60 requests/minute", "", "requests", 60, 59, 1 / 60, 0, 1.0, per=60
    )
    assert status["6,000 tokens/minute"] == LimitStatus(
        "p:m", "6,000 tokens/minute", "", "tokens", 6_000, 4_000, 1 / 3, 0, 20.0, per=60
    )
    assert status["2 at once"] == LimitStatus("p:m", "2 at once", "", "concurrency", 2, 1, 0.5, 0, None)
    assert status["1,000 requests/day"].owner == "p"
    assert status["per agent"] == LimitStatus(
        "budget", "per agent", "agent=a", "cost", 5, 3.0, 0.4, 0, 86_400.0, per=86_400
    )
    assert limiter.snapshot().in_flight == 1
    call.settle(Usage(input_tokens=8_000))
    status = by_name(limiter.snapshot())
    assert (status["6,000 tokens/minute"].available, status["per agent"].available) == (-2_000, -3)
    assert status["6,000 tokens/minute"].used_share == pytest.approx(4 / 3)
    assert (limiter.snapshot().in_flight, limiter.snapshot().spend) == (0, 8)


def test_those_who_wait_are_counted(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rpm=1, clock=manual_clock)

    async def main() -> Snapshot:
        limiter.acquire().settle()
        tasks = [asyncio.create_task(limiter.acquire_async()) for _ in range(3)]
        await asyncio.sleep(0)
        snapshot = limiter.snapshot()
        for call in await asyncio.gather(*tasks):
            call.settle()
        return snapshot

    snapshot = run_virtual(main(), manual_clock)
    assert (snapshot.waiting, snapshot.limits[0].waiting) == (3, 3)
    assert str(snapshot).endswith("100% used, 0 free, 3 waiting")


def test_a_snapshot_is_plain_data_too(limiter: MultiProviderLimiter) -> None:
    limiter.acquire("p:m").settle()
    data = limiter.snapshot().to_dict()
    assert json.loads(json.dumps(data))["limits"][0]["name"] == data["limits"][0]["name"]
    assert (data["in_flight"], data["waiting"], data["spend"]) == (0, 0, 0)


def test_a_snapshot_in_words(limiter: MultiProviderLimiter) -> None:
    with limiter.scope(agent="a"):
        limiter.acquire("p:m").settle(Usage(1, 3_000))
    assert str(limiter.snapshot()).splitlines() == [
        "0 in flight, 0 waiting, $3.0000 spent",
        "  budget                   budget $10.00/day                ███         30% used, $7.00 free",
        "  budget                   per agent (agent=a)              ██████      60% used, $2.00 free",
        "  p                        1,000 requests/day                            0% used, 999 free",
        "  p:m                      2 at once                                     0% used, 2 free",
        "  p:m                      6,000 tokens/minute              █████       50% used, 3,000 free",
        "  p:m                      60 requests/minute                            2% used, 59 free",
    ]


def test_debt_and_small_money_in_words() -> None:
    debt = LimitStatus("p:m", "tokens", "", "tokens", 100, -50, 1.5, 0, 1.0)
    assert str(debt) == f"{'p:m':<24} {'tokens':<32} ██████████ 150% used, -50 free"
    refunded = LimitStatus("p:m", "money", "", "cost", 1, 1.25, -0.25, 2, None)
    assert str(refunded) == f"{'p:m':<24} {'money':<32} {'':<10} -25% used, $1.25 free, 2 waiting"


def test_what_is_idle_says_so(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rpm=60, clock=manual_clock)
    limiter.acquire().settle()
    manual_clock.advance(1)
    assert limiter.snapshot().limits[0].idle_in == 0
    assert limiter.snapshot().limits[0].used_share == 0


# ---------------------------------------------------------------- explain


def test_explain_changes_nothing_and_says_what_binds(limiter: MultiProviderLimiter) -> None:
    free = limiter.explain("p:m", input_tokens=3_000)
    assert free.decision.admitted
    assert str(free).splitlines()[0] == "p:m admits such a call at once."
    assert [line.split("  ")[1].strip() for line in str(free).splitlines()[1:]] == ["p:m"] * 3 + ["p", "budget"]
    bound = limiter.explain("p:m", Estimate(input_tokens=6_001))
    assert not bound.decision
    assert str(bound).startswith("p:m is refused by '6,000 tokens/minute': 6,001 tokens requested, but it never")
    assert all(status.used_share == 0 for status in limiter.snapshot().limits)


def test_explain_knows_the_scope(limiter: MultiProviderLimiter) -> None:
    with limiter.scope(agent="a"):
        assert "per agent" in by_name(limiter.explain("p:m"))
        refused = limiter.explain("p:m", input_tokens=5_500)
        assert refused.decision.scope == "agent=a"
    assert "per agent" not in by_name(limiter.explain("p:m"))
    assert limiter.explain("p:m", input_tokens=5_500).decision


def test_explain_knows_the_queue(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(tpm=100, clock=manual_clock)

    async def main() -> Explanation:
        limiter.acquire(input_tokens=50).settle(Usage(input_tokens=50))
        task = asyncio.create_task(limiter.acquire_async(input_tokens=100))
        await asyncio.sleep(0)
        explanation = limiter.explain(input_tokens=10)  # there is room, but somebody was first
        (await task).settle()
        return explanation

    explanation = run_virtual(main(), manual_clock)
    assert not explanation.decision
    assert explanation.decision.retry_after == 36  # 30 s until the first fits, and 6 s for ten tokens more
    assert explanation.limits[0].waiting == 1


def test_explain_without_limits(manual_clock: ManualClock) -> None:
    explanation = RateLimiter(clock=manual_clock).explain()
    assert str(explanation) == ("default:default admits such a call at once.\n  no limits are configured for it")


# ---------------------------------------------------------------- repr


def test_limiters_state_their_limits(limiter: MultiProviderLimiter) -> None:
    assert repr(limiter) == "MultiProviderLimiter(p (1), budget $10.00/day, per agent)"
    assert repr(MultiProviderLimiter()) == "MultiProviderLimiter(any provider)"
    assert repr(RateLimiter()) == "RateLimiter(no limits)"
    limit = Limit(Resource.REQUESTS, 5, "day", scope=Scope(agent="a"))
    assert repr(RateLimiter(limit, rpm=500)) == "RateLimiter(5 requests/day (agent=a), 500 requests/minute)"


def test_a_reservation_states_how_it_stands(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(rpm=100, target="p:m", price=Price(1_000, 2_000), clock=manual_clock)
    call = limiter.acquire()
    assert repr(call) == "<Reservation 1 p:m open>"
    call.settle(Usage(input_tokens=10, output_tokens=5))
    assert repr(call) == "<Reservation 1 p:m settled: 10+5 tokens, $0.020000>"
    cancelled = limiter.acquire()
    cancelled.cancel()
    assert repr(cancelled) == "<Reservation 2 p:m cancelled>"
    never_sent = limiter.acquire()
    never_sent.fail(ConnectionRefusedError())
    assert repr(never_sent) == "<Reservation 3 p:m cancelled>"
    abandoned = limiter.acquire()
    abandoned.abandon()
    assert repr(abandoned) == "<Reservation 4 p:m abandoned>"
    assert bool(call)


def test_a_pending_call_says_how_to_use_it(manual_clock: ManualClock) -> None:
    pending = RateLimiter(target="p:m", clock=manual_clock).reserve()
    assert repr(pending) == "<reserve p:m: enter it with 'with' or 'async with'>"


def test_no_key_is_in_any_text(manual_clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    limiter = MultiProviderLimiter([Provider("p", {"m": {"rpm": 1}}, api_key="${MY_KEY}")], clock=manual_clock)
    call = limiter.acquire("p:m")
    texts = [
        repr(limiter),
        repr(limiter.providers),
        repr(call),
        str(limiter.snapshot()),
        repr(limiter.explain("p:m")),
        repr(limiter.try_acquire("p:m")),
    ]
    assert "secret" not in "".join(texts)


# ---------------------------------------------------------------- what providers say


def test_a_provider_that_refuses_closes_its_target_and_says_so(
    limiter: MultiProviderLimiter, manual_clock: ManualClock
) -> None:
    limiter.acquire("p:m").fail(Failure(FailureKind.OVERLOADED, retry_after=3, status=529))
    explanation = limiter.explain("p:m")
    assert explanation.decision.reason == (
        "p:m is closed: its provider refused calls. It frees in 3 s, at 2026-01-01 00:00:03 UTC: "
        "wait that long (timeout), or use a fallback."
    )
    assert by_name(explanation)["gate"].available == 0
    manual_clock.advance(3)
    call = limiter.acquire("p:m")
    assert limiter.explain("p:m").decision.reason == (
        "p:m opens gradually after a refusal: its calls in flight have to end first. Wait (timeout)."
    )
    call.settle(Usage())
    assert limiter.explain("p:m").decision


def test_a_limit_that_headers_tell_of_is_learned_and_shown(manual_clock: ManualClock) -> None:
    limiter = MultiProviderLimiter(clock=manual_clock, lease=60)
    early, lost, call = (limiter.acquire("p:m") for _ in range(3))
    call.observe([Quota(Resource.REQUESTS, "minute", limit=100, remaining=40)])
    call.settle()
    learned = by_name(limiter.explain("p:m"))["100 requests/minute (learned)"]
    assert (learned.owner, learned.amount, learned.resource) == ("p:m", 100, "requests")
    assert learned.available <= 40
    early.settle(Usage())  # these knew nothing of it when they were admitted
    manual_clock.advance(61)
    limiter.acquire("p:m").settle()
    lost.settle(Usage(2))
    assert limiter.costs.report(()).to_dicts()[0]["requests"] == 5


def test_a_slow_start_is_no_full_limit(manual_clock: ManualClock) -> None:
    """A target that nobody has called yet is not `100% used, 3 free`."""
    status = by_name(MultiProviderLimiter(clock=manual_clock).explain("p:m")).get("slow start")
    assert status is None or (status.used_share, status.available) == (0, status.amount)
