"""Wrapped clients that fall back: to other models of their provider, and to other providers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from anthropic import Anthropic
from google import genai
from openai import AzureOpenAI, OpenAI

from agent_rate_limiter import AllTargetsFailed, ConfigError, MultiProviderLimiter, Provider, RetryStrategy
from agent_rate_limiter.testing.simulated import Fault, SimulatedProvider
from tests.adapters.openai_sdk import opened
from tests.adapters.support import Heard, Reply, ScriptedServer

CLAUDE, GPT, MINI, GEMINI = "claude-opus-4", "gpt-4", "gpt-4o-mini", "gemini-2.5-flash"
QUESTION: list[Any] = [{"role": "user", "content": "Why?"}]
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
]
ONCE = RetryStrategy(max_attempts=1)


def limiter_of(**options: Any) -> MultiProviderLimiter:
    models = {"openai": [GPT, MINI], "anthropic": [CLAUDE, "claude-haiku-4"], "gemini": [GEMINI, "gemini-2.5-pro"]}
    providers = [Provider(name, {model: {"rpm": 100} for model in names}) for name, names in models.items()]
    return MultiProviderLimiter(providers, retry=ONCE, **options)


def openai_of(url: str, **options: Any) -> OpenAI:
    client = OpenAI(base_url=url, api_key="sk-first", max_retries=0, organization="org-first", **options)
    opened.append(client)
    return client


def anthropic_of(url: str) -> Anthropic:
    client = Anthropic(base_url=url, api_key="sk-ant-second")
    opened.append(client)
    return client


def create(client: OpenAI, **options: Any) -> Any:
    return client.chat.completions.create(model=GPT, messages=QUESTION, max_tokens=7, **options)


# ------------------------------------------------------------------ another model of the same provider


def test_the_model_in_a_body_is_swapped(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    client = limiter.wrap(openai_of(provider.openai_url), fallbacks=[f"openai:{MINI}"])
    provider.inject(Fault("unavailable", model=GPT), times=1)
    assert create(client).model == MINI
    assert client.embeddings.create(model=MINI, input="text").model == MINI


def test_the_model_in_a_path_is_swapped(provider: SimulatedProvider) -> None:
    limiter = limiter_of(fallbacks={f"gemini:{GEMINI}": ["gemini:gemini-2.5-pro"]})
    options = genai.types.HttpOptions(base_url=provider.gemini_url)
    with genai.Client(api_key="any", http_options=options) as plain:
        client = limiter.wrap(plain)
        provider.inject(Fault("unavailable", model=GEMINI), times=1)
        assert client.models.generate_content(model=GEMINI, contents="Why?").model_version == "gemini-2.5-pro"


def test_anthropic_s_client_falls_back_to_its_own_models(provider: SimulatedProvider) -> None:
    client = limiter_of().wrap(anthropic_of(provider.anthropic_url), fallbacks=["anthropic:claude-haiku-4"])
    provider.inject(Fault("overloaded", model=CLAUDE), times=1)
    message = client.messages.create(model=CLAUDE, max_tokens=9, messages=QUESTION)
    assert message.model == "claude-haiku-4"


def test_what_names_no_model_goes_nowhere_else() -> None:
    """A form keeps its model: there the first target's error is the call's."""

    def script(_: Heard) -> Reply:
        return Reply([b'{"error": {"message": "busy"}}'], status=503)

    with ScriptedServer(script) as server:
        limiter = limiter_of()
        client = limiter.wrap(openai_of(server.url), fallbacks=[f"openai:{MINI}"])
        with pytest.raises(Exception, match="busy"):
            client.audio.transcriptions.create(model=GPT, file=("a.wav", b"RIFF"))
        assert len(server.heard) == 1


# ------------------------------------------------------------------ other providers


def failing_first(answers: Callable[[Heard], bytes]) -> Callable[[Heard], Reply]:
    """A provider whose own model is down, and whose server plays all the others, too."""

    def script(heard: Heard) -> Reply:
        if b'"gpt-4"' in heard.body and "second" not in heard.headers.get("authorization", ""):
            return Reply([b'{"error": {"message": "down"}}'], status=503)
        return Reply([answers(heard)])

    return script


def answer(_: Heard) -> bytes:
    return (
        b'{"id": "x", "object": "chat.completion", "created": 1, "model": "served", "choices": [{"index": 0, '
        b'"finish_reason": "stop", "message": {"role": "assistant", "content": "So."}}], '
        b'"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}'
    )


@pytest.mark.parametrize(
    ("make", "target", "path", "header"),
    [
        (anthropic_of, f"anthropic:{CLAUDE}", "/v1/chat/completions", ("authorization", "Bearer sk-ant-second")),
        (
            lambda url: genai.Client(api_key="g-second", http_options=genai.types.HttpOptions(base_url=url)),
            f"gemini:{GEMINI}",
            "/v1beta/openai/chat/completions",
            ("authorization", "Bearer g-second"),
        ),
        (
            lambda url: OpenAI(base_url=f"{url}/other/v1", api_key="sk-second"),
            f"anthropic:{CLAUDE}",
            "/other/v1/chat/completions",
            ("authorization", "Bearer sk-second"),
        ),
        (
            lambda url: AzureOpenAI(azure_endpoint=url, api_key="az-second", api_version="2026-01-01"),
            f"anthropic:{CLAUDE}",
            f"/openai/deployments/{CLAUDE}/chat/completions?api-version=2026-01-01",
            ("api-key", "az-second"),
        ),
    ],
    ids=["anthropic", "google", "openai elsewhere", "azure"],
)
def test_a_chat_goes_to_another_provider(
    make: Callable[[str], Any], target: str, path: str, header: tuple[str, str]
) -> None:
    with ScriptedServer(failing_first(answer)) as server:
        limiter = limiter_of()
        other = make(server.url)
        client = limiter.wrap(openai_of(server.url), fallbacks={target: other})
        response = create(client, tools=TOOLS)
        assert response.choices[0].message.content == "So."
        heard = server.heard[-1]
        assert heard.path == path
        assert heard.headers[header[0]] == header[1]
        assert "sk-first" not in str(heard.headers)
        assert "openai-organization" not in heard.headers
        model = target.partition(":")[2]
        assert f'"model":"{model}"'.encode() in heard.body
        assert b'"look"' in heard.body
        rows = {row["model"]: row["output_tokens"] for row in limiter.costs.report().to_dicts()}
        assert rows[model] == 2
        other.close()


def test_a_stream_goes_to_another_provider(provider: SimulatedProvider) -> None:
    limiter = limiter_of()
    client = limiter.wrap(openai_of(provider.openai_url), fallbacks={f"anthropic:{CLAUDE}": anthropic_of(provider.url)})
    provider.inject(Fault("unavailable", model=GPT), times=1)
    with create(client, stream=True) as chunks:
        models = {chunk.model for chunk in chunks}
    assert models == {CLAUDE}
    spent = {row["model"]: row["output_tokens"] for row in limiter.costs.report().to_dicts()}
    assert spent[CLAUDE] == 7


def test_what_cannot_be_said_there_is_not_sent_there(provider: SimulatedProvider) -> None:
    client = limiter_of().wrap(
        openai_of(provider.openai_url), fallbacks={f"anthropic:{CLAUDE}": anthropic_of(provider.url)}
    )
    provider.inject(Fault("unavailable", model=GPT), times=1)
    with pytest.raises(Exception, match="503") as failed:
        client.responses.create(model=GPT, input="Why?", max_output_tokens=20)
    assert not isinstance(failed.value, AllTargetsFailed)
    assert provider.report().received == 1


def test_when_all_fail_each_is_named(provider: SimulatedProvider) -> None:
    client = limiter_of().wrap(openai_of(provider.openai_url), fallbacks=[f"openai:{MINI}"])
    provider.inject("unavailable", times=2)
    with pytest.raises(AllTargetsFailed, match=r"openai:gpt-4: .*openai:gpt-4o-mini: ") as failed:
        create(client)
    assert list(failed.value.causes) == [f"openai:{GPT}", f"openai:{MINI}"]


@pytest.mark.parametrize("refused_last", [True, False])
def test_what_our_limits_refused_does_not_hide_the_others(provider: SimulatedProvider, refused_last: bool) -> None:
    """The SDKs' twins take a limiter's error out of what SDKs make of it: the whole of it."""
    limiter = MultiProviderLimiter([Provider("openai", {GPT: {"rpm": 1}, MINI: {"rpm": 100}})], retry=ONCE)
    limiter.acquire(f"openai:{GPT}").settle()
    own, other = (GPT, MINI) if refused_last else (MINI, GPT)
    client = limiter.wrap(openai_of(provider.openai_url), fallbacks=[f"openai:{other}"], timeout=0.2)
    provider.inject(Fault("authentication", model=MINI))
    with pytest.raises(AllTargetsFailed) as failed:
        client.chat.completions.create(model=own, messages=QUESTION)
    assert set(failed.value.causes) == {f"openai:{GPT}", f"openai:{MINI}"}
    assert str(failed.value).count(f"openai:{GPT} ") == 0  # it is named once, before the colon


@pytest.mark.parametrize(
    ("fallbacks", "message"),
    [
        ("openai:gpt-4o-mini", "fallbacks is 'openai:gpt-4o-mini': give a list of targets, or a mapping"),
        (["gpt-4o-mini"], "target is 'gpt-4o-mini': write it as 'provider:model'"),
        ([f"anthropic:{CLAUDE}"], f"fallbacks hold 'anthropic:{CLAUDE}' without a client: this one calls 'openai'"),
        ({f"anthropic:{CLAUDE}": httpx2.Client()}, "fallbacks give a httpx2.*: give a client of openai"),
    ],
    ids=["text", "no provider", "no client", "no SDK"],
)
def test_bad_fallbacks_are_refused_when_wrapping(fallbacks: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        limiter_of().wrap(openai_of("http://127.0.0.1:9"), fallbacks=fallbacks)


def test_keys_are_not_shown() -> None:
    from agent_rate_limiter_adapters.http.elsewhere import others_of

    others = others_of({f"anthropic:{CLAUDE}": anthropic_of("http://127.0.0.1:9")}, "openai")
    assert "second" not in repr(others)
