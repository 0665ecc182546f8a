"""Which names tell that what they name is a secret."""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["HEADERS", "is_secret_name"]

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ENDINGS = ("password", "passwd", "passphrase", "passcode", "secret", "token", "apikey", "credential")
_SECRET = frozenset(
    (
        *("credentials", "creds", "cred", "secrets", "passwords", "pass", "passin", "passout"),
        *("authorization", "accesskey", "secretkey", "privatekey", "jwt", "otp", "totp", "connectionstring"),
    )
)
_NOT_ALONE = frozenset(("pwd", "pat"))
# `API_KEY`, `accountKey`; what comes before `key` says whether it opens anything.
_KEYS = frozenset(
    (
        *(
            "api",
            "access",
            "private",
            "secret",
            "signing",
            "encryption",
            "account",
            "auth",
            "master",
            "shared",
        ),
        *(
            "app",
            "consumer",
            "subscription",
            "webhook",
            "hmac",
            "jwt",
            "cipher",
            "admin",
            "license",
            "storage",
        ),
    )
)
# `TOKEN_PROD`, `SECRET_KEY_BASE`: these say which one it is, and not what it is.
_QUALIFIERS = frozenset(
    (
        *(
            "base",
            "value",
            "b64",
            "base64",
            "encoded",
            "string",
            "hex",
            "raw",
            "old",
            "new",
            "current",
            "next",
        ),
        *("prod", "production", "dev", "development", "test", "staging", "live", "main", "default"),
    )
)
# `--max-token`, `--pad-token`, `--no-password`: these count or switch, or name a token of a text.
_HARMLESS_BEGINNINGS = frozenset(
    (
        *(
            "max",
            "min",
            "num",
            "n",
            "total",
            "no",
            "has",
            "is",
            "use",
            "with",
            "without",
            "enable",
            "disable",
        ),
        *("require", "skip", "ask", "pad", "eos", "bos", "unk", "sep", "cls", "mask", "stop", "show"),
    )
)
HEADERS = frozenset(
    ("authorization", "proxy-authorization", "cookie", "set-cookie", "private-token", "job-token", "apikey")
)
"""Headers of HTTP whose values are secret, in lower case."""

_OUR_KEY = ["mcp", "tasks", "key"]
"""`MCP_TASKS_KEY`: what the state directory is sealed with."""

_LONGEST = 200


def is_secret_name(name: str) -> bool:
    """Whether a name of a variable, an option, a header or a key of a map names a secret."""
    return _is_secret(name) if len(name) <= _LONGEST else False


@lru_cache(4096)
def _is_secret(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    while len(words) > 1 and words[-1] in _QUALIFIERS and words[-2:] != ["connection", "string"]:
        words.pop()
    if not words or words[0] in _HARMLESS_BEGINNINGS:
        return False
    last = words[-1]
    return (
        last.endswith(_ENDINGS)
        or last in _SECRET
        or words[-2:] == ["connection", "string"]
        or (last in _NOT_ALONE and len(words) > 1)
        or (last == "key" and len(words) > 1 and words[-2] in _KEYS)
        or words == _OUR_KEY
        or name.lower() in HEADERS
    )
