"""The vocabulary of limits: what may be written, what it means, and what is refused."""

from __future__ import annotations

import pickle
from dataclasses import FrozenInstanceError, replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_rate_limiter import EACH, ConfigError, Limit, Priority, RateLimiter, Resource, Scope, Target
from agent_rate_limiter.limit_text import SHORTHANDS, shorthand
from agent_rate_limiter.limits import PERIOD_SECONDS, from_units, to_units
from agent_rate_limiter.testing import ManualClock

REQUESTS, TOKENS, COST, CONCURRENCY = Resource.REQUESTS, Resource.TOKENS, Resource.COST, Resource.CONCURRENCY
WRITE = "write it like '40 requests/week', '1M tokens/day', '$5/day' or '10 concurrent'"
COUNT = "count requests, tokens, input tokens, output tokens, dollars ('$5/day') or concurrent"
PERIODS = "second, minute, hour, day, week, month"
PER = f"the time is one of {PERIODS}, or a number of them ('/30 seconds')"
POSITIVE = "give a finite number above 0"


# ---------------------------------------------------------------- what a limit is


@pytest.mark.parametrize(
    ("limit", "strategy", "name"),
    [
        (Limit(REQUESTS, 500, "minute"), "token_bucket", "500 requests/minute"),
        (Limit(TOKENS, 10_000, 60), "token_bucket", "10,000 tokens/60 s"),
        (Limit(Resource.INPUT_TOKENS, 10, 0.5), "token_bucket", "10 input tokens/0.5 s"),
        (Limit(REQUESTS, 40, "week", strategy="sliding_window"), "sliding_window", "40 requests/week"),
        (Limit(REQUESTS, 40, "month", strategy="fixed_window"), "fixed_window", "40 requests/month"),
        (Limit(TOKENS, 1_000_000), "fixed_window", "1,000,000 tokens in total"),
        (Limit(COST, 100, "day"), "fixed_window", "$100.00/day"),
        (Limit(COST, 0.005), "fixed_window", "$0.005 in total"),
        (Limit(COST, 5, "hour", strategy="token_bucket", burst=0.25), "token_bucket", "$5.00/hour"),
        (Limit(CONCURRENCY, 10), "concurrency", "10 at once"),
        (Limit(REQUESTS, 1, "day", name="the plan"), "token_bucket", "the plan"),
    ],
)
def test_defaults(limit: Limit, strategy: str, name: str) -> None:
    assert (limit.strategy, limit.name, str(limit)) == (strategy, name, name)


def test_a_limit_with_a_scope_says_so() -> None:
    assert str(Limit(REQUESTS, 5, "day", scope=Scope(agent=EACH))) == "5 requests/day (agent=each)"


def test_limits_are_values() -> None:
    limit = Limit("tokens", 5, "day", scope=Scope(agent="a"))  # a word does, too
    assert limit == Limit(TOKENS, 5.0, "day", scope=Scope(agent="a"))
    assert len({limit, pickle.loads(pickle.dumps(limit))}) == 1  # noqa: S301 - our own
    assert replace(limit, timezone="Europe/Vienna").timezone == "Europe/Vienna"
    with pytest.raises(FrozenInstanceError):
        limit.amount = 6  # type: ignore[misc]


@pytest.mark.parametrize(
    ("limit", "period_ms", "units", "burst_units"),
    [
        (Limit(REQUESTS, 3, "second"), 1_000, 3, 3),
        (Limit(REQUESTS, 3, "month", burst=1), 30 * 86_400_000, 3, 1),
        (Limit(REQUESTS, 3, 0.0001), 1, 3, 3),
        (Limit(TOKENS, 3), None, 3, 3),
        (Limit(COST, 0.5, "day"), 86_400_000, 500_000_000, 500_000_000),
        (Limit(COST, 1, 60, 0.1, "token_bucket"), 60_000, 1_000_000_000, 100_000_000),
        (Limit(CONCURRENCY, 2), None, 2, 2),
    ],
)
def test_integers_inside(limit: Limit, period_ms: int | None, units: int, burst_units: int) -> None:
    assert (limit.period_ms, limit.units, limit.burst_units) == (period_ms, units, burst_units)


