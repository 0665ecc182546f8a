"""Folder names that never meet, and file systems on which locks do not hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tasks.models import SESSION_NAME, TaskKey
from mcp_tasks.stores.disk.folder_names import (
    LONGEST_OWNER,
    owner_folder,
    owner_of_folder,
    session_folder,
    session_of_folder,
)
from mcp_tasks.stores.disk.mounts import file_system_of, is_network_file_system
from mcp_tasks.stores.json.markers import marker_name

SESSIONS = st.from_regex(SESSION_NAME, fullmatch=True)


@given(SESSIONS, SESSIONS)
def test_two_sessions_never_meet_on_a_file_system_that_ignores_case(one: str, two: str) -> None:
    if one != two:
        assert session_folder(one).lower() != session_folder(two).lower()
    for session in (one, two, one.swapcase(), one.upper()):
        folder = session_folder(session)
        assert session_of_folder(folder) == session
        assert folder == folder.lower()
        assert folder[-1] != "."
        assert len(folder) < 200


@given(st.text(), st.text())
def test_two_owners_never_meet_on_a_file_system_that_ignores_case(one: str, two: str) -> None:
    if one != two:
        assert owner_folder(one).lower() != owner_folder(two).lower()
    for owner in (one, two, one * 40):
        folder = owner_folder(owner)
        assert owner_of_folder(folder) in (owner, None)
        assert (owner_of_folder(folder) is None) == folder.startswith("^")
        assert 0 < len(folder) <= LONGEST_OWNER
        assert folder == folder.lower()
        assert "/" not in folder
        assert "~" not in folder
        assert folder[0] != "."
        assert folder[-1] != "."


@pytest.mark.parametrize("name", ["con", "NUL", "com1", "lpt9.txt", "Aux.log", "prn"])
def test_names_that_windows_reserves_are_given_to_nobody(name: str) -> None:
    for folder in (session_folder(name), owner_folder(name)):
        assert folder.partition(".")[0] not in ("con", "nul", "com1", "lpt9", "aux", "prn")
    assert session_of_folder(session_folder(name)) == name
    assert owner_of_folder(owner_folder(name)) == name


@pytest.mark.parametrize(
    "folder", ["", "^", "Upper", "a^0", "a^1^1", "^a", "a^zz", "a^" + "f" * 40, "..", "a b", "a~b"]
)
def test_a_folder_that_is_no_sessions_is_told(folder: str) -> None:
    assert session_of_folder(folder) is None


@pytest.mark.parametrize("folder", ["", "A", "%4", "%61", "%ff", "^abc", "a~b", "%zz"])
def test_a_folder_that_is_no_owners_is_told(folder: str) -> None:
    assert owner_of_folder(folder) is None


def test_the_longest_mark_fits_into_one_name() -> None:
    assert len(marker_name(TaskKey("Ü" * 500, "A" * 128, "0" * 36)).encode()) <= 255


MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /proc rw - proc proc rw
30 22 0:40 / /home rw - nfs4 server:/home rw
31 30 0:41 / /home/me/local rw shared:1 - ext4 /dev/vdb rw
32 22 0:42 / /mnt/with\040space rw - cifs //server/share rw
33 22 0:43 / /over rw - ext4 /dev/vdc rw
34 22 0:44 / /over rw - fuse.sshfs me@host: rw
35 22 0:45 / /mnt/c rw - 9p drvfs rw
broken line
"""


@pytest.mark.parametrize(
    ("folder", "kind", "network"),
    [
        ("/home/me/.local/state", "nfs4", True),
        ("/home", "nfs4", True),
        ("/homely", "ext4", False),
        ("/home/me/local/state", "ext4", False),
        ("/mnt/with space/x", "cifs", True),
        ("/over/x", "fuse.sshfs", True),
        ("/mnt/c/Users", "9p", True),
        ("/", "ext4", False),
    ],
)
def test_the_file_system_of_a_folder_is_the_one_mounted_nearest(
    folder: str, kind: str, network: bool
) -> None:
    assert file_system_of(folder, MOUNTS) == kind
    assert is_network_file_system(kind) is network


def test_an_empty_table_tells_nothing() -> None:
    assert file_system_of("/", "") == ""
    assert not is_network_file_system("")
