"""The parts of a rehearsal that need no machine: its steps, its locks, and what the program it runs can see."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from ipaddress import ip_address, ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from decant.ssh.client import Access, CommandResult
from rehearsal import __main__ as rehearsal
from rehearsal import this_host, throwaway_backend
from rehearsal.backend import Check
from rehearsal.balancer import BalancerMachine, configuration
from rehearsal.errors import RehearsalError, StepFailedError, StoppedError
from rehearsal.machines import firewall, machine, reaper, seed
from rehearsal.machines.network import Network, _write_json
from rehearsal.progress import Progress
from rehearsal.this_host import is_locked, locked
from rehearsal.throwaway_backend import ThrowawayBackend


@pytest.fixture
def backend() -> ThrowawayBackend:
    """A backend whose network is down: it can run commands here."""
    return ThrowawayBackend(Network(name="unit"), Progress())


# ------------------------------------------------------------------------------------------------ steps


def test_after_a_failed_step_no_new_step_begins(backend: ThrowawayBackend, tmp_path: Path) -> None:
    with pytest.raises(StepFailedError, match="the reason"):
        backend.local("first", "echo the reason; exit 3", "")
    with pytest.raises(StoppedError, match="second"):
        backend.local("second", f"touch {tmp_path}/begun", "")
    assert list(tmp_path.iterdir()) == []
    assert backend.failures == ["first failed:\nthe reason"], "the second did not fail"


def test_a_local_step_runs_in_a_session_that_ctrl_c_does_not_reach(backend: ThrowawayBackend) -> None:
    shell, session = backend.local("step", "cut -d' ' -f1,6 /proc/$$/stat", "").stdout.split()
    assert session == shell
    assert int(session) != os.getsid(0)


def test_a_step_on_a_machine_may_take_as_long_as_an_installation(
    backend: ThrowawayBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    timeouts: list[float] = []

    class Session:
        def __init__(self, access: Access) -> None:
            pass

        def __enter__(self) -> Session:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def run(self, command: str, *, stdin: str, timeout: float) -> CommandResult:
            timeouts.append(timeout)
            return CommandResult(status=0, stdout=f"{command} {stdin}", stderr="installing\nbuilding\n")

    told: list[str] = []
    monkeypatch.setattr(throwaway_backend, "Session", Session)
    monkeypatch.setattr(backend.progress, "say", told.append)
    access = Access(name="a", address="203.0.113.7", port=22, user="root", host_key="", private_key="")
    assert backend.remote("provision", access, "run", "given").stdout == "run given"
    assert timeouts[0] >= 900, "the first `provision` installs packages"
    assert told[-2:] == ["provision: installing", "provision: building"], "what Pulumi would show"


def test_a_step_counts_as_running_until_it_ends() -> None:
    progress = Progress()
    with progress.step("one"):
        assert list(progress.running) == ["one"]
    assert not progress.running
    with contextlib.suppress(KeyError), progress.step("two"):
        raise KeyError
    assert not progress.running, "an interruption would say that it waits for this one"


def test_a_local_step_gets_its_standard_input_and_the_programs_folder(backend: ThrowawayBackend) -> None:
    assert backend.local("step", "cat; pwd", "given\n").stdout.split("\n")[:2] == [
        "given", str(Path(rehearsal.__file__).parents[1] / "infra")
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------ locks


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(this_host, "_LOCKS", tmp_path / "locks")


@pytest.mark.usefixtures("locks")
def test_a_lock_has_one_holder_and_others_wait_for_it() -> None:
    order: list[str] = []

    def second() -> None:
        with locked("one"):
            order.append("second")

    thread = threading.Thread(target=second)
    with locked("one"):
        assert is_locked("one")
        assert not is_locked("another")
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert not is_locked("one")


@pytest.mark.usefixtures("locks")
def test_shared_holders_of_a_lock_keep_others_out_but_not_each_other() -> None:
    with locked("one", shared=True):
        with locked("one", shared=True, blocking=False):
            pass
        with pytest.raises(BlockingIOError), locked("one", blocking=False):
            pass


@pytest.mark.usefixtures("locks")
def test_a_process_that_inherits_a_lock_holds_it_until_it_ends() -> None:
    with locked("one") as lock:
        heir = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock])
    assert is_locked("one")
    heir.communicate()
    assert not is_locked("one")


@pytest.mark.usefixtures("locks")
def test_only_root_can_open_a_lock(tmp_path: Path) -> None:
    """Everybody who can open a lock file can lock it."""
    before = os.umask(0)
    try:
        with locked("one"):
            assert (tmp_path / "locks").stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(before)


# ------------------------------------------------------------------------------------------------ this computer


def test_the_end_of_a_long_output_is_shown_without_empty_lines() -> None:
    assert this_host.last_lines("\n".join(f"{i}\n" for i in range(40)), 3) == "37\n38\n39"
    assert len(this_host.last_lines("x\n" * 99).splitlines()) == 15


@pytest.fixture
def sysctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's settings as files: forwarding is off, and there are 128 inotify instances."""
    monkeypatch.setattr(this_host, "Path", lambda *parts: tmp_path / "/".join(parts).lstrip("/"))
    monkeypatch.setattr(this_host, "_KEPT_SETTINGS", tmp_path / "kept.json")
    for name, value in {"net/ipv4/ip_forward": "0", "fs/inotify/max_user_instances": "128",
                        "kernel/random/boot_id": "boot-1"}.items():  # fmt: skip
        path = tmp_path / "proc" / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{value}\n")
    return tmp_path / "proc" / "sys"


