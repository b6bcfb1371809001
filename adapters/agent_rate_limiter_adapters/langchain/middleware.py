"""Limits and budgets for agents: `create_agent(..., middleware=[RateLimitMiddleware(limiter)])`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import uuid4

from langchain.agents.middleware import AgentMiddleware, AgentState
from langchain.agents.middleware.types import PrivateStateAttr
from langchain_core.exceptions import ModelError
from langchain_core.messages import AIMessage
from langgraph.channels.untracked_value import UntrackedValue
from typing_extensions import NotRequired  # noqa: TC002 - LangGraph reads the annotations

from agent_rate_limiter import AllTargetsFailed, BudgetExceeded, ConfigError, LimitExceeded, ScopeBudget
from agent_rate_limiter.sending import check_terms
from agent_rate_limiter_adapters.langchain.chat import is_limited_by, rate_limited
from agent_rate_limiter_adapters.langchain.fallback import FallbackChatModel
from agent_rate_limiter_adapters.langchain.targets import Targets

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from agent_rate_limiter import Target
    from agent_rate_limiter_adapters.http.targets import AnyLimiter

ENDINGS = ("end", "error")
_THREADS = 10_000
"""Threads whose budgets are remembered in this process; a durable store remembers all."""
_MODELS = 32
K = TypeVar("K")
V = TypeVar("V")


class AgentBudgetExceeded(ModelError, BudgetExceeded):
    """An agent's budget is used up. LangChain's own retry middleware passes it on: another try would not help."""

    is_retryable = False


class RateLimitState(AgentState[Any]):
    """What the middleware keeps in an agent's state."""

    rate_limit_run: NotRequired[Annotated[ScopeBudget, UntrackedValue, PrivateStateAttr]]
    rate_limit_thread: NotRequired[Annotated[str, PrivateStateAttr]]


