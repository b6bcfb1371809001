"""What is learned of the sizes of calls, and what is reserved because of it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_rate_limiter import Budget, Estimate, Limit, MultiProviderLimiter, Provider, RateLimiter, Usage
from agent_rate_limiter.learning.tallies import Counted, Sizes
from agent_rate_limiter.stores.memory import MemoryStore
from agent_rate_limiter.testing import ManualClock

MANY = 10**9
GPT = "openai:gpt-4"
ASKED = Estimate(input_tokens=10, max_output_tokens=1_000)


def limiter_of(clock: ManualClock, **options: object) -> MultiProviderLimiter:
    model = {"itpm": MANY, "otpm": MANY, "input_per_1m": 1, "output_per_1m": 1_000}
    return MultiProviderLimiter([Provider("openai", {"gpt-4": model})], clock=clock, **options)  # type: ignore[arg-type]


def use(limiter: MultiProviderLimiter, *outputs: int, estimate: Estimate = ASKED, counted: int = 10) -> None:
    for tokens in outputs:
        limiter.acquire(GPT, estimate).settle(Usage(1, counted, tokens))


def reserved(limiter: MultiProviderLimiter, estimate: Estimate, resource: str = "output_tokens") -> int:
    """What a call takes from the limit of that resource."""

    def left() -> float:
        return sum(limit.available for limit in limiter.snapshot().limits if limit.resource == resource)

    before = left()
    call = limiter.acquire(GPT, estimate)
    taken = before - left()
    call.cancel()
    return round(taken)


# ---------------------------------------------------------------- output


def test_the_most_is_reserved_until_eight_calls_have_told_better(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    use(limiter, *[100] * 7)
    assert reserved(limiter, ASKED) == 1_000
    use(limiter, 100)
    assert 100 <= reserved(limiter, ASKED) <= 112


def test_it_is_a_high_quantile_and_never_above_max_tokens(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    use(limiter, *[100] * 85, *[400] * 15)
    assert 400 <= reserved(limiter, ASKED) <= 450
    assert reserved(limiter, Estimate(max_output_tokens=50)) == 50


def test_what_a_user_states_is_never_overruled(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    use(limiter, *[100] * 20)
    assert reserved(limiter, Estimate(output_tokens=700, max_output_tokens=1_000)) == 700
    assert reserved(limiter, Estimate(output_tokens=3)) == 3
    assert reserved(limiter, Estimate()) == 0


def test_agents_have_habits_of_their_own_and_new_ones_begin_with_the_models(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    for agent, tokens in (("short", 20), ("long", 800)):
        with limiter.scope(agent=agent):
            use(limiter, *[tokens] * 10)
    taken = {}
    for agent in ("short", "long", "new"):
        with limiter.scope(agent=agent):
            taken[agent] = reserved(limiter, ASKED)
    assert 20 <= taken["short"] <= 23
    assert 800 <= taken["long"] <= 900
    assert taken["new"] == taken["long"]  # nine of ten calls of the model need no more


def test_habits_change(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    use(limiter, *[900] * 100)
    use(limiter, *[50] * 30_000)  # one in 24 of them is looked at
    assert 50 <= reserved(limiter, ASKED) <= 56


def test_limits_that_count_max_tokens_and_budgets_reserve_the_worst(manual_clock: ManualClock) -> None:
    model = {"otpm": MANY, "counts": "max_tokens", "input_per_1m": 0, "output_per_1m": 1_000}
    limiter = MultiProviderLimiter(
        [Provider("azure", {"gpt-4": model}), Provider("openai", {"gpt-4": model})],
        budgets=[Budget(1_000)],
        clock=manual_clock,
    )
    use(limiter, *[100] * 20)
    before = limiter.snapshot()
    call = limiter.acquire(GPT, ASKED)
    after = limiter.snapshot()
    taken = {b.resource: a.available - b.available for a, b in zip(before.limits, after.limits, strict=True)}
    call.cancel()
    assert taken == {"output_tokens": 1_000, "cost": pytest.approx(1.0)}


def test_a_call_that_ends_without_a_word_is_charged_what_was_reserved(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    use(limiter, *[100] * 8)
    with limiter.reserve(GPT, ASKED) as call:
        pass
    assert call.usage is not None
    assert 100 <= call.usage.output_tokens <= 112
    assert not call.usage.exact
    (estimate,) = limiter.snapshot().estimates
    assert estimate.calls == 8  # a guess teaches nothing


# ---------------------------------------------------------------- input


def test_guessed_input_is_corrected_by_what_the_model_counts(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    guess = Estimate(input_tokens=1_000, exact=False)
    use(limiter, *[10] * 7, estimate=guess, counted=1_300)
    assert reserved(limiter, guess, "input_tokens") == 1_000
    use(limiter, 10, estimate=guess, counted=1_300)
    assert reserved(limiter, guess, "input_tokens") == 1_300
    assert reserved(limiter, Estimate(input_tokens=1_000), "input_tokens") == 1_000  # counted by the caller
    assert reserved(limiter, guess) == 10  # nobody has stated a maximum: then what is usual


def test_a_ratio_beyond_reason_is_bounded() -> None:
    counted = Counted()
    for _ in range(20):
        counted.add(10, 100_000)
        counted.add(0, 50)
    assert (counted.ratio, counted.corrected(10)) == (5.0, 50)


@given(st.floats(0.5, 2), st.lists(st.integers(50, 5_000), min_size=40, max_size=80))
def test_the_ratio_is_found_whatever_the_sizes(ratio: float, sizes: list[int]) -> None:
    counted = Counted()
    for size in sizes:
        counted.add(size, round(size * ratio))
    assert counted.ratio == pytest.approx(ratio, rel=0.03)


# ---------------------------------------------------------------- sizes


@given(st.lists(st.integers(1, 2_000_000), min_size=1, max_size=300), st.floats(0.01, 1))
def test_quantiles_are_an_eighth_off_at_most(sizes: list[int], share: float) -> None:
    seen = Sizes()
    for size in sizes:
        seen.add(size)
    exact = sorted(sizes)[math.ceil(share * len(sizes) - 1e-9) - 1]
    assert exact <= seen.quantile(share) <= exact * 1.125 + 1


@given(st.lists(st.integers(0, 10**15), max_size=2_000))
def test_memory_is_bounded(sizes: list[int]) -> None:
    seen = Sizes()
    for size in sizes:
        seen.add(size)
    assert seen.total <= 400
    assert len(seen.counts) <= 400


def test_only_so_many_callers_are_kept(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    for number in range(700):
        with limiter.scope(agent=f"agent {number}"):
            use(limiter, 100)
    estimates = limiter.snapshot().estimates
    assert len(estimates) == 512
    assert [estimates[0].agent, estimates[1].agent] == ["", "agent 189"]


# ---------------------------------------------------------------- remembered


def test_what_was_learned_outlives_the_limiter(manual_clock: ManualClock) -> None:
    store = MemoryStore()
    with limiter_of(manual_clock, store=store) as first:
        use(first, *[100] * 10, estimate=Estimate(input_tokens=10, exact=False), counted=14)
        with first.scope(agent="long"):
            use(first, *[600] * 10)
    second = limiter_of(manual_clock, store=store)
    guess = Estimate(input_tokens=1_000, max_output_tokens=1_000, exact=False)
    assert reserved(second, guess, "input_tokens") == 1_400
    with second.scope(agent="long"):
        assert 600 <= reserved(second, ASKED) <= 675
    assert [(it.agent, it.calls) for it in second.snapshot().estimates] == [("", 20), ("long", 10)]


def test_it_is_saved_once_a_minute_at_most(manual_clock: ManualClock) -> None:
    saved: list[str] = []

    class Watched(MemoryStore):
        def remember(self, key: str, text: str) -> None:
            saved.append(key)
            super().remember(key, text)

    limiter = limiter_of(manual_clock, store=Watched())
    use(limiter, *[100] * 50)
    assert not saved
    manual_clock.advance(61)
    use(limiter, *[100] * 50)
    assert saved == ["learned|openai:gpt-4"]
    limiter.close()
    assert saved == ["learned|openai:gpt-4"] * 2


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', '[{"agent": 1}]', "null"])
def test_what_cannot_be_read_is_forgotten(
    manual_clock: ManualClock, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = MemoryStore()
    store.remember("learned|openai:gpt-4", text)
    limiter = limiter_of(manual_clock, store=store)
    use(limiter, 100)
    assert [it.calls for it in limiter.snapshot().estimates] == [1]
    assert ("cannot be recalled" in caplog.text) is (text != "[]")


def test_a_store_that_fails_breaks_no_call(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(MemoryStore):
        def recall(self, key: str) -> str | None:
            raise OSError(key)

        def remember(self, key: str, text: str) -> None:
            raise OSError(key, text)

    with limiter_of(manual_clock, store=Broken()) as limiter:
        use(limiter, *[100] * 10)
    assert "cannot be recalled" in caplog.text
    assert "cannot be saved" in caplog.text


# ---------------------------------------------------------------- seen


def test_the_error_of_the_estimates_is_shown(manual_clock: ManualClock) -> None:
    limiter = limiter_of(manual_clock)
    guess = Estimate(input_tokens=100, max_output_tokens=1_000, exact=False)
    use(limiter, *[100, 200] * 20, estimate=guess, counted=150)
    (status,) = limiter.snapshot().estimates
    assert (status.target, status.agent, status.calls) == (GPT, "", 40)
    assert status.input_ratio == pytest.approx(1.5)
    assert 0 <= status.input_error <= 0.1  # the first eight were off by a third
    assert status.output_tokens is not None
    assert 200 <= status.output_tokens <= 225
    assert status.output_within == 1
    assert 0.5 <= status.output_error <= 0.6  # 207 for 100 and for 200
    line = str(limiter.snapshot()).splitlines()[-1].strip()
    assert line.startswith(f"{GPT}: 40 calls, input 1.50 x guessed ±")
    assert line.endswith(f"output {status.output_tokens} (100% fit)")
    assert limiter.snapshot().to_dict()["estimates"][0]["calls"] == 40


def test_a_single_limit_learns_too(manual_clock: ManualClock) -> None:
    limiter = RateLimiter(Limit.parse("1M output tokens/minute"), clock=manual_clock)
    for _ in range(8):
        limiter.acquire(max_output_tokens=1_000).settle(Usage(1, 5, 50))
    limiter.acquire(max_output_tokens=1_000)
    (limit,) = limiter.snapshot().limits
    assert 1_000_000 - limit.available <= 8 * 50 + 55
