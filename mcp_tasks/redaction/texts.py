"""Texts and command lines without their secrets.

Every step is linear in the length of the text, whatever the text.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from urllib.parse import quote, quote_plus

from mcp_tasks.redaction.forms import redact_forms, redact_headers, redact_private_keys, redact_urls
from mcp_tasks.redaction.names import HEADERS, is_secret_name

__all__ = ["REDACTED", "redact_command", "redact_text"]

REDACTED = "[redacted]"

# A name and what binds a value to it: = or : or, for an option, a space. A JSON key keeps its quotes.
_NAME = re.compile(
    r"""(?<![\w.-])(-{0,2}+)([A-Za-z_][\w.-]{0,99}+)"""
    r"""(=(?!=)|\\?["']\s{0,8}+:\s{0,8}+|:\s{1,8}+|[ \t]{1,64}+)""",
    re.ASCII,
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


def redact_command(command: str | Sequence[str], values: Collection[str] = ()) -> str:
    """Render a command for people: on one line, secrets replaced by `[redacted]`.

    Args:
        command: As it was given: a line for the shell, or program and arguments.
        values: What `secret_values` found in its environment.
    """
    if isinstance(command, str):
        text = _redact_values(command, values)
    else:
        parts = (_redact_assignment(_redact_values(argument, values)) for argument in command)
        text = " ".join(map(shlex.quote, parts))
        text = text.replace(f"'{REDACTED}'", REDACTED)
    return _one_line(redact_text(text))


def redact_text(text: str, values: Collection[str] = ()) -> str:
    """Replace the secrets in a text of any number of lines.

    Args:
        text: Any text.
        values: What `secret_values` found in the environment that the text is about.
    """
    text = _redact_values(text, values)
    text = redact_private_keys(text, REDACTED)
    text = redact_urls(text, REDACTED)
    text = redact_headers(text, REDACTED)
    text = _redact_named(text)
    text = redact_forms(text, REDACTED)
    return _SEGMENT.sub(lambda segment: _redact_short_options(segment[0]), text)


def _redact_values(text: str, values: Collection[str]) -> str:
    """Take out values that are known, as they are and as they look in JSON, URLs, shell quotes and base64."""
    # To look for each is cheap; a pattern is made of those that are there only.
    there = [spelling for value in values for spelling in _spellings(value) if spelling in text]
    if not there:
        return text
    longest_first = sorted(set(there), key=len, reverse=True)
    return re.sub("|".join(map(re.escape, longest_first)), REDACTED, text)


@lru_cache(1_024)
def _spellings(value: str) -> frozenset[str]:
    try:
        raw = value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return frozenset((value, json.dumps(value)[1:-1]))
    coded = {quote(raw, safe=""), quote(raw), quote_plus(raw), base64.b64encode(raw).decode().rstrip("=")}
    written = {json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    return frozenset((value, value.strip(), value.replace("'", "'\"'\"'"), *written, *coded)) - {""}


def _one_line(text: str) -> str:
    text = text.strip().replace("\r\n", "\n").replace("\n", "\\n").replace("\t", " ")
    shown = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def _redact_assignment(argument: str) -> str:
    """Take out the whole value of an argument that is `NAME=VALUE`: its end is known, whatever it holds."""
    match = _NAME.match(argument)
    if match and match[3] == "=" and is_secret_name(match[2]) and match.end() < len(argument):
        return argument[: match.end()] + REDACTED
    return argument


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
    header = word.lower() in HEADERS or word.lower().startswith("x-")
    if not (is_secret_name(word) or word.lower() in HEADERS):
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
