from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument, NotSupported, StoreUnavailable
from mcp_tasks.sealing import KeyedSealer, is_sealed, open_sealer
from mcp_tasks.sealing.sealer import key_id_of
from mcp_tasks.sealing.sources import ProcessKeys
from mcp_tasks.settings import Settings

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(1, 33))).decode()
PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    return state


def sealer(state: Path, *, key: str | None = None, key_file: Path | None = None) -> KeyedSealer:
    if key is None and key_file is None:
        key_file = state.parent / "config" / "key"
    return open_sealer(Settings(dir=state, key=key, key_file=key_file))


@pytest.mark.parametrize("key", [None, KEY, PASSPHRASE, f"{OTHER_KEY},{KEY}"])
@pytest.mark.parametrize("text", ["", "hunter2", "zwei\nZeilen \0 ü \ud800", "x" * 1_000_000])
def test_what_is_sealed_comes_back_and_is_one_line_without_it(
    state: Path, key: str | None, text: str
) -> None:
    sealed = sealer(state, key=key).seal(text)

    assert is_sealed(sealed)
    assert "\n" not in sealed
    assert text == "" or text not in sealed
    assert sealer(state, key=key).unseal(sealed) == text


def test_the_same_text_is_never_sealed_alike(state: Path) -> None:
    one = sealer(state)

    assert one.seal("hunter2") != one.seal("hunter2")


def test_opening_a_sealer_makes_and_imports_nothing(state: Path) -> None:
    script = (
        "import sys; from mcp_tasks.sealing import open_sealer; from mcp_tasks.settings import Settings;"
        "open_sealer(Settings(dir=sys.argv[1], key_file=sys.argv[2]));"
        "print(*(name for name in sys.modules if name.startswith(('cryptography', 'keyring', 'filelock'))))"
    )
    file = state.parent / "key"
    done = subprocess.run(
        [sys.executable, "-c", script, str(state), str(file)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=30,
    )

    assert done.stdout.split() == []
    assert not file.exists()


@pytest.mark.parametrize("at", [0, 8, 12, 25, -6])
def test_a_sealed_text_that_was_changed_is_refused(state: Path, at: int) -> None:
    one = sealer(state)
    sealed = one.seal("hunter2")
    changed = list(sealed)
    changed[at] = "A" if changed[at] != "A" else "B"

    with pytest.raises(StoreUnavailable) as raised:
        one.unseal("".join(changed))
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize("text", ["", "hunter2", "sealed1.abc.", "sealed1..AAAA"])
def test_what_is_not_sealed_is_refused(state: Path, text: str) -> None:
    assert not is_sealed(text)
    with pytest.raises(StoreUnavailable, match="damaged"):
        sealer(state).unseal(text)


def test_without_its_key_a_text_stays_sealed_and_the_key_is_named(state: Path) -> None:
    sealed = sealer(state, key=KEY).seal("hunter2")

    with pytest.raises(StoreUnavailable, match=f"the key {key_id_of(sealed)} .* is not here"):
        sealer(state, key=OTHER_KEY).unseal(sealed)
    with pytest.raises(StoreUnavailable, match="not what was sealed"):
        sealer(state, key="another passphrase").unseal(sealer(state, key=PASSPHRASE).seal("hunter2"))


def test_the_key_file_is_made_once_and_for_its_owner_alone(state: Path) -> None:
    file = state.parent / "new" / "key"
    with ThreadPoolExecutor(8) as threads:
        sealed = list(threads.map(lambda _: sealer(state, key_file=file).seal("x"), range(16)))

    assert len({key_id_of(text) for text in sealed}) == 1
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []


def test_many_processes_agree_on_one_key(state: Path) -> None:
    file = state.parent / "key"
    script = (
        "import sys; from mcp_tasks.sealing import open_sealer; from mcp_tasks.settings import Settings;"
        "print(open_sealer(Settings(dir=sys.argv[1], key_file=sys.argv[2])).seal('x'))"
    )
    command = [sys.executable, "-c", script, str(state), str(file)]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        for _ in range(4)
    ]
    sealed = [process.communicate(timeout=60)[0].strip() for process in processes]

    assert len({key_id_of(text) for text in sealed}) == 1
    assert all(sealer(state, key_file=file).unseal(text) == "x" for text in sealed)