class RateLimitMiddleware(AgentMiddleware[RateLimitState, Any, Any]):
    """Limits the model calls of an agent: they wait, are tried again, and stop at its budget.

    Put it last in the list, inside LangChain's own retry and fallback middleware. Calls that its tools make through the
    same limiter count towards the budgets too. Models that other middleware calls (summarization) it does not see:
    wrap those with `limiter.wrap(model)`.

    Args:
        limiter: whose limits.
        run_budget: dollars that each run (`invoke`) may spend; None sets no bound besides the limiter's own.
        thread_budget: dollars that each thread may spend, over all of its runs. It needs a checkpointer, and a durable
            store to be remembered by more than this process.
        on_budget: when a budget, the limiter's own included, is used up: "end" lets the agent end with a message,
            "error" raises AgentBudgetExceeded.
        message: that message, or a function that makes it of the error.
        fallbacks: chat models that take over where the agent's own cannot serve a call, or is to be spared (see
            FallbackChatModel); their targets are found by the models.
        target: where all its calls go, as `provider:model`; None finds it by the model.
        provider: the provider that they go to.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        labels: who is calling, as for `limiter.scope`: agent="researcher".

    Raises:
        ConfigError: an argument makes no sense.
    """

    state_schema = RateLimitState

    def __init__(
        self,
        limiter: AnyLimiter,
        *,
        run_budget: float | None = None,
        thread_budget: float | None = None,
        on_budget: str = "end",
        message: str | Callable[[BudgetExceeded], str] | None = None,
        fallbacks: Sequence[BaseChatModel] = (),
        target: str | Target | None = None,
        provider: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
        **labels: Any,
    ) -> None:
        super().__init__()
        check_terms(limiter, priority=priority, timeout=timeout)
        if on_budget not in ENDINGS:
            raise ConfigError(f"on_budget is {on_budget!r}: it is one of {', '.join(ENDINGS)}.")
        for budget in (run_budget, thread_budget):
            if budget is not None:
                ScopeBudget(budget)
        with limiter.scope(**labels):  # refuse labels that make no sense
            Targets(limiter, target=target, provider=provider)
        self._limiter = limiter
        self._run_budget = run_budget
        self._thread_budget = thread_budget
        self._on_budget = on_budget
        self._message = message
        self._labels = labels
        self._fallbacks = tuple(fallbacks)
        self._options: dict[str, Any] = {
            "target": target,
            "provider": provider,
            "priority": priority,
            "timeout": timeout,
        }
        self._twins: OrderedDict[int, tuple[BaseChatModel, BaseChatModel]] = OrderedDict()
        self._threads: OrderedDict[str, ScopeBudget] = OrderedDict()

    def before_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:  # noqa: ARG002 - LangChain's hook
        """Begin a run's budget, and a thread's when it is new."""
        update: dict[str, Any] = {}
        if self._run_budget is not None:
            update["rate_limit_run"] = ScopeBudget(self._run_budget)
        if self._thread_budget is not None and not state.get("rate_limit_thread"):
            update["rate_limit_thread"] = uuid4().hex
        return update or None

    async def abefore_agent(self, state: Any, runtime: Any) -> dict[str, Any] | None:
        """As `before_agent`."""
        return self.before_agent(state, runtime)

    def wrap_model_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Call the model's limited twin."""
        try:
            with self._scope(request.state):
                return handler(request.override(model=self._limited(request.model)))
        except (BudgetExceeded, AllTargetsFailed) as error:
            return self._stopped(error)

    async def awrap_model_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """Call the model's limited twin, letting the event loop run."""
        try:
            with self._scope(request.state):
                return await handler(request.override(model=self._limited(request.model)))
        except (BudgetExceeded, AllTargetsFailed) as error:
            return self._stopped(error)

    def wrap_tool_call(self, request: Any, handler: Callable[[Any], Any]) -> Any:
        """Let what a tool calls count towards the agent's budgets."""
        with self._scope(request.state):
            return handler(request)

    async def awrap_tool_call(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        """As `wrap_tool_call`."""
        with self._scope(request.state):
            return await handler(request)

    @contextmanager
    def _scope(self, state: Mapping[str, Any]) -> Generator[None]:
        with ExitStack() as scopes:
            for budget in (self._of_thread(state.get("rate_limit_thread")), state.get("rate_limit_run")):
                if budget is not None:
                    scopes.enter_context(self._limiter.scope(budget=budget))
            scopes.enter_context(self._limiter.scope(**self._labels))
            yield

    def _of_thread(self, thread: str | None) -> ScopeBudget | None:
        if thread is None or self._thread_budget is None:
            return None
        dollars = self._thread_budget
        return _recent(self._threads, thread, lambda: ScopeBudget(dollars, key=f"thread {thread}"), _THREADS)

    def _limited(self, model: BaseChatModel) -> BaseChatModel:
        if isinstance(model, FallbackChatModel) or (is_limited_by(model, self._limiter) and not self._fallbacks):
            return model
        return _recent(self._twins, id(model), lambda: (model, self._twin(model)), _MODELS)[1]

    def _twin(self, model: BaseChatModel) -> BaseChatModel:
        if not self._fallbacks:
            return rate_limited(model, self._limiter, **self._options)
        priority, timeout = self._options["priority"], self._options["timeout"]
        return FallbackChatModel([model, *self._fallbacks], self._limiter, priority=priority, timeout=timeout)

    def _stopped(self, error: BudgetExceeded | AllTargetsFailed) -> AIMessage:
        spent = error if isinstance(error, BudgetExceeded) else _budget_in(error)
        if spent is None:
            raise error
        if self._on_budget == "error":
            raise AgentBudgetExceeded(spent.decision) from error
        told = self._message(spent) if callable(self._message) else self._message
        text = told or f"I have to stop here, because the budget is used up. {spent}"
        return AIMessage(text, response_metadata={"finish_reason": "budget_exceeded"})


def _budget_in(error: AllTargetsFailed) -> BudgetExceeded | None:
    """The budget that kept a call from every target, or from those that had room; None when something else failed."""
    causes = error.causes.values()
    if not all(isinstance(cause, LimitExceeded) for cause in causes):
        return None
    return next((cause for cause in causes if isinstance(cause, BudgetExceeded)), None)


def _recent(kept: OrderedDict[K, V], key: K, make: Callable[[], V], most: int) -> V:
    """Return what is kept under a key, made on first use; the oldest goes when there are too many."""
    if key not in kept:
        kept[key] = make()
        if len(kept) > most:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]
