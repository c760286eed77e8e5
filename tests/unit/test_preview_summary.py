"""The summary of a preview: its verdict, and its sections in their order."""

from __future__ import annotations

from typing import Any

import pytest

from decant.preview.events import Diagnostic, Events, Step
from decant.preview.section import Section
from decant.preview.summary import Previewed, Summary, summarize
from tests.support.preview_data import LIVE, NEXT, cost, preview, record, release, rolled_out
from tests.support.preview_steps import changed, made, replaced, same

STACK_URN = "urn:pulumi:dev::shop::pulumi:pulumi:Stack::shop-dev"
ADDRESS = same("ReservedIp", "web-1-address", {}, {"ipAddress": "203.0.113.7"})
UNCHANGED = rolled_out("same", op="same")


def said(*steps: Step, messages: tuple[Diagnostic, ...] = (), **more: Any) -> Summary:
    given: dict[str, Any] = {
        "stack": "dev", "cloud": "digitalocean", "failed": False, "output": "", "preview": preview(),
        "record": record(), "live": LIVE,
    }  # fmt: skip
    events = Events(steps=steps or UNCHANGED, diagnostics=messages)
    return summarize(Previewed(**{**given, "events": events, **more}))


def lines(summary: Summary) -> dict[str, tuple[str, ...]]:
    return {section.title: section.lines for section in summary.sections}


def test_nothing_changes() -> None:
    summary = said()
    assert summary.verdict == "Nothing changes."
    assert lines(summary) == {"Release": (f"`{LIVE}` stays.",)}


def test_a_change_of_code() -> None:
    files = {"wsgi.py": "2", "requirements.txt": "1", "new.py": "1"}
    summary = said(*rolled_out(), preview=preview(release(NEXT, files=files)))
    assert summary.verdict == (
        "A new release goes live. No machine, port, name or certificate changes. Visitors notice nothing."
    )
    assert lines(summary)["App files"] == ("1 changed: `wsgi.py`; 1 added: `new.py`",)
    assert list(lines(summary)) == ["Release", "App files", "To undo this"]


def test_packages_and_names_of_values() -> None:
    new = release(
        NEXT,
        packages={"flask": "3.0.0", "click": "8.2"},
        secrets={"TOKEN": "2"},
        variables={},
        serving={"gunicorn": "2", "runtime": "1"},
        python="3.12",
        release_command="flask db upgrade",
    )
    found = lines(said(*rolled_out(), preview=preview(new, settings={"decant:cloud": "1", "decant:size": "1"})))
    assert found["Packages"] == ("1 changed: `flask 3.1.0 → 3.0.0` (older); 1 added: `click 8.2`",)
    assert found["Secrets"] == ("1 changed: `TOKEN`",)
    assert found["Variables"] == ("1 removed: `DEBUG`",)
    assert found["Settings"] == ("1 added: `decant:size`",)
    assert found["How it is served"] == (
        "Python `3.13` → `3.12`; the release command none → `flask db upgrade`; gunicorn's options",
    )
    assert found["Release command"][0].startswith("`flask db upgrade` runs once")
    assert list(found) == [
        "Release", "Release command", "Packages", "Variables", "Secrets", "Settings", "How it is served",
        "To undo this",
    ]  # fmt: skip


def test_many_packages_are_counted() -> None:
    old = {f"p{number}": "1" for number in range(14)}
    new = dict.fromkeys(old, "2")
    found = lines(
        said(*rolled_out(), record=record(release(packages=old)), preview=preview(release(NEXT, packages=new)))
    )
    assert found["Packages"][0].startswith("14 changed: `p0 1 → 2`, `p1 1 → 2`")
    assert found["Packages"][0].endswith("`p7 1 → 2` and 2 more")


def test_a_setting_alone() -> None:
    summary = said(preview=preview(settings={"decant:cloud": "2"}))
    assert summary.verdict == "No machine, port, name or certificate changes."
    assert lines(summary)["Settings"] == ("1 changed: `decant:cloud`",)


def test_data_at_risk_comes_first() -> None:
    steps = (ADDRESS, *replaced("Droplet", "web-1", {"size": "a"}, {"size": "b"}), *rolled_out("create-replacement"))
    summary = said(*steps, preview=preview(release(NEXT)))
    first = summary.sections[0]
    assert (first.title, first.urgent) == ("Data at risk", True)
    assert first.lines[0].startswith("web-1: what the app has written to its disk is deleted with it")
    assert summary.verdict == (
        "Data is at risk. A new release goes live. 1 change of machines. What visitors notice stands below."
    )
    assert list(lines(summary))[:3] == ["Data at risk", "Machines", "Release"]
    (undo,) = lines(summary)["To undo this"]
    assert undo.endswith("Nothing of this brings back the data at risk.")


def test_visitors_notice_nothing_of_a_machine_behind_a_balancer() -> None:
    balancer = same("DoLoadBalancer", "balancer", {}, {"ip": "203.0.113.9"})
    machines = (same("Droplet", "web-1", {"size": "a"}), made("Droplet", "web-2", {"size": "a"}))
    summary = said(balancer, *machines, *rolled_out("same", "create"))
    assert summary.verdict == "1 change of machines. Visitors notice nothing."
    assert lines(summary)["Release"] == (f"`{LIVE}` stays. It is checked again on all machines.",)


