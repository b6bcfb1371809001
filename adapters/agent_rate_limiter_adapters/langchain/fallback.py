"""One chat model made of several, across providers: where the first cannot serve a call, the next one does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from pydantic import ConfigDict, Field, PrivateAttr

from agent_rate_limiter import Attempts, ConfigError, Reservation, Target
from agent_rate_limiter.sending import check_terms, send, send_async, stream, stream_async
from agent_rate_limiter_adapters.langchain.chat import can_stream, plain_copy
from agent_rate_limiter_adapters.langchain.targets import Targets, chat_estimate, url_of
from agent_rate_limiter_adapters.langchain.usage import ChatMeter, usage_of_result

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable

    from agent_rate_limiter_adapters.http.targets import AnyLimiter


class FallbackChatModel(BaseChatModel):
    """A chat model that goes to the first of its models which can serve a call, within the limits of all.

    ```python
    model = FallbackChatModel([ChatOpenAI(model="gpt-4"), ChatAnthropic(model="claude-opus-4")], limiter)
    ```

    The next model takes over when one is not free in time, its budget is used up, its provider fails although the call
    was tried again, or its circuit breaker is open; a stream only until its first chunk. Tools and structured output
    are bound to each model in its own way. A model whose target the limiter's configuration names as `degrade_to` takes
    over when a budget runs low.

    Args:
        models: in the order in which they are tried; limited or not, they stay as they are.
        limiter: whose limits.
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait, at all of them together; None waits for ever.

    Raises:
        ConfigError: there are no models, two go to the same target, or a target is not configured.
        AllTargetsFailed: when it is called, and none could serve the call.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    models: list[BaseChatModel]
    limiter: Any
    priority: int | None = None
    timeout: float | None = None
    options: list[dict[str, Any]] = Field(default_factory=list[dict[str, Any]])
    """What is bound to each of the models."""
    _targets: dict[Target, int] = PrivateAttr(default_factory=dict[Target, int])

    def __init__(self, models: Sequence[BaseChatModel], limiter: AnyLimiter, **fields: Any) -> None:
        check_terms(limiter, priority=fields.get("priority"), timeout=fields.get("timeout"))
        if not models:
            raise ConfigError("models is []: give at least one chat model.")
        copies = [plain_copy(model, limiter) for model in models]
        own: dict[str, Any] = {"models": copies, "limiter": limiter, "options": [{} for _ in models]}
        super().__init__(**own, **fields)
        targets = Targets(limiter)
        for place, model in enumerate(copies):
            target = targets.find(_params(model), url_of(model))
            if target in self._targets:
                raise ConfigError(f"models hold two that go to {target}: each needs a target of its own.")
            self._targets[target] = place

    @property
    def _llm_type(self) -> str:
        return "fallback-chat-model"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"models": [model._identifying_params for model in self.models]}  # noqa: SLF001 - of its own kind

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return self.models[0]._get_ls_params(stop=stop, **{**self.options[0], **kwargs})  # noqa: SLF001 - as above

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, Any]:
        """Bind tools to each of the models, as each of them wants it."""
        shown = {name: kwargs.pop(name) for name in _SHOWN if name in kwargs}
        bindings: list[Any] = [model.bind_tools(tools, **kwargs) for model in self.models]
        options = [{**old, **binding.kwargs} for old, binding in zip(self.options, bindings, strict=True)]
        return self.model_copy(update={"options": options}).bind(**shown)

    # -- calls: sync and async differ in who awaits --------------------------------------------------------

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        make = self._maker("_generate", messages, stop, run_manager, kwargs)
        result: ChatResult = send(self._attempts(messages, kwargs), make, usage_of_result)
        return result

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        make = self._maker("_agenerate", messages, stop, run_manager, kwargs)
        result: ChatResult = await send_async(self._attempts(messages, kwargs), make, usage_of_result)
        return result

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        make = self._maker("_stream", messages, stop, run_manager, kwargs)
        return stream(self._attempts(messages, kwargs), make, ChatMeter)

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        make = self._maker("_astream", messages, stop, run_manager, kwargs)
        async with aclosing(stream_async(self._attempts(messages, kwargs), make, ChatMeter)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _maker(
        self, name: str, messages: list[BaseMessage], stop: list[str] | None, run_manager: Any, kwargs: dict[str, Any]
    ) -> Callable[[Reservation], Any]:
        """What makes the call at the model that serves the target chosen."""

        def make(call: Reservation) -> Any:
            place = self._targets[call.target]
            model, options = self.models[place], {**self.options[place], **kwargs}
            streams = name not in _WHOLE or can_stream(type(model))
            method = getattr(model, name if streams else _WHOLE[name])
            result = method(messages, stop=stop, run_manager=run_manager, **options)
            return result if streams else _IN_ONE[name](result)

        return make

    def _attempts(self, messages: list[BaseMessage], kwargs: Mapping[str, Any]) -> Attempts:
        first, *others = self._targets
        options = {**self.options[0], **kwargs}
        estimate = chat_estimate(messages, _params(self.models[0]), options)
        attempts: Attempts = self.limiter.attempts(
            first,
            estimate,
            fallbacks=others,
            serves=self._targets.__contains__,
            priority=self.priority,
            timeout=self.timeout,
        )
        return attempts


_SHOWN = ("ls_structured_output_format", "structured_output_format")
"""What LangChain binds for traces alone: it takes it away before it calls a model."""


def _params(model: BaseChatModel) -> Any:
    return model._get_ls_params()  # noqa: SLF001 - what LangChain itself asks


# ------------------------------------------------------------------ models that do not stream bring all in one chunk


def _as_chunk(result: ChatResult) -> ChatGenerationChunk:
    (generation, *_) = result.generations
    message = AIMessageChunk(**generation.message.model_dump(exclude={"type"}))
    return ChatGenerationChunk(message=message, generation_info=generation.generation_info)


def _in_one(result: ChatResult) -> Iterator[ChatGenerationChunk]:
    yield _as_chunk(result)


async def _in_one_async(result: Awaitable[ChatResult]) -> AsyncIterator[ChatGenerationChunk]:
    yield _as_chunk(await result)


_WHOLE = {"_stream": "_generate", "_astream": "_agenerate"}
_IN_ONE: Mapping[str, Callable[[Any], Any]] = {"_stream": _in_one, "_astream": _in_one_async}
