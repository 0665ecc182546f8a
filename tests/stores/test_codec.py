"""Records as bytes: what is kept, what is refused, and what the refusal says."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mcp_tasks import codec
from mcp_tasks.codec import (
    BrokenRecord,
    NewerSchema,
    decode_plan,
    decode_session,
    decode_task,
    encode_plan,
    encode_session,
    encode_task,
)
from mcp_tasks.errors import InvalidArgument, LimitReached
from mcp_tasks.models import Closed, Plan, PlanKey, Session, Workspace
from tests.stores.records import OWNER, SESSION, finished, new_id, pending, relabelled, running


def _record(**changes: Any) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(encode_task(finished(running())))
    del record["crc32"]  # what is changed by hand, as version 1 wrote it
    record.update(changes)
    return record


def _bytes(record: object) -> bytes:
    return json.dumps(record, indent=1).encode()


def test_a_record_is_one_line_of_json_with_version_and_kind() -> None:
    data = encode_task(pending())
    assert data.count(b"\n") == 1
    record = json.loads(data)
    assert list(record) == ["schema", "kind", "crc32", "task"]
    assert (record["schema"], record["kind"]) == (2, "task")


def test_a_record_comes_back_however_it_is_spelt() -> None:
    task = finished(running(key="k"))
    assert decode_task(encode_task(task)) == task
    assert decode_task(_bytes(json.loads(encode_task(task)))) == task
    session = Session(SESSION, 5, 2, "a title", Closed(7, "done"), workspace=Workspace("/x", env={"A": "b"}))
    assert decode_session(encode_session(session)) == session
    assert decode_session(_bytes(json.loads(encode_session(session)))) == session
    plan = Plan(PlanKey(OWNER, "default", new_id()), 5, (new_id(), new_id()), "build")
    assert decode_plan(encode_plan(plan)) == plan
    assert decode_plan(_bytes(json.loads(encode_plan(plan)))) == plan


def test_every_flipped_bit_of_a_record_is_found() -> None:
    data = encode_task(finished(running(key="k")))
    for place in range(len(data) - 1):  # the last byte is a newline, which tells nothing
        for bit in range(8):
            bad = bytearray(data)
            bad[place] ^= 1 << bit
            try:
                assert decode_task(bytes(bad)) == decode_task(data), (place, bit)
            except (BrokenRecord, NewerSchema):
                continue


def test_a_value_that_is_not_what_was_written_is_told_by_its_checksum() -> None:
    data = encode_session(Session(SESSION, 5, title="one"))
    with pytest.raises(BrokenRecord, match="session: it is not what was written, its checksum differs"):
        decode_session(data.replace(b'"one"', b'"two"'))


def test_fields_that_nobody_knows_are_passed_over() -> None:
    record = _record(comment="x")
    record["task"]["colour"] = "green"
    record["task"]["spec"]["shape"] = {"round": True}
    record["task"]["state"]["outcome"]["core"] = True
    task = decode_task(_bytes(record))
    assert decode_task(encode_task(task)) == task


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["revision"], "7", "task.revision: Input should be a valid integer"),
        (["revision"], True, "task.revision: Input should be a valid integer"),
        (["key", "task_id"], 5, "task.key.task_id: Input should be a valid string"),
        (["state", "outcome", "exit_code"], 1.5, "task.state.finished.outcome.exited.exit_code: "),
        (["state", "outcome"], None, "task.state.finished.outcome: "),
        (["state", "kind"], "dreaming", "task.state: Input tag 'dreaming'"),
        (["history"], [{}], "task.history.0.state: Field required"),
        (
            ["spec", "on_output_limit"],
            "burn",
            "task.spec.on_output_limit: Input should be 'kill' or 'keep_tail'",
        ),
        (["spec"], [], "task.spec: "),
    ],
)
def test_a_refusal_names_the_field_and_what_is_wrong(path: list[str], value: object, message: str) -> None:
    record = _record()
    place = record["task"]
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    with pytest.raises(BrokenRecord) as refused:
        decode_task(_bytes(record))
    assert refused.value.message.startswith(message)


def test_a_refusal_names_the_first_few_of_many() -> None:
    with pytest.raises(BrokenRecord, match=r"task\.key: Field required; .*; and \d+ more"):
        decode_task(_bytes(_record(task={})))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 5000, "not JSON"),
        (b"[]", "not a JSON object but list"),
        (b"{}", "schema: expected a positive integer, found None"),
        (b'{"schema":0}', "schema: expected a positive integer, found 0"),
        (b'{"schema":true}', "schema: expected"),
        (b'{"schema":1}', "kind: expected 'task', found None"),
        (b'{"schema":1,"kind":"session","session":{}}', "kind: expected 'task', found 'session'"),
        (b'{"schema":1,"kind":"task"}', "task: missing"),
        (b'{"schema":1,"kind":"task","task":{}}\n{}\n', "not JSON"),
    ],
)
def test_what_is_no_record_is_broken_and_says_why(data: bytes, message: str) -> None:
    with pytest.raises(BrokenRecord) as refused:
        decode_task(data)
    assert refused.value.message.startswith(message)


def test_a_newer_version_is_told_before_anything_else_is_looked_at() -> None:
    for data in (b'{"schema":3}', b'{"schema":3,"kind":"dream","task":7}', _bytes(_record(schema=3))):
        with pytest.raises(NewerSchema, match="schema 3, this one knows 2") as refused:
            decode_task(data)
        assert refused.value.code == "store_unavailable"


def test_an_older_version_is_lifted_step_by_step() -> None:
    def rename(envelope: dict[str, Any]) -> dict[str, Any]:
        return {"kind": "task", "task": envelope["job"]}

    def complete(envelope: dict[str, Any]) -> dict[str, Any]:
        return {**envelope, "task": {**envelope["task"], "new": 1}}

    steps = {1: rename, 2: complete}
    old = b'{"schema":1,"job":{"a":1}}'
    assert codec.unwrap(old, "task", schema=3, migrations=steps) == {"a": 1, "new": 1}
    now = b'{"schema":3,"kind":"task","task":{"a":2}}'
    assert codec.unwrap(now, "task", schema=3, migrations=steps) == {"a": 2}
    with pytest.raises(BrokenRecord, match="version 1 is unknown"):
        codec.unwrap(old, "task", schema=3, migrations={2: complete})


def test_text_that_utf8_cannot_carry_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="not valid Unicode"):
        encode_task(relabelled(pending(), "\ud800"))


def test_a_record_that_could_not_be_read_again_is_not_written() -> None:
    with pytest.raises(LimitReached):
        encode_task(relabelled(pending(), "x" * codec.MAX_RECORD_BYTES))
