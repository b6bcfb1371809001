"""Nothing in the dialects raises, whatever it is given, and what comes out is always sound."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_rate_limiter.providers import Failure, Quota, detect, dialect, read_failure, read_usage
from agent_rate_limiter.providers.shapes import words
from agent_rate_limiter.usage import Usage
from tests.core.providers.refusals.tables import CASES
from tests.core.providers.test_streams import STREAMS
from tests.core.providers.test_usage import CASES as USAGE_CASES

KINDS = sorted({case.kind for case in CASES} | {"generic"})
NOW = st.floats(0, 1e10) | st.just(0.0)

_TELLING = sorted(
    words(
        "error message code type status details metadata headers usage usageMetadata response delta choices "
        "candidates content text source messages input tools model stream stream_options max_tokens n "
        "generationConfig promptTokenCount prompt_tokens completion_tokens input_tokens output_tokens "
        "prompt_tokens_details cached_tokens cost violations quotaId quotaValue retryDelay finish_reason chunk "
        "bytes throttlingException __type raw cacheDetails tokens"
    )
)
_TOLD = sorted(
    words(
        "6m0s 12ms 45.8s -1 0 1e400 nan 2026-11-23T21:27:00Z rate_limit_exceeded insufficient_quota error AUDIO 1h "
        "resource-exhausted ThrottlingException RESOURCE_EXHAUSTED PerDay response.completed message_delta "
        "data:image/png"
    )
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from([*_TOLD, *(str(case.body) for case in CASES)])
    | st.binary(max_size=20)
)
names = st.sampled_from(_TELLING) | st.text(max_size=10)
json_like = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5), max_leaves=25
)
bodies = json_like | st.sampled_from([case.body for case in CASES])

_HEADER_NAMES = sorted(
    {row_name for kind in KINDS for row in dialect(kind).rows for row_name in (row.limit, row.remaining, *row.resets)}
    | {"date", "retry-after", "retry-after-ms", "x-amz-retry-after", "ratelimit", "ratelimit-policy", "ratelimit-limit"}
    | {"ratelimit-remaining", "ratelimit-reset", "x-ratelimit-limit", "x-ratelimit-reset", "x-should-retry"}
    | {"x-amzn-errortype", "x-ratelimit-over-limit"}
)
header_values = (
    st.text(max_size=30)
    | st.sampled_from(
        ["100", "-1", "0", "6m0s", '"a";r=5;t=9', "100;w=60", "limit=1, remaining=0", "1795469280000", '"']
    )
    | st.from_regex(r"[0-9]{1,20}(\.[0-9]+)?(ms|s|m|h)?", fullmatch=True)
)
headers = (
    st.dictionaries(st.sampled_from(_HEADER_NAMES) | st.text(max_size=10), header_values, max_size=8)
    | st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=3)
    | leaves
)


def _sound_seconds(value: float | None) -> bool:
    return value is None or (math.isfinite(value) and value >= 0)


def _check_failure(failure: Failure) -> None:
    assert _sound_seconds(failure.retry_after)
    assert len(failure.message) <= 300
    assert all(amount is None or amount >= 0 for amount in (failure.limit, failure.used, failure.requested))


def _check_usage(usage: Usage | None) -> None:
    if usage is not None:
        assert usage.cached_input_tokens <= usage.input_tokens
        assert usage.cache_write_1h_tokens <= usage.cache_write_tokens <= usage.input_tokens
        assert usage.reasoning_tokens <= usage.output_tokens
        assert usage.cost is None or _sound_seconds(usage.cost)


@given(st.sampled_from(KINDS), st.none() | st.integers(0, 999), headers, bodies, NOW)
def test_failures(kind: str, status: int | None, fields: Any, body: Any, now: float) -> None:
    failure = dialect(kind).failure(status, fields, body, now)
    _check_failure(failure)
    assert failure.status == status


@given(st.sampled_from(KINDS), headers, NOW)
def test_quotas(kind: str, fields: Any, now: float) -> None:
    for quota in dialect(kind).quotas(fields, now):
        assert isinstance(quota, Quota)
        assert quota.limit is None or quota.limit >= 0
        assert (quota.limit, quota.remaining) != (None, None)
        assert _sound_seconds(quota.reset_after)
        assert not isinstance(quota.period, float) or quota.period > 0


@given(st.sampled_from(KINDS), st.text(max_size=60), bodies)
def test_requests(kind: str, path: str, body: Any) -> None:
    speaker = dialect(kind)
    estimate = speaker.estimate(path, body)
    assert estimate.input_tokens >= 0
    assert isinstance(speaker.model(path, body), (str, type(None)))
    assert isinstance(speaker.counted("POST", path), bool)
    assert isinstance(speaker.with_usage(path, body), (dict, type(None)))


@given(bodies | st.sampled_from([case[1] for case in USAGE_CASES]))
def test_usage(response: Any) -> None:
    _check_usage(read_usage(response))
    _check_usage(read_usage({"usage": response}))


events = json_like | st.sampled_from([event for stream in STREAMS.values() for event in stream])


@settings(max_examples=60)
@given(st.sampled_from(KINDS), st.lists(events, max_size=8), headers)
def test_streams(kind: str, stream: list[Any], fields: Any) -> None:
    reader = dialect(kind).reader(fields, 1e9)
    for event in stream:
        seen, done = reader.text_tokens, reader.done
        reader.feed(event)
        assert reader.text_tokens >= seen
        assert reader.done or not done
    _check_usage(reader.usage)
    if reader.failure is not None:
        _check_failure(reader.failure)


@given(st.text(max_size=60))
def test_urls_and_names(text: str) -> None:
    assert isinstance(detect(text), (str, type(None)))
    assert dialect(text).kind in KINDS


class _Odd(Exception):
    """An exception whose every attribute is an accident."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


