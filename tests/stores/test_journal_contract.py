from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_tasks.clock import Clock
from mcp_tasks.errors import MessageNotFound, StoreUnavailable
from mcp_tasks.models import Connection, Draft, JournalFigures, SessionKey, Version
from mcp_tasks.ports import Journal
from mcp_tasks.stores.journal.file import JournalFile, MemoryJournal
from mcp_tasks.stores.journal.tables import Rules
from tests.stores.journals import AT, KEY, OTHER, Scrambler, draft, drafts, texts

RULES = {SessionKey("ada", "short"): Rules(limit=20), SessionKey("ada", "hidden"): Rules(sealed=True)}
NONE = Rules()


@pytest.fixture
def sealer() -> Scrambler:
    return Scrambler()


@pytest.fixture(params=["memory", "file"])
def journal(request: pytest.FixtureRequest, tmp_path: Path, sealer: Scrambler) -> Iterator[Journal]:
    def rules_of(key: SessionKey) -> Rules:
        if key.session == "broken":
            raise StoreUnavailable("the store is away")
        return RULES.get(key, NONE)

    opened: Journal
    if request.param == "memory":
        opened = MemoryJournal(Clock(), sealer=sealer, rules_of=rules_of)
    else:
        (tmp_path / "state").mkdir(mode=0o700)
        opened = JournalFile(tmp_path / "state", Clock(), sealer=sealer, rules_of=rules_of)
    yield opened
    opened.close()


# -- adding and reading ------------------------------------------------------------------------


def test_messages_get_numbers_in_order_and_ids_of_their_own(journal: Journal) -> None:
    first, second = journal.append([draft("one"), draft("two")])
    (third,) = journal.append([draft("three")])

    assert [first.seq, second.seq, third.seq] == [1, 2, 3]
    assert len({first.message_id, second.message_id, third.message_id}) == 3


def test_what_was_added_is_read_as_it_was(journal: Journal) -> None:
    (parent,) = journal.append([draft("why?")])
    entry = Draft(KEY, "tool", "ran", AT + 1, "task", parent.message_id, {"tool": "x", "n": [1, None]})
    (added,) = journal.append([entry])

    assert journal.load(KEY, added.message_id) == added
    assert (added.role, added.task_id, added.parent) == ("tool", "task", parent.message_id)
    assert added.data == {"tool": "x", "n": [1, None]}
    assert journal.read(KEY) == [parent, added]


def test_each_session_has_a_journal_of_its_own(journal: Journal) -> None:
    (mine,) = journal.append([draft("mine")])
    (other,) = journal.append([draft("other", session=OTHER)])

    assert texts(journal.read(KEY)) == ["mine"]
    assert texts(journal.read(OTHER)) == ["other"]
    assert other.seq == 1
    with pytest.raises(MessageNotFound):
        journal.load(OTHER, mine.message_id)
    with pytest.raises(MessageNotFound):
        journal.append([draft("answer", session=OTHER, parent=mine.message_id)])


def test_a_journal_that_does_not_exist_is_empty(journal: Journal) -> None:
    assert journal.read(KEY) == []
    assert journal.read(KEY, folded=True) == []
    assert journal.search(KEY, "anything") == []
    assert list(journal.everything(KEY)) == []
    assert journal.figures(KEY) == JournalFigures(0, 0, None, None, None)
    assert journal.prune(KEY, 0) == 0
    assert journal.delete(KEY) == 0
    assert journal.append([]) == []
    assert journal.restore(KEY, iter(())) == 0
    with pytest.raises(MessageNotFound):
        journal.thread(KEY, "nothing")


def test_an_unknown_parent_refuses_the_whole_batch(journal: Journal) -> None:
    with pytest.raises(MessageNotFound):
        journal.append([draft("good"), draft("bad", parent="nobody")])

    assert journal.read(KEY) == []


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("folded", [False, True])
def test_pages_follow_each_other_without_gap_or_repetition(
    journal: Journal, newest_first: bool, folded: bool
) -> None:
    journal.append(drafts(25))
    found: list[str] = []
    at: int | None = None
    while True:
        page = journal.read(
            KEY,
            limit=7,
            newest_first=newest_first,
            folded=folded,
            before=at if newest_first else None,
            after=None if newest_first else at,
        )
        if not page:
            break
        found += texts(page)
        at = page[-1].seq

    wanted = [f"message {n}" for n in range(25)]
    assert found == (wanted[::-1] if newest_first else wanted)


