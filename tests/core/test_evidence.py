import json
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from goalrun.core.evidence import (
    REDACTED,
    as_json,
    bounded,
    clean,
    fenced,
    one_line,
    plain,
    redact,
    secrets_of,
)

MEGABYTE = 1_000_000
# Put together here, so that no scanner takes them for real ones.
SHAPES = [
    "sk-" + "a1" * 12,
    "sk-ant-api03-" + "Zz_9" * 8,
    "ghp_" + "a1" * 18,
    "github_pat_" + "a1" * 20,
    "glpat-" + "a1" * 10,
    "AKIA" + "ABCD" * 4,
    "xoxb-" + "1234-" * 4,
    "AIza" + "a1" * 18,
    "sk_live_" + "a1" * 10,
    "hf_" + "a1" * 17,
    "npm_" + "a1" * 18,
    "pypi-" + "a1" * 25,
    "eyJ" + "a1" * 10 + "." + "b2" * 10 + "." + "c3" * 10,
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE" + "a1" * 40 + "\n-----END RSA PRIVATE KEY-----",
]


@pytest.mark.parametrize("secret", SHAPES)
def test_what_looks_like_a_credential_is_redacted_and_the_text_around_it_stays(secret: str) -> None:
    assert redact(f"before {secret} after") == f"before {REDACTED} after"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abcdefghijk", f"Authorization: Bearer {REDACTED}"),
        ("authorization=abcdefghijk", f"authorization={REDACTED}"),
        ("X-Api-Key: abcdefghijk\nHost: h", f"X-Api-Key: {REDACTED}\nHost: h"),
        ("PASSWORD=correct-horse", f"PASSWORD={REDACTED}"),
        ("MY_APP_API_KEY: 'abcdefghijk', x", f"MY_APP_API_KEY: '{REDACTED}', x"),
        ('{"access_token": "abcdefghijk"}', f'{{"access_token": "{REDACTED}"}}'),
        ("db-secret = abcdefghijk;", f"db-secret = {REDACTED};"),
    ],
)
def test_headers_and_assignments_keep_their_names_and_lose_their_values(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "sk-short",
        "task-abcdefghijklmnopqrstuvwxyz",
        "ghp_tooshort",
        "AKIA1234",
        "the password is needed here",
        "password: short",
        "max_tokens: 4096000000",
        "secretary = Johnathan",
        "def authorize(request): return None",
        "commit 0123456789abcdef0123456789abcdef01234567",
        "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        "eyJhbGciOi.only-one-dot",
    ],
)
def test_near_misses_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


@given(st.text(max_size=30), st.text(max_size=30), st.text("xyz0-_", min_size=8, max_size=20))
def test_a_known_value_never_survives_wherever_it_stands(before: str, after: str, secret: str) -> None:
    assert secret not in redact(before + secret + after, (secret,))


def test_of_values_that_contain_one_another_the_longest_goes_first() -> None:
    known = secrets_of({"A_TOKEN": "abcdefgh", "B_TOKEN": "abcdefgh-ijklmnop"})
    assert known.index("abcdefgh-ijklmnop") < known.index("abcdefgh")
    assert redact("it is abcdefgh-ijklmnop", known) == f"it is {REDACTED}"


@pytest.mark.parametrize("mark", ["\u200b", "\x1b[1m", "\x00", "\ufeff", "\ufe0f"])
def test_a_secret_with_something_invisible_inside_is_redacted_too(mark: str) -> None:
    secret = "hunter2hunter2"  # noqa: S105 - bait
    assert clean(f"<{secret[:6]}{mark}{secret[6:]}>", 100, (secret,)) == f"<{REDACTED}>"
    assert clean(f"<{SHAPES[0][:9]}{mark}{SHAPES[0][9:]}>", 100) == f"<{REDACTED}>"


@given(st.integers(0, 200), st.integers(1, 80))
def test_a_cut_leaves_no_half_of_a_secret(place: int, limit: int) -> None:
    secret = "q7" * 10
    shown = clean("." * place + secret + "." * (200 - place), limit, (secret,))
    assert "q7" not in shown


