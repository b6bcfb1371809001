"""Agents and graphs: real create_agent with tools, LangGraph with branches, budgets that end them."""

from __future__ import annotations

import operator
from typing import Annotated, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRetryMiddleware
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from pydantic import BaseModel
from typing_extensions import TypedDict

from agent_rate_limiter import (
    AllTargetsFailed,
    BudgetExceeded,
    ConfigError,
    MultiProviderLimiter,
    Provider,
    RetryStrategy,
)
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from agent_rate_limiter_adapters.langchain import (
    AgentBudgetExceeded,
    RateLimitCallbackHandler,
    RateLimitMiddleware,
    budget_tool,
    rate_limited,
)
from tests.adapters.langchain.models import MODEL, OBLIGING, accounts, anthropic_at, books, limiter_of, openai_at
from tests.adapters.openai_sdk import until

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestWarning"),  # the module's mark, on tests that are not async
]
BUDGET = 0.0019
"""Enough for one call of up to 100 output tokens, and not for another one."""
QUESTION: Any = {"messages": [HumanMessage("Multiply 3 by 3, please.")]}


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


class Product(BaseModel):
    """A product."""

    number: int


def agent_of(provider: SimulatedProvider, *middleware: Any, model: Any = None, **options: Any) -> Any:
    """An agent that calls its tool once, and then answers: two model calls a run."""
    model = model or openai_at(provider, model=OBLIGING, max_tokens=100)  # so that the most it may cost is known
    return create_agent(model, [multiply], middleware=middleware, **options)


async def run(agent: Any, way: str, config: Any = None) -> AIMessage:
    """Run an agent in one of its ways, and return its last message."""
    if way == "invoke":
        result = agent.invoke(QUESTION, config)
    elif way == "ainvoke":
        result = await agent.ainvoke(QUESTION, config)
    elif way == "stream":
        result = list(agent.stream(QUESTION, config, stream_mode="values"))[-1]
    elif way == "astream messages":
        async for _ in agent.astream(QUESTION, config, stream_mode="messages"):
            pass
        return AIMessage("9")
    else:
        events = [event async for event in agent.astream_events(QUESTION, config, version="v2")]
        result = events[-1]["data"]["output"]
    message: AIMessage = result["messages"][-1]
    return message


ways = pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream messages", "astream_events v2"])


@ways
@pytest.mark.parametrize("layer", ["middleware", "twin", "callback", "all three"])
async def test_each_model_call_of_an_agent_counts_once(provider: SimulatedProvider, layer: str, way: str) -> None:
    limiter = limiter_of()
    model: Any = openai_at(provider, model=OBLIGING, stream_usage=True)
    if layer in {"twin", "all three"}:
        model = rate_limited(model, limiter)
    middleware = [RateLimitMiddleware(limiter)] if layer in {"middleware", "all three"} else []
    config = {"callbacks": [RateLimitCallbackHandler(limiter)]} if layer in {"callback", "all three"} else None
    assert (await run(agent_of(provider, *middleware, model=model), way, config)).text
    await until(lambda: limiter.snapshot().in_flight == 0)
    assert provider.report().received == 2
    assert books(limiter) == accounts(provider)


async def test_an_agents_calls_wait_and_are_tried_again(provider: SimulatedProvider) -> None:
    limiter = limiter_of(concurrency=1)
    provider.inject(Fault("rate_limit", retry_after=0.01), times=2)
    agent = agent_of(provider, RateLimitMiddleware(limiter, agent="counter", priority=1))
    results = [await run(agent, way) for way in ("invoke", "ainvoke")]
    assert all(message.text for message in results)
    assert provider.report().received == 6
    assert books(limiter) == accounts(provider)
    (row,) = limiter.costs.report(by=("agent",)).to_dicts()
    assert row["agent"] == "counter"


