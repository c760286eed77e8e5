"""What a preview says of machines, ports, names and data: event logs of the real engine, on stacks without machines.

Each stack is made once. The tests change its settings, read a preview, and change them back.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from decant.preview.events import Events, Hidden, read_events
from decant.preview.infrastructure import Infrastructure, infrastructure
from rehearsal.accounts.aws_catalogue import REGION
from rehearsal.accounts.digitalocean_catalogue import IMMEDIATE
from rehearsal.doubles import key_pair
from tests.engine.aws_provider import Account, Provider
from tests.engine.digitalocean_api import DigitalOceanApi
from tests.support.in_memory import InMemoryBackend
from tests.support.no_machines import NoMachines
from tests.support.pulumi_stack import Stack, missing
from tests.support.quiet_commands import QuietCommands

CANARY = "canary-in-a-secret-5b1f"
ADDRESS = "127.203.113.77"
BALANCED = {"machines": "2"}

DISK = (
    "{}: what the app has written to its disk is deleted with it, $DATA_DIR and the paths of decant:persistent"
    " included. Copy it first."
)
JOINS = "It gets requests from the load balancer once it serves the release. Visitors notice nothing."
NEW_FIRST = "The new one gets requests from the load balancer before the old one leaves it. Visitors notice nothing."
BY_OLD_ADDRESS = "Visitors who come by the old one reach nobody any more."
PRINTED = "A name of yours has to lead there: make up prints the records."


class Unanswered(InMemoryBackend):
    """A world whose addresses nobody answers at, also where a network's proxy answers at every other one.

    Else a machine's address would be taken for one of a site that is served.
    """

    def reserve(self) -> str:
        return ADDRESS


def unanswered() -> NoMachines:
    """The same for DigitalOcean's API."""
    world = NoMachines()
    world.network.cidr = "127.51.100.0/24"
    return world


@dataclass(kw_only=True)
class Previewed:
    """A stack that was made, and its previews."""

    cloud: str
    stack: Stack
    folder: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def events(self, *words: str, fails: bool = False) -> Events:
        """The events of one preview. Nothing secret is in the log."""
        log = self.folder / f"events-{next(self.numbers)}.json"
        self.stack.pulumi("preview", "--event-log", str(log), *words, fails=fails)
        assert CANARY not in log.read_text()
        return read_events(log)

    def says(self, settings: Mapping[str, str] | None = None, *words: str) -> Infrastructure:
        """What a preview with these settings says. The settings are as they were afterwards."""
        file = self.stack.project / "Pulumi.engine.yaml"
        before = file.read_text()
        if settings:
            self.stack.set(settings)
        try:
            return infrastructure(self.cloud, self.events(*words).steps)
        finally:
            file.write_text(before)

    def urn(self, name: str) -> str:
        return str(self.stack.resources()[name]["urn"])


@contextlib.contextmanager
def made(
    folder: Path, cloud: str, settings: Mapping[str, str], plugins: str = "", **environment: str
) -> Iterator[Previewed]:
    """A stack of which everything was made but machines."""
    lacking = missing("tls", *(["digitalocean"] if cloud == "digitalocean" else []))
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    commands = QuietCommands()
    debugged = ",".join(filter(None, [f"command:{commands.port}", plugins]))
    stack = Stack.create(
        folder,
        PULUMI_DEBUG_PROVIDERS=debugged,
        PULUMI_DEBUG_COMMANDS="true",
        PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION="true",
        DECANT_ALL_MACHINES_GO="1",
        **environment,
    )
    stack.set({"cloud": cloud, **settings})
    stack.set_secret("secrets.CANARY", CANARY)
    yield Previewed(cloud=cloud, stack=stack, folder=folder)
    commands.server.stop(None)


# ------------------------------------------------------------------------------------------------ AWS


@contextlib.contextmanager
def on_aws(folder: Path, settings: Mapping[str, str]) -> Iterator[Previewed]:
    account = Account(Unanswered())  # type: ignore[arg-type]
    provider = Provider(account)
    with made(folder, "aws", {"adminCidrs[0]": "10.0.0.0/8", **settings}, f"aws:{provider.port}") as previewed:
        previewed.stack.pulumi("config", "set", "aws:region", REGION)
        yield previewed
    assert account.wrong == []
    provider.server.stop(None)