@pytest.mark.parametrize(
    "unit",
    [
        "eyJ-",
        "sk-",
        "a_",
        "password=",
        "authorization: ",
        "-----BEGIN PRIVATE KEY-----",
        "\x1b]",
        "\x1b[",
        "x",
        " ",
        "\n",
    ],
)
def test_hostile_output_of_a_megabyte_is_cleaned(unit: str) -> None:
    assert len(clean(unit * (MEGABYTE // len(unit)), 1000)) < 1100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[31mred\x1b[0m \x1b[1;4mbold\x1b[m", "red bold"),
        ("\x1b]8;;http://x\x07link\x1b]8;;\x1b\\", "link"),
        ("\x1b]0;title\x07text\x1bM", "text"),
        ("a\u200bb\u200db\u2060c\ufeffd\u202ee\u00adf", "abbcdef"),
        ("a\U000e0041\ufe0f\U000e0100\u3164b", "ab"),
        ("a\x00b\x07c\x08d\x7fe\x9bf\ud800g", "abcdefg"),
        ("one\r\ntwo\rthree\tfour\n", "one\ntwo\nthree\tfour\n"),
        ("naïve Ж 漢 🙂 é", "naïve Ж 漢 🙂 é"),
    ],
)
def test_plain_text_has_no_escapes_controls_or_invisible_characters(text: str, expected: str) -> None:
    assert plain(text) == expected


@given(st.text())
def test_plain_text_is_idempotent_and_keeps_no_control(text: str) -> None:
    shown = plain(text)
    assert not any(c < " " and c not in "\n\t" for c in shown)
    assert "\x1b" not in shown
    assert plain(shown) == shown


@given(st.text(max_size=300), st.integers(3, 100))
def test_a_bounded_text_keeps_its_head_and_its_tail_and_counts_the_gap(text: str, limit: int) -> None:
    shown = bounded(text, limit)
    if len(text) <= limit:
        assert shown == text
        return
    head, tail = limit // 3, limit - limit // 3
    assert shown == f"{text[:head]}\n[… {len(text) - limit} characters left out …]\n{text[-tail:]}"


@given(st.text(max_size=60), st.integers(1, 40))
def test_one_line_is_one_line_within_its_limit(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1


@given(st.text("ab</->\nd"), st.sampled_from(["ab", "aab", "aba"]))
def test_data_cannot_close_its_own_fence(text: str, token: str) -> None:
    shown = fenced(text, token, "data")
    assert shown.startswith(f"<data-{token}>\n")
    assert shown.endswith(f"\n</data-{token}>")
    assert shown.count(token) == 2
    assert shown.count(f"</data-{token}>") == 1


@given(st.text())
def test_data_as_json_is_one_line_of_ascii_that_reads_back(text: str) -> None:
    shown = as_json(text)
    assert json.loads(shown) == text
    assert shown.isascii()
    assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    "name",
    ["API_KEY", "OPENAI_API_KEY", "GH_TOKEN", "token", "DB_PASSWORD", "PG_PASSWD", "AWS_SECRET_ACCESS_KEY",
     "AWS_ACCESS_KEY_ID", "DATABASE_URL", "SENTRY_DSN", "SESSION_COOKIE"],
)  # fmt: skip
def test_variables_that_hold_secrets_are_known_by_name(name: str) -> None:
    assert "correct-horse" in secrets_of({name: "correct-horse"})


@given(st.binary(max_size=12), st.text(min_size=8, max_size=30).filter(lambda s: "[r" not in s), st.binary(max_size=12))
def test_a_secret_is_known_in_base64_addresses_and_json_too(before: bytes, secret: str, after: bytes) -> None:
    known = secrets_of({"API_KEY": secret})
    whole = b64encode(before + secret.encode() + after).decode()
    assert REDACTED in redact(whole, known)
    assert REDACTED in redact(urlsafe_b64encode(before + secret.encode() + after).decode(), known)
    assert secret not in redact(f"https://host/?key={quote(secret)}&x={quote_plus(secret)}", known)
    assert redact(f"?key={quote(secret, safe='')}", known) == f"?key={REDACTED}"
    assert redact(json.dumps({"k": secret}), known) == f'{{"k": "{REDACTED}"}}'


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "correct-horse"),
        ("KEYBOARD", "correct-horse"),
        ("MAX_TOKENS", "100000000"),
        ("API_KEY", "short"),
        ("SSL_KEY", "/etc/ssl/key.pem"),
        ("MONKEY", "correct-horse"),
    ],
)
def test_other_variables_are_no_secrets(name: str, value: str) -> None:
    assert secrets_of({name: value}) == ()


@pytest.mark.parametrize(
    "prefix", ["password=", "x-api-key: ", "Authorization: Bearer ", "sk-", "ghp_", "hf_", "pypi-"]
)
def test_nothing_of_a_very_long_credential_is_left_over(prefix: str) -> None:
    assert "9" not in redact(f"{prefix}{'9' * 10_000} and more")