# ---------------------------------------------------------------- budgets


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
async def test_a_run_ends_gracefully_at_its_budget(provider: SimulatedProvider, way: str) -> None:
    limiter = limiter_of()
    agent = agent_of(provider, RateLimitMiddleware(limiter, run_budget=BUDGET))
    message = await run(agent, way)
    assert message.text.startswith("I have to stop here, because the budget is used up. openai:obliging-1 is refused")
    assert message.response_metadata["finish_reason"] == "budget_exceeded"
    assert not message.tool_calls
    assert provider.report().received == 1
    assert (await run(agent, way)).text == message.text  # the next run begins with a budget of its own
    assert provider.report().received == 2


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_or_with_an_error_that_nobody_tries_again(provider: SimulatedProvider, way: str) -> None:
    limiter = limiter_of(budget_limit=BUDGET)
    retries = ModelRetryMiddleware(max_retries=3, initial_delay=0, jitter=False)
    agent = agent_of(provider, retries, RateLimitMiddleware(limiter, on_budget="error"))
    with pytest.raises(AgentBudgetExceeded, match=r"budget \$0.0019/day") as refused:
        await run(agent, way)
    assert isinstance(refused.value, BudgetExceeded)
    assert refused.value.decision.limit is not None
    assert provider.report().received == 1
    assert limiter.snapshot().in_flight == 0


async def test_a_message_of_ones_own(provider: SimulatedProvider) -> None:
    for message in ("Enough.", lambda error: f"Enough: {error.decision.limit.name}"):
        agent = agent_of(provider, RateLimitMiddleware(limiter_of(), run_budget=BUDGET, message=message))
        assert (await run(agent, "ainvoke")).text.startswith("Enough")


