"""Somebody is told in time: of thresholds, paces, exhaustion and recovery, once each, and off the calls' way."""

from __future__ import annotations

import pytest

from agent_rate_limiter import (
    EACH,
    Alert,
    Budget,
    BudgetExceeded,
    Estimate,
    Reservation,
    Scope,
    Usage,
)
from agent_rate_limiter.testing import ManualClock
from tests.core.telling import DAY, HOUR, NOON, Told, an_alert

# ---------------------------------------------------------------- what it says


def test_an_alert_says_what_whose_and_how_much(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    told = Told(manual_clock, budgets=[Budget(100, scope=Scope(agent=EACH))])
    (alert,) = told.spend(85, agent="a")
    now = manual_clock.now() / 1000
    assert alert == Alert(
        "threshold", "budget", "budget $100.00/day", "agent=a", "cost", 0.8, 85, 100, now, resets_at=now + DAY
    )
    assert str(alert) == "budget $100.00/day (agent=a): $85.00 of $100.00 is used, past 80%."
    assert [message for message in caplog.messages if "$100.00" in message] == [str(alert)]
    assert alert.to_dict()["text"] == str(alert)
    assert alert.to_dict()["resets_at"] == now + DAY


@pytest.mark.parametrize(
    ("alert", "sentence"),
    [
        (an_alert("threshold"), "b: $0.12 of $2.00 is used, past 50%."),
        (an_alert("threshold", amount=0.5), "b: $0.125 of $0.50 is used, past 50%."),
        (an_alert("threshold", owner="scope-1f"), "b: $0.12 of $2.00 is used, past 50%."),
        (
            an_alert("pace", gone_at=NOON + 3 * HOUR + 40 * 60),
            "b: $0.12 of $2.00 is used; at this pace it is gone at 15:40 UTC. It starts anew at 2026-01-02 00:00 UTC.",
        ),
        (
            an_alert("pace", gone_at=NOON + 3 * HOUR, timezone="America/New_York"),
            "b: $0.12 of $2.00 is used; at this pace it is gone at 10:00 EST. It starts anew at 19:00 EST.",
        ),
        (
            an_alert("exhausted", used=2),
            "b: $2.00 of $2.00 is used: it is exhausted. It starts anew at 2026-01-02 00:00 UTC.",
        ),
        (an_alert("exhausted", used=2, resets_at=None), "b: $2.00 of $2.00 is used: it is exhausted."),
        (an_alert("recovered", used=0), "b: $0.00 of $2.00 is used: it has room again."),
        (
            an_alert("threshold", owner="p:m", resource="tokens", used=1, threshold=0.5),
            "p:m: b: 1 of 2 tokens are used, past 50%.",
        ),
    ],
)
def test_an_alert_is_a_sentence(alert: Alert, sentence: str) -> None:
    assert str(alert) == sentence


# ---------------------------------------------------------------- thresholds


def test_once_per_threshold_and_window(manual_clock: ManualClock) -> None:
    told = Told(manual_clock, budget_limit=1, alert_threshold=(0.5, 0.8, 1))
    assert told.shares(0.4) == []
    assert told.shares(0.1) == [0.5]
    assert told.shares(0.1, 0.1) == []
    assert told.shares(0.1) == [0.8]
    assert told.shares(0.2) == [1]
    manual_clock.advance(DAY)
    assert told.kinds(0.4) == ["recovered"]
    assert told.shares(0.1) == [0.5]
    manual_clock.advance(DAY)
    assert told.shares(0.9) == [0.8]  # the highest that was passed
    assert told.shares(0.0) == []


def test_a_new_window_tells_anew_even_if_it_begins_with_a_dear_call(manual_clock: ManualClock) -> None:
    told = Told(manual_clock, budget_limit=1, alert_threshold=(0.5, 0.8))
    assert told.shares(0.9) == [0.8]
    manual_clock.advance(DAY)
    assert told.shares(0.6) == [0.5]
    assert told.shares(0.3) == [0.8]


def test_only_what_is_spent_counts_not_what_calls_in_flight_hold(manual_clock: ManualClock) -> None:
    for rolling in (False, True):
        told = Told(manual_clock, budgets=[Budget(1, rolling=rolling)])
        held = told.limiter.acquire("p:m", Estimate(cost=0.8))
        assert told.shares(0.1) == []
        held.settle(Usage(cost=0.7))
        assert told.shares() == [0.8]


def test_each_agents_budget_tells_for_itself(manual_clock: ManualClock) -> None:
    told = Told(manual_clock, budgets=[Budget(1, scope=Scope(agent=EACH))])
    assert [told.shares(0.9, agent=agent) for agent in ("a", "b", "a")] == [[0.8], [0.8], [1.0]]


def test_thresholds_of_a_budget_are_its_own(manual_clock: ManualClock) -> None:
    budgets = [Budget(1, thresholds=(0.5,)), Budget(1, scope=Scope(agent=EACH), thresholds=(0.9,))]
    told = Told(manual_clock, alert_threshold=0.3, budgets=[*budgets, Budget(10)])
    assert told.shares(0.6, agent="a") == [0.5]
    assert told.shares(0.35, agent="a") == [0.9]
    assert [budget.thresholds for budget in told.limiter.budgets] == [(0.5,), (0.9,), (0.3,)]
    told = Told(manual_clock, alert_threshold=0.3, budgets=[Budget(1, thresholds=(0.8,)), Budget(2, thresholds=())])
    assert [budget.thresholds for budget in told.limiter.budgets] == [(0.8,), ()]
    assert told.shares(1.9) == [1.0]  # of the first; of the second nobody wants to hear


def test_a_budget_that_only_warns_warns(manual_clock: ManualClock) -> None:
    for action in ("warn", "degrade"):
        told = Told(manual_clock, budgets=[Budget(1, action=action)])
        assert told.kinds(0.9) == ["threshold"]
        assert told.kinds(5) == ["exhausted"]
        assert told.kinds(5) == []
        assert isinstance(told.limiter.acquire("p:m", Estimate(cost=5)), Reservation)  # and refuses nobody


def test_a_scopes_budget_tells(manual_clock: ManualClock) -> None:
    told = Told(manual_clock)
    with told.limiter.scope(run="42", budget=2):
        (alert,) = told.spend(1.7)
    assert str(alert) == "scope budget $2.00 (run=42): $1.70 of $2.00 is used, past 80%."
    assert alert.resets_at is None
    with told.limiter.scope(run="43", budget=2):  # another's, though it is written alike
        assert told.shares(1.7) == [0.8]


# ---------------------------------------------------------------- exhaustion, recovery, pace


def test_a_budget_whose_rest_is_too_small_for_a_call_is_exhausted(manual_clock: ManualClock) -> None:
    told = Told(manual_clock, budget_limit=1, alert_threshold=())
    alerting = Told(manual_clock, budget_limit=1)
    for each in (told, alerting):
        each.spend(0.92)
        for _ in range(2):
            with pytest.raises(BudgetExceeded):
                each.limiter.acquire("p:m", Estimate(cost=0.5))
            assert not each.limiter.try_acquire("p:m", Estimate(cost=0.5))
    assert told.news() == []
    assert [alert.kind for alert in alerting.news()] == ["exhausted"]
    manual_clock.advance(DAY)
    assert alerting.kinds(0.1) == ["recovered"]
    assert alerting.kinds(0.1) == []


def test_a_refusal_far_from_the_wall_is_no_exhaustion(manual_clock: ManualClock) -> None:
    told = Told(manual_clock, budget_limit=1)
    told.spend(0.6)
    assert not told.limiter.try_acquire("p:m", Estimate(cost=0.5))
    held = told.limiter.acquire("p:m", Estimate(cost=0.4))
    assert not told.limiter.try_acquire("p:m", Estimate(cost=0.4))  # may still fit, once that has ended
    held.cancel()
    assert not told.limiter.try_acquire("p:m", Estimate(cost=2))  # never fits
    assert told.news() == []


def test_a_rolling_budget_recovers_as_its_spend_grows_old(manual_clock: ManualClock) -> None:
    told = Told(manual_clock, budgets=[Budget(1, rolling=True, thresholds=(0.5,))])
    assert told.kinds(0.95, 0.05) == ["threshold", "exhausted"]
    manual_clock.advance(25 * HOUR)
    assert told.kinds(0.1) == ["recovered"]


@pytest.mark.parametrize(
    ("each_hour", "told_after"),
    [(0.04, None), (0.05, 2), (0.1, 1), (0.3, 1)],  # 24 x 4 cents last the day, 24 x 5 cents do not
)
def test_a_pace_that_does_not_last_is_told_of_once(each_hour: float, told_after: int | None) -> None:
    clock = ManualClock()
    told = Told(clock, budget_limit=1, alert_threshold=(1.0,))
    heard = []
    for hour in range(1, 6):
        clock.advance(HOUR)
        heard += [(hour, alert) for alert in told.spend(each_hour) if alert.kind == "pace"]
    assert [hour for hour, _ in heard] == ([] if told_after is None else [told_after])
    for hour, alert in heard:
        assert alert.gone_at == pytest.approx(clock.now() / 1000 - 5 * HOUR + 1 / each_hour * HOUR, abs=1)
        assert "at this pace it is gone at" in str(alert)
        assert hour == told_after
    clock.advance(DAY - 4 * HOUR)
    assert ("pace" in told.kinds(2 * each_hour)) is (each_hour >= 0.05)  # a day later anew


def test_a_burst_is_no_pace_and_a_minute_has_none(manual_clock: ManualClock) -> None:
    told = Told(manual_clock, budget_limit=1)
    for _ in range(5):
        manual_clock.advance(600)
        assert told.kinds(0.1) == []
    minutes = Told(manual_clock, budgets=[Budget(1, "minute")])
    manual_clock.advance(30)
    assert minutes.kinds(0.7) == []


def test_a_busy_hour_of_a_quiet_day_is_no_pace_yet(manual_clock: ManualClock) -> None:
    told = Told(manual_clock, budget_limit=1, alert_threshold=(1.0,))
    for hour in range(1, 16):
        manual_clock.advance(HOUR)
        heard = told.kinds(0.01 if hour <= 12 else 0.2)
        assert heard == (["pace"] if hour == 15 else []), hour  # 72 cents by 15:00 would be 115 by midnight


@pytest.mark.parametrize("timeout", [None, 0, 5])
def test_a_target_that_is_only_looked_at_raises_no_alert(manual_clock: ManualClock, timeout: float | None) -> None:
    """It does not fit what is left of the budget, but its fallback does: nothing is used up, as far as calls go."""
    told = Told(manual_clock, budget_limit=10, fallbacks={"p:m": ["p:cheap"]}, cheap={"cost_per_1k": 0.001})
    limiter = told.limiter
    assert told.kinds(9.3) == ["threshold"]
    with limiter.reserve("p:m", max_output_tokens=1_000, timeout=timeout) as call:
        assert call.model == "cheap"
    looked = limiter.try_acquire("p:m", max_output_tokens=1_000)
    assert isinstance(looked, Reservation)
    looked.cancel()
    assert not told.news()
    assert told.kinds(0.69) == []
    if timeout is None:
        assert not limiter.try_acquire("p:m", max_output_tokens=20_000)
    else:
        with pytest.raises(BudgetExceeded):
            limiter.acquire("p:m", max_output_tokens=20_000, timeout=timeout)
    assert [alert.kind for alert in told.news()] == ["exhausted"]  # nowhere to go
