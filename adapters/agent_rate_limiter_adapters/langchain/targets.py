"""Where a LangChain model's calls go, and what each is expected to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from agent_rate_limiter import Estimate, Target
from agent_rate_limiter.providers import dialect
from agent_rate_limiter_adapters.http import Destinations

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage

    from agent_rate_limiter_adapters.http.targets import AnyLimiter

_URLS = ("openai_api_base", "azure_endpoint", "anthropic_api_url", "base_url", "endpoint", "endpoint_url")
"""How LangChain's integrations name where their provider is."""
_GENERIC = dialect("").kind


class Targets:
    """Finds the target of calls among the limiter's providers.

    It is the one that was given; else the provider that was named, or the one with the model's base URL, of its kind
    or of its name; and the model that the call names.

    Args:
        limiter: with the providers; one that has none configured takes every call.
        target: where all calls go, as `provider:model`.
        provider: the name of the provider that all calls go to.

    Raises:
        ConfigError: the limiter has no such target or provider.
    """

    def __init__(self, limiter: AnyLimiter, *, target: str | Target | None = None, provider: str | None = None) -> None:
        self._limiter = limiter
        self._provider = provider
        self._found: dict[tuple[str, str], str] = {}
        self._fixed: Target | None = None
        if target is not None:
            asked = Target.parse(target)
            self._fixed = limiter.target_for(asked.provider, asked.model)
        elif provider is not None:
            Destinations(limiter, provider=provider)

    def find(self, params: Mapping[str, Any], url: str = "") -> Target:
        """Return the target of a call.

        Args:
            params: what LangChain says of it: `ls_provider`, `ls_model_name`.
            url: the model's base URL; empty when it does not tell.

        Raises:
            ConfigError: no provider fits, several do, or the model is not configured.
        """
        if self._fixed is not None:
            return self._fixed
        key = (str(params.get("ls_provider") or "unknown"), url)
        if key not in self._found:
            self._found[key] = self._provider_of(*key)
        return self._limiter.target_for(self._found[key], str(params.get("ls_model_name") or "*"))

    def _provider_of(self, name: str, url: str) -> str:
        kind = dialect(name).kind
        named = self._provider or (name if kind == _GENERIC else None)  # whom we do not know goes by name
        return Destinations(self._limiter, provider=named, kind=kind).find(url or name).provider


def url_of(model: object) -> str:
    """Return the base URL of a model, or of the mapping of its fields; empty when it does not tell."""
    look = cast("Mapping[str, object]", model).get if isinstance(model, Mapping) else partial(getattr, model)
    found = (look(name, None) for name in _URLS)
    return next((url for url in found if isinstance(url, str) and url), "")


def chat_estimate(messages: Sequence[BaseMessage], params: Mapping[str, Any], options: Mapping[str, Any]) -> Estimate:
    """Return what a chat call is expected to use.

    Args:
        messages: the prompt.
        params: what LangChain says of the call: `ls_provider`, `ls_max_tokens`.
        options: what it is called with: tools, max_tokens, n.
    """
    body = {
        "messages": [_shown(message) for message in messages],
        "tools": options.get("tools") or options.get("functions"),
        "max_tokens": _most(options) or params.get("ls_max_tokens"),
        "n": options.get("n"),
    }
    return dialect(str(params.get("ls_provider"))).estimate("/chat/completions", body)


def text_estimate(kind: str, texts: Sequence[str], options: Mapping[str, Any]) -> Estimate:
    """Return what a completion of prompts is expected to use. As `chat_estimate`."""
    body = {"prompt": list(texts), "max_tokens": _most(options), "n": options.get("n")}
    return dialect(kind).estimate("/completions", body)


def embedding_estimate(texts: Sequence[str]) -> Estimate:
    """Return what embedding texts is expected to use."""
    return dialect("openai").estimate("/embeddings", {"input": list(texts)})


def _most(options: Mapping[str, Any]) -> Any:
    names = ("max_completion_tokens", "max_tokens", "max_output_tokens")
    return next((options[name] for name in names if options.get(name)), None)


def _shown(message: BaseMessage) -> dict[str, Any]:
    shown: dict[str, Any] = {"role": message.type, "content": message.content}
    calls: Any = getattr(message, "tool_calls", None)
    return {**shown, "tool_calls": calls} if calls else shown