def test_open_ports_and_records_are_counted() -> None:
    rules = {"inboundRules": [{"protocol": "tcp", "portRange": "22", "sourceAddresses": ["10.0.0.0/8"]}]}
    wider = {"inboundRules": [{"protocol": "tcp", "portRange": "22", "sourceAddresses": ["0.0.0.0/0"]}]}
    zone = {"domain": "example.com", "name": "www", "type": "A", "value": "203.0.113.7"}
    summary = said(changed("Firewall", "firewall", rules, wider), made("DnsRecord", "record-www", zone), *UNCHANGED)
    assert summary.verdict == "2 changes of open ports, 1 change of certificates and DNS."
    assert lines(summary)["Open ports"] == (
        "Port 22 (SSH) of the machines opens to everybody. Anybody on the Internet can connect.",
        "Port 22 (SSH) of the machines closes to 10.0.0.0/8.",
    )
    assert "www.example.com" in lines(summary)["Certificates and DNS"][0]


def test_something_else_changes() -> None:
    summary = said(made("Vpc", "network"), *UNCHANGED)
    assert summary.verdict == "Something else changes: see below."
    assert lines(summary)["Also changes"] == ("Made: Vpc network.",)


def test_the_first_release_of_a_new_stack() -> None:
    steps = (made("Droplet", "web-1", {"size": "a"}), *rolled_out("create", op="create"))
    summary = said(*steps, record=None, live=None, preview=preview(release(""), key="", cost=cost(6.0)))
    assert summary.verdict == "The first release goes live. 1 change of machines."
    assert "Not compared" not in lines(summary)
    assert lines(summary)["Cost"] == ("6.00 USD a month, at list prices of 2026-11-28.",)


def test_a_stack_that_recorded_nothing_says_so() -> None:
    summary = said(*rolled_out(), record=None, preview=preview(release(NEXT)))
    assert lines(summary)["Not compared"] == (
        "What is live was released by a Decant that did not record what a release holds, so files, packages and names"
        " cannot be compared. The next `make up STACK=dev` records it.",
    )


def test_another_key_is_told() -> None:
    summary = said(*rolled_out(), preview=preview(release(NEXT), key="other"))
    assert lines(summary)["Values"][0].startswith("The stack's key changes, or is not known yet")


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (cost(6.0), cost(6.0), "6.00 USD a month, as before"),
        (cost(6.0, "2026-01-01"), cost(18.0), "6.00 USD → 18.00 USD a month (+12.00)"),
        (cost(18.0), cost(6.0), "18.00 USD → 6.00 USD a month (-12.00)"),
        (cost(6.0), cost(None), "6.00 USD → an unknown sum a month"),
        (None, cost(6.0), "6.00 USD a month"),
    ],
)
def test_the_cost_before_and_after(before: Any, after: Any, text: str) -> None:
    found = lines(said(cost=before, preview=preview(cost=after)))
    assert found["Cost"] == (f"{text}, at list prices of 2026-11-28.",)


def test_warnings_are_told_once_and_last() -> None:
    messages = (
        Diagnostic(severity="warning", message="no hashes", urn=STACK_URN),
        Diagnostic(severity="warning", message="no hashes", urn=STACK_URN + "2"),
        Diagnostic(severity="warning", message="using pulumi-resource-tls from $PATH at /somewhere"),
        Diagnostic(severity="info", message="The app in app/:", urn=STACK_URN),
    )
    summary = said(messages=messages)
    assert lines(summary)["Warnings"] == ("no hashes",)
    assert summary.sections[-1].title == "Warnings"


# ------------------------------------------------------------------------------------------------ it failed

FAILED = "The preview failed. As things are, `make up STACK=dev` would fail, too."


def test_wrong_settings_are_told_as_the_program_told_them() -> None:
    messages = (
        Diagnostic(severity="error", message="1 problem in the settings:\n  decant:size ...", urn=STACK_URN),
        Diagnostic(
            severity="error",
            message="an unhandled error occurred: program exited with non-zero exit code: 1",
            urn=STACK_URN,
        ),
    )
    summary = said(messages=messages, failed=True, preview=None)
    assert summary.verdict == FAILED
    assert summary.sections == (
        Section(title="What is wrong", blocks=("1 problem in the settings:\n  decant:size ...",), urgent=True),
    )


def test_an_error_of_a_resource_names_it_and_what_is_known_follows() -> None:
    message = Diagnostic(severity="error", message="no such size", urn="urn:pulumi:dev::shop::do:Droplet::web-1")
    steps = (made("Droplet", "web-2", {"size": "a"}), *rolled_out())
    summary = said(*steps, messages=(message,), failed=True, preview=preview(release(NEXT), cost=cost(6.0)))
    assert summary.sections[0].blocks == ("web-1: no such size",)
    assert lines(summary)["Incomplete"] == ("The preview ended early. More may change than what follows.",)
    assert list(lines(summary)) == ["What is wrong", "Incomplete", "Machines", "Release", "Cost"]


def test_a_failure_without_an_event_shows_the_last_lines() -> None:
    output = "\n".join(str(number) for number in range(100))
    summary = said(failed=True, preview=None, output=output, cloud="")
    (block,) = summary.sections[0].blocks
    assert block.splitlines() == [str(number) for number in range(60, 100)]


def test_a_failure_without_a_word() -> None:
    (block,) = said(failed=True, preview=None).sections[0].blocks
    assert block == "Pulumi ended without a reason."