def kernel(sysctl: Path) -> tuple[int, int]:
    return tuple(int((sysctl / n).read_text()) for n in ("net/ipv4/ip_forward", "fs/inotify/max_user_instances"))  # type: ignore[return-value]


def test_the_kernels_settings_are_put_back(sysctl: Path, tmp_path: Path) -> None:
    this_host.adjust_kernel()
    this_host.adjust_kernel()  # a second network
    assert kernel(sysctl) == (1, 1024)
    this_host.restore_kernel()
    assert kernel(sysctl) == (0, 128)
    assert not (tmp_path / "kept.json").exists()


def test_a_kernel_setting_that_something_else_has_changed_is_left_alone(sysctl: Path) -> None:
    this_host.adjust_kernel()
    (sysctl / "fs/inotify/max_user_instances").write_text("8192")
    this_host.restore_kernel()
    assert kernel(sysctl) == (0, 8192)


def test_a_kernel_setting_of_an_earlier_boot_is_left_alone(sysctl: Path) -> None:
    this_host.adjust_kernel()
    (sysctl / "kernel/random/boot_id").write_text("boot-2")
    this_host.restore_kernel()
    assert kernel(sysctl) == (1, 1024)


def test_the_login_key_is_open_to_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "STATE", tmp_path)
    (tmp_path / "try").mkdir()
    before = os.umask(0)
    try:
        key = rehearsal._keep_key([{"private_key": "canary", "address": "198.51.100.2", "host_key": "ssh-ed25519 A"}])
    finally:
        os.umask(before)
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("canary", 0o600)
    assert key.with_name("key.known").read_text() == "198.51.100.2 ssh-ed25519 A\n"


# ------------------------------------------------------------------------------------------------ networks


def test_the_balancer_sends_no_request_a_second_time() -> None:
    """tests/hosts/test_balancer.py has the effect: a refused connection is 503 for the visitor."""
    check = Check(path="/up", interval=10, timeout=5, rise=2, fall=3, idle=60, keepalive=True)
    lines = [line.strip() for line in configuration(check).splitlines()]
    assert [line for line in lines if line.startswith("retries")] == ["retries 0"]
    assert not [line for line in lines if "redispatch" in line or line.startswith("retry-on")]


def test_the_balancer_treats_connections_as_the_stack_says(monkeypatch: pytest.MonkeyPatch) -> None:
    check = Check(path="/up", interval=10, timeout=5, rise=2, fall=3, idle=60, keepalive=True, expect="200")
    files: dict[str, str] = {}
    monkeypatch.setattr(Network, "boot", lambda self, name, **options: files.update(options["files"]))
    BalancerMachine.start(Network(name="unit"), "balancer", "10.0.0.3/16", check)
    assert files["etc/haproxy/server"] == "check inter 10s rise 2 fall 3\n"
    assert "Address=10.0.0.3/16" in files["etc/systemd/network/10-host0.network.d/inside.conf"]
    lines = [line.strip() for line in files["etc/haproxy/haproxy.cfg"].splitlines()]
    assert {
        "timeout client 60s", "timeout http-keep-alive 60s", "timeout server 60s", "timeout tunnel 60s",
        "timeout check 5s",
        "option forwardfor", "balance roundrobin",
        "http-request set-header X-Forwarded-Proto https if { ssl_fc }",
        "http-request set-header X-Forwarded-Proto http unless { ssl_fc }",
        "http-reuse safe", "http-check send meth GET uri /up ver HTTP/1.1 hdr Host %[srv_name]",
        "http-check expect status 200",
    } <= set(lines)  # fmt: skip