@pytest.fixture(scope="module")
def aws_alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previewed]:
    with on_aws(tmp_path_factory.mktemp("aws-alone"), {}) as previewed:
        yield previewed


def test_a_new_stack_on_aws(aws_alone: Previewed) -> None:
    found = aws_alone.says()
    assert found.data_at_risk == ()
    assert found.machines == ("web-1 is made (t3.micro). The site is new.",)
    assert found.openings == (
        "Port 22 (SSH) of the machines opens to 10.0.0.0/8.",
        "Port 80 (HTTP) of the machines opens to everybody.",
        "Port 443 (HTTPS) of the machines opens to everybody.",
        "ICMP of the machines opens to everybody.",
    )
    assert found.certificates_and_dns == ()
    (rest,) = found.other
    assert rest.startswith("Made: InternetGateway gateway, SecurityGroupIngressRule http,")
    aws_alone.stack.up()


def test_nothing_to_do_on_aws(aws_alone: Previewed) -> None:
    assert aws_alone.says() == Infrastructure()


def test_secrets_and_what_is_not_known_are_hidden(aws_alone: Previewed) -> None:
    steps = aws_alone.events("--replace", aws_alone.urn("Instance web-1")).steps
    (stage,) = [step for step in steps if (step.op, step.name) == ("create-replacement", "web-1-stage")]
    assert stage.new
    assert (stage.new.inputs["stdin"], stage.new.inputs["connection"]) == (Hidden.SECRET, Hidden.SECRET)
    assert stage.new.inputs["triggers"] == [Hidden.UNKNOWN]


def test_another_size_of_the_only_machine_on_aws(aws_alone: Previewed) -> None:
    assert aws_alone.says({"size": "t3.small"}) == Infrastructure(
        machines=(
            "web-1 goes from t3.micro to t3.small. AWS stops it for that, and the site is away for a minute or two. It"
            " keeps its disk and its address.",
        )
    )


def test_cpu_credits_change_while_the_machine_runs(aws_alone: Previewed) -> None:
    assert aws_alone.says({"cpuCredits": "standard"}) == Infrastructure(
        machines=("web-1: creditSpecification changes while it runs. Visitors notice nothing.",)
    )


def test_the_only_machine_on_aws_is_replaced(aws_alone: Previewed) -> None:
    assert aws_alone.says({}, "--replace", aws_alone.urn("Instance web-1")) == Infrastructure(
        data_at_risk=(DISK.format("web-1"),),
        machines=(
            "web-1 is replaced by a new machine. The new one serves the release before the site's address moves to it."
            " Visitors notice some seconds without an answer.",
        ),
    )


def test_another_administrator_and_no_https(aws_alone: Previewed) -> None:
    found = aws_alone.says({"adminCidrs[0]": "192.168.0.0/16", "https": "off", "requestTimeout": "45"})
    assert found.openings == (
        "Port 22 (SSH) of the machines opens to 192.168.0.0/16.",
        "Port 22 (SSH) of the machines closes to 10.0.0.0/8.",
        "Port 443 (HTTPS) of the machines closes to everybody.",
    )
    assert found.machines == (
        "web-1: nginx, packages and settings of the system are brought up to date. nginx drops no connection for it."
        " Visitors notice nothing.",
    )


def test_a_domain_in_a_zone_of_the_account(aws_alone: Previewed) -> None:
    found = aws_alone.says({"domain": "example.com", "dnsZone": "example.com"})
    assert found.certificates_and_dns == (
        f"DNS: example.com leads to {ADDRESS} by a new record (A).",
        f"DNS: www.example.com leads to {ADDRESS} by a new record (A).",
    )
    assert found.other == ()