def test_units_of_money_are_nano_dollars() -> None:
    assert (to_units(COST, 0.25), from_units(COST, 250_000_000)) == (250_000_000, 0.25)
    assert (to_units(TOKENS, 7.0), from_units(TOKENS, 7)) == (7, 7)


@pytest.mark.parametrize(("name", "expected"), SHORTHANDS.items())
def test_shorthands(name: str, expected: tuple[Resource, str | None]) -> None:
    limit = shorthand(name, 50, counts="max_tokens", strategy="sliding_window")
    assert (limit.resource, limit.per, limit.amount, limit.counts) == (*expected, 50, "max_tokens")
    assert limit.strategy == ("concurrency" if name == "concurrency" else "sliding_window")


def test_priorities_are_numbers_and_lower_goes_first() -> None:
    assert [int(level) for level in (Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW)] == [0, 1, 5, 10]


# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("40 requests/week", Limit(REQUESTS, 40, "week")),
        ("1 request per day", Limit(REQUESTS, 1, "day")),
        ("1,000_000 calls / month", Limit(REQUESTS, 1_000_000, "month")),
        ("1M tokens/day", Limit(TOKENS, 1_000_000, "day")),
        ("1.5k tokens/min", Limit(TOKENS, 1_500, "minute")),
        ("2b tokens", Limit(TOKENS, 2_000_000_000)),
        ("2G tokens/hr", Limit(TOKENS, 2_000_000_000, "hour")),
        ("800 input tokens/m", Limit(Resource.INPUT_TOKENS, 800, "minute")),
        ("800 OUTPUT_TOKENS/h", Limit(Resource.OUTPUT_TOKENS, 800, "hour")),
        ("3 requests/s", Limit(REQUESTS, 3, "second")),
        ("3 requests/sec", Limit(REQUESTS, 3, "second")),
        ("3 requests/30 seconds", Limit(REQUESTS, 3, 30.0)),
        ("3 requests per 1.5 hours", Limit(REQUESTS, 3, 5_400.0)),
        ("$5/day", Limit(COST, 5, "day")),
        ("  $ 0.25 / week  ", Limit(COST, 0.25, "week")),
        ("$5", Limit(COST, 5)),
        ("$5 dollars/d", Limit(COST, 5, "day")),
        ("5 usd/month", Limit(COST, 5, "month")),
        ("10 concurrent", Limit(CONCURRENCY, 10)),
        ("10 concurrency", Limit(CONCURRENCY, 10)),
    ],
)
def test_limits_as_text(text: str, limit: Limit) -> None:
    assert Limit.parse(text) == limit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", f"limit is '': {WRITE}."),
        ("lots", f"limit is 'lots': {WRITE}."),
        ("-5 requests/day", f"limit is '-5 requests/day': {WRITE}."),
        ("1e6 tokens/day", f"limit is '1e6 tokens/day': {WRITE}."),
        ("5 requests/", f"limit is '5 requests/': {WRITE}."),
        ("5/day", f"limit is '5/day': {COUNT}."),
        ("5 apples/day", f"limit is '5 apples/day': {COUNT}."),
        ("$5 tokens/day", f"limit is '$5 tokens/day': {COUNT}."),
        ("5 requests/fortnight", f"limit is '5 requests/fortnight': {PER}."),
        ("0 requests/day", f"amount is 0: {POSITIVE}."),
        ("0.5 requests/day", "amount is 0.5: requests are counted in whole numbers."),
        ("5 requests/0 days", f"per is 0.0: {POSITIVE}."),
        ("5 concurrent/day", "per is 'day': concurrency has no period; remove it."),
    ],
)
def test_text_that_is_no_limit(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Limit.parse(text)
    assert str(refused.value) == message


@pytest.mark.parametrize("value", [5, None, 5.0, ["5 requests/day"], b"5 requests/day"])
def test_only_text_is_parsed(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^limit is .*: write it like '40 requests/week'"):
        Limit.parse(value)


WORDS = {REQUESTS: "requests", TOKENS: "tokens", Resource.INPUT_TOKENS: "input tokens", COST: "dollars"}


@given(
    resource=st.sampled_from(list(WORDS)),
    amount=st.integers(1, 10**15),
    per=st.sampled_from([None, *PERIOD_SECONDS]),
    every=st.one_of(st.none(), st.integers(1, 1_000)),
)
def test_text_and_limit_agree(resource: Resource, amount: int, per: str | None, every: int | None) -> None:
    time = "" if per is None else f"/{per}" if every is None else f"/{every} {per}s"
    seconds = per if per is None or every is None else float(every * PERIOD_SECONDS[per])
    assert Limit.parse(f"{amount:,} {WORDS[resource]}{time}") == Limit(resource, amount, seconds)


@given(amount=st.integers(1, 10**15), per=st.sampled_from(list(PERIOD_SECONDS)), dollars=st.integers(1, 10**9))
def test_a_name_reads_back_as_its_limit(amount: int, per: str, dollars: int) -> None:
    for limit in (Limit(TOKENS, amount, per), Limit(REQUESTS, amount, 30), Limit(COST, dollars, per)):
        assert Limit.parse(limit.name) == limit


@pytest.mark.parametrize("limit", [Limit(CONCURRENCY, 10), Limit(TOKENS, 1_000_000)], ids=str)
def test_names_without_a_period_read_back_too(limit: Limit) -> None:
    assert Limit.parse(limit.name) == limit


@given(st.integers(1, 999_999), st.sampled_from([("K", 3), ("M", 6), ("B", 9)]))
def test_decimals_with_a_suffix_are_exact(thousandths: int, suffix: tuple[str, int]) -> None:
    """1.001K, 16.4M: whole numbers of tokens, whatever binary fractions make of them."""
    letter, zeros = suffix
    expected = Decimal(thousandths).scaleb(zeros - 3)
    assert Limit.parse(f"{Decimal(thousandths).scaleb(-3):f}{letter} tokens/day").amount == expected


@given(st.integers(10**12, 10**15))
def test_large_numbers_are_exact(amount: int) -> None:
    assert Limit.parse(f"{amount} tokens/day").units == amount


@given(st.one_of(st.text(), st.from_regex(r"\$?\d[\d_,]{0,20}(\.\d+)? ?[kmbg]? ?\w{0,12} ?(/|per) ?\d{0,9} ?\w{0,9}")))
def test_any_text_is_a_limit_or_a_config_error(text: str) -> None:
    try:
        limit = Limit.parse(text)
    except ConfigError as error:
        assert str(error).endswith(".")  # noqa: PT017 - the other outcome is as good
    else:
        assert limit.units > 0


def test_text_with_too_many_digits_is_a_config_error() -> None:
    with pytest.raises(ConfigError):
        Limit.parse(f"{'9' * 400} requests/day")


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers()), st.sampled_from(Resource)
)