@pytest.mark.parametrize("place", ["key", "deep/er/key"])
def test_a_key_file_in_the_state_directory_is_refused(state: Path, place: str) -> None:
    with pytest.raises(InvalidArgument, match="lies in the state directory"):
        sealer(state, key_file=state / place)


def test_a_link_into_the_state_directory_is_the_state_directory(state: Path) -> None:
    (state.parent / "elsewhere").symlink_to(state)

    with pytest.raises(InvalidArgument, match="lies in the state directory"):
        sealer(state, key_file=state.parent / "elsewhere" / "key")


def test_a_key_file_that_others_may_read_is_refused(state: Path) -> None:
    file = state.parent / "key"
    sealer(state, key_file=file).seal("x")
    file.chmod(0o640)

    with pytest.raises(StoreUnavailable, match=r"open to others \(mode 0640\)"):
        sealer(state, key_file=file).seal("x")


def test_a_link_in_the_place_of_the_key_file_is_not_followed(state: Path) -> None:
    file = state.parent / "key"
    target = state.parent / "target"
    target.write_text(f"{KEY}\n")
    target.chmod(0o600)
    file.symlink_to(target)

    with pytest.raises(StoreUnavailable, match="is a link"):
        sealer(state, key_file=file).seal("x")
    assert target.read_text() == f"{KEY}\n"


@pytest.mark.parametrize("content", ["nonsense\n", f"{KEY[:-8]}\n", f"{KEY}\n\x00\xff\n"])
def test_a_damaged_key_file_is_refused_and_left_alone(state: Path, content: str) -> None:
    file = state.parent / "key"
    file.write_text(content)
    file.chmod(0o600)

    with pytest.raises(StoreUnavailable, match="something that is no key"):
        sealer(state, key_file=file).seal("x")
    assert file.read_text() == content


def test_a_folder_that_cannot_be_made_is_an_error_without_a_path(state: Path) -> None:
    blocked = state.parent / "file"
    blocked.touch()

    with pytest.raises(StoreUnavailable, match="the key file cannot be used") as raised:
        sealer(state, key_file=blocked / "key").seal("x")
    assert str(state.parent) not in str(raised.value)


def test_the_newest_key_of_the_file_seals_and_all_unseal(state: Path) -> None:
    one, other = sealer(state), sealer(state)
    before = one.seal("x")
    new = one.source.add()

    assert key_id_of(other.seal("y")) == new.key_id  # another server sees it at once
    assert other.unseal(before) == "x"
    assert one.source.older() == [key_id_of(before)]
    renewed = other.renewed(before)
    assert renewed is not None
    assert key_id_of(renewed) == new.key_id
    assert other.renewed(renewed) is None


@pytest.mark.parametrize("ending", ["", "\n", "\n\n", "\n# mine"])
def test_a_key_is_added_whatever_the_file_of_somebody_ends_with(state: Path, ending: str) -> None:
    file = state.parent / "key"
    file.write_text(f"{KEY}{ending}")
    file.chmod(0o600)
    one = sealer(state, key_file=file)
    before = one.seal("x")
    new = one.source.add()

    assert key_id_of(one.seal("y")) == new.key_id
    assert sealer(state, key_file=file).unseal(before) == "x"


def test_a_first_key_is_made_below_a_note_of_somebody(state: Path) -> None:
    file = state.parent / "key"
    file.write_text("# keys of the build machine")
    file.chmod(0o600)

    assert sealer(state, key_file=file).unseal(sealer(state, key_file=file).seal("x")) == "x"


