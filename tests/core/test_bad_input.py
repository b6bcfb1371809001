"""Bad input: each gets a clear error that names the field, the value and the fix."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from agent_rate_limiter import (
    Alert,
    ConfigError,
    Limit,
    MultiProviderLimiter,
    Provider,
    RateLimiter,
    Resource,
    Scope,
    StoreUnavailable,
)
from agent_rate_limiter.limit_text import shorthand

REQUESTS, COST, CONCURRENCY = Resource.REQUESTS, Resource.COST, Resource.CONCURRENCY
PERIODS = "second, minute, hour, day, week, month"
POSITIVE = "give a finite number above 0"
ZONE = "give an IANA name such as 'America/Los_Angeles'"


def refusal(call: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """What a ConfigError says."""
    with pytest.raises(ConfigError) as refused:
        call(*args, **kwargs)
    return str(refused.value)


async def told(alert: Alert) -> None:
    """A callback that nobody would await."""


# ---------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *[
            ((REQUESTS, amount, "day"), f"amount is {amount!r}: {POSITIVE}.")
            for amount in (0, -1, 0.0, -0.5, math.nan, math.inf, -math.inf, True, "5", None, [5])
        ],
        *[
            ((REQUESTS, amount, "day"), f"amount is {amount!r}: give a number of at most 1e15.")
            for amount in (10**16, 10**400, 1e300)
        ],
        ((REQUESTS, 1.5, "day"), "amount is 1.5: requests are counted in whole numbers."),
        (
            ("calls", 1, "day"),
            "resource is 'calls': it is one of requests, input_tokens, output_tokens, tokens, cost, concurrency.",
        ),
        ((REQUESTS, 1, "fortnight"), f"per is 'fortnight': one of {PERIODS}, or seconds."),
        ((REQUESTS, 1, "total"), f"per is 'total': one of {PERIODS}, or seconds."),
        *[((REQUESTS, 1, per), f"per is {per!r}: {POSITIVE}.") for per in (0, -1, math.nan, math.inf, True, [60])],
        ((CONCURRENCY, 1, "day"), "per is 'day': concurrency has no period; remove it."),
        ((REQUESTS, 1, "day", 0), f"burst is 0: {POSITIVE}."),
        ((REQUESTS, 1, "day", math.nan), f"burst is nan: {POSITIVE}."),
        ((REQUESTS, 9, "day", 1.5), "burst is 1.5: requests are counted in whole numbers."),
        ((COST, 9, "day", 1), "burst is 1: only a token bucket has a burst; remove it."),
        (
            (REQUESTS, 1, "day", None, "leaky"),
            "strategy is 'leaky': it is one of token_bucket, sliding_window, fixed_window, concurrency.",
        ),
        (
            (REQUESTS, 1, "day", None, "concurrency"),
            "strategy is 'concurrency': 'concurrency' goes with the resource 'concurrency', and only with it.",
        ),
        (
            (CONCURRENCY, 1, None, None, "fixed_window"),
            "strategy is 'fixed_window': 'concurrency' goes with the resource 'concurrency', and only with it.",
        ),
        ((REQUESTS, 1, None, None, "token_bucket"), "per is None: give seconds or a word such as 'minute'."),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    assert refusal(Limit, *arguments) == message


@pytest.mark.parametrize(
    ("field", "value", "fix"),
    [
        ("name", 5, "give text"),
        ("enforced", False, "only a fixed or a sliding window can count without refusing"),
        ("counts", "maximum", "it is one of actual, max_tokens"),
        ("timezone", "Mars/Olympus", ZONE),
        ("timezone", "", ZONE),
        ("timezone", "../etc/passwd", ZONE),
        ("timezone", None, ZONE),
        ("timezone", 5, ZONE),
    ],
)
def test_options_that_make_no_sense_are_refused(field: str, value: object, fix: str) -> None:
    assert refusal(Limit, REQUESTS, 1, "day", **{field: value}) == f"{field} is {value!r}: {fix}."


@pytest.mark.parametrize("scope", ["agent", {"agent": "each"}, None, 5])
def test_a_scope_is_a_scope(scope: Any) -> None:
    """Or else the first call fails, far from the mistake."""
    with pytest.raises(ConfigError, match=r"^scope is .*: .*Scope\(agent=.each.\)"):
        Limit(REQUESTS, 1, "day", scope=scope)


@pytest.mark.parametrize("dollars", [1e-10, 1e-300])
def test_money_that_rounds_to_nothing_is_refused(dollars: float) -> None:
    with pytest.raises(ConfigError, match=f"^amount is {dollars}: "):
        Limit(COST, dollars, "day")


@pytest.mark.parametrize("per", [1e16, 1e308])
def test_a_period_longer_than_any_calendar_is_refused(per: float) -> None:
    with pytest.raises(ConfigError, match=r"^per is 1e\+\d+: "):
        Limit(REQUESTS, 1, per)


@pytest.mark.parametrize(
    ("name", "amount", "message"),
    [
        ("rpm", 0, f"rpm is 0: {POSITIVE}."),
        ("tpm", "10k", f"tpm is '10k': {POSITIVE}."),
        ("rpd", True, f"rpd is True: {POSITIVE}."),
        ("itpm", 1.5, "itpm is 1.5: give a whole number."),
        ("rpw", 5, "shorthand is 'rpw': it is one of rps, rpm, rpd, tpm, tpd, itpm, otpm, concurrency."),
    ],
)
def test_shorthands_that_make_no_sense_are_refused(name: str, amount: Any, message: str) -> None:
    assert refusal(shorthand, name, amount) == message
    assert refusal(RateLimiter, **{name: amount}) == message


@pytest.mark.parametrize("value", [None, ""])
def test_a_label_without_a_value_is_refused(value: Any) -> None:
    """As in `limiter.scope`: it is a mistake, and not the agent called 'None'."""
    assert refusal(Scope, agent=value).startswith(f"scope label agent is {value!r}: ")


# ---------------------------------------------------------------- limiters


@pytest.mark.parametrize("field", ["lease", "ageing"])
@pytest.mark.parametrize("value", [0, -1, 0.0001, math.nan, math.inf, 1e308, "5", None, True])
def test_spans_of_time(field: str, value: Any) -> None:
    message = f"{field} is {value!r}: give seconds as a finite number above 0."
    assert refusal(RateLimiter, **{field: value}) == message
    assert refusal(MultiProviderLimiter, **{field: value}) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_limit": 0}, f"budget limit is 0: {POSITIVE}."),
        ({"budget_limit": True}, f"budget limit is True: {POSITIVE}."),
        ({"budget_limit": 5, "budget_period": 0}, f"budget per is 0: {POSITIVE}."),
        ({"budget_limit": 5, "timezone": "Mars"}, f"budget timezone is 'Mars': {ZONE}."),
        (
            {"store": "postgres://h"},
            (
                "store is 'postgres://…': it is one of 'memory://' (one process), 'sqlite:///agents.db' (one machine) "
                "or 'redis://host:6379/0' (many machines)."
            ),
        ),
        (
            {"providers": [Provider("p"), Provider("q"), Provider("p")]},
            "providers name 'p' twice: merge their models into one Provider.",
        ),
    ],
)
def test_options_of_a_limiter(options: dict[str, Any], message: str) -> None:
    assert refusal(MultiProviderLimiter, **options) == message


@pytest.mark.parametrize("providers", [Provider("p"), "openai", ["openai"], [None], {"openai": {}}, 5])
def test_providers_are_a_list_of_providers(providers: Any) -> None:
    assert "providers" in refusal(MultiProviderLimiter, providers)


@pytest.mark.parametrize("limits", [5, [5], [None], {"rpm": 5}, [["5 requests/day"]]])
def test_the_limits_of_a_limiter_are_limits_or_texts(limits: Any) -> None:
    assert "limit" in refusal(RateLimiter, limits)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("store", 5),
        ("clock", 5),
        ("on_alert", 5),
        ("on_alert", [told, 5]),
        ("limit_alert_threshold", 2),
        ("retry", 5),
        ("retry", {"budget": 5}),
        ("retry", {"budget": {"x": 5}}),
    ],
)
def test_an_option_of_another_kind(option: str, value: Any) -> None:
    assert refusal(MultiProviderLimiter, **{option: value}).startswith(option)


def test_two_different_limits_of_one_name() -> None:
    """As `Provider` does: no message, and no store, could tell them apart."""
    limit = Limit(REQUESTS, 10, "minute")
    assert "10 requests/minute" in refusal(RateLimiter, [limit, replace(limit, burst=1)])


@pytest.mark.parametrize("scheme", ["postgres", "redis", "rediss", "redis+cluster"])
@pytest.mark.parametrize("uri", ["u:a/hunter2@h", "u:a/hunter2@h:6379", "u:a?hunter2@h", "u:a#hunter2@h"])
def test_a_store_uri_that_a_password_breaks_is_not_repeated(scheme: str, uri: str) -> None:
    assert "hunter2" not in refusal(MultiProviderLimiter, store=f"{scheme}://{uri}")


@pytest.mark.parametrize("uri", ["u:hunter2@{}", ":hunter2@{}/0", "u:a@hunter2@{}", "{}?password=hunter2"])
def test_a_store_uri_with_a_password_is_not_repeated(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    with RateLimiter(store=f"redis://{uri.format('127.0.0.1:9')}") as limiter:
        with pytest.raises(StoreUnavailable) as lost:
            limiter.acquire(timeout=1)
        said = [str(lost.value), repr(limiter), str(limiter.snapshot()), repr(limiter.snapshot()), caplog.text]
    assert "hunter2" not in "".join(said)


def test_what_cannot_be_wrapped() -> None:
    message = refusal(RateLimiter().wrap, 5)
    assert message.startswith("client is a builtins.int: no adapter knows it. Known: ")
    assert message.endswith("Decorate the function that makes the call with @limiter.limit(...) instead.")
