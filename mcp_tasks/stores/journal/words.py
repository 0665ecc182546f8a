"""Words of a text, as the full-text index has them: for queries, and for texts that may not be in an index.

A query of ours is made of quoted strings and nothing else, so that what somebody types is always words
and never syntax (https://www.sqlite.org/fts5.html#full_text_query_syntax).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["contains", "phrases_of", "query_of", "words_of"]

_MOST_PHRASES = 64
"""A text with more words than this is searched by the first ones."""


def words_of(text: str) -> list[str]:
    """The words of a text without case and accents: runs of letters and digits."""
    words: list[str] = []
    word: list[str] = []
    for char in unicodedata.normalize("NFKD", text.casefold()):
        kind = unicodedata.category(char)
        if kind[0] in "LN" or kind == "Co":
            word.append(char)
        elif kind[0] != "M" and word:  # an accent belongs to the letter before it
            words.append("".join(word))
            word = []
    if word:
        words.append("".join(word))
    return words


def phrases_of(text: str) -> list[str]:
    """What has to be found, each for itself; `test_login.py` is one phrase of three words."""
    pieces = dict.fromkeys(piece for piece in text.replace("\0", " ").split() if words_of(piece))
    return list(pieces)[:_MOST_PHRASES]


def query_of(phrases: Sequence[str]) -> str:
    """The phrases as a query that wants all of them."""
    return " AND ".join('"' + phrase.replace('"', '""') + '"' for phrase in phrases)


def contains(text: str, phrases: Sequence[str]) -> bool:
    """Whether a text has all the phrases, each as words in a row."""
    words = words_of(text)
    return all(_stands_in(words, words_of(phrase)) for phrase in phrases)


def _stands_in(words: list[str], phrase: list[str]) -> bool:
    length = len(phrase)
    return any(words[at : at + length] == phrase for at in range(len(words) - length + 1))
