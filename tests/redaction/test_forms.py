from __future__ import annotations

import pytest

from mcp_tasks.redaction import redact_text
from tests.redaction.growth import growth

R = "[redacted]"


def form(*parts: str) -> str:
    """A token put together here, so that no scanner takes this file for a leak."""
    return "".join(parts)


TOKENS = {
    "GitHub": form("ghs_", "a1B2" * 9),
    "GitHub, fine-grained": form("github_pat_", "1A" * 20),
    "GitLab": form("glpat-", "1A_x" * 6),
    "AWS": form("AKIA", "1A2B" * 4),
    "Slack": form("xoxb-", "1234567890-abcdefg"),
    "Slack's webhook": form("hooks.slack.com/services/", "T0000/B0000/abcdefgh12345678"),
    "OpenAI": form("sk-proj-", "1A_" * 10),
    "Anthropic": form("sk-ant-api03-", "1A-" * 10),
    "Stripe": form("sk_live_", "1A" * 12),
    "Stripe's webhook": form("whsec_", "1A" * 12),
    "Google": form("AIza", "1A-_" * 9),
    "Google OAuth": form("ya29.", "a0AfH" * 6),
    "JSON web token": form("eyJ", "hbGciOiJIUzI1NiJ9", ".eyJzdWIiOiIxIn0.", "c2lnbmF0dXJl"),
    "npm": form("npm_", "1A" * 18),
    "PyPI": form("pypi-AgEI", "cHlwaS5vcmc" * 3),
    "Azure application": form("abc8Q~", "dE_f.-" * 5, "xyz"),
    "Azure storage": form("A1b2" * 21, "Ab", "=="),
    "Hugging Face": form("hf_", "1A" * 17),
    "DigitalOcean": form("dop_v1_", "1a" * 32),
    "SendGrid": form("SG.", "1A" * 11, ".", "1A" * 21),
    "Vault": form("hvs.", "CAESI" * 6),
    "Databricks": form("dapi", "1a" * 16),
    "Shopify": form("shpat_", "1a" * 16),
    "Telegram": form("123456789:AA", "E" * 33),
    "Docker": form("dckr_pat_", "1A-_" * 6),
    "age": form("AGE-SECRET-KEY-1", "Q" * 58),
}


@pytest.mark.parametrize("issuer", TOKENS)
def test_a_token_of_a_known_issuer_is_taken_out(issuer: str) -> None:
    token = TOKENS[issuer]

    assert redact_text(f"it is {token}, keep it") == f"it is {R}, keep it"
    assert token not in redact_text(f'{{"a": "{token}"}}\nurl=https://x.org/?a={token}&b=({token})')


def test_the_signature_of_a_shared_access_is_taken_out() -> None:
    url = "https://x.blob.core.windows.net/c?sv=2022&sp=r&sig=" + "aB3%2F" * 7 + "%3D&se=1"

    assert redact_text(url) == f"https://x.blob.core.windows.net/c?sv=2022&sp=r&sig={R}&se=1"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:hunter2@x.org/", f"https://me:{R}@x.org/"),
        ("https://:hunter2@x.org/", f"https://:{R}@x.org/"),
        ("https://0123456789abcdef0123@sentry.io/1", f"https://{R}@sentry.io/1"),
        ("ssh://git@host:22/r.git", "ssh://git@host:22/r.git"),
        ("https://some.long.user.name@x.org/", "https://some.long.user.name@x.org/"),
        ("Authorization: Bearer hunter2hunter2", f"Authorization: {R}"),
        ("the header was Basic aHVudGVyMjpodW50ZXI=", f"the header was Basic {R}"),
        ("Proxy-Authorization: Basic x", f"Proxy-Authorization: {R}"),
        ("authorization=Bearer hunter2hunter2", "authorization=[redacted] [redacted]"),
        ("SECRET_KEY_BASE=hunter2", f"SECRET_KEY_BASE={R}"),
        ("DB_PASSWORD_PROD=hunter2", f"DB_PASSWORD_PROD={R}"),
        ("CONNECTION_STRING=hunter2", f"CONNECTION_STRING={R}"),
        ("GITHUB_PAT=hunter2", f"GITHUB_PAT={R}"),
    ],
)
def test_urls_headers_and_names(text: str, shown: str) -> None:
    assert redact_text(text) == shown


@pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "OPENSSH ", "ENCRYPTED ", "DSA "])
def test_private_key_blocks_are_taken_out_whole(kind: str) -> None:
    key = f"-----BEGIN {kind}" + f"PRIVATE KEY-----\nMIIEow\nAAAA\n-----END {kind}" + "PRIVATE KEY-----"

    assert redact_text(f"before\n{key}\nbetween {key} after") == f"before\n{R}\nbetween {R} after"
    assert redact_text(f"before\n{key[:60]}") == f"before\n{R}"


def test_keys_of_putty_and_pgp_are_taken_out() -> None:
    putty = "PuTTY-User-Key-File-3: ssh-ed25519\nPrivate-Lines: 1\nAAAA\nPrivate-MAC: 0a1b\nafter"
    pgp = "-----BEGIN PGP " + "PRIVATE KEY BLOCK-----\n\nlQVY\n-----END PGP " + "PRIVATE KEY BLOCK-----"

    assert redact_text(putty) == f"{R}\nafter"
    assert redact_text(f"x {pgp} y") == f"x {R} y"


@pytest.mark.parametrize(
    "text",
    [
        "a commit 0a1b2c3d4e5f60718293a4b5c6d7e8f901234567 and v1.2.3",
        "sha256:" + "0a" * 32,
        "/usr/lib/python3.11/site-packages/sklearn/x.py:12: DeprecationWarning",
        "id 123e4567-e89b-12d3-a456-426614174000",
        "the token of the user expires, so ask for a password again",
        "task 01m7zdj390v9zx47dpzvj9w8bbs9hs4s4213 is running",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact_text(text) == text


@pytest.mark.parametrize(
    "unit",
    [
        *("A", "a1", "eyJ", "sk-", "ghp_", "abc8Q~", "abc8Q~x", "A1b2/", "0", "123456789:AA", "hvs.", "SG.a"),
        *(
            "?sig=",
            "&sig=a",
            "https://",
            "https://a1",
            "https://a@",
            "://" + "a1" * 9,
            "token=x ",
            "PuTTY-User",
        ),
        *(
            "-----BEGIN PRIVATE KEY",
            "-----END PRIVATE KEY-----",
            "Private-MAC: ",
            "Basic ",
            "Bearer a",
            "_KEY=",
        ),
        *("key-0a", "hooks.slack.com/services/", "xox", "AKIA", "a.b.c.d.", "SECRET_", "Zz9"),
    ],
)
def test_a_megabyte_of_near_misses_takes_linear_time(unit: str) -> None:
    small, large = (unit * (size // len(unit)) for size in (50_000, 1_000_000))
    values = ("hunter2", unit * 5 + "x")

    assert growth(lambda text: redact_text(text, values), small, large) < 100  # linear is 20, quadratic 400


def test_a_password_in_a_url_is_taken_out_where_a_path_was_made_of_it() -> None:
    assert redact_text("/srv/https:/bob:hunter2@host/x") == f"/srv/https:/bob:{R}@host/x"
    assert redact_text("-v /srv:/data:ro -v /a:/b") == "-v /srv:/data:ro -v /a:/b"
