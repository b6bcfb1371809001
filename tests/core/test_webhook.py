"""Webhooks: what is posted where, signed, tried again, and never shown."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest

from agent_rate_limiter import Alert, ConfigError, MultiProviderLimiter, Usage, Webhook
from agent_rate_limiter.alerts import webhook as webhook_module
from agent_rate_limiter.testing import ManualClock
from tests.core.test_docs import blocks

# The example of the Standard Webhooks specification 1.0.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


class Receiver:
    """A real HTTP server that answers with the given statuses, then with 200."""

    def __init__(self, *answers: tuple[int, dict[str, str]]) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.url = ""
        self._answers = iter(answers)

    @contextmanager
    def listening(self) -> Generator[Receiver]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status, headers = next(receiver._answers, (200, {}))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in its base
                """Keep quiet."""

        with HTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_port}/hooks/T0/secret"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries wait a thousandth of what they would."""
    real = webhook_module.Failure.retry_after

    def soon(failure: webhook_module.Failure, attempt: int) -> float | None:
        after = real(failure, attempt)
        return None if after is None else after / 1000

    monkeypatch.setattr(webhook_module.Failure, "retry_after", soon)


def alarm(webhook: Any, clock: ManualClock) -> MultiProviderLimiter:
    limiter = MultiProviderLimiter(clock=clock, budget_limit=1, on_alert=webhook)
    limiter.acquire("p:m").settle(Usage(cost=0.9))
    assert limiter.alerts.flush()
    return limiter


def test_an_alert_is_posted_as_json_and_signed(manual_clock: ManualClock) -> None:
    with Receiver().listening() as receiver:
        webhook = Webhook(receiver.url, secret=SECRET)
        alarm(webhook, manual_clock)
    ((path, headers, body),) = receiver.got
    sent = json.loads(body)
    assert path == "/hooks/T0/secret"
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert sent["type"] == "agent_rate_limiter.alert"
    assert (sent["kind"], sent["threshold"], sent["used"], sent["amount"]) == ("threshold", 0.8, 0.9, 1)
    assert sent["text"] == "budget $1.00/day: $0.90 of $1.00 is used, past 80%."
    signed = webhook.signature(body, headers["webhook-id"], int(headers["webhook-timestamp"]))
    assert headers["webhook-signature"] == signed


@pytest.mark.parametrize("secret", [SECRET, "plain text"])
def test_the_recipe_of_the_documents_verifies_it(secret: str, manual_clock: ManualClock) -> None:
    """As a receiver would paste it."""
    (recipe,) = [code for language, code in blocks("budgets.md") if language == "python" and "def is_ours" in code]
    names: dict[str, Any] = {}
    exec(compile(recipe, "budgets.md", "exec"), names)  # noqa: S102 - it is what users run
    with Receiver().listening() as receiver:
        alarm(Webhook(receiver.url, secret=secret), manual_clock)
    ((_, headers, body),) = receiver.got
    is_ours = names["is_ours"]
    assert is_ours(headers, body, secret)
    assert not is_ours(headers, body + b" ", secret)
    assert not is_ours(headers, body, "another")
    assert not is_ours({**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 400)}, body, secret)