def test_from_one_machine_on_aws_to_two(aws_alone: Previewed) -> None:
    found = aws_alone.says({"machines": "2", "domain": "example.com", "dnsZone": "example.com"})
    assert found.data_at_risk == ()
    assert found.machines[0] == "web-2 is made (t3.micro). It gets requests once it serves the release."
    assert found.openings[:2] == (
        "Port 80 (HTTP) of the load balancer opens to everybody.",
        "Port 443 (HTTPS) of the load balancer opens to everybody.",
    )
    assert found.openings[-2:] == (
        "Port 80 (HTTP) of the machines closes to everybody.",
        "Port 443 (HTTPS) of the machines closes to everybody.",
    )
    assert found.certificates_and_dns == (
        f"The site's address changes: from the machine's address ({ADDRESS}) to a new load balancer, which is known"
        f" after the run. {BY_OLD_ADDRESS} The stack's DNS records follow it; other names have to lead there, too.",
        "Certificate: that for example.com is ordered from AWS. The run waits for it, 15 minutes at most.",
        "Certificate: that for www.example.com is ordered from AWS. The run waits for it, 15 minutes at most.",
        "DNS: example.com leads to the new address by a new record (A).",
        "DNS: www.example.com leads to the new address by a new record (A).",
        "DNS: the record by which AWS sees that example.com is yours is made.",
        "DNS: the record by which AWS sees that www.example.com is yours is made.",
    )


def test_wrong_settings_are_told_in_the_messages(aws_alone: Previewed) -> None:
    file = aws_alone.stack.project / "Pulumi.engine.yaml"
    before = file.read_text()
    aws_alone.stack.set({"machines": "many", "size": "t3.small"})
    events = aws_alone.events(fails=True)
    file.write_text(before)
    # The engine adds that the program has failed.
    error, _ = [one.message for one in events.diagnostics if one.severity == "error"]
    assert "1 problem in the settings of stack engine; nothing was changed." in error
    assert 'decant:machines is "many"' in error


@pytest.fixture(scope="module")
def aws_balanced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previewed]:
    with on_aws(tmp_path_factory.mktemp("aws-balanced"), BALANCED) as previewed:
        previewed.stack.up()
        yield previewed


def test_one_more_machine_on_aws(aws_balanced: Previewed) -> None:
    assert aws_balanced.says({"machines": "3"}) == Infrastructure(machines=(f"web-3 is made (t3.micro). {JOINS}",))


def test_one_machine_less_on_aws(aws_balanced: Previewed) -> None:
    assert aws_balanced.says({"machines": "1", "balancer": "true"}) == Infrastructure(
        data_at_risk=(DISK.format("web-2"),),
        machines=(
            "web-2 is deleted. It leaves the load balancer and answers the requests that it has first. Visitors notice"
            " nothing.",
        ),
    )


def test_another_size_behind_the_balancer_on_aws(aws_balanced: Previewed) -> None:
    text = f"{{}} is replaced by a new machine (t3.micro before, t3.small afterwards). {NEW_FIRST}"
    assert aws_balanced.says({"size": "t3.small"}) == Infrastructure(
        data_at_risk=(DISK.format("web-1"), DISK.format("web-2")), machines=(text.format("web-1"), text.format("web-2"))
    )


def test_one_machine_behind_the_balancer_on_aws_is_replaced(aws_balanced: Previewed) -> None:
    assert aws_balanced.says({}, "--replace", aws_balanced.urn("Instance web-2")) == Infrastructure(
        data_at_risk=(DISK.format("web-2"),), machines=(f"web-2 is replaced by a new machine. {NEW_FIRST}",)
    )


def test_from_two_machines_on_aws_to_one_of_another_size(aws_balanced: Previewed) -> None:
    found = aws_balanced.says({"machines": "1", "size": "t3.small"})
    assert found.data_at_risk == (DISK.format("web-2"),)
    assert found.machines[:2] == (
        "web-1 goes from t3.micro to t3.small. AWS stops it for that. Requests that it has, and those until the load"
        " balancer notices (25 seconds at most), fail. It keeps its disk.",
        "web-2 is deleted. Another machine serves before.",
    )
    (address,) = found.certificates_and_dns
    assert address.startswith("The site's address changes: from the load balancer (")
    assert address.endswith(f") to a new address, which is known after the run. {BY_OLD_ADDRESS} {PRINTED}")
    assert "Port 80 (HTTP) of the load balancer closes to everybody." in found.openings


