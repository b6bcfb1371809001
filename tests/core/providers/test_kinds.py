"""Dialects by name and by URL."""

from __future__ import annotations

import pytest

from agent_rate_limiter.providers import detect, dialect

KINDS = [
    "openai",
    "azure",
    "anthropic",
    "gemini",
    "vertex",
    "bedrock",
    "mistral",
    "groq",
    "cohere",
    "xai",
    "deepseek",
    "openrouter",
    "together",
    "fireworks",
    "generic",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_its_dialect(kind: str) -> None:
    assert dialect(kind).kind == kind
    assert dialect(kind.upper()) is dialect(kind)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("azure_openai", "azure"),
        ("Azure OpenAI", "azure"),
        ("claude", "anthropic"),
        ("google", "gemini"),
        ("google-genai", "gemini"),
        ("vertex_ai", "vertex"),
        ("amazon_bedrock", "bedrock"),
        ("bedrock_converse", "bedrock"),
        ("mistralai", "mistral"),
        ("x-ai", "xai"),
        ("grok", "xai"),
        ("together_ai", "together"),
        ("fireworks_ai", "fireworks"),
        ("cohere_chat", "cohere"),
        ("my-own-gateway", "generic"),
        ("", "generic"),
    ],
)
def test_other_names(name: str, kind: str) -> None:
    assert dialect(name).kind == kind


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://eu.api.openai.com/v1/chat/completions", "openai"),
        ("https://mine.openai.azure.com/openai/deployments/d", "azure"),
        ("https://mine.services.ai.azure.com/models", "azure"),
        ("https://api.anthropic.com", "anthropic"),
        ("https://generativelanguage.googleapis.com/v1beta", "gemini"),
        ("https://us-central1-aiplatform.googleapis.com/v1", "vertex"),
        ("https://aiplatform.googleapis.com/v1", "vertex"),
        ("https://aiplatform.us.rep.googleapis.com/v1", "vertex"),
        ("https://bedrock-runtime.us-east-1.amazonaws.com", "bedrock"),
        ("https://bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "bedrock"),
        ("https://bedrock-runtime.cn-north-1.amazonaws.com.cn", "bedrock"),
        ("https://api.mistral.ai", "mistral"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.cohere.com/v2", "cohere"),
        ("https://api.x.ai/v1", "xai"),
        ("https://api.deepseek.com", "deepseek"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.together.xyz/v1", "together"),
        ("https://api.fireworks.ai/inference/v1", "fireworks"),
        ("api.openai.com", "openai"),
        ("HTTPS://API.OPENAI.COM:443/v1", "openai"),
        ("http://127.0.0.1:8080/v1", None),
        ("https://api.openai.com.evil.example", None),
        ("https://notapi.openai.comx", None),
        ("https://myapi.x.ai", None),
        ("http://[broken", None),
        ("", None),
    ],
)
def test_kinds_by_url(url: str, kind: str | None) -> None:
    assert detect(url) == kind
