"""Whose limits a model's calls are under."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from agent_rate_limiter.providers import dialect
from agent_rate_limiter_adapters.http import Destinations

if TYPE_CHECKING:
    from agent_rate_limiter import MultiProviderLimiter, RateLimiter, Target
    from agent_rate_limiter.providers import Dialect

_URLS = ("api_base", "base_url", "azure_endpoint", "endpoint", "api_url")
"""Where integrations keep the address that they call."""
_NAMES = ("engine", "azure_deployment", "model", "model_name")
"""Where they keep the name that the provider knows: on Azure, the deployment's."""


class Place(NamedTuple):
    """Where a call goes, and the dialect that is spoken there."""

    target: Target
    dialect: Dialect


def place_of(
    limiter: RateLimiter | MultiProviderLimiter, model: Any, provider: str | None, name: object = None
) -> Place:
    """Return where the calls of an LLM or an embedding model go.

    Args:
        limiter: with the providers.
        model: the LLM or embedding model.
        provider: the provider's name; None finds it by the model's address, or by the integration it comes from.
        name: the model's name in one call; None is the one that it was made with.

    Raises:
        ConfigError: no provider fits, or several do; or the model is not configured.
    """
    kind = kind_of(model)
    found = Destinations(limiter, provider=provider, kind=kind).find(_url_of(model) or type(model).__name__)
    return Place(limiter.target_for(found.provider, str(name or _name_of(model))), found.dialect)


def kind_of(model: object) -> str:
    """Return the kind of provider that the class of a model comes with: `llama_index.llms.openai` → "openai"."""
    names = [integration for cls in type(model).__mro__ if (integration := _integration(cls))]
    known = (name for name in names if dialect(name).kind != "generic")
    return next(known, names[0] if names else "generic")


def _integration(cls: type) -> str:
    parts = cls.__module__.split(".")
    made = parts[0] == "llama_index" and len(parts) > 2 and parts[1] != "core"  # noqa: PLR2004 - llama_index.llms.openai
    return parts[2] if made else ""


def _url_of(model: object) -> str | None:
    values = (getattr(model, name, None) for name in _URLS)
    return next((value for value in values if isinstance(value, str) and value), None)


def _name_of(model: Any) -> str:
    named = (getattr(model, attribute, None) for attribute in _NAMES)
    name = next((name for name in named if isinstance(name, str) and name), None)
    if name is None:
        name = getattr(getattr(model, "metadata", None), "model_name", None) or "*"
    return str(getattr(name, "value", name))  # some are members of enumerations