# ------------------------------------------------------------------------------------------------ DigitalOcean


@contextlib.contextmanager
def on_digitalocean(folder: Path, settings: Mapping[str, str]) -> Iterator[Previewed]:
    api = DigitalOceanApi(unanswered(), "dop_v1_not_a_real_one", pace=IMMEDIATE, used_regions=("fra1",))
    api.account.names.add_domain("example.net", delegated=True)
    own = {"adminCidrs[0]": "10.0.0.0/8", **settings}
    with made(folder, "digitalocean", own, DIGITALOCEAN_API_URL=api.url) as previewed:
        previewed.stack.pulumi("config", "set", "--secret", "digitalocean:token", stdin=None, input=api.token)
        previewed.stack.up()
        yield previewed
    assert api.unknown == []
    api.server.shutdown()


@pytest.fixture(scope="module")
def droplet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previewed]:
    with on_digitalocean(tmp_path_factory.mktemp("droplet"), {}) as previewed:
        yield previewed


def reserved_address(previewed: Previewed) -> str:
    return str(previewed.stack.resources()["ReservedIp web-1-address"]["outputs"]["ipAddress"])


def test_nothing_to_do_on_digitalocean(droplet: Previewed) -> None:
    assert droplet.says() == Infrastructure()


def test_another_size_of_the_only_droplet(droplet: Previewed) -> None:
    assert droplet.says({"size": "s-2vcpu-2gb"}) == Infrastructure(
        data_at_risk=(
            "web-1: its power is cut, and what the app has not yet written to the disk is lost. Stop the app first:"
            " docs/fleets.md#another-size-for-a-droplet-alone",
        ),
        machines=(
            "web-1 goes from s-1vcpu-1gb to s-2vcpu-2gb. DigitalOcean cuts its power for that, and the site is away for"
            " about a minute. It keeps its disk and its address.",
        ),
    )


def test_the_only_droplet_is_replaced(droplet: Previewed) -> None:
    assert droplet.says({}, "--replace", droplet.urn("Droplet web-1")) == Infrastructure(
        data_at_risk=(DISK.format("web-1"),),
        machines=(
            "web-1 is replaced by a new machine. The new one serves the release before the site's address moves to it."
            " Visitors notice some seconds without an answer.",
        ),
    )


def test_another_region_on_digitalocean(droplet: Previewed) -> None:
    found = droplet.says({"region": "ams3"})
    assert found.data_at_risk == (DISK.format("web-1"),)
    assert found.machines == (
        "web-1 is replaced by a new machine (because of another region and vpcUuid). The new one serves the release"
        " before the old one is deleted.",
    )
    assert found.certificates_and_dns == (
        f"The site's address changes: from the machine's address ({reserved_address(droplet)}) to a new address, which"
        f" is known after the run. {BY_OLD_ADDRESS} {PRINTED}",
    )


def test_from_one_droplet_to_two_with_a_domain(droplet: Previewed) -> None:
    found = droplet.says({"machines": "2", "domain": "example.net", "dnsZone": "example.net"})
    assert found.data_at_risk == ()
    assert found.machines[0] == "web-2 is made (s-1vcpu-1gb). It gets requests once it serves the release."
    assert found.openings == (
        "Port 80 (HTTP) of the load balancer opens to everybody.",
        "Port 443 (HTTPS) of the load balancer opens to everybody.",
        "Port 80 (HTTP) of the machines opens to the load balancer.",
        "Port 80 (HTTP) of the machines closes to everybody.",
        "Port 443 (HTTPS) of the machines closes to everybody.",
    )
    assert found.certificates_and_dns == (
        f"The site's address changes: from the machine's address ({reserved_address(droplet)}) to a new load balancer,"
        f" which is known after the run. {BY_OLD_ADDRESS} The stack's DNS records follow it; other names have to lead"
        " there, too.",
        "Certificate: that for example.net and www.example.net is ordered from DigitalOcean. The run waits for it, 15"
        " minutes at most.",
        "DNS: example.net leads to the new address by a new record (A).",
        "DNS: www.example.net leads to the new address by a new record (A).",
    )