@given(
    st.one_of(st.sampled_from(Resource), ANYTHING),
    ANYTHING,
    st.one_of(st.sampled_from(list(PERIOD_SECONDS)), ANYTHING),
    ANYTHING,
    ANYTHING,
)
@example("cost", 1e300, "day", None, "")
@example("requests", 1, 1e308, None, "")
@example("requests", 10**400, "day", None, "")
def test_any_values_are_a_limit_or_a_config_error(
    resource: Any, amount: Any, per: Any, burst: Any, strategy: Any
) -> None:
    try:
        limit = Limit(resource, amount, per, burst, strategy)
    except ConfigError as error:
        assert " is " in str(error)  # noqa: PT017
    else:
        assert limit.units > 0
        assert limit.burst_units > 0
        assert limit.period_ms is None or limit.period_ms > 0


# ---------------------------------------------------------------- targets and scopes


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("openai:gpt-4", Target("openai", "gpt-4")),
        ("openrouter:meta-llama/llama-3:free", Target("openrouter", "meta-llama/llama-3:free")),
        (Target("a", "b"), Target("a", "b")),
    ],
)
def test_targets(text: str | Target, target: Target) -> None:
    assert Target.parse(text) == target
    assert Target.parse(str(target)) == target


@pytest.mark.parametrize("text", ["gpt-4", ":gpt-4", "openai:", ":", "", None, 5])
def test_what_is_no_target(text: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        Target.parse(text)
    assert str(refused.value) == f"target is {text!r}: write it as 'provider:model', for example 'openai:gpt-4'."


@pytest.mark.parametrize(
    ("scope", "labels", "key"),
    [
        (Scope(), {"agent": "a"}, ""),
        (Scope(agent="a"), {"agent": "a", "run": "1"}, "agent=a"),
        (Scope(agent="a"), {"agent": "b"}, None),
        (Scope(agent="a"), {}, None),
        (Scope(agent=EACH), {"agent": "b"}, "agent=b"),
        (Scope(agent=EACH), {"run": "b"}, None),
        (Scope(run="42", agent=EACH), {"agent": "b", "run": "42"}, "agent=b,run=42"),
        (Scope(run="42", agent=EACH), {"agent": "b", "run": "43"}, None),
    ],
)
def test_scope_keys(scope: Scope, labels: dict[str, str], key: str | None) -> None:
    assert scope.key(labels) == key


def test_scopes_are_values() -> None:
    assert Scope(run=42, agent="a") == Scope(agent="a", run="42")  # type: ignore[arg-type]  # numbers do, too
    assert str(Scope(run="1", agent=EACH)) == "agent=each,run=1"
    assert pickle.loads(pickle.dumps(Scope(agent="a"))) == Scope(agent="a")  # noqa: S301 - our own


LABEL = st.text(st.sampled_from("ab,=/%\\ "), min_size=1, max_size=6)
TWO = st.fixed_dictionaries({"agent": LABEL, "run": LABEL})


@given(TWO, TWO)
@example({"agent": "a", "run": "b,run=c"}, {"agent": "a,run=b", "run": "c"})
def test_callers_with_different_labels_never_share_a_limit_of_each(one: dict[str, str], other: dict[str, str]) -> None:
    scope = Scope(agent=EACH, run=EACH)
    assert (scope.key(one) == scope.key(other)) == (one == other)


@given(st.dictionaries(st.sampled_from("abc"), LABEL), st.dictionaries(st.sampled_from("abc"), LABEL))
def test_a_concrete_scope_is_for_calls_with_all_its_labels(wanted: dict[str, str], labels: dict[str, str]) -> None:
    assert (Scope(**wanted).key(labels) is not None) == (wanted.items() <= labels.items())


def admitted(limiter: RateLimiter, **labels: Any) -> int:
    """How many of three calls pass."""
    with limiter.scope(**labels):
        return sum(map(bool, [limiter.try_acquire() for _ in range(3)]))


@pytest.mark.parametrize(
    ("scope", "callers", "expected"),
    [
        (Scope(agent=EACH), [{"agent": "a"}, {"agent": "a"}, {"agent": "b"}, {}], [2, 0, 2, 3]),
        (Scope(agent="a"), [{"agent": "a"}, {"agent": "b"}, {}], [2, 3, 3]),
        (Scope(agent="a", run=EACH), [{"agent": "a", "run": run} for run in "112"], [2, 0, 2]),
        (Scope(agent="a", run=EACH), [{"agent": "b", "run": "1"}, {"agent": "a"}], [3, 3]),
    ],
    ids=str,
)
def test_whom_a_limit_is_for(scope: Scope, callers: list[dict[str, str]], expected: list[int]) -> None:
    limiter = RateLimiter(Limit(Resource.REQUESTS, 2, "day", scope=scope), clock=ManualClock())
    assert [admitted(limiter, **labels) for labels in callers] == expected
    assert all(status.scope for status in limiter.snapshot().limits)


def test_a_limit_for_each_and_a_like_named_one_for_somebody_both_bind() -> None:
    each = Limit(Resource.REQUESTS, 3, "day", scope=Scope(agent=EACH))
    limiter = RateLimiter([each, replace(each, burst=1, scope=Scope(agent="a"))], clock=ManualClock())
    assert [admitted(limiter, agent="a"), admitted(limiter, agent="b")] == [1, 3]
