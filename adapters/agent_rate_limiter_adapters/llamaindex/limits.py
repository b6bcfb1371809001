"""How one model's calls are limited: at its SDK's HTTP requests where we know the SDK, else call by call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from agent_rate_limiter import RateLimiter
from agent_rate_limiter.sending import check_terms
from agent_rate_limiter_adapters.http import Destinations
from agent_rate_limiter_adapters.llamaindex import requests
from agent_rate_limiter_adapters.llamaindex.labels import labels
from agent_rate_limiter_adapters.llamaindex.targets import Place, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agent_rate_limiter import Attempts, Estimate, LimitStatus, MultiProviderLimiter, Target, Usage
    from agent_rate_limiter.providers import Dialect
    from agent_rate_limiter_adapters.llamaindex.processes import Make

CLIENTS = ("_client", "_aclient", "_async_client")
"""Where integrations keep their SDK's client."""
GETTERS = ("_get_client", "_get_aclient")
"""What those have that make it when it is first used, or anew for each call."""


class Call(NamedTuple):
    """One call of a model.

    Args:
        attempts: the logical call.
        dialect: the provider's.
        estimate: what it is expected to use.
    """

    attempts: Attempts
    dialect: Dialect
    estimate: Estimate

    def meter(self) -> requests.Meter:
        """Make what reads along its stream."""
        return requests.Meter(self.dialect, self.estimate)

    def usage(self, response: object) -> Usage:
        """Read what its response says was used; of one that does not say, the text is counted."""
        return requests.usage_of(response) or requests.guessed(self.dialect, self.estimate, requests.text_of(response))


class Limits:
    """On which terms a model's calls are limited.

    Args:
        limiter: whose limits.
        provider: the provider's name; None finds it.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        include_usage: ask chat streams to state their usage.
        in_workers: makes the limiter of another process, in which the model is unpickled.
    """

    def __init__(
        self,
        limiter: RateLimiter | MultiProviderLimiter,
        *,
        provider: str | None = None,
        priority: int | None = None,
        timeout: float | None = None,
        include_usage: bool = True,
        in_workers: Make | None = None,
    ) -> None:
        check_terms(limiter, priority=priority, timeout=timeout)
        Destinations(limiter, provider=provider)  # refuse now a name that it does not have
        self.limiter = limiter
        self.in_workers = in_workers
        self.options: dict[str, Any] = {
            "provider": provider,
            "priority": priority,
            "timeout": timeout,
            "include_usage": include_usage,
        }
        self.fallbacks: tuple[Target, ...] = ()
        self._clients: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    # ------------------------------------------------------------------ by its SDK

    def knows(self, client: object) -> bool:
        """Whether an SDK's client, or its class, can be limited."""
        return client is not None and self.limiter.can_wrap(client)

    def client(self, client: Any) -> Any:
        """Return the limited twin of an SDK's client, always the same one."""
        twin = self._clients.get(client)
        if twin is None:
            options = {**self.options, "labels": labels}
            if not type(client).__module__.startswith("openai"):
                del options["include_usage"]  # others state it without being asked
            twin = self._clients[client] = self.limiter.wrap(client, **options)
        return twin

    # ------------------------------------------------------------------ what is known

    def place(self, model: Any, name: object = None) -> Place:
        """Return where a model's calls go, those to the model of another name if one is given.

        Raises:
            ConfigError: no provider fits, or several do; or the model is not configured.
        """
        return place_of(self.limiter, model, self.options["provider"], name)

    def statuses(self, model: Any) -> tuple[LimitStatus, ...]:
        """Return how every limit stands that a model's calls are under."""
        target = self.place(model).target
        limiter = self.limiter
        return (limiter.explain() if isinstance(limiter, RateLimiter) else limiter.explain(target)).limits

    def embedding_tokens(self, model: Any, texts: Sequence[str]) -> int:
        """Estimate the tokens of texts."""
        return requests.embedding_estimate(self.place(model).dialect, texts).input_tokens

    # ------------------------------------------------------------------ call by call

    def chat(self, model: Any, messages: Sequence[Any], **options: Any) -> Call:
        """Begin a chat."""
        return self._begin(model, options, lambda dialect: requests.chat_estimate(dialect, model, messages, options))

    def completion(self, model: Any, prompt: str, *_: Any, **options: Any) -> Call:
        """Begin a completion."""
        return self._begin(
            model, options, lambda dialect: requests.completion_estimate(dialect, model, prompt, options)
        )

    def chat_with_tools(
        self, model: Any, tools: Sequence[Any], user_msg: Any = None, chat_history: Any = None, **options: Any
    ) -> Call:
        """Begin a chat in which the model may call tools."""
        messages = [*(chat_history or ()), *(() if user_msg is None else (user_msg,))]
        asked = {**options, "tools": [tool.metadata.to_openai_tool() for tool in tools]}
        return self._begin(model, options, lambda dialect: requests.chat_estimate(dialect, model, messages, asked))

    def embedding(self, model: Any, texts: str | Sequence[str]) -> Call:
        """Begin to embed a text, or several in one request."""
        several = [texts] if isinstance(texts, str) else texts
        return self._begin(model, {}, lambda dialect: requests.embedding_estimate(dialect, several))

    def _begin(self, model: Any, options: Mapping[str, Any], estimated: Callable[[Dialect], Estimate]) -> Call:
        place = self.place(model, options.get("model"))
        estimate = estimated(place.dialect)
        terms = {name: self.options[name] for name in ("priority", "timeout")}
        attempts = self.limiter.attempts(place.target, estimate, fallbacks=self.fallbacks, **terms)
        return Call(attempts, place.dialect, estimate)

    def __deepcopy__(self, _: object) -> Limits:
        """A copy of the model is under the same limits."""
        return self
