"""What the environment may say, and how a mistake is reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, session

MakeApp = Callable[..., Flask]
OLD_KEY = "0" * 32
NEW_KEY = "1" * 32


@pytest.mark.parametrize("value", ["-1", "11", "one", "1.0", "1,1", "٣", "9" * 5000])
def test_bad_proxy_hops_are_named_with_what_is_allowed(make_app: MakeApp, value: str) -> None:
    with pytest.raises(RuntimeError) as error:
        make_app(PROXY_HOPS=value)
    assert f"PROXY_HOPS is {value!r}; allowed is" in str(error.value)
    assert "export PROXY_HOPS=1" in str(error.value)


def test_all_mistakes_are_reported_at_once_and_no_secret_is(make_app: MakeApp) -> None:
    with pytest.raises(RuntimeError) as error:
        make_app(
            PROXY_HOPS="many", PREFERRED_URL_SCHEME="ftp", SECRET_KEY="too-short-a-secret",
            DECANT_RELEASE="r1", FLASK_DEBUG="1",
        )  # fmt: skip
    text = str(error.value)
    assert "PROXY_HOPS is 'many'" in text
    assert "PREFERRED_URL_SCHEME is 'ftp'" in text
    assert "SECRET_KEY has 18 characters; allowed are 32 or more" in text
    assert "FLASK_DEBUG is '1' in release 'r1'" in text
    assert "too-short-a-secret" not in text


def test_old_keys_without_a_new_one_are_refused(make_app: MakeApp) -> None:
    with pytest.raises(RuntimeError) as error:
        make_app(SECRET_KEY_FALLBACKS=OLD_KEY)
    assert "SECRET_KEY is not set" in str(error.value)
    assert OLD_KEY not in str(error.value)


def test_empty_variables_count_as_absent(make_app: MakeApp, tmp_path: Path) -> None:
    empty = make_app(
        PROXY_HOPS="", PREFERRED_URL_SCHEME="", TRUSTED_HOSTS="", SECRET_KEY="", SECRET_KEY_FALLBACKS=" , ",
        DECANT_RELEASE="", DECANT_MACHINE="", FLASK_DEBUG="",
    )  # fmt: skip
    assert empty.config["RELEASE"] == "development"
    assert empty.config["PROXY_HOPS"] == 0
    assert empty.config["TRUSTED_HOSTS"] is None
    assert empty.config["SECRET_KEY"] is None
    assert empty.config["SECRET_KEY_FALLBACKS"] is None
    assert empty.config["MACHINE"] != ""


def test_debug_is_off_unless_asked_for_and_is_for_development_only(make_app: MakeApp) -> None:
    assert make_app().debug is False
    assert make_app(FLASK_DEBUG="0", DECANT_RELEASE="r1").debug is False
    assert make_app(FLASK_DEBUG="1", DECANT_RELEASE="").debug is True


def test_config_overrides_the_environment(make_app: MakeApp) -> None:
    app = make_app({"RELEASE": "given", "MAX_CONTENT_LENGTH": 10}, DECANT_RELEASE="from-environment")
    assert app.config["RELEASE"] == "given"
    assert app.test_client().post("/echo", data=b"x" * 11).status_code == 413


def test_without_data_dir_data_stays_in_the_instance_folder(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATA_DIR")
    app = make_app()
    assert app.extensions["visits"].path == Path(app.instance_path) / "visits"
    assert Path(app.instance_path) == Path(__file__).resolve().parents[1] / "instance"


def with_a_session(app: Flask) -> Flask:
    """Add a view that writes a session and one that reads it: the application itself uses none."""

    @app.get("/log-in")
    def log_in() -> str:
        session["user"] = "ada"
        return "in"

    @app.get("/who")
    def who() -> str:
        return str(session.get("user", "nobody"))

    return app


def test_session_cookie_is_closed_to_scripts_and_other_sites(make_app: MakeApp) -> None:
    app = with_a_session(make_app(SECRET_KEY=NEW_KEY))
    cookie = app.test_client().get("/log-in").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Secure" not in cookie  # over plain HTTP a browser would drop it


def test_session_cookie_is_secure_for_a_visitor_over_https(make_app: MakeApp) -> None:
    """The scheme is what nginx says; without a proxy, nobody else's word counts."""
    said = {"X-Forwarded-Proto": "https"}
    for hops, secure in ((1, True), (0, False)):
        client = with_a_session(make_app(SECRET_KEY=NEW_KEY, PROXY_HOPS=hops)).test_client()
        assert ("; Secure" in client.get("/log-in", headers=said).headers["Set-Cookie"]) is secure


def test_session_cookie_is_secure_when_the_public_url_is_https(make_app: MakeApp) -> None:
    app = with_a_session(make_app(SECRET_KEY=NEW_KEY, PREFERRED_URL_SCHEME="https"))
    assert "; Secure" in app.test_client().get("/log-in").headers["Set-Cookie"]


def test_a_key_can_be_changed_without_logging_anybody_out(make_app: MakeApp) -> None:
    def cookie_of(app: Flask) -> str:
        return app.test_client().get("/log-in").headers["Set-Cookie"].split(";")[0]

    def user_of(app: Flask, cookie: str) -> str:
        return app.test_client(use_cookies=False).get("/who", headers={"Cookie": cookie}).text

    before = with_a_session(make_app(SECRET_KEY=OLD_KEY))
    after = with_a_session(make_app(SECRET_KEY=NEW_KEY, SECRET_KEY_FALLBACKS=f" {OLD_KEY}, "))
    later = with_a_session(make_app(SECRET_KEY=NEW_KEY, SECRET_KEY_FALLBACKS=""))
    assert user_of(after, cookie_of(before)) == "ada"  # the old key is still believed
    assert user_of(later, cookie_of(after)) == "ada"  # the new one signs
    assert user_of(later, cookie_of(before)) == "nobody"  # and the old one can be dropped


def test_without_a_key_a_session_fails_loudly(make_app: MakeApp) -> None:
    app = with_a_session(make_app({"TESTING": True}))
    with pytest.raises(RuntimeError, match="secret key"):
        app.test_client().get("/log-in")
