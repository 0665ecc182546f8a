"""Secrets that are known by their form: tokens, private keys, passwords in URLs, headers."""

from __future__ import annotations

import re
from functools import cache

__all__ = ["redact_forms", "redact_headers", "redact_private_keys", "redact_urls"]

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|PuTTY-User-Key-File-\d:")
_PRIVATE_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|Private-MAC: [0-9a-f]*+")
# Nothing in it crosses a slash, so the next ":/" ends every attempt.
# In a path that was normalised, a URL has one slash left.
_URL_PASSWORD = re.compile(r"""(?<=:/)(/?+[^\s/?#:@'"]{0,256}+):[^\s/'"]+@""")
_URL_USER = re.compile(r"""(?<=://)(?=[^\s/?#:@'"]{0,256}\d)[^\s/?#:@'"]{16,256}+@""")
_AUTHORIZATION = re.compile(r"(?i)(?<![\w-])(Bearer|Basic|Digest|Token|ApiKey)\s{1,8}+[\w.~+/=-]{8,}+")


@cache
def _token() -> re.Pattern[str]:
    # Tokens that issuers gave a form of their own. Possessive quantifiers (+ after a quantifier) and the
    # lookbehind in front keep a text of near misses from being read again and again.
    return re.compile(
        r"""(?<![\w-])(?:
          mcptasks_share_[\w-]++(?:\.[\w-]*+)?                  # our own, see service.access
        | mcptasks_http_[\w-]{16,}+                              # as above, see http.token
        | gh[opsur]_\w{20,}+ | github_pat_\w{20,}+               # GitHub
        | gl(?:pat|ptt|dt|rt|cbt|soat|agent|oas|ft|imt|ffct)-[\w.-]{16,}+   # GitLab
        | sk-(?:ant|proj|svcacct|admin|or)-[\w-]{10,}+           # Anthropic, OpenAI, OpenRouter
        | sk-[A-Za-z0-9]{20,}+                                   # OpenAI and those who follow it
        | (?:gsk|xai|pplx|r8|fw|nvapi|tvly)[_-][A-Za-z0-9]{20}[\w-]*+    # Groq, xAI and others like them
        | (?:sk|rk)_(?:live|test)_\w{10,}+ | whsec_[\w+/=]{16,}+ # Stripe
        | (?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])     # AWS
        | ABSK[A-Za-z0-9+/]{60,}+=*+                             # AWS Bedrock
        | xox[abceoprs]-[\w-]{10,}+ | xapp-[\w-]{10,}+ | xwfp-[\w-]{10,}+   # Slack
        | hooks\.slack\.com/(?:services|workflows|triggers)/[\w/-]{16,}+
        | discord(?:app)?\.com/api/webhooks/\d{5,25}/[\w-]{20,}+
        | AIza[\w-]{30,}+ | ya29\.[\w-]{20,}+ | GOCSPX-[\w-]{20,}+   # Google
        | npm_\w{30,}+ | pypi-AgE[\w-]{16,}+ | hf_\w{30,}+       # package and model registries
        | rubygems_[0-9a-f]{32,}+ | dckr_(?:pat|oat)_[\w-]{20,}+ | oy2[a-z0-9]{43}(?!\w)
        | do[opr]_v1_\w{32,}+ | SG\.[\w-]{16,}+\.[\w-]{16,}+     # DigitalOcean, SendGrid
        | hv[sbr]\.[\w-]{20,}+ | dapi[0-9a-f]{32}[\w-]*+         # Vault, Databricks
        | shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32,}+ | sq0(?:atp|csp)-[\w-]{20,}+    # Shopify, Square
        | ATATT3[\w=-]{30,}+ | lin_(?:api|oauth)_\w{30,}+ | ntn_\w{30,}+   # Atlassian, Linear, Notion
        | tskey-[\w-]{16,}+ | NRAK-[A-Z0-9]{20,}+ | gl(?:sa|c)_[\w+/=-]{30,}+  # Tailscale, New Relic, Grafana
        | sntry[su]_[\w+/=-]{30,}+ | sb[ps]_[\w-]{30,}+ | pscale_\w{2,10}_[\w-]{20,}+
        | (?:phc|phx)_\w{30,}+ | fo1_[\w-]{30,}+ | dp\.(?:pt|st|ct|sa)\.\w{30,}+ | key-[0-9a-f]{32}(?!\w)
        | \d{8,10}:AA[\w-]{33}(?![\w-])                          # Telegram
        | AGE-SECRET-KEY-1[A-Z0-9]{50,}+
        | eyJ[\w-]{8,}+\.[\w-]{4,}+(?:\.[\w-]*+)*+               # JSON web token
        )
        | (?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{31,34}(?![\w~.-])    # Azure: secret of an application,
        | (?<![A-Za-z0-9+/])[A-Za-z0-9+/]{86}==(?![\w+/=])       # key of a storage account,
        | (?<=[?&]sig=)[\w%+/=-]{20,}+                           # signature of a shared access
        """,
        re.ASCII | re.VERBOSE,
    )


def redact_forms(text: str, redacted: str) -> str:
    """Take out tokens of known forms."""
    return _token().sub(redacted, text)


def redact_headers(text: str, redacted: str) -> str:
    """Take out what comes after the scheme of an Authorization header."""
    return _AUTHORIZATION.sub(rf"\1 {redacted}", text)


def redact_urls(text: str, redacted: str) -> str:
    """Take out passwords in URLs, and users that look like tokens."""
    return _URL_USER.sub(f"{redacted}@", _URL_PASSWORD.sub(rf"\1:{redacted}@", text))


def redact_private_keys(text: str, redacted: str) -> str:
    """Take out private keys; one without an end goes on to the end of the text."""
    pieces, done = [], 0
    while begin := _PRIVATE_KEY.search(text, done):
        end = _PRIVATE_KEY_END.search(text, begin.end())
        pieces += [text[done : begin.start()], redacted]
        done = end.end() if end else len(text)
    return "".join([*pieces, text[done:]])
