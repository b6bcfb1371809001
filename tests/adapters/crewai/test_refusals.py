"""What is refused, or fails for good, ends a task at once: our retries are the only ones, and tools run once."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import openai
import pytest
from crewai import Agent, Crew, Task
from crewai.hooks.dispatch import HookAborted

from agent_rate_limiter import (
    AcquireTimeout,
    AllTargetsFailed,
    Budget,
    BudgetExceeded,
    ConfigError,
    LimitExceeded,
    MultiProviderLimiter,
    Provider,
    RequestTooLarge,
    RetryStrategy,
    Scope,
)
from agent_rate_limiter.testing import SimulatedProvider
from agent_rate_limiter.testing.simulated import Fault
from agent_rate_limiter_adapters.crewai import RateLimitedLLM
from agent_rate_limiter_adapters.crewai.errors import refusal
from tests.adapters.crewai.crews import (
    CHEAP,
    INPUTS,
    MODEL,
    QUICK,
    agents,
    booked,
    counted,
    crew_of,
    llm_at,
    look_up,
    looked_up,
    outcome,
    roomy,
    rows,
    served,
    taken,
)


def crew_with_fault(provider: SimulatedProvider, fault: Fault | str, *, times: int = 9) -> Crew:
    """A crew whose tool is run, after which the next requests meet the fault."""

    def broken(topic: str) -> str:
        looked_up.append(topic)
        provider.inject(fault, times=times)
        return f"Facts about {topic}."

    researcher, _ = agents(provider)
    researcher.tools = [look_up.model_copy(update={"func": broken})]
    task = Task(name="research", description="Find out", expected_output="Facts", agent=researcher)
    return Crew(name="Press", agents=[researcher], tasks=[task])


LASTING = Fault("rate_limit", retry_after=0.001)


@pytest.mark.parametrize(
    "kickoff", [lambda crew: crew.kickoff(), lambda crew: crew.kickoff_for_each(inputs=[{}])], ids=["one", "each"]
)
def test_a_lasting_429_is_tried_as_often_as_we_say(kickoff: Callable[[Crew], Any], provider: SimulatedProvider) -> None:
    looked_up.clear()
    limiter = roomy()
    error = outcome(lambda: kickoff(limiter.wrap(crew_with_fault(provider, LASTING))))
    assert isinstance(error, AllTargetsFailed)
    assert isinstance(error, HookAborted)
    assert isinstance(error.causes["openai:gpt-4o"], openai.RateLimitError)
    assert served(provider)[0] == 1 + QUICK.max_attempts
    assert booked(limiter)[0] == 1 + QUICK.max_attempts
    assert looked_up == ["cats"]
    assert taken(limiter)[2] == 0


def test_without_us_it_is_tried_27_times_and_the_tool_runs_thrice(
    provider: SimulatedProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What we are here for, measured: three runs of the task, each of nine failures. Else CrewAI has mended it."""
    failures = 3  # of OpenAI's SDK, all that there is in CrewAI 1.15.20
    if find_spec("crewai.llms.retry"):
        monkeypatch.setattr("crewai.llms.retry.get_retry_delay_seconds", lambda **_: 0.0)
        failures = 9
    looked_up.clear()
    error = outcome(crew_with_fault(provider, LASTING, times=failures).kickoff)
    assert isinstance(error, openai.RateLimitError)
    assert served(provider)[0] == 3 * (1 + failures)
    assert looked_up == ["cats"] * 3


@pytest.mark.parametrize(
    ("fault", "attempts", "kind"),
    [
        ("overloaded", QUICK.max_attempts, AllTargetsFailed),
        ("reset", QUICK.max_attempts, AllTargetsFailed),
        ("insufficient_quota", 1, AllTargetsFailed),
    ],
)
def test_other_failures(fault: str, attempts: int, kind: type, provider: SimulatedProvider) -> None:
    looked_up.clear()
    error = outcome(lambda: roomy().wrap(crew_with_fault(provider, fault)).kickoff())
    assert isinstance(error, kind)
    assert served(provider)[0] == 1 + attempts
    assert looked_up == ["cats"]


