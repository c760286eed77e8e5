"""The HTTP client of forges, where the tests of comments do not see it: silence, wrong answers and addresses."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from decant.ci import api_client
from decant.ci.api_client import ApiClient, check_url
from decant.errors import CiError, ForgeError, UnclearWriteError
from tests.support.forge_api import Call, ForgeApi, Mood, Reply

TOKEN = "canary-token"


class Forge(ForgeApi):
    """Answers everything with what was asked for."""

    def answer(self, call: Call) -> Reply:
        if call.path == "/list":
            return self.page(call, range(250))
        if call.path == "/endless":
            link = f'<{self.url}/endless?page={int(call.query["page"]) + 1}>; rel="next"'
            return Reply(200, [1], {"Link": link})
        return Reply(200, {"method": call.method, "body": call.body, "query": call.query})


@pytest.fixture
def forge() -> Iterator[Forge]:
    with Forge() as api:
        yield api


@pytest.fixture
def sleeps() -> list[float]:
    return []


def client(url: str, sleeps: list[float] | None = None) -> ApiClient:
    pauses: list[float] = [] if sleeps is None else sleeps
    return ApiClient("Forge", url, TOKEN, {"Authorization": f"Bearer {TOKEN}"}, sleep=pauses.append)


def test_a_request_carries_the_token_and_its_body(forge: Forge) -> None:
    answer = client(f"{forge.url}/").request("PATCH", "/x", {"text": "\u00e9 \U0001f600"}, {"a": 1, "b": "x&y"})
    assert answer.data == {"method": "PATCH", "body": {"text": "\u00e9 \U0001f600"}, "query": {"a": "1", "b": "x&y"}}
    [call] = forge.calls
    assert call.headers["authorization"] == f"Bearer {TOKEN}"
    assert call.headers["user-agent"] == "decant"
    assert call.headers["content-type"] == "application/json"


def test_an_answer_without_a_body_has_no_data(forge: Forge) -> None:
    forge.moods.append(Mood(1, "", "", lambda: Reply(204)))
    assert client(forge.url).request("DELETE", "/x").data is None


def test_a_list_is_read_through_all_pages(forge: Forge) -> None:
    assert list(client(forge.url).every("/list", state="open")) == list(range(250))
    assert [call.query for call in forge.calls] == [
        {"state": "open", "per_page": "100", "page": str(page)} for page in (1, 2, 3)
    ]


def test_a_list_without_an_end_ends(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_client, "MOST_PAGES", 5)
    with pytest.raises(ForgeError, match=r"^Forge lists more than 5 pages: /endless$"):
        list(client(forge.url).every("/endless"))
    assert len(forge.calls) == 5


def test_what_is_no_list_is_refused(forge: Forge) -> None:
    with pytest.raises(ForgeError, match=r"^Forge did not answer with a list: /x$"):
        list(client(forge.url).every("/x"))


def test_a_forge_that_is_silent_is_not_waited_for_for_ever(
    forge: Forge, sleeps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_client, "TIMEOUT", 0.2)
    forge.before = lambda call: time.sleep(0.6)
    with pytest.raises(ForgeError, match=rf"^Forge does not answer at {forge.url}: timed out$"):
        client(forge.url, sleeps).request("GET", "/x")
    assert sleeps == [1.0, 2.0, 4.0, 8.0]
    with pytest.raises(UnclearWriteError, match="timed out"):
        client(forge.url, sleeps).request("POST", "/x", {})


def test_an_address_where_nobody_listens_is_told(sleeps: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(ForgeError, match=rf"^Forge does not answer at {url}: .*Connection refused$"):
        client(url, sleeps).request("GET", "/x")
    assert len(sleeps) == 4


def test_a_post_that_only_reads_is_repeated(forge: Forge, sleeps: list[float]) -> None:
    forge.fail(502, times=2)
    assert client(forge.url, sleeps).request("POST", "/x", {}, makes=False).data["method"] == "POST"
    assert sleeps == [1.0, 2.0]


@pytest.mark.parametrize(
    ("headers", "pauses"),
    [
        ({"Retry-After": "5"}, [5.0]),
        ({"Retry-After": formatdate(usegmt=True)}, [60.0]),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "never"}, [60.0]),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1"}, [1.0]),
        ({}, [60.0]),
    ],
)
def test_the_pause_is_what_the_forge_asks_for(
    forge: Forge, sleeps: list[float], headers: dict[str, str], pauses: list[float]
) -> None:
    forge.moods.append(Mood(1, "", "", lambda: Reply(429, {"message": "slow down"}, dict(headers))))
    client(forge.url, sleeps).request("POST", "/x", {})
    assert sleeps == pauses


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422])
def test_a_refusal_is_not_repeated(forge: Forge, sleeps: list[float], status: int) -> None:
    forge.moods.append(Mood(1, "", "", lambda: Reply(status, {"message": "no"}, {"X-RateLimit-Remaining": "1"})))
    with pytest.raises(ForgeError, match=r"^no$") as refused:
        client(forge.url, sleeps).request("GET", "/x")
    assert refused.value.status == status
    assert sleeps == []


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"message": "Validation Failed", "errors": [{"message": "a"}, {"message": "b"}, {"code": "c"}, "d"]},
         "Validation Failed: a; b"),
        ({"message": {"base": ["x"]}}, '{"base": ["x"]}'),
        ({"error": "insufficient_scope", "error_description": "needs more"}, "needs more"),
        ({"error": "404 Not Found"}, "404 Not Found"),
        ({}, "HTTP status 422"),
        (["x"], "['x']"),
        ("<html>", "HTTP status 422"),
        ({"message": f"{TOKEN} is bad"}, "[token] is bad"),
    ],
)  # fmt: skip
def test_a_refusal_is_told_in_the_forges_words(forge: Forge, data: object, said: str) -> None:
    forge.moods.append(Mood(1, "", "", lambda: Reply(422, data)))
    with pytest.raises(ForgeError) as refused:
        client(forge.url).request("GET", "/x")
    assert str(refused.value) == said
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    "url", ["https://api.example.com", "http://127.0.0.1:80", "http://[::1]:80", "http://localhost"]
)
def test_a_token_goes_over_https_or_stays_on_this_computer(url: str) -> None:
    assert check_url("X", url) == url


@pytest.mark.parametrize(
    "url",
    ["http://api.example.com", "http://127.0.0.1.example.com", "http://localhost@example.com", "ftp://x", "x", ""],
)
def test_other_addresses_get_no_token(url: str) -> None:
    with pytest.raises(CiError, match=r"^X is .*: it must be a URL that starts with https://$"):
        check_url("X", url)
