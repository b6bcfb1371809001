"""Limits for Google's GenAI SDK: `limiter.wrap(genai.Client())`."""

from __future__ import annotations

import copy
import threading
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from agent_rate_limiter import ConfigError
from agent_rate_limiter_adapters.http import Destinations, kind_of, library_of, like, limited_client, undying

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent_rate_limiter import MultiProviderLimiter, RateLimiter

C = TypeVar("C")


def adapter(
    client: C,
    limiter: RateLimiter | MultiProviderLimiter,
    *,
    provider: str | None = None,
    priority: int | None = None,
    timeout: float | None = None,
    labels: Callable[[], Mapping[str, object]] | None = None,
) -> C:
    """Return a limited twin of a client of Google's GenAI SDK; the original stays as it is.

    Every model call over HTTP is limited, once per request, and settled with what it used: `models`, `chats`,
    `interactions`, streams, embeddings, images, and the same of `twin.aio`; automatic function calling makes several.
    Token counts, batches and files are not limited, nor is the Live API. A limiter's error reaches the caller as it
    is. The twin does not retry by itself, whatever `retry_options` say.

    Async calls of the twin go through httpx or httpx2, also where the original uses aiohttp. The two share
    their sync connections: closing the twin ends those that are open, and the original then opens new ones.

    Args:
        client: a google.genai.Client, for the Gemini API or for Vertex AI.
        limiter: whose limits.
        provider: the name of the provider that all calls go to; None finds it by the client's base URL: the provider
            with that base_url, else the one of that host's kind, else of kind "gemini" (Vertex AI: "vertex").
        priority: lower goes first; None takes the scope's.
        timeout: seconds a call may wait; None waits for ever.
        labels: asked at every call what it is labelled with, besides the scope's labels.

    Raises:
        ConfigError: it is no such client; or no configured provider fits, or several do.
    """
    from google import genai

    if not isinstance(client, genai.Client):
        raise ConfigError(f"client is a {kind_of(client)}: give a google.genai.Client.")
    original: Any = client
    api = original._api_client  # noqa: SLF001 - no public way
    destinations = Destinations(limiter, provider=provider, kind="vertex" if api.vertexai else "gemini")
    destinations.find(str(api._http_options.base_url))  # noqa: SLF001 - refuse now what could never be sent

    def limit(http_client: Any) -> Any:
        return limited_client(http_client, limiter, destinations, priority=priority, timeout=timeout, labels=labels)

    twin: C = _twin(original, _limited_api(original, limit))
    return twin


def _twin(client: Any, api: Any) -> Any:
    """A client of the same class that calls through another `BaseApiClient`."""
    from google import genai

    def built_on(**_: Any) -> Any:
        return api

    twin = copy.copy(client)
    twin.__class__ = undying(client.__class__)
    twin._get_api_client = built_on  # noqa: SLF001 - by the constructor, with all that it makes
    plain: Any = genai.Client
    plain.__init__(twin, debug_config=client._debug_config)  # noqa: SLF001
    del twin._get_api_client  # noqa: SLF001
    return twin


def _limited_api(client: Any, limit: Callable[[Any], Any]) -> Any:
    """A copy of the SDK's inner client that sends through limited HTTP clients, and each request once."""
    from google.genai.types import HttpRetryOptions

    api = client._api_client  # noqa: SLF001
    sync_client, async_client = limit(api._httpx_client), _limited_async(api, limit)  # noqa: SLF001
    once: dict[str, Any] = {"stop": tenacity.stop_after_attempt(1), "reraise": True}
    twin = copy.copy(api)
    twin.__class__ = _sending_once(api.__class__)
    twin._limited_twin_of = client  # noqa: SLF001 - which closes the shared connections when it is dropped
    twin._httpx_client, twin._async_httpx_client = sync_client, async_client  # noqa: SLF001
    twin._retry, twin._async_retry = tenacity.Retrying(**once), tenacity.AsyncRetrying(**once)  # noqa: SLF001
    clients = {"httpx_client": sync_client, "httpx_async_client": async_client}  # else aiohttp or requests are used
    retry_options = HttpRetryOptions(attempts=1)  # for `interactions`
    twin._http_options = api._http_options.model_copy(update={**clients, "retry_options": retry_options})  # noqa: SLF001
    return twin


def _limited_async(api: Any, limit: Callable[[Any], Any]) -> Any:
    """The limited twin of the async HTTP client, which in newer versions keeps another one for each event loop."""
    client = api._async_httpx_client  # noqa: SLF001
    if client is None:  # Vertex AI with client certificates: google-auth has an aiohttp session of its own
        library = library_of(api._httpx_client)  # noqa: SLF001
        client = library.AsyncClient(**{"follow_redirects": True, **api._async_httpx_client_args})  # noqa: SLF001
    twin = limit(client)
    if getattr(twin, "_per_loop", False):
        make = twin._inner_client_cls  # noqa: SLF001

        def made(**options: Any) -> Any:
            return limit(make(**options))

        twin._inner_client_cls = made  # noqa: SLF001
        twin._loop_clients, twin._loop_clients_lock = {}, threading.Lock()  # noqa: SLF001
    return twin


@cache
def _sending_once(cls: Any) -> Any:
    """The class of an inner client to which a call's own `retry_options` mean nothing."""
    if "_limited_twin_of" in cls.__dict__:
        return cls

    def request(self: Any, http_request: Any, http_options: Any = None, stream: Any = False) -> Any:  # noqa: FBT002
        del http_options  # are in the request already, but for `retry_options`
        return cls._request(self, http_request, None, stream)

    async def request_async(self: Any, http_request: Any, http_options: Any = None, stream: Any = False) -> Any:  # noqa: FBT002
        del http_options
        return await cls._async_request(self, http_request, None, stream)

    def close(self: Any) -> None:
        if not _options_of(self).httpx_client:  # that is the user's, who closes it
            self._httpx_client.close()

    async def aclose(self: Any) -> None:
        if not _options_of(self).httpx_async_client:
            await self._async_httpx_client.aclose()

    sends = {"_request": request, "_async_request": request_async}
    return like(cls, **sends, close=close, aclose=aclose, _limited_twin_of=None)


def _options_of(api: Any) -> Any:
    """The HTTP options that the user gave, to the first original."""
    while (original := getattr(api, "_limited_twin_of", None)) is not None:
        api = original._api_client  # noqa: SLF001
    return api._http_options  # noqa: SLF001