def test_a_passing_failure_is_no_failure(provider: SimulatedProvider) -> None:
    provider.inject(LASTING, times=2)
    limiter = roomy()
    output: Any = limiter.wrap(crew_of(provider)).kickoff(inputs=INPUTS)
    assert output.raw
    assert served(provider)[0] == booked(limiter)[0] == 3 + 2


def test_a_mistake_of_the_request_stays_what_it_is(provider: SimulatedProvider) -> None:
    limiter = roomy()
    provider.inject(Fault("answer", status=400, body={"error": {"message": "No."}}), times=99)
    with pytest.raises(openai.BadRequestError):
        limiter.wrap(llm_at(provider)).call("Hello")
    assert served(provider)[0] == 1


def test_a_stream_that_broke_off_in_sight_is_not_sent_again(provider: SimulatedProvider) -> None:
    limiter = roomy()
    provider.inject(Fault("reset_stream", after_pieces=2))
    error = outcome(lambda: limiter.wrap(llm_at(provider, stream=True)).call("Hello"))
    assert isinstance(error, AllTargetsFailed)
    assert served(provider)[0] == 1
    assert taken(limiter)[2] == 0


def tight(**limits: Any) -> MultiProviderLimiter:
    options = {"cost_per_1k": 0.01, **limits}
    return MultiProviderLimiter([Provider("openai", {"*": options})], retry=QUICK)


@pytest.mark.parametrize(
    ("limiter", "kind"),
    [
        (lambda: tight(tpm=20), RequestTooLarge),
        (lambda: tight(rps=1, rpm=1), AcquireTimeout),
        (lambda: roomy(budgets=[Budget(0.0001, per="total", scope=Scope(agent="each"))]), BudgetExceeded),
    ],
    ids=["too large", "too late", "budget"],
)
def test_a_refusal_ends_the_task_at_once(
    limiter: Callable[[], MultiProviderLimiter], kind: type[LimitExceeded], provider: SimulatedProvider
) -> None:
    crew = limiter().wrap(crew_of(provider), timeout=0.2)
    error = outcome(lambda: crew.kickoff(inputs=INPUTS))
    assert type(error).__bases__ == (kind, HookAborted)
    assert isinstance(error, LimitExceeded)
    assert str(error) == error.decision.reason
    assert served(provider)[0] <= 1


def test_a_refusal_crosses_processes_whole() -> None:
    decision = tight(tpm=20).explain("openai:gpt-4o", input_tokens=50).decision
    error: Any = refusal(RequestTooLarge(decision))
    again: Any = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is type(error)
    assert (str(again), again.decision, again.source) == (str(error), decision, "agent_rate_limiter")
    assert refusal(error) is error


@pytest.mark.parametrize("timeout", [None, 30])
def test_nobody_waits_longer_than_max_execution_time(timeout: float | None, provider: SimulatedProvider) -> None:
    limiter = tight(limits=["1 request/20 seconds"])
    researcher, _ = agents(provider, max_execution_time=1)
    task = Task(description="Find out", expected_output="Facts", agent=researcher)
    crew = limiter.wrap(Crew(agents=[researcher], tasks=[task]), timeout=timeout)
    began = time.monotonic()
    error = outcome(crew.kickoff)
    assert type(error) is TimeoutError  # as CrewAI has it
    assert isinstance(error.__cause__, AcquireTimeout)
    assert "frees in" in str(error.__cause__)
    assert time.monotonic() - began < 0.9  # it could not have come in time: nobody waited for it
    assert served(provider)[0] == 1


def test_outside_of_an_execution_max_execution_time_begins_with_the_call(provider: SimulatedProvider) -> None:
    researcher, _ = agents(provider, max_execution_time=1)
    llm = RateLimitedLLM(llm_at(provider), roomy())
    assert [llm._terms.patience(researcher) for _ in range(2)] == [1.0, 1.0]


