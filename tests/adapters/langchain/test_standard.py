"""LangChain's own standard tests: the twin of ChatOpenAI passes what the bare one passes, one call a request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.load import dumpd
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from agent_rate_limiter.testing.simulated import SimulatedProvider
from agent_rate_limiter_adapters.langchain import rate_limited
from tests.adapters.langchain.models import MODEL, OBLIGING, accounts, books, limiter_of

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

pytestmark = [  # they are LangChain's tests and warnings; not all of them are async
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore"),
]
LIMITER = limiter_of()


class Server:
    """Where the models of this module are."""

    url = "http://127.0.0.1:1/v1"

    def named(self) -> dict[str, Any]:
        return {"model": OBLIGING, "base_url": self.url, "api_key": "sk-test", "stream_usage": True}


SERVER = Server()


class Bare:
    """What the tests are told of the model, limited or not."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return SERVER.named()

    @property
    def model_override_value(self) -> str:
        return MODEL

    @pytest.fixture
    def benchmark(self, benchmark: Any) -> Any:
        """Once is enough: nothing is timed here."""
        benchmark.disabled = True
        return benchmark

    @pytest.fixture
    def snapshot(self) -> Callable[[str], object]:
        """What a model is to be serialized as: just what the bare one is."""
        fields = {**getattr(self, "standard_chat_model_params", {}), **self.chat_model_params}
        return lambda name: dumpd(ChatOpenAI(**fields))

    @pytest.fixture(autouse=True)
    def _server(self, running: SimulatedProvider, monkeypatch: pytest.MonkeyPatch) -> None:
        running.reset()
        SERVER.url = running.openai_url
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")  # which serialized models name


class Limited(Bare):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return type(rate_limited(ChatOpenAI(**SERVER.named()), LIMITER))

    @pytest.fixture(autouse=True)
    def _counted(self, running: SimulatedProvider, _server: None) -> Iterator[None]:
        before = books(LIMITER)
        yield
        after = books(LIMITER)
        spent = tuple(round(new - old, 9) for new, old in zip(after, before, strict=True))
        assert spent == accounts(running)


class TestBareUnit(Bare, ChatModelUnitTests):
    pass


class TestLimitedUnit(Limited, ChatModelUnitTests):
    pass


class TestBareIntegration(Bare, ChatModelIntegrationTests):
    pass


class TestLimitedIntegration(Limited, ChatModelIntegrationTests):
    pass
