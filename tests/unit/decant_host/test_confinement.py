"""Security modules that confine nginx."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from decant_host import confinement
from tests.unit.decant_host.machine import Machine


@pytest.fixture
def nginx(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """nginx's process; `label` is what its security module says."""
    found = SimpleNamespace(pid="41")
    (confinement.PROC / "41" / "attr").mkdir(parents=True)
    found.label = confinement.PROC / "41" / "attr" / "current"
    monkeypatch.setattr(confinement, "run", lambda *argv, check: SimpleNamespace(stdout=f"{found.pid}\n"))
    return found


@pytest.mark.parametrize(
    ("label", "texts"),
    [
        (
            "nginx (enforce)\n",
            ["AppArmor's profile nginx confines nginx", "`/run/decant/** rw,`", "aa-complain nginx."],
        ),
        (
            "/usr/sbin/nginx (enforce)\n",
            ["AppArmor's profile /usr/sbin/nginx confines", "aa-complain /usr/sbin/nginx."],
        ),
        ("system_u:system_r:httpd_t:s0\0", ["SELinux runs nginx in the domain httpd_t", "permissive -a httpd_t."]),
        ("system_u:system_r:httpd_t:s0:c1,c2", ["SELinux runs nginx in the domain httpd_t"]),
    ],
)
def test_a_module_that_confines_nginx_is_named_with_a_remedy(
    nginx: SimpleNamespace, label: str, texts: list[str]
) -> None:
    nginx.label.write_text(label)
    said = confinement.confinement_hint()
    for text in texts:
        assert text in said


@pytest.mark.parametrize(
    "label", ["unconfined\n", "nginx (complain)\n", "system_u:system_r:unconfined_service_t:s0", ""]
)
def test_nothing_is_said_where_nginx_is_not_confined(nginx: SimpleNamespace, label: str) -> None:
    nginx.label.write_text(label)
    assert confinement.confinement_hint() == ""


def test_nothing_is_said_without_a_module_or_without_nginx(nginx: SimpleNamespace) -> None:
    assert confinement.confinement_hint() == ""
    nginx.pid = "0"
    assert confinement.confinement_hint() == ""
