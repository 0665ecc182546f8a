from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_tasks.redaction import REDACTED, redact_command
from tests.redaction.growth import growth

# Put together here, so that no scanner takes this file for a leak.
GITHUB = "ghp_" + "a1B2" * 9
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxIn0." + "c2lnbmF0dXJl"
PRIVATE_KEY = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEow\nhunter2\n-----END RSA " + "PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("mysql --password hunter2 db", "mysql --password [redacted] db"),
        ("tool --password='hunter2 x' db", "tool --password=[redacted] db"),
        ('tool --password "hunter2 x" db', "tool --password [redacted] db"),
        ("tool --token=hunter2;ls", "tool --token=[redacted];ls"),
        (
            "java -Dspring.datasource.password=hunter2 -jar x.jar",
            "java -Dspring.datasource.password=[redacted] -jar x.jar",
        ),
        ("openssl rsa -passin pass:hunter2 -in k", "openssl rsa -passin [redacted] -in k"),
        ("PGPASSWORD=hunter2 psql", "PGPASSWORD=[redacted] psql"),
        ("export DB_PASS='hunter2' && run", "export DB_PASS=[redacted] && run"),
        ("AWS_SECRET_ACCESS_KEY=hunter2/x+y aws s3 ls", "AWS_SECRET_ACCESS_KEY=[redacted] aws s3 ls"),
        ("docker run -e 'API_KEY=hunter2 x' img", "docker run -e 'API_KEY=[redacted]' img"),
        ('docker run -e "API_KEY=hunter2 x" img', 'docker run -e "API_KEY=[redacted]" img'),
        ("MYSQL_PWD=hunter2 mysqldump", "MYSQL_PWD=[redacted] mysqldump"),
        ("x --clientSecret hunter2", "x --clientSecret [redacted]"),
        ("TOKEN_1=hunter2 x", "TOKEN_1=[redacted] x"),
        ("x --password -hunter2!", "x --password [redacted]"),
        ("curl https://x.org/?a=1&api_key=hunter2&b=2", "curl https://x.org/?a=1&api_key=[redacted]&b=2"),
        ("git clone https://me:hunter2@x.org/r.git", "git clone https://me:[redacted]@x.org/r.git"),
        ("psql postgres://me:hunt@er2@db:5432/x", "psql postgres://me:[redacted]@db:5432/x"),
        ("redis-cli -u redis://:hunter2@h:6379", "redis-cli -u redis://:[redacted]@h:6379"),
        ("curl -H 'Authorization: Bearer hunter2' u", "curl -H 'Authorization: [redacted]' u"),
        ('curl -H "authorization: Basic aHVudGVyMg==" u', 'curl -H "authorization: [redacted]" u'),
        ("curl -H 'X-Api-Key: hunter2' u", "curl -H 'X-Api-Key: [redacted]' u"),
        ("curl -H 'Cookie: sid=hunter2; b=1' u", "curl -H 'Cookie: [redacted]' u"),
        (
            """curl -d '{"user":"me","password": "hunter2"}' u""",
            """curl -d '{"user":"me","password": "[redacted]"}' u""",
        ),
        ('curl -d "{\\"token\\":\\"hunter2\\"}" u', 'curl -d "{\\"token\\":[redacted]}" u'),
        ("curl -u me:hunter2 u", "curl -u me:[redacted] u"),
        ("curl --user 'me:hunter2 x' u", "curl --user 'me:[redacted]' u"),
        ("mysql -uroot -phunter2 db", "mysql -uroot -p[redacted] db"),
        ("sshpass -p hunter2 ssh h", "sshpass -p [redacted] ssh h"),
        ("docker login -u me -p hunter2 r.io", "docker login -u me -p [redacted] r.io"),
        ("redis-cli -a hunter2 ping", "redis-cli -a [redacted] ping"),
        (
            "cat > c.yml <<E\nuser: me\n  password: hunter2\nE",
            "cat > c.yml <<E\\nuser: me\\n  password: [redacted]\\nE",
        ),
        (f"echo {GITHUB}|gh auth login", "echo [redacted]|gh auth login"),
        (f"x {JWT} y", "x [redacted] y"),
        (f"echo '{PRIVATE_KEY}' > k", "echo '[redacted]' > k"),
        (f"echo '{PRIVATE_KEY[:50]}", "echo '[redacted]"),
    ],
)
def test_a_secret_is_replaced_and_the_rest_is_kept(command: str, shown: str) -> None:
    assert redact_command(command) == shown


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["x", "--password", "hunter 2", "y"], "x --password [redacted] y"),
        (["x", "--password=hunter 2", "y"], "x '--password=[redacted]' y"),
        (["env", "TOKEN=hunter 2\nx", "y"], "env 'TOKEN=[redacted]' y"),
        (["mysql", "-phunter 2", "y"], "mysql '-p[redacted]' y"),
        (["curl", "-H", "Authorization: Bearer hunter2"], "curl -H 'Authorization: [redacted]'"),
        (["echo", "a b", "c"], "echo 'a b' c"),
        (["echo", ""], "echo ''"),
    ],
)
def test_a_list_is_shown_as_a_shell_would_take_it(command: list[str], shown: str) -> None:
    assert redact_command(command) == shown