def test_a_policy_of_ones_own(provider: SimulatedProvider) -> None:
    limiter = roomy(retry=RetryStrategy(max_attempts=1))
    provider.inject(LASTING, times=9)
    error = outcome(lambda: limiter.wrap(Agent(role="R", goal="g", backstory="b", llm=llm_at(provider))).kickoff("Hi"))
    assert isinstance(error, AllTargetsFailed)
    assert served(provider)[0] == 1


def test_a_fallback_serves_the_same_step(provider: SimulatedProvider) -> None:
    """The primary fails after the tool was run: the fallback goes on from there."""
    looked_up.clear()
    limiter = roomy()
    crew = crew_with_fault(provider, Fault("rate_limit", dimension="rpd", model=MODEL))
    twin = limiter.wrap(crew, fallback_llms=[llm_at(provider, CHEAP)])
    output: Any = twin.kickoff()
    assert looked_up == ["cats"]
    assert {row["model"]: row["requests"] for row in rows(limiter, "model")} == {MODEL: 2, CHEAP: 1}
    assert booked(limiter) == served(provider)
    assert counted(output) == (2, *booked(limiter)[1:])  # the refused one was no success
    assert all(row["agent"] == "Researcher" for row in rows(limiter))


@pytest.mark.parametrize("options", [{}, {"stream": True}], ids=["whole", "streamed"])
def test_a_fallback_serves_what_the_limits_do_not_admit(options: dict[str, Any], provider: SimulatedProvider) -> None:
    models: Any = {MODEL: {"rpm": 1, "rps": 1}, CHEAP: {"rpm": 100}}
    limiter = MultiProviderLimiter([Provider("openai", models)], retry=QUICK)
    cheap = llm_at(provider, CHEAP)
    llm = RateLimitedLLM(llm_at(provider, stop=["any"], **options), limiter, fallback_llms=[cheap], timeout=0.5)
    assert [bool(llm.call("Hello")) for _ in range(3)] == [True] * 3
    assert all("any" not in llm.call("Say any word") for _ in range(5))
    assert {row["model"]: row["requests"] for row in rows(limiter, "model")} == {MODEL: 1, CHEAP: 7}
    assert cheap.get_token_usage_summary().total_tokens == 0
    assert llm.get_token_usage_summary().total_tokens == sum(served(provider)[1:])
    assert [request.stream for request in provider.requests] == [bool(options)] * 8


def test_when_all_have_failed_each_says_why(provider: SimulatedProvider) -> None:
    looked_up.clear()
    crew = crew_with_fault(provider, LASTING)
    error = outcome(lambda: roomy().wrap(crew, fallback_llms=[llm_at(provider, CHEAP)]).kickoff())
    assert isinstance(error, AllTargetsFailed)
    assert isinstance(error, HookAborted)
    assert list(error.causes) == [f"openai:{MODEL}", f"openai:{CHEAP}"]
    assert served(provider)[0] == 1 + QUICK.max_attempts + 1  # one more, as each target may end by its own last attempt
    assert looked_up == ["cats"]


def test_a_fallback_is_another_target(provider: SimulatedProvider) -> None:
    with pytest.raises(ConfigError, match=r"fallback_llms\[0\] goes to openai:gpt-4o, as one before it"):
        RateLimitedLLM(llm_at(provider), roomy(), fallback_llms=[llm_at(provider)])


def test_a_target_that_is_not_configured_ends_the_task(provider: SimulatedProvider) -> None:
    looked_up.clear()
    limiter = MultiProviderLimiter([Provider("openai", {MODEL: {"rpm": 100}})])
    twin: Any = limiter.wrap(crew_of(provider))
    twin.agents[0].llm.model = "gpt-5"
    error = outcome(lambda: twin.kickoff(inputs=INPUTS))
    assert isinstance(error, ConfigError)
    assert isinstance(error, HookAborted)
    assert served(provider)[0] == 0
