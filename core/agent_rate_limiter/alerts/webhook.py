"""Alerts by HTTP: signed as the Standard Webhooks specification says, or shaped for Slack."""

# What users pass is checked, whatever its annotation promises.
# pyright: reportUnnecessaryIsInstance=false

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from agent_rate_limiter.errors import ConfigError
from agent_rate_limiter.plain import is_number

if TYPE_CHECKING:
    from urllib.request import OpenerDirector

    from agent_rate_limiter.alerts.alert import Alert

FORMATS = ("json", "slack")
_dice = Random()  # noqa: S311 - no secrets; our own, so that a program that seeds the module keeps its numbers
_ATTEMPTS = 5
_LONGEST_WAIT = 60.0
"""Seconds that a retry waits at most, whatever the receiver asks for."""
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_SIGNS = {
    "threshold": ":warning:",
    "pace": ":chart_with_upwards_trend:",
    "exhausted": ":no_entry:",
    "recovered": ":white_check_mark:",
}


class Failure(NamedTuple):
    """Why a webhook was not delivered.

    Args:
        reason: in a word, without the address.
        retried: whether another attempt makes sense.
        after: seconds that the receiver asked to wait.
    """

    reason: str
    retried: bool = True
    after: float = 0.0

    def __str__(self) -> str:
        """Only the reason."""
        return self.reason

    def retry_after(self, attempt: int) -> float | None:
        """Return the seconds until the next attempt; None: give up.

        Args:
            attempt: the number of the one that failed, from 1.
        """
        if not self.retried or attempt >= _ATTEMPTS:
            return None
        backoff = 2.0 ** (attempt - 1) * (1 + _dice.random() / 2)
        return min(_LONGEST_WAIT, max(backoff, self.after))


class Webhook:
    """An address that alerts are posted to, with five attempts over half a minute.

    Signed by the Standard Webhooks specification 1.0 (standardwebhooks.com, read in November 2026): the headers
    `webhook-id` (the same in every attempt), `webhook-timestamp` and `webhook-signature`, which is
    "v1," + base64(HMAC-SHA256(secret, id.timestamp.body)).

    Args:
        url: https://… or http://…; it is never shown beyond its host, as it may be a secret.
        secret: signs what is sent; "whsec_" and base64, or any text. Without it nothing is signed.
        format: "json" posts the fields of the Alert, "slack" a message as Slack's (and Mattermost's) incoming
            webhooks take.
        timeout: seconds that one attempt may take.

    Raises:
        ConfigError: a value makes no sense. It never repeats the address or the secret.
    """

    __slots__ = ("_key", "_opener", "_url", "format", "timeout")

    def __init__(self, url: str, *, secret: str | None = None, format: str = "json", timeout: float = 5.0) -> None:  # noqa: A002 - the word users know
        if not _sound(url):
            raise ConfigError("webhook is no address: write it like 'https://host/path'.")
        if format not in FORMATS:
            raise ConfigError(f"format is {format!r}: it is one of {', '.join(FORMATS)}.")
        if not is_number(timeout) or not 0 < timeout <= _LONGEST_WAIT:
            raise ConfigError(f"timeout is {timeout!r}: give seconds above 0 and up to 60.")
        self._url = url
        self._key = _key_of(secret)
        self._opener: OpenerDirector | None = None
        self.format = format
        self.timeout = timeout

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Webhook:
        """Make one of a configuration file's mapping: `webhook` (the address), `secret`, `format`, `timeout`.

        Raises:
            ConfigError: a key is unknown or missing, or a value makes no sense.
        """
        options = dict(fields)
        unknown = sorted(set(options) - {"webhook", "secret", "format", "timeout"})
        if unknown or "webhook" not in options:
            what = f"holds {unknown[0]!r}" if unknown else "has no 'webhook'"
            raise ConfigError(f"on_alert {what}: a mapping has the keys webhook (its url), secret, format, timeout.")
        return cls(options.pop("webhook"), **options)

    def post(self, alert: Alert, message_id: str, now: float) -> Failure | None:
        """Send an alert once; return what went wrong.

        Args:
            alert: what is sent.
            message_id: the same in every attempt, so that the receiver can tell a repetition.
            now: epoch seconds.
        """
        from http.client import HTTPException
        from urllib.error import HTTPError

        from agent_rate_limiter.providers.headers import lowered, retry_after

        request = self._request(self.body(alert), message_id, round(now))
        try:
            self._open().open(request, timeout=self.timeout).close()
        except HTTPError as error:
            with error:
                after = retry_after(lowered(error.headers), now) or 0.0
            return Failure(f"HTTP {error.code}", error.code in _RETRIED, after)
        except (OSError, HTTPException) as error:
            return Failure(type(getattr(error, "reason", error)).__name__)
        return None

    def body(self, alert: Alert) -> bytes:
        """Return what is posted."""
        if self.format == "slack":
            return json.dumps({"text": f"{_SIGNS[alert.kind]} {_escaped(str(alert))}"}, ensure_ascii=False).encode()
        return json.dumps({"type": "agent_rate_limiter.alert", **alert.to_dict()}, ensure_ascii=False).encode()

    def signature(self, body: bytes, message_id: str, timestamp: int) -> str | None:
        """Return the signature of a message; None without a secret."""
        if self._key is None:
            return None
        signed = f"{message_id}.{timestamp}.".encode() + body
        return "v1," + base64.b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).decode()

    def _request(self, body: bytes, message_id: str, timestamp: int) -> Any:
        from urllib.request import Request

        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "User-Agent": "agent-rate-limiter",
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
        }
        signature = self.signature(body, message_id, timestamp)
        if signature is not None:
            headers["webhook-signature"] = signature
        return Request(self._url, body, headers, method="POST")  # noqa: S310 - http and https only, checked above

    def _open(self) -> OpenerDirector:
        """Make an opener that follows no redirection: what is signed for one address goes to no other."""
        if self._opener is None:
            from urllib.request import (
                HTTPDefaultErrorHandler,
                HTTPErrorProcessor,
                HTTPHandler,
                HTTPSHandler,
                OpenerDirector,
                ProxyHandler,
            )

            self._opener = OpenerDirector()
            for handler in (ProxyHandler, HTTPHandler, HTTPSHandler, HTTPDefaultErrorHandler, HTTPErrorProcessor):
                self._opener.add_handler(handler())
        return self._opener

    def __repr__(self) -> str:
        """Name the host, and nothing that may be secret."""
        parts = urlsplit(self._url)
        signed = ", signed" if self._key else ""
        return f"Webhook('{parts.scheme}://{parts.hostname}/…', format={self.format!r}{signed})"


def _sound(url: object) -> bool:
    if not isinstance(url, str) or any(ord(letter) <= 32 for letter in url):  # noqa: PLR2004 - spaces and controls
        return False
    try:
        parts = urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _key_of(secret: object) -> bytes | None:
    if secret is None:
        return None
    if not isinstance(secret, str) or not secret:
        raise ConfigError("secret is not usable: give text that is not empty, or None.")
    if not secret.startswith("whsec_"):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except ValueError:
        raise ConfigError("secret is not usable: after 'whsec_' comes base64.") from None


def _escaped(text: str) -> str:
    """As Slack wants it: these three signs are markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