def test_a_key_file_that_is_too_large_is_not_written_over(state: Path) -> None:
    file = state.parent / "key"
    content = f"#{'x' * 70_000}\n{KEY}\n"
    file.write_text(content)
    file.chmod(0o600)

    with pytest.raises(StoreUnavailable, match="larger than"):
        sealer(state, key_file=file).source.add()
    assert file.read_text() == content


def test_of_several_keys_of_the_environment_the_last_seals(state: Path) -> None:
    old = sealer(state, key=OTHER_KEY).seal("x")
    both = sealer(state, key=f"{OTHER_KEY},{KEY}")

    assert both.unseal(old) == "x"
    assert sealer(state, key=KEY).unseal(both.seal("y")) == "y"
    with pytest.raises(NotSupported, match="MCP_TASKS_KEY"):
        both.source.add()


def test_one_can_go_over_from_the_file_to_the_environment(state: Path) -> None:
    file = state.parent / "key"
    before = sealer(state, key_file=file).seal("x")
    now = sealer(state, key=KEY, key_file=file)

    assert now.unseal(before) == "x"
    assert key_id_of(now.seal("y")) != key_id_of(before)
    assert now.source.older() == []


def test_servers_of_one_store_agree_on_the_salt_of_a_passphrase(state: Path) -> None:
    first = sealer(state, key=PASSPHRASE).seal("x")

    assert key_id_of(sealer(state, key=PASSPHRASE).seal("y")) == key_id_of(first)
    assert stat.S_IMODE((state / "key.salt").stat().st_mode) == 0o600


def test_a_passphrase_unseals_what_it_sealed_with_another_salt(state: Path) -> None:
    first = sealer(state, key=PASSPHRASE).seal("x")
    (state / "key.salt").unlink()
    moved = sealer(state, key=PASSPHRASE)

    assert key_id_of(moved.seal("y")) != key_id_of(first)
    assert moved.unseal(first) == "x"


@pytest.mark.parametrize("content", ["", "zz", None])
def test_a_salt_that_cannot_be_read_or_kept_is_not_needed(state: Path, content: str | None) -> None:
    if content is None:
        (state / "key.salt").mkdir()
    else:
        (state / "key.salt").write_text(content)

    assert sealer(state, key=PASSPHRASE).unseal(sealer(state, key=PASSPHRASE).seal("x")) == "x"


@pytest.mark.parametrize("key", ["hunter2", "x" * 11])
def test_a_passphrase_that_is_easily_guessed_is_refused(state: Path, key: str) -> None:
    with pytest.raises(InvalidArgument, match="too short") as raised:
        sealer(state, key=key)
    assert key not in str(raised.value)


def test_the_memory_store_needs_no_key_of_anybody(tmp_path: Path) -> None:
    file = tmp_path / "key"
    one = open_sealer(Settings(store="memory", key_file=file))

    assert one.unseal(one.seal("x")) == "x"
    assert not file.exists()


def test_a_process_key_can_be_replaced() -> None:
    one = KeyedSealer(ProcessKeys())
    before = one.seal("x")
    one.source.add()

    assert one.unseal(before) == "x"
    assert one.renewed_values({"A": before, "B": one.seal("y")}) is not None
    assert one.source.older() == [key_id_of(before)]


def test_values_that_are_sealed_with_the_newest_key_are_left_alone() -> None:
    one = KeyedSealer(ProcessKeys())

    assert one.renewed_values({"A": one.seal("x")}) is None
    assert one.renewed_values({}) is None


def test_the_usual_key_file_lies_outside_of_the_state_directory_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "both"))
    open_sealer(Settings(dir=tmp_path / "state")).seal("x")
    open_sealer(Settings(dir=tmp_path / "both")).seal("x")  # as on macOS

    assert (tmp_path / "both" / "mcp-tasks" / "key").is_file()
    assert (tmp_path / ".config" / "mcp-tasks" / "key").is_file()
    assert os.listdir(tmp_path) == [name for name in os.listdir(tmp_path) if name != "state"]