@pytest.mark.parametrize("folded", [False, True])
def test_a_page_can_be_of_one_role_or_of_one_task(journal: Journal, folded: bool) -> None:
    journal.append([draft("a", role="tool", task_id="t1"), draft("b"), draft("c", role="tool", task_id="t2")])
    if folded:
        journal.prune(KEY, 1)

    assert texts(journal.read(KEY, role="tool", folded=folded)) == ["a", "c"]
    assert texts(journal.read(KEY, task_id="t2", folded=folded)) == ["c"]
    assert texts(journal.read(KEY, role="user", task_id="t2", folded=folded)) == []


def test_any_text_is_kept(journal: Journal) -> None:
    said = ["", "\0 and more", "zażółć 🦆\r\n", "'; DROP TABLE message; --", "x" * 100_000]
    journal.append([draft(text) for text in said])

    assert texts(journal.read(KEY)) == said


def test_half_a_character_is_written_out(journal: Journal) -> None:
    (message,) = journal.append([draft("\ud800")])

    assert message.text == "\\ud800"
    assert journal.read(KEY) == [message]


# -- threads and edits -------------------------------------------------------------------------


@pytest.mark.parametrize("folded", [False, True])
def test_a_thread_is_the_tree_and_a_branch_the_way_down(journal: Journal, folded: bool) -> None:
    (root,) = journal.append([draft("root")])
    journal.append([draft("elsewhere")])
    left, right = journal.append(
        [draft("left", parent=root.message_id), draft("right", parent=root.message_id)]
    )
    (leaf,) = journal.append([draft("leaf", parent=left.message_id)])
    if folded:
        journal.prune(KEY, 1)

    assert texts(journal.thread(KEY, right.message_id, folded=folded)) == ["root", "left", "right", "leaf"]
    assert texts(journal.branch(KEY, leaf.message_id, folded=folded)) == ["root", "left", "leaf"]
    assert texts(journal.branch(KEY, right.message_id, folded=True)) == ["root", "right"]
    with pytest.raises(MessageNotFound):
        journal.thread(KEY, "nobody", folded=folded)
    with pytest.raises(MessageNotFound):
        journal.branch(OTHER, leaf.message_id, folded=folded)


def test_a_branch_begins_with_the_first_live_message_where_older_ones_are_folded(journal: Journal) -> None:
    (root,) = journal.append([draft("root")])
    (answer,) = journal.append([draft("answer", parent=root.message_id)])
    journal.prune(KEY, 1)

    assert texts(journal.branch(KEY, answer.message_id)) == ["answer"]
    assert texts(journal.thread(KEY, answer.message_id)) == ["answer"]


@pytest.mark.parametrize("sealed", [False, True])
def test_an_edit_keeps_what_was_said_before(journal: Journal, sealed: bool) -> None:
    (message,) = journal.append([draft("frist", sealed=sealed)])
    journal.edit(KEY, message.message_id, "first", AT + 5)
    edited = journal.edit(KEY, message.message_id, "First", AT + 9)

    assert edited == journal.load(KEY, message.message_id)
    assert edited == replace(message, text="First", edited_at=AT + 9)
    assert journal.versions(KEY, message.message_id) == [
        Version(AT, "frist"),
        Version(AT + 5, "first"),
        Version(AT + 9, "First"),
    ]


def test_an_edit_of_what_is_not_there_is_refused(journal: Journal) -> None:
    (message,) = journal.append([draft("text")])
    with pytest.raises(MessageNotFound):
        journal.edit(OTHER, message.message_id, "x", AT)
    with pytest.raises(MessageNotFound):
        journal.versions(KEY, "nobody")
    assert journal.versions(KEY, message.message_id) == [Version(AT, "text")]


# -- searching ---------------------------------------------------------------------------------


def test_search_finds_messages_with_all_the_words_newest_first(journal: Journal) -> None:
    journal.append([draft("The build failed"), draft("build went well"), draft("it FAILED: the Build")])
    journal.append([draft("the build failed", session=OTHER)])

    assert texts(journal.search(KEY, "failed build")) == ["it FAILED: the Build", "The build failed"]
    assert texts(journal.search(KEY, "failed build", limit=1)) == ["it FAILED: the Build"]
    assert texts(journal.search(KEY, "failed build", before=3)) == ["The build failed"]
    assert journal.search(KEY, "failed nothing") == []


@pytest.mark.parametrize(
    "typed",
    [
        'word"',
        '"',
        "AND",
        "word AND",
        "NOT word",
        "text:word",
        "word*",
        "^word",
        "(word",
        "NEAR(word)",
        "-word",
        "{text}: word",
        "word\0",
        "+",
        "' OR 1=1",
    ],
)
def test_what_is_typed_is_words_and_never_a_language(journal: Journal, typed: str) -> None:
    journal.append([draft("a word in between"), draft("near: and not or 1 1 text")])

    for message in journal.search(KEY, typed):
        assert "word" in message.text or "near" in message.text
    if typed in ('word"', "word*", "^word", "(word", "-word", "word\0"):
        assert texts(journal.search(KEY, typed)) == ["a word in between"]


