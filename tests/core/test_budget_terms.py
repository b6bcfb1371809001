"""What a budget is: its amount, period, scope, action and name, and what makes no sense."""

from __future__ import annotations

from typing import Any

import pytest

from agent_rate_limiter import (
    EACH,
    Budget,
    ConfigError,
    Estimate,
    Resource,
    Scope,
)
from agent_rate_limiter.checks import check_thresholds
from agent_rate_limiter.testing import ManualClock
from tests.core.spending import PERIODS, left, make_limiter, spend

# ---------------------------------------------------------------- what a budget is


@pytest.mark.parametrize(
    ("budget", "name", "per"),
    [
        (Budget(100), "budget $100.00/day", "day"),
        (Budget(0.005, "week"), "budget $0.005/week", "week"),
        (Budget(5, "total"), "budget $5.00 in total", None),
        (Budget(5, None, scope=Scope(agent=EACH)), "budget $5.00 in total", None),
        (Budget(5, 3_600), "budget $5.00/3600 s", 3_600),
        (Budget(5, name="research"), "research", "day"),
        (Budget(20, rolling=True), "budget $20.00/rolling day", "day"),
        (Budget(20, 3_600, rolling=True), "budget $20.00/rolling 3600 s", 3_600),
    ],
)
def test_a_budget_is_a_limit_on_cost(budget: Budget, name: str, per: object) -> None:
    limit = budget.as_limit()
    assert (limit.name, limit.per, limit.scope, limit.resource) == (name, per, budget.scope, Resource.COST)
    assert limit.strategy == ("sliding_window" if budget.rolling else "fixed_window")


@pytest.mark.parametrize(("action", "enforced"), [("block", True), ("warn", False), ("degrade", False)])
@pytest.mark.parametrize("rolling", [False, True])
def test_only_a_blocking_budget_refuses(action: str, enforced: bool, rolling: bool, manual_clock: ManualClock) -> None:
    budget = Budget(1, action=action, rolling=rolling)
    assert budget.as_limit().enforced is enforced
    limiter = make_limiter(manual_clock, budgets=[budget])
    spend(limiter, 1)
    assert bool(limiter.try_acquire("p:m", Estimate(cost=0.5))) is not enforced


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"limit": 0}, "budget limit is 0: give a finite number above 0."),
        ({"limit": -5}, "budget limit is -5: give a finite number above 0."),
        ({"limit": float("nan")}, "budget limit is nan: give a finite number above 0."),
        ({"limit": True}, "budget limit is True: give a finite number above 0."),
        ({"limit": "5"}, "budget limit is '5': give a finite number above 0."),
        ({"per": "total", "rolling": True}, "budget per is 'total': a rolling budget needs a period, such as 'day'."),
        ({"per": None, "rolling": True}, "budget per is None: a rolling budget needs a period, such as 'day'."),
        ({"rolling": "24h"}, "rolling is '24h': give True or False."),
        ({"per": 0}, "budget per is 0: give a finite number above 0."),
        ({"per": "fortnight"}, f"budget per is 'fortnight': one of {PERIODS}, total, or seconds."),
        ({"action": "stop"}, "action is 'stop': it is one of block, warn, degrade."),
        (
            {"timezone": "Mars/Olympus"},
            "budget timezone is 'Mars/Olympus': give an IANA name such as 'America/Los_Angeles'.",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Budget(**{"limit": 5, **fields})
    assert str(refused.value) == message


SHARE = "give a share above 0 and up to 1, such as 0.8, or several."


@pytest.mark.parametrize("share", [0, -0.1, 1.5, 80, float("nan"), float("inf"), True, "x", "0.8", None, [0.5]])
def test_a_threshold_is_a_share(share: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        check_thresholds((0.5, share))
    assert str(refused.value) == f"alert_threshold is {share!r}: {SHARE}"


@pytest.mark.parametrize("threshold", [0, 1.5, "x", "abc", True, None, {"a": 1}, (0.5, 0)])
def test_a_limiters_threshold_is_a_share_or_several(threshold: Any, manual_clock: ManualClock) -> None:
    wrong = threshold[1] if isinstance(threshold, tuple) else threshold
    with pytest.raises(ConfigError) as refused:
        make_limiter(manual_clock, alert_threshold=threshold)
    assert str(refused.value) == f"alert_threshold is {wrong!r}: {SHARE}"


def test_thresholds_rise() -> None:
    assert [check_thresholds(shares) for shares in ([0.95, 0.5, 0.5], 1, ())] == [(0.5, 0.95), (1,), ()]


@pytest.mark.parametrize(
    "budget", [5, "5", {}, {"limitt": 5}, {"limit": 5, "perr": "day"}, {"limit": 5, "scope": "agent"}]
)
def test_what_is_no_budget_is_a_config_error(budget: Any, manual_clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match="budget"):
        make_limiter(manual_clock, budgets=[budget])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_period": "month"}, "budget_period is 'month': it is budget_limit's; add that, or"),
        ({"timezone": "Nowhere"}, "timezone is 'Nowhere': it is budget_limit's"),
        ({"budgets": Budget(5)}, "budgets is Budget.*: give a list of Budget"),
        ({"budgets": {"limit": 5}}, "budgets is {'limit': 5}: give a list"),
    ],
)
def test_what_would_be_ignored_is_refused(options: Any, message: str, manual_clock: ManualClock) -> None:
    with pytest.raises(ConfigError, match=message):
        make_limiter(manual_clock, **options)


def test_a_budget_may_be_a_mapping_as_in_a_file(manual_clock: ManualClock) -> None:
    budget = {"limit": 5, "per": "week", "scope": {"agent": "each"}, "rolling": True}
    limiter = make_limiter(manual_clock, budgets=[budget])
    spend(limiter, 1, agent="a")
    assert left(limiter) == {"agent=a": 4}
    assert limiter.budgets == (Budget(5, "week", scope=Scope(agent=EACH), rolling=True, thresholds=(0.8,)),)
