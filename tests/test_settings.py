from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from mcp_tasks.errors import InvalidArgument, NotSupported
from mcp_tasks.settings import Settings, config_file, misspelt, user_name


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings file of this test, which does not exist yet."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = config_file()
    assert path.is_relative_to(tmp_path)
    path.parent.mkdir(parents=True)
    return path


def test_the_defaults_are_those_of_the_documentation(tmp_path: Path) -> None:
    settings = Settings()

    assert settings.dir.is_relative_to(tmp_path)
    assert settings.store == "json"
    assert settings.session is None
    assert settings.max_running == max(16, 4 * (os.cpu_count() or 1))
    assert settings.queue_limit == 1000
    assert settings.max_wait_ms == 25_000
    assert settings.max_output_bytes == 8 * 2**30
    assert settings.min_free_bytes == 2**30
    assert settings.tools == "standard"


def test_an_argument_wins_over_the_environment_which_wins_over_the_file(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('session = "file"\nmax_running = 3\nqueue_limit = 3\n')
    monkeypatch.setenv("MCP_TASKS_SESSION", "environment")
    monkeypatch.setenv("MCP_TASKS_QUEUE_LIMIT", "4")

    settings = Settings(session="argument")

    assert (settings.session, settings.queue_limit, settings.max_running) == ("argument", 4, 3)


def test_an_argument_that_is_none_and_an_empty_variable_count_as_not_given(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text('session = "file"\n')
    monkeypatch.setenv("MCP_TASKS_SESSION", "")

    assert Settings(session=None).session == "file"


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("500MiB", 500 * 2**20), ("8 GB", 8 * 2**30), ("12b", 12), ("3k", 3072)]
)
def test_sizes_may_have_a_unit(text: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_TASKS_MAX_OUTPUT_BYTES", text)

    assert Settings().max_output_bytes == size


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_running", "0"),
        ("max_running", "many"),
        ("queue_limit", "-1"),
        ("max_wait_ms", "1.5"),
        ("max_output_bytes", "8 apples"),
        ("min_free_bytes", "-1"),
        ("archive_days", "soon"),
        ("auto_save", "maybe"),
        ("tools", "all"),
        ("store", "postgres"),
        ("session", "a/b"),
        ("session", ".."),
    ],
)
def test_a_wrong_value_is_refused_with_its_name_and_its_source(
    name: str, value: str, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidArgument, match=f"argument {name} is not right") as refused:
        Settings(**{name: value})
    assert refused.value.hint.startswith("it should be ")

    monkeypatch.setenv(f"MCP_TASKS_{name.upper()}", value)
    with pytest.raises(InvalidArgument, match=f"variable MCP_TASKS_{name.upper()} is not right"):
        Settings()
    monkeypatch.delenv(f"MCP_TASKS_{name.upper()}")

    config.write_text(f'{name} = "{value}"\n')
    with pytest.raises(InvalidArgument, match=rf"{name} in .*config\.toml is not right"):
        Settings()


def test_an_unknown_setting_is_refused_and_the_nearest_one_suggested(config: Path) -> None:
    with pytest.raises(InvalidArgument, match="max_runing") as refused:
        Settings(max_runing=3)
    assert refused.value.hint == "did you mean max_running?"

    config.write_text("wombat = 1\n")
    with pytest.raises(InvalidArgument, match=r"'wombat' in .*config\.toml"):
        Settings()


@pytest.mark.parametrize("content", [b"session = \n", b'session = "\xff"\n', b"[[[", b"\x00"])
def test_a_broken_file_is_an_error_that_names_it(content: bytes, config: Path) -> None:
    config.write_bytes(content)

    with pytest.raises(InvalidArgument, match=r"config\.toml is not valid TOML"):
        Settings()


def test_a_file_that_cannot_be_read_is_an_error_that_names_it(config: Path) -> None:
    config.mkdir()

    with pytest.raises(InvalidArgument, match=r"config\.toml cannot be read"):
        Settings()


def test_a_configuration_folder_that_is_a_file_is_no_configuration(config: Path) -> None:
    config.parent.rmdir()
    config.parent.write_text("")

    assert Settings().store == "json"


def test_the_state_directory_is_absolute_and_may_begin_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert Settings(dir="here").dir == tmp_path / "here"
    assert Settings(dir="~/there").dir == tmp_path / "there"
    assert Settings(dir="~nobody-of-this-name/x").dir == tmp_path / "~nobody-of-this-name/x"


def test_a_relative_state_directory_in_the_file_is_refused(config: Path) -> None:
    config.write_text('dir = "state"\n')

    with pytest.raises(InvalidArgument, match="is not absolute"):
        Settings()


def test_auto_save_off_means_the_memory_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_TASKS_AUTO_SAVE", "off")

    assert Settings().store == "memory"
    assert Settings(auto_save=True).store == "json"
    assert Settings(store="json").store == "json"


def test_a_store_that_does_not_exist_yet_is_not_supported() -> None:
    assert Settings(store="sqlite").store == "sqlite"
    with pytest.raises(NotSupported, match="redis"):
        Settings(store="redis")


def test_the_token_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_TASKS_TOKEN", "open sesame")
    settings = Settings()

    assert settings.token is not None
    assert settings.token.get_secret_value() == "open sesame"
    assert "sesame" not in repr(settings)


def test_a_folder_with_an_env_file_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("MCP_TASKS_SESSION=planted\n")
    monkeypatch.chdir(tmp_path)

    assert Settings().session is None


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().max_running = 1  # type: ignore[misc]  # this is what must not work


def test_the_owner_is_the_user_of_the_system_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user_name.cache_clear()
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.setenv(name, "somebody-else")

    assert Settings().owner == pwd.getpwuid(os.getuid()).pw_name


def test_a_user_id_without_a_name_stands_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_name(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", no_name)
    user_name.cache_clear()
    try:
        assert Settings().owner == str(os.getuid())
    finally:
        user_name.cache_clear()


def test_a_variable_that_is_nearly_one_of_ours_is_told_with_the_name_that_was_meant() -> None:
    given = [
        "MCP_TASKS_MAX_RUNING",
        "mcp_tasks_dirs",
        "MCP_TASKS_TASK",
        "MCP_TASKS_CAMPAIGN",
        "MCP_TASKS_DIR",
    ]
    assert misspelt(given) == {
        "MCP_TASKS_MAX_RUNING": "MCP_TASKS_MAX_RUNNING",
        "mcp_tasks_dirs": "MCP_TASKS_DIR",
    }


def test_words_are_given_with_commas_between_and_in_the_file_as_a_list_too(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Settings().allowed_hosts == ()
    monkeypatch.setenv("MCP_TASKS_ALLOWED_HOSTS", "tasks.example.com, 192.0.2.7:8377,")
    assert Settings().allowed_hosts == ("tasks.example.com", "192.0.2.7:8377")
    assert Settings(allowed_hosts="other.example.com").allowed_hosts == ("other.example.com",)
    config.write_text('oauth_scopes = ["openid", "email"]\nallowed_origins = "https://app.example.com"\n')
    assert Settings().oauth_scopes == ("openid", "email")
    assert Settings().allowed_origins == ("https://app.example.com",)