def test_the_signature_is_that_of_the_specification() -> None:
    webhook = Webhook("https://host/", secret=SECRET)
    signature = webhook.signature(b'{"test": 2432232314}', "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330)
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert Webhook("https://host/").signature(b"", "", 0) is None
    assert Webhook("https://host/", secret="plain text").signature(b"", "", 0) is not None


def test_slack_gets_a_message(manual_clock: ManualClock) -> None:
    with Receiver().listening() as receiver:
        alarm({"webhook": receiver.url, "format": "slack"}, manual_clock)
    ((_, headers, body),) = receiver.got
    assert json.loads(body) == {"text": ":warning: budget $1.00/day: $0.90 of $1.00 is used, past 80%."}
    assert "webhook-signature" not in headers
    alert = Alert("recovered", "budget", "<!channel> & co", "", "cost", 0, 0, 1, 0)
    text = json.loads(Webhook("https://host/", format="slack").body(alert))["text"]
    assert text == ":white_check_mark: &lt;!channel&gt; &amp; co: $0.00 of $1.00 is used: it has room again."


@pytest.mark.usefixtures("_soon")
def test_what_fails_for_a_moment_is_tried_again_as_the_same_message(manual_clock: ManualClock) -> None:
    with Receiver((503, {}), (429, {"Retry-After": "7"}), (500, {})).listening() as receiver:
        limiter = alarm(Webhook(receiver.url, secret="s"), manual_clock)
    assert len(receiver.got) == 4
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1
    assert (limiter.alerts.sent, limiter.alerts.failed) == (1, 0)


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize(
    ("answer", "attempts", "reason"),
    [
        ((404, {}), 1, "HTTP 404"),
        ((302, {"Location": "http://127.0.0.1:1/elsewhere"}), 1, "HTTP 302"),
        ((500, {}), 5, "HTTP 500"),
    ],
)
def test_what_fails_for_good_is_logged_without_the_address(
    answer: tuple[int, dict[str, str]],
    attempts: int,
    reason: str,
    manual_clock: ManualClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with Receiver(*[answer] * 9).listening() as receiver:
        limiter = alarm(Webhook(receiver.url, secret="hush"), manual_clock)
    assert len(receiver.got) == attempts
    assert limiter.alerts.failed == 1
    told = caplog.records[-1]
    assert told.levelno == logging.ERROR
    assert f"failed: {reason}. The alert was: budget $1.00/day" in told.getMessage()
    assert "secret" not in caplog.text
    assert "hush" not in caplog.text


@pytest.mark.usefixtures("_soon")
def test_nobody_listens(manual_clock: ManualClock, caplog: pytest.LogCaptureFixture) -> None:
    with Receiver().listening() as receiver:
        pass
    assert alarm(Webhook(receiver.url), manual_clock).alerts.failed == 1
    assert "failed: ConnectionRefusedError" in caplog.text


@pytest.mark.parametrize(
    ("asked", "after"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("Thu, 26 Nov 2026 08:00:30 GMT", 30),
        ("Thu, 26 Nov 2026 07:00:00 GMT", 0),
        ("soon", 0),
        ("-5", 0),
    ],
)
def test_retry_after_is_read_in_every_form(asked: str, after: float) -> None:
    headers = {"Retry-After": asked, "Date": "Thu, 26 Nov 2026 08:00:00 GMT"}
    alert = Alert("threshold", "budget", "b", "", "cost", 0.8, 0.9, 1, 0)
    with Receiver((503, headers)).listening() as receiver:
        failure = Webhook(receiver.url).post(alert, "msg_1", 1_795_680_000)
    assert failure is not None
    assert failure.retried
    assert failure.after == after


def test_how_long_a_retry_waits() -> None:
    failure = webhook_module.Failure("HTTP 500")
    waits = [failure.retry_after(attempt) for attempt in range(1, 6)]
    for attempt, wait in enumerate(waits[:4]):
        assert wait is not None
        assert 2**attempt <= wait <= 1.5 * 2**attempt
    assert waits[4] is None
    assert webhook_module.Failure("HTTP 429", after=20.0).retry_after(1) == 20
    assert webhook_module.Failure("HTTP 429", after=9_999.0).retry_after(1) == 60
    assert webhook_module.Failure("HTTP 404", retried=False).retry_after(1) is None


@pytest.mark.parametrize(
    ("url", "options", "shown"),
    [
        ("https://hooks.slack.com/services/T0/B0/hush", {"format": "slack"}, "hooks.slack.com/…', format='slack')"),
        ("https://user:hush@host:8443/x?token=hush", {"secret": "hush"}, "https://host/…', format='json', signed)"),
    ],
)
def test_it_never_shows_what_may_be_secret(url: str, options: dict[str, Any], shown: str) -> None:
    webhook = Webhook(url, **options)
    assert shown in repr(webhook)
    assert "hush" not in repr(webhook)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "hooks.slack.com/hush"}, "webhook is no address: write it like 'https://host/path'."),
        ({"url": "ftp://host/hush"}, "webhook is no address: write it like 'https://host/path'."),
        ({"url": "https://host/hush hush"}, "webhook is no address: write it like 'https://host/path'."),
        ({"url": "https://[hush"}, "webhook is no address: write it like 'https://host/path'."),
        ({"url": 5}, "webhook is no address: write it like 'https://host/path'."),
        ({"format": "xml"}, "format is 'xml': it is one of json, slack."),
        ({"timeout": 0}, "timeout is 0: give seconds above 0 and up to 60."),
        ({"timeout": "hush"}, "timeout is 'hush': give seconds above 0 and up to 60."),
        ({"secret": ""}, "secret is not usable: give text that is not empty, or None."),
        ({"secret": 5}, "secret is not usable: give text that is not empty, or None."),
        ({"secret": "whsec_hush!"}, "secret is not usable: after 'whsec_' comes base64."),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Webhook(**{"url": "https://host/hush", **options})
    assert str(refused.value) == message


@pytest.mark.parametrize("fields", [{"webhook": "https://host/", "url": 1}, {"format": "json"}])
def test_a_mapping_has_known_keys(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"a mapping has the keys webhook \(its url\), secret, format, timeout"):
        Webhook.of(fields)


def test_a_file_may_name_webhooks(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, manual_clock: ManualClock) -> None:
    with Receiver().listening() as receiver:
        monkeypatch.setenv("HOOK", receiver.url)
        monkeypatch.setenv("HUSH", "s")
        file = tmp_path / "limits.yaml"
        file.write_text(
            "budget_limit: 1\nlimit_alert_threshold: 0.9\n"
            "on_alert:\n  - {webhook: '${HOOK}', format: slack}\n  - {webhook: '${HOOK}', secret: '${HUSH}'}\n"
        )
        limiter = MultiProviderLimiter.from_config(file, clock=manual_clock)
        limiter.acquire("p:m").settle(Usage(cost=0.9))
        assert limiter.alerts.flush()
        file.write_text("budget_limit: 1\non_alert: {webhook: '${HOOK}'}\n")
        limiter = MultiProviderLimiter.from_config(file, clock=manual_clock)
        limiter.acquire("p:m").settle(Usage(cost=0.9))
        assert limiter.alerts.flush()
    assert sorted("webhook-signature" in headers for _, headers, _ in receiver.got) == [False, False, True]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"webhook": "hush"}, "on_alert[0].webhook: write it like 'https://host/path'."),
        ({"webhook": "https://h/", "secret": "whsec_hush!"}, "on_alert[0].secret: after 'whsec_' comes base64."),
        ({"webhook": "https://h/", "format": "x"}, "on_alert[0].format: is 'x': it is one of json, slack."),
        ({"webhook": "https://h/", "timeout": 100}, "on_alert[0].timeout: is 100: give seconds above 0 and up to 60."),
        ({"webhok": "https://h/hush"}, "on_alert[0].webhok: unknown key; did you mean 'webhook'?"),
        ("https://h/hush", "on_alert[0]: is text: write it as 'key: value' pairs."),
    ],
)
def test_a_file_that_makes_no_sense(written: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        MultiProviderLimiter.from_config({"on_alert": [written]})
    assert f"config: {message}" in str(refused.value)
    assert "hush" not in str(refused.value)
