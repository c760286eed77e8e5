"""The address of this computer: what it is taken from, and that nothing but one public address is let in."""

from __future__ import annotations

import http.client
import socket
from typing import Any

import pytest

from decant.cli import own_address as module
from decant.cli.own_address import ADDRESS_VARIABLE, SERVICE, SERVICE_VARIABLE, own_address
from decant.errors import StackError


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the service says, in turn: a text, or an error. `module.asked` has who was asked for what."""
    waiting: list[Any] = []

    def answer(host: str, port: int, path: str) -> str:
        asked.append((host, port, path))
        said = waiting.pop(0)
        if isinstance(said, Exception):
            raise said
        return str(said)

    asked: list[Any] = []
    monkeypatch.setattr(module, "_answer", answer)
    monkeypatch.setattr(module, "asked", asked, raising=False)
    return waiting


def test_the_service_is_asked_over_https(answers: list[Any]) -> None:
    answers.append("198.41.0.4")
    assert own_address({}) == "198.41.0.4"
    assert module.asked == [("checkip.amazonaws.com", 443, "/")]  # type: ignore[attr-defined]
    assert SERVICE == "https://checkip.amazonaws.com"


def test_another_service_can_be_set(answers: list[Any]) -> None:
    answers.append("198.41.0.4")
    assert own_address({SERVICE_VARIABLE: "https://ip.example.org:8443/plain"}) == "198.41.0.4"
    assert module.asked == [("ip.example.org", 8443, "/plain")]  # type: ignore[attr-defined]


def test_an_address_that_is_given_is_not_asked_for(answers: list[Any]) -> None:
    assert own_address({ADDRESS_VARIABLE: " 198.41.0.4 "}) == "198.41.0.4"


WRONG = ["10.0.0.7", "127.0.0.1", "0.0.0.0", "169.254.169.254", "224.0.0.1", "192.168.1.2", "100.64.0.1",
         "198.41.0.4/0", "0.0.0.0/0", "2001:db8::1", "198.41.0.4, 10.0.0.1", "<html>", ""]  # fmt: skip


@pytest.mark.parametrize("said", WRONG)
def test_nothing_but_one_public_address_is_taken_from_a_service(answers: list[Any], said: str) -> None:
    answers.append(said)
    with pytest.raises(StackError, match="must be one public IPv4 address") as raised:
        own_address({})
    assert str(raised.value) == (
        f"https://checkip.amazonaws.com says that this computer's address is {said!r}: it must be one public IPv4"
        " address.\n  To name it yourself: make ssh-open ADDRESS=203.0.113.7"
    )


@pytest.mark.parametrize("given", ["10.0.0.7", "0.0.0.0/0", "here"])
def test_nothing_but_one_public_address_is_taken_from_the_user(given: str) -> None:
    with pytest.raises(StackError, match=rf"^ADDRESS is '{given}': it must be one public IPv4 address"):
        own_address({ADDRESS_VARIABLE: given})


def test_a_service_that_stumbles_is_asked_again(answers: list[Any]) -> None:
    answers += [OSError("status 503"), http.client.BadStatusLine("?"), "198.41.0.4"]
    assert own_address({}) == "198.41.0.4"


def test_a_service_that_does_not_answer_says_what_to_do(answers: list[Any]) -> None:
    answers += [OSError("no route")] * 3
    with pytest.raises(StackError, match="does not say what the address of this computer is: no route") as raised:
        own_address({})
    assert "make ssh-open ADDRESS=203.0.113.7" in str(raised.value)
    assert f"{SERVICE_VARIABLE}=https://..." in str(raised.value)


@pytest.mark.parametrize("url", ["http://checkip.amazonaws.com", "checkip.amazonaws.com", "https://"])
def test_a_service_without_https_is_refused(url: str) -> None:
    with pytest.raises(StackError, match=f"{SERVICE_VARIABLE} is '{url}': it must be a URL that starts with https://"):
        own_address({SERVICE_VARIABLE: url})


def test_the_connection_is_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule at the cloud is for an IPv4 address, and a name may have addresses of both kinds."""
    tried: list[Any] = []

    def create_connection(address: Any, timeout: float, source_address: Any) -> Any:
        tried.append((address, source_address))
        raise OSError("enough")

    monkeypatch.setattr(socket, "create_connection", create_connection)
    with pytest.raises(StackError, match="enough"):
        own_address({})
    assert set(tried) == {(("checkip.amazonaws.com", 443), ("0.0.0.0", 0))}
