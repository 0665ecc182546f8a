"""Terminal sequences are dropped or made visible, in linear time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tasks.output.ansi import neutralise, origin, reaches_into, strip, unfinished, without_escapes

SEQUENCES = [
    b"\x1b[1;31m",
    b"\x1b]8;;http://x\x1b\\",
    b"\x1b]0;title\x07",
    b"\x1b(B",
    b"\x1b7",
    b"\x1bPq\x1b\\",
]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("10%\r20%\r100%\n", "100%\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("50%\r", "50%"),
        ("50%\r\x1b[Kdone\r\r\n", "done\n"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]never ended\nnext", "never ended\nnext"),
        ("\x1b(Bx\x1b7y\x1b=z", "xyz"),
        ("N\bNA\bAME\b\b\b\b\b\b\bX", "X"),
        ("bell\x07 del\x7f c1\x85", "bell del c1"),
        ("tab\tnul\0form\f", "tab\tnul\0form\f"),
        ("ünï 😀", "ünï 😀"),
    ],
)
def test_strip_leaves_what_a_reader_would_see(text: str, seen: str) -> None:
    assert strip(text) == seen


@given(st.text(st.characters(categories=("L", "N", "P", "Zs", "S"), include_characters="\n\t")))
def test_text_without_controls_is_left_alone(text: str) -> None:
    assert strip(text) == text == neutralise(text) or any(ord(c) > 0x2000 or ord(c) == 0x61C for c in text)


@given(st.text())
def test_nothing_that_was_stripped_or_neutralised_drives_a_terminal(text: str) -> None:
    assert not set(strip(text)) & set("\x07\b\r\x1b\x7f\x9b")
    assert all(
        character in "\n\t" or character.isprintable() or ord(character) >= 0xA0
        for character in neutralise(text)
    )


@given(st.binary())
def test_searchable_bytes_keep_their_newlines(data: bytes) -> None:
    assert without_escapes(data).count(b"\n") == data.count(b"\n")


@given(st.lists(st.sampled_from([b"a", b"\r", b"\x1b[1m", b"\x1b]0;t\x07"])).map(b"".join))
def test_every_searchable_byte_is_known_by_its_place_before_the_sequences_were_dropped(data: bytes) -> None:
    clean = without_escapes(data)
    for position, byte in enumerate(clean):
        assert without_escapes(data[origin(data, position) :])[:1] == bytes([byte])
    places = [origin(data, position) for position in range(len(clean))]
    assert places == sorted(set(places))


@pytest.mark.parametrize(
    "unit",
    [
        "\x1b",
        "\x1b[",
        "\x1b]",
        "\x1b[1;",
        "\r",
        "\b",
        "a\r",
        "a\b",
        "\x1bP",
        "\x1b[0m\r",
        "\x9b",
        "a\rb\n\x1b]x",
    ],
)
@pytest.mark.timeout(60)  # quadratic work would take many minutes
def test_a_megabyte_of_hostile_input_takes_linear_time(unit: str) -> None:
    text = "x" * 200_000 + unit * (1_000_000 // len(unit))
    assert len(strip(text)) <= len(text)
    assert neutralise(text)
    without_escapes(text.encode())
    origin(text.encode(), len(text))
    unfinished(text.encode())


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_a_sequence_cut_anywhere_is_known_to_be_unfinished(sequence: bytes) -> None:
    for cut in range(1, len(sequence)):
        assert unfinished(b"text " + sequence[:cut]) == cut
        assert reaches_into(b"text " + sequence[:cut], sequence[cut:] + b"more") == len(sequence) - cut
    assert unfinished(sequence) == 0
    assert reaches_into(sequence, b"more") == 0


def test_a_sequence_that_is_too_long_to_be_one_is_not_waited_for() -> None:
    assert unfinished(b"\x1b]" + b"x" * 300) == 0


def test_untrusted_text_is_made_visible() -> None:
    assert neutralise("\x1b[2J\x00\x7f\x9b\r\nok\t\u202egnp.exe") == "^[[2J^@^?\\u009b\nok\t\\u202egnp.exe"
    assert neutralise("safe\rrm -rf") == "safe^Mrm -rf"
