"""The same call at another model, or at another provider that speaks OpenAI's chat API too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode, urlsplit

from agent_rate_limiter import ConfigError, Target
from agent_rate_limiter.providers import dialect
from agent_rate_limiter_adapters.http import body as bodies
from agent_rate_limiter_adapters.http.likeness import kind_of

if TYPE_CHECKING:
    from httpx2 import Request

_CHAT = "/chat/completions"
_COMPATIBLE = {
    # Where providers take OpenAI's chat requests, below their clients' own base URL (their docs on OpenAI
    # compatibility, November 2026): with tools, streams and images; the provider does the translation.
    "anthropic": "/v1",
    "google": "/v1beta/openai",
}
_CARRIED = ("accept", "accept-encoding", "content-length", "content-type", "user-agent")
"""Headers that another provider is told: what else there is may be a secret, or mean nothing there."""


@dataclass(frozen=True)
class Endpoint:
    """Another provider's endpoint, as one of its SDK's clients knows it.

    Args:
        base_url: what comes before `/chat/completions`.
        headers: what it is told besides, its key included.
        any_path: whether it speaks all of OpenAI's API; else only chat is sent there.
        deployments: whether the model is in the path (Azure OpenAI).
        query: what the URL ends with.
    """

    base_url: str
    headers: Mapping[str, str] = field(repr=False)  # they hold a key
    any_path: bool = False
    deployments: bool = False
    query: str = ""

    def url(self, path: str, model: str) -> str:
        """Return where a call with this path goes."""
        within = f"/deployments/{model}" if self.deployments else ""
        return f"{self.base_url.rstrip('/')}{within}{path}{self.query}"


@dataclass(frozen=True)
class Others:
    """Where a client's calls can go besides its own provider.

    Args:
        targets: that were asked for, in order.
        endpoints: provider → its endpoint.
    """

    targets: tuple[Target, ...] = ()
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict[str, Endpoint])

    def serve(self, request: Request, own: Target, other: Target) -> bool:
        """Whether a request can go to another target than its own."""
        if bodies.signed(request.headers):
            return False
        if other.provider == own.provider and other.provider not in self.endpoints:
            return _renamed(request, other.model) is not None
        endpoint = self.endpoints.get(other.provider)
        if endpoint is None or "model" not in bodies.document(request):
            return False
        path = _api_path(request)
        return path == _CHAT or (endpoint.any_path and path is not None)

    def redirect(self, request: Request, target: Target) -> Request:
        """Return the request as it is sent to another target that can serve it."""
        endpoint = self.endpoints.get(target.provider)
        if endpoint is None:
            renamed = _renamed(request, target.model)
            assert renamed is not None  # noqa: S101 - `serve` has looked
            return renamed
        path = _api_path(request)
        assert path is not None  # noqa: S101 - as above
        url = type(request.url)(endpoint.url(path, target.model))
        sent = bodies.with_body(request, {**bodies.document(request), "model": target.model}, url)
        for name in [name for name in sent.headers if name.lower() not in _CARRIED]:
            del sent.headers[name]
        sent.headers.update({**endpoint.headers, "host": _host(sent)})
        return sent


def others_of(fallbacks: object, own: str) -> Others:
    """Read `wrap(client, fallbacks=…)`: targets of the client's own provider, or targets with a client for each.

    Args:
        fallbacks: a list of targets, or a mapping of targets to an SDK's client, or None for the wrapped one.
        own: the wrapped client's provider.

    Raises:
        ConfigError: a target of another provider has no client, or one that is not known.
    """
    if fallbacks is None:
        return Others()
    if isinstance(fallbacks, str) or not isinstance(fallbacks, (Mapping, list, tuple)):
        raise ConfigError(f"fallbacks is {fallbacks!r}: give a list of targets, or a mapping of targets to clients.")
    several = cast("Any", fallbacks)
    given: dict[Any, Any] = dict(several) if isinstance(fallbacks, Mapping) else dict.fromkeys(several)
    endpoints: dict[str, Endpoint] = {}
    targets: list[Target] = []
    for text, client in given.items():
        target = Target.parse(text)
        targets.append(target)
        if client is not None:
            endpoints[target.provider] = _endpoint(client, target)
        elif target.provider not in {own, *endpoints}:
            raise ConfigError(
                f"fallbacks hold '{target}' without a client: this one calls {own!r}. "
                f"Give one, as fallbacks={{'{target}': Anthropic()}}."
            )
    return Others(tuple(targets), endpoints)


def _endpoint(client: Any, target: Target) -> Endpoint:
    root = next((cls.__module__.partition(".")[0] for cls in type(client).__mro__), "")
    own = {name: value for name, value in getattr(client, "_custom_headers", {}).items() if isinstance(value, str)}
    if root == "openai" and client.api_key:
        version = getattr(client, "_api_version", None)  # of Azure's
        asked = dict(client._custom_query)  # noqa: SLF001 - no public way
        if version is None:
            headers = {**own, "authorization": f"Bearer {client.api_key}"}
            return Endpoint(str(client.base_url), headers, any_path=True, query=_query(asked))
        headers, query = {**own, "api-key": client.api_key}, _query({**asked, "api-version": version})
        return Endpoint(str(client.base_url), headers, any_path=True, deployments=True, query=query)
    if root == "anthropic" and getattr(client, "api_key", None):
        base, key = str(client.base_url), client.api_key
    elif root == "google" and not getattr(client, "vertexai", True):
        api = client._api_client  # noqa: SLF001 - no public way
        base, key = str(api._http_options.base_url), api.api_key  # noqa: SLF001
    else:
        raise ConfigError(
            f"fallbacks give a {kind_of(client)} for '{target}': give a "
            "client of openai (with any base_url), anthropic or google.genai that has an API key."
        )
    return Endpoint(base.rstrip("/") + _COMPATIBLE[root], {**own, "authorization": f"Bearer {key}"})


def _query(parameters: Mapping[str, Any]) -> str:
    return f"?{urlencode(parameters)}" if parameters else ""


def _renamed(request: Request, model: str) -> Request | None:
    """The same request for another model of its provider; None where the model is not to be found."""
    raw_path = request.url.raw_path.decode("ascii", "replace")
    path, body = dialect("generic").renamed(raw_path, bodies.document(request), model)
    if body is not None:
        return bodies.with_body(request, body)
    return None if path is None else bodies.with_url(request, request.url.copy_with(raw_path=path.encode("ascii")))


def _api_path(request: Request) -> str | None:
    """Return what comes after the base of the API, as `/chat/completions`."""
    path = request.url.path
    for known in (_CHAT, "/completions", "/responses", "/embeddings", "/moderations"):
        if path.endswith(known):
            return known
    return None


def _host(request: Request) -> str:
    return urlsplit(str(request.url)).netloc