def test_nothing_outside_opens_a_connection_to_a_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/hosts/test_machines.py has the effect."""
    rules: list[str] = []
    monkeypatch.setattr(firewall, "_ruleset", list)
    monkeypatch.setattr(firewall, "_legacy_rules", lambda bridge: [])
    monkeypatch.setattr(firewall, "command", lambda *argv, input: rules.append(input))
    firewall.open_for("decant-br1", "198.51.100.32/27", "198.51.100.0/24")
    found = [" ".join(line.split()) for line in rules[0].splitlines()]
    assert 'oifname "decant-br1" iifname != "decant-br1" ct state != { established, related } drop' in found
    assert "ip saddr 198.51.100.32/27 ip daddr != 198.51.100.0/24 masquerade" in found


def test_a_machine_gets_a_free_address_of_its_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "STATE", tmp_path)
    monkeypatch.setattr(Network, "_slot", lambda self: 0)
    network = Network(name="unit")
    first, last = ip_network(network.cidr)[2], ip_network(network.cidr)[-2]
    assert network._choose_address(None) == str(first), "the one before is this computer's"
    assert network._choose_address(str(last)) == str(last)
    for other in (network.gateway, "203.0.113.7"):
        with pytest.raises(RehearsalError, match=f"address {other} is taken, or not one of {first} to {last}"):
            network._choose_address(other)


def test_a_file_of_the_state_is_replaced_in_one_step(tmp_path: Path) -> None:
    for value in (1, 2):
        _write_json(tmp_path / "new" / "network.json", {"slot": value})
        (file,) = (tmp_path / "new").iterdir()
        assert file.read_text() == f'{{"slot": {value}}}'


def test_secrets_on_a_machines_disk_are_for_root(tmp_path: Path) -> None:
    image, upper = tmp_path / "image", tmp_path / "upper"
    (image / "root").mkdir(parents=True)
    (image / "root").chmod(0o700)
    upper.mkdir()
    private = ("var/lib/cloud/seed/nocloud/user-data", "root/.ssh/authorized_keys", "etc/ssh/ssh_host_ed25519_key")
    seed.write_files(upper, image, dict.fromkeys((*private, "etc/hostname"), "x"))
    modes = {name: (upper / name).stat().st_mode & 0o777 for name in (*private, "etc/hostname")}
    assert modes == {**dict.fromkeys(private, 0o600), "etc/hostname": 0o644}
    assert (upper / "root").stat().st_mode & 0o777 == 0o700, "it hides the image's folder"
    assert (upper / "root" / ".ssh").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("proxy", "passed"),
    [("http://192.0.2.1:3142", True), ("http://127.0.0.1:3142", False), ("http://localhost/", False)],
)
def test_a_proxy_that_machines_cannot_reach_is_not_passed_on(
    monkeypatch: pytest.MonkeyPatch, proxy: str, passed: bool
) -> None:
    monkeypatch.setattr(seed, "apt_proxy", lambda: f'Acquire::http::Proxy "{proxy}";')
    monkeypatch.setattr(seed, "extra_certificates", list)
    monkeypatch.setattr(seed, "_indexes", lambda: iter(()))
    assert bool(seed.package_sources()) == passed


@pytest.mark.usefixtures("locks")
def test_ctrl_c_does_not_reach_the_reaper_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to take the network down after its owner has been interrupted."""
    options: dict[str, Any] = {}

    class Process:
        returncode = 0

        def __init__(self, argv: list[str], **given: Any) -> None:
            options.update(given, argv=argv, locked=is_locked("tests-unit"))

        def communicate(self) -> tuple[str, str]:
            return "", ""

    monkeypatch.setattr(reaper, "subprocess", SimpleNamespace(Popen=Process, PIPE=-1, DEVNULL=-3))
    monkeypatch.setattr(Network, "up", lambda self: None)
    monkeypatch.setattr(Network, "down", lambda self: None)
    with reaper.owned_network("unit"):
        assert options["argv"][-2:] == ["rehearsal.machines.reaper", "unit"]
    assert (options["start_new_session"], options["stdin"], len(options["pass_fds"])) == (True, -1, 1)
    assert options["locked"], "the next owner waits until everything is gone"


def test_private_addresses_are_unique_also_where_one_network_contains_another(backend: ThrowawayBackend) -> None:
    networks = ["10.0.0.0/24", "10.0.0.0/16", "10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/16"]
    claimed = [backend._claim(network) for network in networks]
    assert len(set(claimed)) == len(claimed)
    assert all(ip_address(address) in ip_network(network) for address, network in zip(claimed, networks, strict=True))
    assert "10.0.0.1" not in claimed, "it is the router's"


@pytest.mark.parametrize("hosts", [None, "a.example.com", ["a.example.com"], [{"address": "a"}, 7]])
def test_malformed_hosts_are_left_for_the_program_to_refuse(hosts: Any) -> None:
    config = {"decant:hosts": hosts}
    network = Network(name="unit")  # it is down, so a boot would raise
    assert rehearsal._stand_in_hosts(config, set(), network, Progress()) == []
    assert config == {"decant:hosts": hosts}


def test_names_are_listed_with_commas_and_an_and() -> None:
    found = [rehearsal._listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])]
    assert found == ["", "a", "a and b", "a, b and c"]