_Odd.__module__ = "openai"


@given(leaves, leaves, bodies, headers, st.none() | st.sampled_from(KINDS))
def test_exceptions(status: Any, code: Any, body: Any, fields: Any, kind: str | None) -> None:
    error: Any = type("APIError", (Exception,), {"__module__": "openai"})("oops")
    error.status_code, error.code, error.body, error.headers = status, code, body, fields
    failure = read_failure(error, kind, 1e9)
    if failure is not None:
        _check_failure(failure)


def test_an_exception_whose_attributes_raise() -> None:
    assert read_failure(_Odd(), None, 1e9) is None
    assert read_usage(_Odd()) is None


def test_chains_that_never_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert read_failure(first, None, 1e9) is None


@pytest.mark.parametrize("depth", [50, 100_000])
def test_deep_nesting(depth: int) -> None:
    body: Any = "x"
    for _ in range(depth):
        body = {"content": [body]}
    assert dialect("openai").estimate("/v1/chat/completions", {"messages": body}).input_tokens == 1
    assert dialect("openai").estimate("/v1/chat/completions", {"tools": body}).input_tokens >= 0
    assert dialect("openai").failure(500, {}, "[" * depth + "]" * depth, 0).status == 500
    dialect("openai").reader().feed({"delta": body})
    # Taken apart from the outside: the interpreter frees nested containers recursively.
    while isinstance(body, dict):
        body = body["content"][0]


@pytest.mark.parametrize(
    "text", ["a" * 200_000, '"' * 50_000, "1" * 50_000, "retry " * 20_000, "1s " * 30_000, ", " * 50_000]
)
def test_long_rubbish_takes_no_time(text: str) -> None:
    """Patterns that backtrack would take minutes here."""
    speaker = dialect("generic")
    fields = dict.fromkeys(
        ("ratelimit", "ratelimit-policy", "retry-after", "x-ratelimit-reset", "date", "ratelimit-limit"), text
    )
    assert speaker.failure(429, fields, {"message": text}, 0).status == 429
    assert speaker.failure(429, {}, text, 0).status == 429
    assert detect(text) is None
