"""Make texts of others harmless before anybody repeats them: no secrets, no lines or colours of their own."""

from __future__ import annotations

import re

_LENGTH = 300
# Keys and tokens that providers and SDKs repeat in their messages. Compiled when the first message comes.
_SECRETS = r"""(?ix)
    \b(?:sk|gsk|xai|fw|tgp)[-_][\w*-]{6,}        # OpenAI, Anthropic, Groq, xAI, Fireworks, Together
    | \bAIza[\w-]{10,} | \bya29\.[\w.-]+        # Google
    | \b(?:AKIA|ASIA)[A-Z0-9]{12,}              # AWS
    | (?<=bearer\s)[\w.~+/=-]{8,}
    | (?<=api[_-]key[=:])\s*["']?[\w.-]{6,}
    | (?<=[?&]key=)[\w.-]{6,}
    | (?<=api\skey\sprovided:\s)\S{6,}
    | \beyJ[\w-]{10,}\.[\w.-]{10,}              # JSON Web Tokens
"""


def harmless(text: object) -> str:
    """Shorten a provider's message and take keys out of it."""
    if not isinstance(text, str):
        return ""
    return re.sub(_SECRETS, "***", " ".join(text[: 4 * _LENGTH].split()))[:_LENGTH]


def one_line(text: str, most: int | None = None) -> str:
    """Write control characters out, so that a text can break no line, table or terminal; cut what is too long."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if most is None or len(text) <= most else f"{text[: most - 1]}…"
