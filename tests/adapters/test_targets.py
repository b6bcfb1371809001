"""Which provider and which dialect a URL stands for."""

from __future__ import annotations

import pytest

from agent_rate_limiter import ConfigError, MultiProviderLimiter, Provider, RateLimiter
from agent_rate_limiter_adapters.http.targets import Destinations

OPENAI_URL = "https://api.openai.com/v1/chat/completions"
GROQ_URL = "https://api.groq.com/openai/v1/chat/completions"
AZURE_URL = "https://me.openai.azure.com/openai/deployments/mine/chat/completions"
LOCAL_URL = "http://127.0.0.1:8000/v1/chat/completions"


def find(url: str, *providers: Provider, provider: str | None = None, kind: str | None = "openai") -> tuple[str, str]:
    found = Destinations(MultiProviderLimiter(providers), provider=provider, kind=kind).find(url)
    return found.provider, found.dialect.kind


def plain(name: str, base_url: str | None = None, kind: str | None = None) -> Provider:
    return Provider(name, {"*": {}}, base_url=base_url, kind=kind)


@pytest.mark.parametrize(
    ("url", "providers", "expected"),
    [
        # nobody is configured: the host's kind, or else the SDK's
        (OPENAI_URL, [], ("openai", "openai")),
        (GROQ_URL, [], ("groq", "groq")),
        (LOCAL_URL, [], ("openai", "openai")),
        # by kind
        (OPENAI_URL, [plain("openai"), plain("groq")], ("openai", "openai")),
        (GROQ_URL, [plain("openai"), plain("groq")], ("groq", "groq")),
        (AZURE_URL, [plain("openai"), plain("Azure-OpenAI")], ("Azure-OpenAI", "azure")),
        (OPENAI_URL, [plain("work", kind="openai")], ("work", "openai")),
        (LOCAL_URL, [plain("openai"), plain("groq")], ("openai", "openai")),
        # one of that very name before others of the kind; one that is not elsewhere before one that is
        (OPENAI_URL, [plain("spare", kind="openai"), plain("openai")], ("openai", "openai")),
        (OPENAI_URL, [plain("vllm", "http://gpu/v1", "openai"), plain("work", kind="openai")], ("work", "openai")),
        (LOCAL_URL, [plain("openai", "https://api.openai.com/v1")], ("openai", "openai")),
        # by base URL, the longest first
        (LOCAL_URL, [plain("openai"), plain("vllm", "http://127.0.0.1:8000/v1")], ("vllm", "openai")),
        (LOCAL_URL, [plain("a", "http://127.0.0.1:8000/"), plain("b", "http://127.0.0.1:8000/v1/")], ("b", "openai")),
        (LOCAL_URL, [plain("openai"), plain("other", "http://127.0.0.1:8001/v1", "groq")], ("openai", "openai")),
        (LOCAL_URL, [plain("openai"), plain("near", "http://127.0.0.1:8000/v", "groq")], ("openai", "openai")),
        (OPENAI_URL, [plain("main", "https://API.openai.com:443/v1")], ("main", "openai")),
        (LOCAL_URL, [plain("sim", "http://127.0.0.1:8000", "groq")], ("sim", "groq")),
    ],
)
def test_the_provider_is_found(url: str, providers: list[Provider], expected: tuple[str, str]) -> None:
    assert find(url, *providers) == expected


@pytest.mark.parametrize(("url", "expected"), [(OPENAI_URL, ("groq", "groq")), (LOCAL_URL, ("groq", "groq"))])
def test_a_provider_that_is_named_takes_all(url: str, expected: tuple[str, str]) -> None:
    assert find(url, plain("openai"), plain("groq"), provider="groq") == expected
    assert find(url, provider="groq") == expected


def test_a_named_providers_dialect_is_its_kind_else_its_hosts_else_the_sdks() -> None:
    acme, told = plain("acme"), plain("acme", kind="anthropic")
    assert find(LOCAL_URL, told, provider="acme") == ("acme", "anthropic")
    assert find(GROQ_URL, acme, provider="acme") == ("acme", "groq")
    assert find(LOCAL_URL, acme, provider="acme", kind="azure") == ("acme", "azure")
    assert find(LOCAL_URL, acme, provider="acme", kind=None) == ("acme", "generic")


def test_a_limiter_of_one_model_takes_every_url() -> None:
    assert Destinations(RateLimiter(rpm=5), kind="openai").find(LOCAL_URL).dialect.kind == "openai"
    assert Destinations(RateLimiter(rpm=5)).find(LOCAL_URL).dialect.kind == "generic"


@pytest.mark.parametrize(
    ("url", "providers", "kind", "message"),
    [
        (
            LOCAL_URL,
            [plain("acme")],
            "openai",
            r"No provider .* http://127\.0\.0\.1:8000/v1/.* Known: acme\. Say which",
        ),
        (LOCAL_URL, [plain("openai")], None, r"No provider is configured for .*kind 'generic'"),
        (GROQ_URL, [plain("openai")], "openai", r"kind 'groq'"),
        (OPENAI_URL, [plain("a", kind="openai"), plain("b", kind="openai")], "openai", r"Several providers .*'a', 'b'"),
        (LOCAL_URL, [plain("a", "http://127.0.0.1:8000"), plain("b", "http://127.0.0.1:8000")], "openai", "'a', 'b'"),
    ],
)
def test_what_cannot_be_told_is_refused(url: str, providers: list[Provider], kind: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find(url, *providers, kind=kind)


def test_a_provider_that_is_not_configured_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"provider is 'opnai': .* Known: openai"):
        Destinations(MultiProviderLimiter([plain("openai")]), provider="opnai")


def test_secrets_in_a_url_are_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        find("http://user:hunter2@127.0.0.1/v1?key=sk-hidden", plain("acme"))
    assert "hunter2" not in str(caught.value)
    assert "sk-hidden" not in str(caught.value)