def test_names_with_dots_are_found_as_they_stand(journal: Journal) -> None:
    journal.append([draft("login test py"), draft("see test_login.py, line 3")])

    assert texts(journal.search(KEY, "test_login.py")) == ["see test_login.py, line 3"]
    assert texts(journal.search(KEY, "naïve")) == []


@pytest.mark.parametrize("sealed", [False, True])
def test_case_and_accents_do_not_matter(journal: Journal, sealed: bool) -> None:
    journal.append([draft("Ein Café in Köln", sealed=sealed)])

    assert len(journal.search(KEY, "CAFE koln")) == 1


@pytest.mark.parametrize("searched_before", [False, True])
def test_search_follows_edits(journal: Journal, searched_before: bool) -> None:
    (message,) = journal.append([draft("apple")])
    if searched_before:
        journal.search(KEY, "apple")
    journal.edit(KEY, message.message_id, "pear", AT)

    assert journal.search(KEY, "apple") == []
    assert texts(journal.search(KEY, "pear")) == ["pear"]


def test_many_messages_are_indexed_as_they_come(journal: Journal) -> None:
    journal.append(drafts(2_500))

    assert texts(journal.search(KEY, "2017")) == ["message 2017"]
    assert len(journal.search(KEY, "message", limit=10)) == 10


# -- sealed ------------------------------------------------------------------------------------


def test_sealed_messages_are_read_and_found_like_others(journal: Journal, sealer: Scrambler) -> None:
    entry = Draft(KEY, "tool", "open secret", AT, data={"word": "quack"}, sealed=True)
    (sealed,) = journal.append([entry])
    (plain,) = journal.append([draft("no secret here")])

    assert sealed.sealed
    assert journal.read(KEY) == [sealed, plain]
    assert journal.search(KEY, "secret") == [plain, sealed]
    assert journal.search(KEY, "secret", limit=1) == [plain]
    assert journal.search(KEY, "open", limit=1) == [sealed]
    assert journal.load(KEY, sealed.message_id).data == {"word": "quack"}
    sealer.lost = True
    with pytest.raises(StoreUnavailable, match="key"):
        journal.load(KEY, sealed.message_id)
    assert journal.load(KEY, plain.message_id) == plain


def test_sealed_messages_stay_sealed_when_they_are_folded(journal: Journal, sealer: Scrambler) -> None:
    journal.append([*drafts(5, sealed=True), draft("last")])
    journal.prune(KEY, 1)

    assert texts(journal.everything(KEY)) == [f"message {n}" for n in range(5)] + ["last"]
    (summary,) = journal.read(KEY, role="summary")
    assert summary.sealed
    assert "message 0" in summary.text
    assert texts(journal.search(KEY, "folded")) == [summary.text]
    sealer.lost = True
    with pytest.raises(StoreUnavailable):
        list(journal.everything(KEY))


# -- folding -----------------------------------------------------------------------------------


def test_pruning_folds_the_oldest_behind_a_summary(journal: Journal) -> None:
    journal.append([draft("Begin here", AT), draft("x", AT + 1, role="tool", task_id="t1"), *drafts(3)])

    assert journal.prune(KEY, 3) == 2
    summary, *rest = journal.read(KEY)
    assert texts(rest) == ["message 0", "message 1", "message 2"]
    assert (summary.role, summary.seq) == ("summary", 2)
    assert summary.data["roles"] == {"user": 1, "tool": 1}
    assert summary.data["tasks"] == ["t1"]
    assert summary.data["beginnings"] == ["Begin here"]
    assert (summary.data["since"], summary.data["until"]) == (AT, AT + 1)
    for word in ("2 older messages", "1 tool", "t1", "Begin here", "2023-11-14T22:13:20.000Z"):
        assert word in summary.text
    assert journal.prune(KEY, 3) == 0


def test_everything_comes_back_from_the_folds(journal: Journal) -> None:
    messages = journal.append(drafts(1_203))
    journal.edit(KEY, messages[3].message_id, "edited", AT + 7)
    journal.prune(KEY, 700)
    journal.prune(KEY, 10)

    found = list(journal.everything(KEY))
    assert [message.seq for message in found] == list(range(1, 1_204))
    assert found[3] == replace(
        messages[3], text="edited", edited_at=AT + 7, versions=(Version(AT + 3, "message 3"),)
    )
    assert found[4:] == messages[4:]
    assert journal.read(KEY, folded=True, limit=5, newest_first=True, before=700) == messages[694:699][::-1]
    assert journal.read(KEY, folded=True, limit=5, after=600) == messages[600:605]
    assert journal.figures(KEY) == JournalFigures(10, 1_193, AT, AT + 1_202, None)


