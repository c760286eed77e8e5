"""What the application answers, and what it does not believe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, request
from werkzeug.test import TestResponse

APP_FOLDER = Path(__file__).resolve().parents[1]
MakeApp = Callable[..., Flask]
FORGED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "4444",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "for=203.0.113.9;proto=https;host=evil.example",
}
MEBIBYTE = 1024 * 1024


def test_health_check_names_the_release(make_app: MakeApp) -> None:
    answer = make_app(DECANT_RELEASE="r1").test_client().get("/healthz")
    assert answer.status_code == 200
    assert answer.json == {"status": "ok", "release": "r1"}


def test_health_check_needs_no_data_folder(make_app: MakeApp, tmp_path: Path) -> None:
    answer = make_app(DATA_DIR=tmp_path / "data").test_client().get("/healthz")
    assert answer.status_code == 200
    assert not (tmp_path / "data").exists()


def test_page_and_json_show_the_same_request(make_app: MakeApp) -> None:
    client = make_app(DECANT_RELEASE="r1", DECANT_MACHINE="web-2").test_client()
    seen = client.get("/request", base_url="http://shop.example:8080")
    assert seen.json == {
        "client": "127.0.0.1",
        "scheme": "http",
        "host": "shop.example:8080",
        "release": "r1",
        "machine": "web-2",
        "visits": 1,
        "problem": None,
    }
    page = client.get("/", base_url="http://shop.example:8080")
    assert page.mimetype == "text/html"
    for text in ("127.0.0.1", "http", "shop.example:8080", "r1", "web-2", "2 on this machine"):
        assert f"<dd>{text}</dd>" in page.text
    assert "It is live." in page.text


def test_page_says_when_it_is_not_deployed(make_app: MakeApp) -> None:
    page = make_app().test_client().get("/")
    assert "It runs." in page.text
    assert page.headers["X-Release"] == "development"


def test_page_escapes_what_it_shows(make_app: MakeApp) -> None:
    page = make_app(DECANT_MACHINE="<script>alert(1)</script>").test_client().get("/")
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text


def test_page_keeps_to_its_own_content_security_policy(make_app: MakeApp) -> None:
    page = make_app().test_client().get("/").text
    for forbidden in ("<style", "style=", "<script", "onclick", "http://", "https://"):
        assert forbidden not in page


def test_an_absent_client_address_is_called_unknown(make_app: MakeApp) -> None:
    # gunicorn on a unix socket gives an empty one
    answer = make_app().test_client().get("/request", environ_overrides={"REMOTE_ADDR": ""})
    assert answer.json is not None
    assert answer.json["client"] == "unknown"


def test_with_no_proxy_no_forwarded_header_is_believed(make_app: MakeApp) -> None:
    seen = make_app().test_client().get("/request", headers=FORGED).json
    assert seen is not None
    assert (seen["client"], seen["scheme"], seen["host"]) == ("127.0.0.1", "http", "localhost")


@pytest.mark.parametrize(
    ("hops", "addresses", "schemes", "client", "scheme"),
    [
        (1, "198.51.100.7", "https", "198.51.100.7", "https"),
        (1, "203.0.113.9, 198.51.100.7", "https, http", "198.51.100.7", "http"),  # the client wrote the first
        (2, "203.0.113.9, 198.51.100.7, 192.0.2.1", "http, https, http", "198.51.100.7", "https"),
        (2, "203.0.113.9", "https", "127.0.0.1", "http"),  # too few: it did not come through both proxies
    ],
)
def test_exactly_the_proxies_that_exist_are_believed(
    make_app: MakeApp, hops: int, addresses: str, schemes: str, client: str, scheme: str
) -> None:
    headers = FORGED | {"X-Forwarded-For": addresses, "X-Forwarded-Proto": schemes}
    seen = make_app(PROXY_HOPS=hops).test_client().get("/request", headers=headers).json
    assert seen is not None
    assert (seen["client"], seen["scheme"], seen["host"]) == (client, scheme, "localhost")


def test_forwarded_prefix_changes_no_link(make_app: MakeApp) -> None:
    page = make_app(PROXY_HOPS=1).test_client().get("/", headers=FORGED)
    assert 'href="/static/style.css' in page.text
    assert "evil" not in page.text


def test_only_trusted_hosts_are_answered_once_named(make_app: MakeApp) -> None:
    client = make_app(TRUSTED_HOSTS="shop.example, .shop.example", DECANT_RELEASE="r1").test_client()
    for host in ("shop.example", "shop.example:8080", "www.shop.example"):
        assert client.get("/", base_url=f"http://{host}").status_code == 200
    for path in ("/", "/healthz", "/static/style.css"):
        answer = client.get(path, base_url="http://evil.example")
        assert answer.status_code == 400
        assert answer.headers["X-Release"] == "r1"


def answers_of_every_kind(make_app: MakeApp) -> dict[str, TestResponse]:
    app = make_app({"PROPAGATE_EXCEPTIONS": False}, DECANT_RELEASE="r1")

    @app.get("/broken")
    def broken() -> str:
        raise ValueError("canary-of-the-traceback")

    client = app.test_client()
    return {
        "200": client.get("/"),
        "200 static": client.get("/static/style.css"),
        "404": client.get("/nowhere"),
        "404 static": client.get("/static/nowhere.css"),
        "405": client.get("/echo"),
        "413": client.post("/echo", data=b"x" * (16 * MEBIBYTE + 1)),
        "500": client.get("/broken"),
    }


def test_every_answer_carries_the_release_and_the_security_headers(make_app: MakeApp) -> None:
    for kind, answer in answers_of_every_kind(make_app).items():
        assert answer.status.startswith(kind[:3]), kind
        assert answer.headers.getlist("X-Release") == ["r1"], kind
        assert answer.headers["X-Content-Type-Options"] == "nosniff", kind
        assert answer.headers["X-Frame-Options"] == "DENY", kind
        assert answer.headers["Referrer-Policy"] == "strict-origin-when-cross-origin", kind
        assert answer.headers["Permissions-Policy"].startswith("camera=()"), kind
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"], kind
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"], kind
        assert "Set-Cookie" not in answer.headers, kind


def test_errors_keep_their_reason_to_themselves(make_app: MakeApp) -> None:
    assert "canary-of-the-traceback" not in answers_of_every_kind(make_app)["500"].text


def test_only_static_files_may_be_kept_by_a_cache(make_app: MakeApp) -> None:
    for kind, answer in answers_of_every_kind(make_app).items():
        assert (answer.headers.get("Cache-Control") == "no-store") == ("static" not in kind), kind


def test_a_view_may_set_a_header_of_its_own(make_app: MakeApp) -> None:
    app = make_app()

    @app.get("/framed")
    def framed() -> tuple[str, dict[str, str]]:
        return "", {"X-Frame-Options": "SAMEORIGIN"}

    assert app.test_client().get("/framed").headers.getlist("X-Frame-Options") == ["SAMEORIGIN"]


def test_static_files_are_those_beside_wsgi_and_no_others(make_app: MakeApp) -> None:
    client = make_app().test_client()
    for path in (APP_FOLDER / "static").iterdir():
        with client.get(f"/static/{path.name}") as answer:
            assert answer.status_code == 200
            assert answer.data == path.read_bytes()
    for escape in ("/static/../wsgi.py", "/static/%2e%2e/wsgi.py", "/static//etc/passwd", "/static/"):
        assert client.get(escape, follow_redirects=True).status_code == 404, escape


@pytest.mark.parametrize("length", [0, 1, 16 * MEBIBYTE])
def test_echo_counts_bytes_up_to_the_limit(make_app: MakeApp, length: int) -> None:
    answer = make_app().test_client().post("/echo", data=b"x" * length)
    assert answer.json == {"method": "POST", "length": length}


def test_forms_are_limited_in_parts_and_in_memory(make_app: MakeApp) -> None:
    app = make_app()

    @app.post("/form")
    def form() -> dict[str, int]:
        return {"fields": len(request.form)}

    client = app.test_client()

    def status(fields: dict[str, str]) -> int:
        return client.post("/form", data=fields, content_type="multipart/form-data").status_code

    assert status({"a": "x" * (MEBIBYTE // 2)}) == 200
    assert status({"a": "x" * (MEBIBYTE // 2 + 1)}) == 413
    assert status({f"field{number}": "" for number in range(100)}) == 200
    assert status({f"field{number}": "" for number in range(101)}) == 413