async def test_a_thread_has_one_budget_over_all_of_its_runs(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    middleware = RateLimitMiddleware(limiter, thread_budget=0.004)
    agent = agent_of(provider, middleware, checkpointer=InMemorySaver())

    async def stopped(thread: str) -> bool:
        message = await run(agent, "ainvoke", {"configurable": {"thread_id": thread}})
        return message.response_metadata.get("finish_reason") == "budget_exceeded"

    ends = [await stopped("one") for _ in range(6)]
    assert ends[0] is False
    assert ends[-1] is True
    assert await stopped("two") is False
    assert provider.report().dollars <= 2 * 0.004


async def test_what_its_tools_call_counts_towards_its_budget(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    inner = rate_limited(openai_at(provider, max_tokens=50), limiter)
    refused: list[str] = []

    @tool
    def ask(text: str) -> str:
        """Ask another model."""
        try:
            return inner.invoke(text).text + inner.invoke(text).text + inner.invoke(text).text
        except BudgetExceeded as error:
            refused.append(str(error))
            return "no money"

    agent = create_agent(
        openai_at(provider, model=OBLIGING, max_tokens=100),
        [ask],
        middleware=[RateLimitMiddleware(limiter, run_budget=0.002)],
    )
    message = await run(agent, "ainvoke")
    assert len(refused) == 1
    assert "scope budget" in refused[0]
    assert message.text
    assert provider.report().dollars <= 0.002


async def test_structured_output_ends_at_the_budget_too(provider: SimulatedProvider) -> None:
    agent = create_agent(
        openai_at(provider, model=OBLIGING),
        [],
        middleware=[RateLimitMiddleware(limiter_of(), run_budget=1e-9)],
        response_format=Product,
    )
    result = await agent.ainvoke(QUESTION)
    assert result["messages"][-1].response_metadata["finish_reason"] == "budget_exceeded"
    assert provider.report().received == 0


async def test_another_model_takes_over(provider: SimulatedProvider) -> None:
    limiter = MultiProviderLimiter(
        [Provider(name, {OBLIGING: {"rpm": 100}}) for name in ("openai", "anthropic")],
        retry=RetryStrategy(max_attempts=1),
    )
    provider.inject(Fault("server_error", api="chat"), times=9)
    middleware = RateLimitMiddleware(limiter, fallbacks=[anthropic_at(provider, model=OBLIGING)])
    message = await run(agent_of(provider, middleware), "ainvoke")
    assert message.text
    assert sum(record.api == "messages" for record in provider.requests) == 2


@pytest.mark.parametrize(("budget", "trouble"), [(1e-9, None), (None, "server_error")])
async def test_when_no_model_can_serve_it(
    provider: SimulatedProvider, budget: float | None, trouble: str | None
) -> None:
    """All out of budget is an end; anything else is an error."""
    limiter = limiter_of(attempts=1)
    if trouble:
        provider.inject(Fault(trouble), times=9)
    fallback = anthropic_at(provider, model=OBLIGING)
    agent = agent_of(provider, RateLimitMiddleware(limiter, run_budget=budget, fallbacks=[fallback]))
    if trouble is None:
        assert (await run(agent, "ainvoke")).response_metadata["finish_reason"] == "budget_exceeded"
        return
    with pytest.raises(AllTargetsFailed):
        await run(agent, "ainvoke")


async def test_a_model_that_is_used_again_has_one_twin(provider: SimulatedProvider) -> None:
    middleware = RateLimitMiddleware(limiter_of())
    models = [openai_at(provider) for _ in range(40)]
    twins = [middleware._limited(model) for model in models]
    assert middleware._limited(models[-1]) is twins[-1]
    assert middleware._limited(models[0]) is not twins[0]  # not kept for ever


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_budget": "stop"}, "on_budget is 'stop': it is one of end, error"),
        ({"run_budget": -1}, "budget is -1"),
        ({"thread_budget": "x"}, "budget is 'x'"),
        ({"priority": -3}, "priority is -3"),
        ({"model": "x"}, "scope label model is 'x'"),
        ({"target": "openai:nobody"}, "target is 'openai:nobody'"),
    ],
)
def test_middleware_that_makes_no_sense(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RateLimitMiddleware(limiter_of(), **options)


# ---------------------------------------------------------------- an agent that plans


async def test_an_agent_can_look_up_its_budget(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    agent = create_agent(
        openai_at(provider, model=OBLIGING),
        [budget_tool(limiter, f"openai:{OBLIGING}")],
        middleware=[RateLimitMiddleware(limiter, run_budget=2.00)],
    )
    result = await agent.ainvoke(QUESTION)
    (told,) = [message for message in result["messages"] if isinstance(message, ToolMessage)]
    assert '"budget": "scope budget $2.00"' in told.text
    assert '"wait": 0' in told.text


def test_the_tool_by_itself() -> None:
    limiter = limiter_of(budget_limit=10)
    lookup = budget_tool(limiter, f"openai:{MODEL}", name="money")
    told = lookup.invoke({"input_tokens": 1_000, "max_output_tokens": 100})
    assert (lookup.name, told["budget_left"], told["wait"]) == ("money", 10, 0)
    assert lookup.invoke({"input_tokens": -5})["wait"] == 0
    with pytest.raises(ConfigError, match="target is ''"):
        budget_tool(limiter)


# ---------------------------------------------------------------- a graph


class State(TypedDict):
    said: Annotated[list[str], operator.add]


@pytest.mark.parametrize("layer", ["twin", "callback", "both"])
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "astream"])
async def test_a_graph_with_parallel_branches(provider: SimulatedProvider, layer: str, way: str) -> None:
    limiter = limiter_of(concurrency=2)
    model = openai_at(provider, stream_usage=True)
    spoken = rate_limited(model, limiter) if layer != "callback" else model
    config: Any = {"callbacks": [RateLimitCallbackHandler(limiter)]} if layer != "twin" else {}

    def think(_: State) -> State:
        return {"said": [spoken.invoke("think").text]}

    async def athink(_: State) -> State:
        return {"said": [(await spoken.ainvoke("think")).text]}

    graph: Any = StateGraph(State)
    for name in "abcd":
        graph.add_node(name, think if way == "invoke" else athink)
        graph.add_edge(START, name)
        graph.add_edge(name, END)
    compiled = graph.compile()
    begin: State = {"said": []}
    if way == "invoke":
        said = compiled.invoke(begin, config)["said"]
    elif way == "ainvoke":
        said = (await compiled.ainvoke(begin, config))["said"]
    else:
        said = [part async for part in compiled.astream(begin, config)]
    assert len(said) == 4
    assert provider.report().received == 4
    assert books(limiter) == accounts(provider)