@pytest.fixture(scope="module")
def droplets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previewed]:
    with on_digitalocean(tmp_path_factory.mktemp("droplets"), BALANCED) as previewed:
        yield previewed


def test_one_more_droplet_and_another_administrator(droplets: Previewed) -> None:
    assert droplets.says({"machines": "3", "adminCidrs[1]": "192.168.0.0/16"}) == Infrastructure(
        machines=(f"web-3 is made (s-1vcpu-1gb). {JOINS}",),
        openings=("Port 22 (SSH) of the machines opens to 192.168.0.0/16.",),
    )


def test_one_droplet_less(droplets: Previewed) -> None:
    assert droplets.says({"machines": "1", "balancer": "true"}) == Infrastructure(
        data_at_risk=(DISK.format("web-2"),),
        machines=(
            "web-2 is deleted. It leaves the load balancer and answers the requests that it has first. Visitors notice"
            " nothing.",
        ),
    )


def test_another_size_behind_the_balancer_on_digitalocean(droplets: Previewed) -> None:
    text = f"{{}} is replaced by a new machine (s-1vcpu-1gb before, s-2vcpu-2gb afterwards). {NEW_FIRST}"
    assert droplets.says({"size": "s-2vcpu-2gb"}) == Infrastructure(
        data_at_risk=(DISK.format("web-1"), DISK.format("web-2")), machines=(text.format("web-1"), text.format("web-2"))
    )


# ------------------------------------------------------------------------------------------------ hosts


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Previewed]:
    own = {
        "hosts[0].address": "a.example.com",
        "hosts[0].hostKey": key_pair()[1].strip(),
        "hosts[1].address": "b.example.com",
        "hosts[1].hostKey": key_pair()[1].strip(),
        "trustedProxies[0]": "10.0.0.5/32",
        "url": "https://www.example.com",
    }
    with made(tmp_path_factory.mktemp("hosts"), "ssh", own) as previewed:
        previewed.stack.set_secret("sshPrivateKey", key_pair()[0])
        previewed.stack.up()
        yield previewed


def without_host(previewed: Previewed, place: int) -> Infrastructure:
    file = previewed.stack.project / "Pulumi.engine.yaml"
    before = file.read_text()
    previewed.stack.unset(f"hosts[{place}]")
    try:
        return previewed.says()
    finally:
        file.write_text(before)


def test_nothing_to_do_on_hosts(hosts: Previewed) -> None:
    assert hosts.says() == Infrastructure()


def test_one_more_host(hosts: Previewed) -> None:
    key = key_pair()[1].strip()
    assert hosts.says({"hosts[2].address": "c.example.com", "hosts[2].hostKey": key}) == Infrastructure(
        machines=("c.example.com is set up. Visitors notice nothing.",)
    )


def test_one_host_less(hosts: Previewed) -> None:
    assert without_host(hosts, 1) == Infrastructure(
        data_at_risk=(
            "b.example.com: what the app has written to its disk is deleted, $DATA_DIR and the paths of"
            " decant:persistent included. Copy it first.",
        ),
        machines=(
            "b.example.com leaves the stack: Decant is removed from it. With a load balancer of yours before it, it"
            " leaves the rotation first, and visitors notice nothing. A name that leads to it has to lead elsewhere"
            " before.",
        ),
    )


def test_a_host_gets_a_name(hosts: Previewed) -> None:
    found = hosts.says({"hosts[1].name": "web"})
    assert found.machines == ("b.example.com is set up as web, and then removed. The site is gone from it.",)
    assert found.data_at_risk == (
        "b.example.com and web are one machine (the same host key). At the end of the run, the removal of b.example.com"
        " deletes Decant, the release and $DATA_DIR from it, and the site is gone. Keep the name: set"
        " decant:hosts[...].name to b.example.com.",
    )


def test_a_host_shows_another_key(hosts: Previewed) -> None:
    assert hosts.says({"hosts[1].hostKey": key_pair()[1].strip()}) == Infrastructure(
        machines=(
            "b.example.com shows another host key, so it is taken for another machine: everything is set up on it"
            " again. If it is a new machine, visitors see nothing on it until then.",
        )
    )
