"""Limited twins of provider SDKs' clients that Stainless generates: OpenAI's, Anthropic's and others'."""

from __future__ import annotations

import inspect
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from agent_rate_limiter import RateLimiterError
from agent_rate_limiter_adapters.http.clients import limited_client
from agent_rate_limiter_adapters.http.elsewhere import others_of
from agent_rate_limiter_adapters.http.likeness import like
from agent_rate_limiter_adapters.http.targets import Destinations

if TYPE_CHECKING:
    from agent_rate_limiter_adapters.http.targets import AnyLimiter

C = TypeVar("C")


def limited_sdk(
    client: C,
    limiter: AnyLimiter,
    kind: str,
    *,
    provider: str | None = None,
    fallbacks: object = None,
    **terms: Any,
) -> C:
    """Return a client like this one, whose model calls are limited; this one stays as it is.

    It is of the same class, and so are the copies that `with_options` makes of it, which are limited too. It does
    not retry by itself, whatever `max_retries` says: retries are the limiter's.

    Args:
        client: the SDK's.
        limiter: whose limits.
        kind: the SDK's own dialect, for hosts that nobody knows.
        provider: the name of the provider that all calls go to; None finds it by the client's base_url.
        fallbacks: where its calls may go instead: a list of targets of its own provider, or a mapping of targets to
            the SDK client of each.
        terms: as in `limited_client`.

    Raises:
        ConfigError: no configured provider fits, or several do.
    """
    destinations = Destinations(limiter, provider=provider, kind=kind)
    where: Any = client
    others = terms["others"] = others_of(fallbacks, destinations.find(str(where.base_url)).provider)
    for target in others.targets:
        limiter.target_for(target.provider, target.model)  # refuse now what is not configured
    twin: C = _twin(client, limiter, destinations, terms)
    return twin


def _twin(client: Any, limiter: AnyLimiter, destinations: Destinations, terms: dict[str, Any]) -> Any:
    http_client = limited_client(client._client, limiter, destinations, **terms)  # noqa: SLF001 - no public way
    twin = client.copy(http_client=http_client, max_retries=0)
    twin.__class__ = _limited_class(client.__class__)
    return twin


@contextmanager
def _no_retries(options: Any) -> Generator[None, None, None]:
    """Let the limiter's errors through, which SDKs take for lost connections: they would retry, and wrap them."""
    options.max_retries = 0
    try:
        yield
    except RateLimiterError:
        raise  # as newer ones let it through: what caused it is no error of its own
    except Exception as error:
        ours = error.__cause__
        if isinstance(ours, RateLimiterError):
            raise ours from ours.__cause__
        raise


@cache
def _limited_class(cls: Any) -> Any:
    if "_limited_request" in cls.__dict__:
        return cls
    send = cls.request

    def request(self: Any, cast_to: Any, options: Any, **rest: Any) -> Any:
        with _no_retries(options):
            return send(self, cast_to, options, **rest)

    async def request_async(self: Any, cast_to: Any, options: Any, **rest: Any) -> Any:
        with _no_retries(options):
            return await send(self, cast_to, options, **rest)

    ours = request_async if inspect.iscoroutinefunction(send) else request
    return like(cls, request=ours, _limited_request=True)