def test_folded_messages_are_not_live(journal: Journal) -> None:
    messages = journal.append(drafts(4))
    assert len(journal.search(KEY, "message")) == 4
    journal.prune(KEY, 2)

    with pytest.raises(MessageNotFound):
        journal.load(KEY, messages[0].message_id)
    assert [one.role for one in journal.search(KEY, "1")] == ["summary"]  # it tells how they began
    assert texts(journal.search(KEY, "message 3")) == ["message 3"]
    assert [one.role for one in journal.search(KEY, "folded")] == ["summary"]


def test_a_message_after_pruning_everything_has_the_next_number(journal: Journal) -> None:
    journal.append(drafts(3))
    journal.prune(KEY, 0)
    (message,) = journal.append([draft("next")])

    assert message.seq == 4
    assert texts(journal.everything(KEY)) == ["message 0", "message 1", "message 2", "next"]


def test_many_summaries_become_one(journal: Journal) -> None:
    for _ in range(30):
        journal.append(drafts(10))
        journal.prune(KEY, 5)
        assert len(journal.read(KEY, role="summary")) <= 8

    summaries = journal.read(KEY, role="summary")
    assert sum(one.data["folded"] for one in summaries) == 295
    assert len(list(journal.everything(KEY))) == 300
    assert journal.figures(KEY).folded == 295


def test_very_long_messages_are_folded_a_few_at_a_time(journal: Journal) -> None:
    journal.append([draft(f"{n} " + "x" * 1_500_000) for n in range(5)])
    journal.prune(KEY, 0)

    assert [text[0] for text in texts(journal.everything(KEY))] == list("01234")
    assert len(journal.read(KEY)) == 1


def test_what_is_folded_while_it_is_read_is_read_once(journal: Journal) -> None:
    journal.append(drafts(1_100))
    reading = journal.everything(KEY)
    found = [next(reading).seq]
    journal.prune(KEY, 3)
    journal.append([draft("late")])
    found += [message.seq for message in reading]

    assert found == list(range(1, 1_102))


def test_the_limit_of_a_session_holds_by_itself(journal: Journal) -> None:
    short = SessionKey("ada", "short")
    for _ in range(55):
        journal.append(drafts(1, session=short))
        assert 1 <= journal.figures(short).live <= 20
    journal.note(draft("noted", session=short))
    journal.flush()

    assert journal.figures(short).live > 10
    assert len(list(journal.everything(short))) == 56


def test_nothing_is_written_where_nobody_can_say_whether_it_is_to_be_sealed(journal: Journal) -> None:
    broken = SessionKey("ada", "broken")
    with pytest.raises(StoreUnavailable):
        journal.append(drafts(1, session=broken))
    journal.note(draft("lost", session=broken))
    journal.note(draft("kept"))
    journal.flush()

    assert journal.figures(broken).live == 0
    assert texts(journal.read(KEY)) == ["kept"]


def test_all_that_comes_into_a_sealed_journal_is_sealed(journal: Journal) -> None:
    hidden = SessionKey("ada", "hidden")
    journal.append([draft("said", session=hidden)])
    journal.note(draft("noted", session=hidden))
    journal.flush()
    journal.append([draft("moved")])
    journal.restore(hidden, journal.everything(KEY))

    assert [(one.text, one.sealed) for one in journal.read(hidden)] == [
        ("said", True),
        ("noted", True),
        ("moved", True),
    ]


# -- taking over -------------------------------------------------------------------------------


def test_a_whole_journal_moves_with_all_that_it_has(journal: Journal) -> None:
    (first,) = journal.append([draft("first")])
    journal.edit(KEY, first.message_id, "First", AT + 1)
    journal.append(
        [draft("second", parent=first.message_id), Draft(KEY, "tool", "t", AT, data={"a": 1}, sealed=True)]
    )
    journal.prune(KEY, 1)
    moved = journal.restore(OTHER, journal.everything(KEY))

    assert moved == 3
    assert [replace(one, session=KEY) for one in journal.everything(OTHER)] == list(journal.everything(KEY))
    assert texts(journal.search(OTHER, "second")) == ["second"]
    assert journal.versions(OTHER, first.message_id)[0] == Version(AT, "first")


