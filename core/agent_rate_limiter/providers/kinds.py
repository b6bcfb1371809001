"""The dialects by name, and how to tell them from a URL. What differs only in names or tables is one entry here."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from agent_rate_limiter.limits import Resource
from agent_rate_limiter.providers import anthropic, rules
from agent_rate_limiter.providers.anthropic import AnthropicDialect
from agent_rate_limiter.providers.base import Dialect, openai_row, openai_rows
from agent_rate_limiter.providers.gemini import GeminiDialect
from agent_rate_limiter.providers.headers import HeaderRow

_REQUESTS, _TOKENS = Resource.REQUESTS, Resource.TOKENS
_INPUT, _OUTPUT = Resource.INPUT_TOKENS, Resource.OUTPUT_TOKENS

_OPENAI_ROWS = (
    *openai_rows(refills=True),  # requests: per minute, or per day on low tiers; the reset tells which
    openai_row(_TOKENS, "minute", "project-tokens", pool="project", refills=True),
)
_AZURE_ROWS = (
    openai_row(_REQUESTS, "minute", "requests"),
    openai_row(_TOKENS, "minute", "tokens", "x-rate-limit-reset-tokens"),  # seen with this spelling
)
_MISTRAL_ROWS = (
    HeaderRow(_REQUESTS, "minute", "x-ratelimit-limit-req-minute", "x-ratelimit-remaining-req-minute"),
    HeaderRow(_TOKENS, "minute", "x-ratelimit-limit-tokens-minute", "x-ratelimit-remaining-tokens-minute"),
    HeaderRow(_TOKENS, "minute", "x-ratelimitbysize-limit-minute", "x-ratelimitbysize-remaining-minute"),
    HeaderRow(_TOKENS, "month", "x-ratelimitbysize-limit-month", "x-ratelimitbysize-remaining-month"),
)
_TOGETHER_ROWS = (
    HeaderRow(_REQUESTS, None, "x-ratelimit-limit", "x-ratelimit-remaining", ("x-ratelimit-reset",)),
    HeaderRow(_TOKENS, None, "x-tokenlimit-limit", "x-tokenlimit-remaining"),  # per second?
)


def _fireworks(resource: Resource, name: str, pool: str = "") -> HeaderRow:
    return HeaderRow(
        resource, "second", f"x-ratelimit-limit-tokens-{name}", f"x-ratelimit-remaining-tokens-{name}", pool=pool
    )


_FIREWORKS_ROWS = (
    _fireworks(_INPUT, "prompt"),
    _fireworks(_INPUT, "cache-adjusted-prompt", pool="uncached"),
    _fireworks(_OUTPUT, "generated"),
)

_DIALECTS = (
    Dialect("generic"),
    Dialect("openai", _OPENAI_ROWS, rules.OPENAI, ("api.openai.com",), media_tokens=765, stream_options=True),
    Dialect(
        "azure",
        _AZURE_ROWS,
        rules.AZURE,
        ("openai.azure.com", "services.ai.azure.com", "cognitiveservices.azure.com", "models.inference.ai.azure.com"),
        media_tokens=765,
        stream_options=True,
    ),
    AnthropicDialect("anthropic", anthropic.ROWS, rules.ANTHROPIC, ("api.anthropic.com",), media_tokens=1_600),
    GeminiDialect(
        "gemini", (), rules.GEMINI, ("generativelanguage.googleapis.com",), media_tokens=1_120, stream_options=True
    ),
    GeminiDialect("vertex", (), rules.GEMINI, ("aiplatform.googleapis.com",), media_tokens=1_120, stream_options=True),
    Dialect("bedrock", (), rules.BEDROCK, media_tokens=1_600),
    Dialect("mistral", _MISTRAL_ROWS, rules.MISTRAL, ("api.mistral.ai", "codestral.mistral.ai")),
    Dialect("groq", openai_rows("day"), rules.GROQ, ("api.groq.com",), stream_options=True),
    Dialect("cohere", hosts=("api.cohere.com", "api.cohere.ai")),
    Dialect("xai", rules=rules.XAI, hosts=("api.x.ai",), stream_options=True),
    Dialect("deepseek", rules=rules.DEEPSEEK, hosts=("api.deepseek.com",), stream_options=True),
    Dialect("openrouter", (), rules.OPENROUTER, ("openrouter.ai",), stream_options=True),
    Dialect("together", _TOGETHER_ROWS, hosts=("api.together.xyz", "api.together.ai"), stream_options=True),
    Dialect("fireworks", _FIREWORKS_ROWS, rules.FIREWORKS, ("api.fireworks.ai",), stream_options=True),
)
_BY_KIND: Mapping[str, Dialect] = {known.kind: known for known in _DIALECTS}

# Other names of the same, without signs and capitals: users', LiteLLM's, LangChain's.
_ALIASES: Mapping[str, str] = {
    "amazonbedrock": "bedrock",
    "anthropicclaude": "anthropic",
    "aws": "bedrock",
    "awsbedrock": "bedrock",
    "azureai": "azure",
    "azureopenai": "azure",
    "bedrockconverse": "bedrock",
    "chatgpt": "openai",
    "claude": "anthropic",
    "coherechat": "cohere",
    "fireworksai": "fireworks",
    "google": "gemini",
    "googleai": "gemini",
    "googleaistudio": "gemini",
    "googlegenai": "gemini",
    "googlevertexai": "vertex",
    "grok": "xai",
    "mistralai": "mistral",
    "textcompletionopenai": "openai",
    "togetherai": "together",
    "vertexai": "vertex",
    "vertexaibeta": "vertex",
}


def known_kind(name: object) -> str | None:
    """The dialect that goes by a name or an alias, in any spelling; None when none does."""
    plain = "".join(letter for letter in name.lower() if letter.isalnum()) if isinstance(name, str) else ""
    kind = _ALIASES.get(plain, plain)
    return kind if kind in _BY_KIND else None


def dialect(kind: str) -> Dialect:
    """The dialect of a kind of provider.

    Args:
        kind: "openai", "azure", "anthropic", "gemini", "vertex", "bedrock", "mistral", "groq", "cohere", "xai",
            "deepseek", "openrouter", "together", "fireworks", or another name for one of them. Anything else is
            generic HTTP with OpenAI's shapes.
    """
    return _BY_KIND[known_kind(kind) or "generic"]


def detect(url: str) -> str | None:
    """Tell the kind of provider from a base URL's host; None when it is nobody's known.

    Args:
        url: with or without a scheme.
    """
    try:
        text = str(url)
        host = (urlsplit(text if "//" in text else f"//{text}").hostname or "").rstrip(".")
    except ValueError:
        return None
    if host.startswith(("bedrock-runtime.", "bedrock-runtime-fips.")) and ".amazonaws.com" in host:
        return "bedrock"
    for known in _DIALECTS:
        for suffix in known.hosts:
            # Regions come before the name with a dot, at Google with a dash.
            if host == suffix or host.endswith((f".{suffix}", f"-{suffix}")):
                return known.kind
    return "vertex" if host.startswith("aiplatform.") and host.endswith(".rep.googleapis.com") else None