def test_a_secret_in_a_quoted_script_of_a_list_is_replaced() -> None:
    shown = redact_command(["sh", "-c", "mysql --password='hunter2 x' -e 'select 1'"])

    assert "hunter2" not in shown
    assert "select 1" in shown


@pytest.mark.parametrize(
    "token",
    [
        "github_pat_" + "1A" * 20,
        "gho_" + "1A" * 18,
        "glpat-" + "1A" * 10,
        "sk-ant-api03-" + "1A" * 20,
        "sk-proj-" + "1A" * 20,
        "sk-" + "1A" * 24,
        "sk_live_" + "1A" * 12,
        "AKIA" + "1A" * 8,
        "ASIA" + "1A" * 8,
        "xoxb-" + "1234567890-abc",
        "AIza" + "1A" * 17 + "x",
        "npm_" + "1A" * 18,
        "pypi-AgEI" + "1A" * 20,
        "hf_" + "1A" * 17,
    ],
)
def test_a_token_of_a_known_form_is_replaced_wherever_it_stands(token: str) -> None:
    assert redact_command(f"deploy {token}") == "deploy [redacted]"
    assert token not in redact_command(f"git push https://{token}@x.org/r && echo '{token}'")


@pytest.mark.parametrize(
    "command",
    [
        "train --token-count 5 --max-tokens 500 --pad-token x",
        "python -m tokenize secret.py",
        "PASSWORD_FILE=/x run --token-file /y",
        "x --password $PGPASSWORD --token ${TOKEN}",
        'TOKEN="$TOKEN" run',
        "TOKEN=$(cat f) run",
        "mysql --password --host db",
        "PWD=/home/me make",
        "grep -rn password: src",
        "git commit -m 'Fix token: refresh it'",
        "docker pull secret:latest",
        "docker build --secret id=npm,src=f .",
        "docker run -u 1000:1000 -p 80:80 img",
        "curl -u 1000:1000 u",
        "ssh -p 22 git@host",
        "mkdir -p a/b && cp -a a b",
        "git clone ssh://git@host:22/r.git",
        "test $token == x",
        "pip install scikit-learn sk-video",
        "keyboard --key x --monkey=1",
        "echo 100% [redacted]",
        "TOKEN= run",
        """curl -d '{"token": null}' u""",
    ],
)
def test_what_is_no_secret_stays(command: str) -> None:
    assert redact_command(command) == command


def test_the_line_holds_nothing_that_could_drive_a_terminal() -> None:
    assert (
        redact_command("echo \x1b[2J\ta\r\nb\x00 \ud800 \u202e") == "echo \\x1b[2J a\\nb\\x00 \\xd800 \\x202e"
    )


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "-",
        " ",
        "=",
        "'",
        '"',
        "\\",
        "a=",
        "--token ",
        "--token '",
        '--token "',
        "--token=\\",
        "token: ",
        '"token": ',
        '\\"token\\":\\"',
        "://a:",
        "://a:b",
        "eyJaaaaaaaaa",
        "eyJaaaaaaaaa-",
        "eyJaaaaaaaaa.",
        "sk-",
        "ghp_",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        "mysql ",
        "mysql -p",
        "curl -u ",
        "curl -u a:",
        "Bearer ",
        "a;",
        "\n password: ",
        "$",
    ],
)
def test_a_hostile_megabyte_takes_linear_time(unit: str) -> None:
    small, large = (unit * (size // len(unit)) for size in (50_000, 1_000_000))

    assert growth(redact_command, small, large) < 100  # linear is 20, quadratic 400


@given(
    st.lists(
        st.sampled_from(
            ["--token", "=", " ", "'", '"', "\\", "x", "password", ":", "\n", "-p", "mysql", "://", "@", "{"]
        )
    )
)
def test_any_text_gives_one_printable_line(parts: list[str]) -> None:
    shown = redact_command("".join(parts))

    assert shown.isprintable()
    assert redact_command(["sh", "-c", "".join(parts)]).isprintable()


@given(st.text(alphabet=st.characters(codec="utf-8"), min_size=1))
def test_the_value_of_a_secret_argument_never_shows(value: str) -> None:
    shown = redact_command(["run", f"--password=Q{value}Q"])

    assert shown == f"run '--password={REDACTED}'"