def test_what_is_there_already_is_not_taken_twice(journal: Journal) -> None:
    journal.append(drafts(6))
    journal.prune(KEY, 3)
    there = list(journal.everything(KEY))
    stranger = replace(there[0], message_id="stranger", seq=2, text="new")

    assert journal.restore(KEY, iter([*there, stranger, stranger])) == 1
    assert texts(journal.everything(KEY)) == [*texts(there), "new"]
    assert journal.load(KEY, "stranger").seq == 7


def test_a_journal_that_is_deleted_is_gone_and_begins_anew(journal: Journal) -> None:
    journal.append(drafts(10))
    journal.search(KEY, "message")
    journal.prune(KEY, 4)
    journal.append(drafts(2, session=OTHER))
    journal.connect(Connection("c1", KEY.owner, KEY.session, "claude", "1.0", "stdio", AT, AT))

    assert journal.delete(KEY) == 10
    assert journal.connections(KEY.owner) == []
    assert journal.figures(KEY) == JournalFigures(0, 0, None, None, None)
    assert journal.append(drafts(1))[0].seq == 1
    assert texts(journal.search(KEY, "message")) == ["message 0"]
    assert len(journal.read(OTHER)) == 2


# -- notes, activity, connections --------------------------------------------------------------


def test_notes_are_there_after_a_flush_in_their_order(journal: Journal) -> None:
    for one in drafts(50):
        journal.note(one)
    journal.note(lambda: draft("made later"))
    journal.note(lambda: None)
    journal.note(lambda: draft(str(1 // 0)))
    journal.note(draft("after the failure"))
    journal.flush()

    wanted = [f"message {n}" for n in range(50)]
    assert texts(journal.read(KEY)) == [*wanted, "made later", "after the failure"]
    assert journal.problems() == []


def test_an_entry_that_cannot_be_sealed_holds_up_no_other(journal: Journal, sealer: Scrambler) -> None:
    class Keyless(Scrambler):
        def seal(self, text: str) -> str:
            raise StoreUnavailable("no key")

    sealer.__class__ = Keyless
    with pytest.raises(StoreUnavailable):
        journal.append([draft("secret", sealed=True)])
    journal.note(draft("secret", sealed=True))
    journal.note(draft("open"))
    journal.flush()

    assert texts(journal.read(KEY)) == ["open"]


def test_activity_is_the_newest_moment_noted(journal: Journal) -> None:
    journal.append(drafts(1))
    journal.touch(KEY, AT + 5)
    journal.touch(KEY, AT + 2)
    assert journal.active_at([KEY, OTHER]) == {KEY: AT + 5}
    journal.flush()
    journal.touch(KEY, AT + 1)

    assert journal.active_at([KEY, OTHER]) == {KEY: AT + 5}
    assert journal.figures(KEY).active_at == AT + 5
    many = [SessionKey("ada", f"s{n}") for n in range(60)]
    journal.touch(many[7], AT)
    journal.flush()
    assert journal.active_at([*many, KEY]) == {many[7]: AT, KEY: AT + 5}


def test_connections_are_remembered_newest_first(journal: Journal) -> None:
    one = Connection("c1", "ada", "work", "claude", "1.0", "stdio", AT, AT)
    two = replace(one, connection_id="c2", session=None, began_at=AT + 1)
    foreign = replace(one, connection_id="c3", owner="bob")
    for connection in (one, two, foreign):
        journal.connect(connection)

    assert journal.connections("ada") == [two, one]
    assert journal.connections("ada", "work") == [one]
    assert journal.connections("ada", limit=1) == [two]
    ended = replace(one, seen_at=AT + 9, ended_at=AT + 9, ended="closed")
    journal.connect(ended)
    journal.connect(replace(one, owner="bob", ended="stolen"))
    assert journal.connections("ada", "work") == [ended]


def test_old_connections_are_forgotten(journal: Journal) -> None:
    for n in range(203):
        journal.connect(Connection(f"c{n}", "ada", None, "x", "1", "stdio", AT + n, AT + n))

    found = journal.connections("ada", limit=1_000)
    assert len(found) == 200
    assert found[-1].connection_id == "c3"


def test_threads_get_numbers_without_gap_or_repetition(journal: Journal) -> None:
    def write(name: int) -> None:
        for n in range(20):
            if n % 2:
                journal.append([draft(f"{name} {n}")])
            else:
                journal.note(draft(f"{name} {n}"))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.flush()

    found = journal.read(KEY, limit=1_000)
    assert [message.seq for message in found] == list(range(1, 161))
    assert len(set(texts(found))) == 160
