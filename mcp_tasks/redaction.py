"""What a command line looks like in records and answers: one line, its secrets taken out.

A best effort by form and by name: it errs on the side of taking out, and cannot know a secret that
looks like any other word. Every step is linear in the length of the text, whatever the text.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence

__all__ = ["REDACTED", "redact_command", "redact_text"]

REDACTED = "[redacted]"

# Tokens that issuers gave a form of their own. Possessive quantifiers (+ after a quantifier) and the
# lookbehind in front keep a text of near misses from being read again and again.
_TOKEN = re.compile(
    r"""(?<![\w-])(?:
      gh[opsur]_\w{20,}+ | github_pat_\w{20,}+               # GitHub
    | gl(?:pat|ptt|dt|rt|cbt|soat|agent|oas)-[\w.-]{16,}+    # GitLab
    | sk-(?:ant|proj|svcacct|admin|or)-[\w-]{10,}+           # Anthropic, OpenAI, OpenRouter
    | sk-[A-Za-z0-9]{20,}+                                   # OpenAI and those who follow it
    | (?:sk|rk)_(?:live|test)_\w{10,}+ | whsec_\w{16,}+      # Stripe
    | (?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])               # AWS
    | xox[abceoprs]-[\w-]{10,}+ | xapp-[\w-]{10,}+           # Slack
    | AIza[\w-]{30,}+ | ya29\.[\w-]{20,}+                    # Google
    | npm_\w{30,}+ | pypi-AgE[\w-]{16,}+ | hf_\w{30,}+       # package and model registries
    | do[opr]_v1_\w{32,}+ | SG\.[\w-]{16,}+\.[\w-]{16,}+     # DigitalOcean, SendGrid
    | eyJ[\w-]{8,}+\.[\w-]{4,}+(?:\.[\w-]*+)?                # JSON web token
    )""",
    re.ASCII | re.VERBOSE,
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PRIVATE_KEY_END = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
# Nothing in it crosses a slash, so the next "://" ends every attempt.
_URL_PASSWORD = re.compile(r"""(?<=://)([^\s/?#:@'"]{0,256}+):[^\s/'"]+@""")
_AUTHORIZATION = re.compile(r"(?i)(?<![\w-])(Bearer|Basic|Digest|Token)\s{1,8}+[\w.~+/=-]{8,}+")

# A name and what binds a value to it: = or : or, for an option, a space. A JSON key keeps its quotes.
_NAME = re.compile(
    r"""(?<![\w.-])(-{0,2}+)([A-Za-z_][\w.-]{0,99}+)"""
    r"""(=(?!=)|\\?["']\s{0,8}+:\s{0,8}+|:\s{1,8}+|[ \t]{1,64}+)""",
    re.ASCII,
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_SECRET_ENDINGS = ("password", "passwd", "passphrase", "passcode", "secret", "token", "apikey", "credential")
_SECRET_WORDS = frozenset(
    ("credentials", "secrets", "passwords", "pass", "passin", "passout", "authorization", "accesskey")
)
_SECRET_KEYS = frozenset(
    ("api", "access", "private", "secret", "signing", "encryption", "account", "auth", "master", "shared")
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
_HEADERS = frozenset(
    ("authorization", "proxy-authorization", "cookie", "set-cookie", "private-token", "job-token", "apikey")
)

_REFERENCE = re.compile(r"""["']?\$(?:\w{1,100}+|\{\w{1,100}+\}|\()|`""", re.ASCII)
_OPTION = re.compile(r"-{1,2}[A-Za-z][\w-]*+(?=[\s=]|\Z)", re.ASCII)
# A closing quote may be missing: then the value ends with the text, and nothing is read twice.
_SHELL_WORD = re.compile(r"""(?:'[^']*+'?|"(?:[^"\\]|\\.)*+"?|\\.|[^\s'"\\;|&<>()])++""", re.DOTALL)
_TO_QUOTE = {"'": re.compile(r"[^']*+"), '"': re.compile(r'(?:[^"\\]|\\.)*+', re.DOTALL)}
_ESCAPED_STRING = re.compile(r'\\"(?:[^"\\]|\\[^"])*+(?:\\")?', re.DOTALL)
_JSON_BARE = re.compile(r"""[^\s,}\]'"\\]++""")
_LINE = re.compile(r"[^\n]*+")

_SEGMENT = re.compile(r"[^;|&\n]++")
_PROGRAM = re.compile(
    r"(?<![\w-])(?:(sshpass|mongo\w*|(?:docker|podman|nerdctl|oras)\s{1,8}+login)"
    r"|(mysql\w*|mariadb[\w-]*)|(redis-cli)|(curl))(?![\w-])",
    re.ASCII,
)
_SHORT_OPTION = {
    1: re.compile(r"""(?<![^\s'"])-p\s{0,64}+"""),
    2: re.compile(r"""(?<![^\s'"])-p(?=[^\s])"""),
    3: re.compile(r"""(?<![^\s'"])-a\s{1,64}+"""),
    4: re.compile(
        r"""(?<![^\s'"])(?:-[uU]\s{0,64}+|--(?:proxy-)?user(?:=|\s{1,64}+))["']?[^\s'":]{1,256}+:"""
    ),
}


def redact_command(command: str | Sequence[str]) -> str:
    """Render a command for people: on one line, secrets replaced by `[redacted]`.

    Args:
        command: As it was given: a line for the shell, or program and arguments.
    """
    if isinstance(command, str):
        text = command
    else:
        text = " ".join(shlex.quote(_redact_assignment(argument)) for argument in command)
        text = text.replace(f"'{REDACTED}'", REDACTED)
    return _one_line(redact_text(text))


def redact_text(text: str) -> str:
    """Replace the secrets in a text of any number of lines."""
    text = _redact_private_keys(text)
    text = _URL_PASSWORD.sub(rf"\1:{REDACTED}@", text)
    text = _redact_named(text)
    text = _AUTHORIZATION.sub(rf"\1 {REDACTED}", text)
    text = _TOKEN.sub(REDACTED, text)
    return _SEGMENT.sub(lambda segment: _redact_short_options(segment[0]), text)


def _one_line(text: str) -> str:
    text = text.strip().replace("\r\n", "\n").replace("\n", "\\n").replace("\t", " ")
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def _redact_assignment(argument: str) -> str:
    """Take out the whole value of an argument that is `NAME=VALUE`: its end is known, whatever it holds."""
    match = _NAME.match(argument)
    if match and match[3] == "=" and _is_secret(match[2]) and match.end() < len(argument):
        return argument[: match.end()] + REDACTED
    return argument


def _redact_private_keys(text: str) -> str:
    pieces, done = [], 0
    while begin := _PRIVATE_KEY.search(text, done):
        end = _PRIVATE_KEY_END.search(text, begin.end())
        pieces += [text[done : begin.start()], REDACTED]
        done = end.end() if end else len(text)
    return "".join([*pieces, text[done:]])


def _redact_named(text: str) -> str:
    """Take out the values whose names tell that they are secret."""
    pieces, done, at = [], 0, 0
    while match := _NAME.search(text, at):
        at = match.end(2)
        span = _value_of(text, match)
        if span is not None and span[0] < span[1]:
            pieces += [text[done : span[0]], REDACTED]
            done = at = span[1]
    return "".join([*pieces, text[done:]])


def _value_of(text: str, name: re.Match[str]) -> tuple[int, int] | None:
    """Where the value of a name begins and ends, or None where there is no secret."""
    dashes, word, bond = name.groups()
    header = word.lower() in _HEADERS or word.lower().startswith("x-")
    if not (_is_secret(word) or word.lower() in _HEADERS):
        return None
    start = name.end()
    quote = text[name.start() - 1] if name.start() else ""
    if bond.startswith(("\\", '"', "'")):
        return _json_value(text, start)
    if bond.startswith(":"):
        if header and quote in _TO_QUOTE:
            return _span(_TO_QUOTE[quote], text, start)
        if header or _begins_a_line(text, name.start()):
            return _span(_LINE, text, start)
        return None
    if bond != "=" and (not dashes or len(word) == 1 or _OPTION.match(text, start)):
        return None
    if _REFERENCE.match(text, start) or text.startswith(("id=", "type="), start):
        return None  # a reference tells nothing; `docker build --secret id=x,src=y` names a file
    if bond == "=" and quote in _TO_QUOTE:
        return _span(_TO_QUOTE[quote], text, start)
    return _span(_SHELL_WORD, text, start)


def _span(pattern: re.Pattern[str], text: str, start: int) -> tuple[int, int] | None:
    match = pattern.match(text, start)
    return match.span() if match else None


def _json_value(text: str, start: int) -> tuple[int, int] | None:
    first = text[start : start + 1]
    if first in _TO_QUOTE:
        span = _span(_TO_QUOTE[first], text, start + 1)
    else:
        span = _span(_ESCAPED_STRING if first == "\\" else _JSON_BARE, text, start)
    if span is None or text[span[0] : span[1]] in ("null", "true", "false", "{", "["):
        return None
    return span


def _begins_a_line(text: str, at: int) -> bool:
    """Whether only indentation is before a place, as in the lines of a YAML file after the first."""
    before = text[max(0, at - 65) : at].rstrip(" \t-")
    return before.endswith("\n")


def _is_secret(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    while words and words[-1].isdigit():
        words.pop()
    if not words or words[0] in _HARMLESS_BEGINNINGS:
        return False
    last = words[-1]
    return (
        last.endswith(_SECRET_ENDINGS)
        or last in _SECRET_WORDS
        or (last == "pwd" and len(words) > 1)
        or (last == "key" and len(words) > 1 and words[-2] in _SECRET_KEYS)
    )


def _redact_short_options(segment: str) -> str:
    """Take out the values of one-letter options, which mean a secret for some programs only."""
    for kind in {match.lastindex for match in _PROGRAM.finditer(segment)}:
        if kind is not None:
            segment = _redact_after(segment, _SHORT_OPTION[kind], keep=_is_user_id if kind == 4 else None)
    return segment


def _redact_after(text: str, option: re.Pattern[str], keep: Callable[[str], bool] | None) -> str:
    pieces, done, at = [], 0, 0
    while match := option.search(text, at):
        at = match.end()
        quote = text[match.start() - 1] if match.start() else ""
        if match[0][-1:] == ":" and (opening := re.search(r"[\"']", match[0])):
            quote = opening[0]
        span = _span(_TO_QUOTE.get(quote, _SHELL_WORD), text, at)
        if span is None or _OPTION.match(text, at) or _REFERENCE.match(text, at) or (keep and keep(match[0])):
            continue
        if text.startswith(REDACTED, at):
            continue
        pieces += [text[done:at], REDACTED]
        done = at = span[1]
    return "".join([*pieces, text[done:]])


def _is_user_id(option: str) -> bool:
    """Whether `-u 1000:1000` names user and group rather than user and password."""
    return option.rsplit(maxsplit=1)[-1].strip("\"':").isdigit()
