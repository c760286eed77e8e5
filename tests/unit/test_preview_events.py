"""Reading the engine's event log: its lines have the shapes that `pulumi preview --event-log` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from decant.preview.events import Diagnostic, Events, Hidden, State, Step, read_events

SECRET = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "W3NlY3JldF0="}
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
URN = "urn:pulumi:dev::decant::decant:clouds:Aws$aws:ec2/instance:Instance::web-1"


def resource(inputs: Any = None, outputs: Any = None, **more: Any) -> dict[str, Any]:
    plain = {"type": "aws:ec2/instance:Instance", "urn": URN, "custom": True, "id": "i-1", "parent": "", "provider": ""}
    return {**plain, "inputs": inputs or {}, "outputs": outputs or {}, **more}


def event(kind: str, op: str, old: Any, new: Any, *, urn: str = URN, **more: Any) -> dict[str, Any]:
    metadata = {"op": op, "urn": urn, "type": "aws:ec2/instance:Instance", "old": old, "new": new, **more}
    return {"sequence": 1, "timestamp": 1764340000, kind: {"metadata": metadata, "planning": True}}


def message(text: str, severity: str = "error", **more: Any) -> dict[str, Any]:
    return {"diagnosticEvent": {"message": text, "color": "raw", "severity": severity, **more}}


def read(folder: Path, *events: dict[str, Any], rest: str = "") -> Events:
    log = folder / "events.json"
    log.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in events) + rest, encoding="utf-8")
    return read_events(log)


def test_both_events_of_a_step_are_one_step(tmp_path: Path) -> None:
    begun = event(
        "resourcePreEvent", "update", resource({"instanceType": "t3.micro"}), resource({"instanceType": "t3.small"}),
        diffs=["instanceType"], detailedDiff={"instanceType": {"diffKind": "update", "inputDiff": True}},
    )  # fmt: skip
    ended = event(
        "resOutputsEvent", "update", resource({"instanceType": "t3.micro"}),
        resource({"instanceType": "t3.small"}, {"publicIp": "192.0.2.1"}), detailedDiff=None,
    )  # fmt: skip
    assert read(tmp_path, begun, ended).steps == (
        Step(
            op="update", urn=URN, type="aws:ec2/instance:Instance", name="web-1",
            old=State(id="i-1", inputs={"instanceType": "t3.micro"}),
            new=State(id="i-1", inputs={"instanceType": "t3.small"}, outputs={"publicIp": "192.0.2.1"}),
            changed=("instanceType",),
        ),
    )  # fmt: skip


def test_steps_of_one_resource_are_apart_and_in_the_order_of_their_beginning(tmp_path: Path) -> None:
    old, new = resource(), resource(id="")
    found = read(
        tmp_path,
        event("resourcePreEvent", "create-replacement", old, new, keys=["subnetId", "ami"]),
        event("resourcePreEvent", "delete", resource(id="i-0"), None),
        event("resOutputsEvent", "create-replacement", old, new),
        event("resourcePreEvent", "delete", old, None),
    ).steps
    assert [(step.op, step.old.id if step.old else "", step.causes) for step in found] == [
        ("create-replacement", "i-1", ("ami", "subnetId")),
        ("delete", "i-0", ()),
        ("delete", "i-1", ()),
    ]
    assert found[1].new is None


def test_paths_of_the_detailed_diff_are_preferred(tmp_path: Path) -> None:
    detailed = {"tags.Owner": {"diffKind": "add"}, "rootBlockDevice.volumeSize": {"diffKind": "update"}}
    one = event(
        "resourcePreEvent", "update", resource(), resource(), diffs=["tags", "rootBlockDevice"], detailedDiff=detailed
    )
    assert read(tmp_path, one).steps[0].changed == ("rootBlockDevice.volumeSize", "tags.Owner")
    one = event("resourcePreEvent", "update", resource(), resource(), diffs=["tags", "ami"], detailedDiff=None)
    assert read(tmp_path, one).steps[0].changed == ("ami", "tags")


def test_secrets_and_unknown_values_are_hidden_at_any_depth(tmp_path: Path) -> None:
    inputs = {"userData": SECRET, "list": [SECRET, {"deep": SECRET, "id": UNKNOWN}], "id": UNKNOWN, "port": 22}
    (step,) = read(tmp_path, event("resourcePreEvent", "create", None, resource(inputs, protect=True))).steps
    assert step.old is None
    assert step.new
    assert step.new.protected
    assert step.new.inputs == {
        "userData": Hidden.SECRET,
        "list": [Hidden.SECRET, {"deep": Hidden.SECRET, "id": Hidden.UNKNOWN}],
        "id": Hidden.UNKNOWN,
        "port": 22,
    }
    assert f"{Hidden.SECRET} {Hidden.UNKNOWN}" == "[secret] [not known yet]"


def test_a_name_may_hold_the_separator_of_urns(tmp_path: Path) -> None:
    urn = "urn:pulumi:dev::decant::aws:vpc/rule:Rule::ssh-from-2001:db8::1"
    assert read(tmp_path, event("resourcePreEvent", "create", None, resource(), urn=urn)).steps[0].name == (
        "ssh-from-2001:db8::1"
    )


def test_messages_are_plain_and_told_once(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        message("<{%fg 1%}>decant:size is x<{%reset%}>\n  \x1b[1mpulumi config rm decant:size\x1b[0m\n", urn=URN),
        message("<{%fg 1%}>decant:size is x<{%reset%}>\n  \x1b[1mpulumi config rm decant:size\x1b[0m\n", urn=URN),
        message("The stack costs 8.76", "info"),
        message("compiling", "info#err"),
        message("for a moment", "info", ephemeral=True),
        message("for developers", "debug"),
        message("<{%reset%}>\n", "warning"),
    ).diagnostics
    assert found == (
        Diagnostic(severity="error", message="decant:size is x\n  pulumi config rm decant:size", urn=URN),
        Diagnostic(severity="info", message="The stack costs 8.76"),
        Diagnostic(severity="info#err", message="compiling"),
    )
    assert [one.name for one in found] == ["web-1", "", ""]


@pytest.mark.parametrize("character", ["\u2028", "\x85", "\x1c"])
def test_a_text_may_hold_other_separators_of_lines(tmp_path: Path, character: str) -> None:
    assert read(tmp_path, message(f"a{character}b")).diagnostics[0].message == f"a{character}b"


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, message("first"), {"summaryEvent": {}}, rest='[1]\n{"diagnosticEvent": {"mess')
    assert [one.message for one in found.diagnostics] == ["first"]


def test_an_engine_that_failed_before_it_began_has_written_no_log(tmp_path: Path) -> None:
    assert read_events(tmp_path / "none.json") == Events()
