"""HTTPS of a machine alone: the real engine and ACME client, a double of the cloud, an authority of our own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from decant.rollout.http_probe import ProbeResult, probe
from decant.rollout.route import Route
from rehearsal.authority import Authority
from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from tests.engine.test_fleet import Rented, on_digitalocean
from tests.engine.test_replacing_alone import machine_urn
from tests.support.pulumi_stack import Stack, missing

DOMAIN = "www.example.com"


@pytest.fixture(scope="module")
def cloud(network: Network) -> Iterator[Rented]:
    lacking = missing("tls", "digitalocean")
    if lacking:
        pytest.skip("needs " + ", ".join(lacking))
    with on_digitalocean(network) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def authority(network: Network) -> Authority:
    return Authority.start(network)


@pytest.fixture(scope="module")
def stack(cloud: Rented, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Stack:
    stack = Stack.create(tmp_path_factory.mktemp("https"), **cloud.environment)
    stack.set({"cloud": "digitalocean", "adminCidrs[0]": "10.0.0.0/8", "domain": DOMAIN})
    stack.set({"acmeServer": authority.directory, "resolvers[0]": authority.resolver})
    stack.pulumi("config", "set", "decant:acmeRoot", stdin=None, input=authority.root)
    stack.pulumi("config", "set", "--secret", "digitalocean:token", stdin=None, input=cloud.token)
    return stack


def only_machine(network: Network) -> Machine:
    (machine,) = [one for one in network.machines() if one.name.startswith("web-1") and one.is_on]
    return machine


def ask(stack: Stack, authority: Authority, url: str = f"https://{DOMAIN}/") -> ProbeResult:
    """One verified request, at the address that the records name."""
    address = stack.outputs()["dns"]["value"]
    return probe(url, route=Route(connect_to=address, root=authority.root))


def test_an_up_does_not_wait_for_dns(stack: Stack, authority: Authority) -> None:
    made = stack.make("up")
    assert made.returncode == 0, made.stdout
    outputs = stack.outputs()
    assert outputs["url"] == f"http://{DOMAIN}"
    assert outputs["certificate"]["state"] == "waiting"
    assert outputs["certificate"]["cause"] == "no-record"
    assert f"{DOMAIN}  A  {outputs['dns']['value']}" in made.stdout
    assert outputs["savedCertificate"] == "[secret]"
    assert authority.orders() == []
    assert ask(stack, authority, f"http://{DOMAIN}/").status == 200


def test_https_comes_by_itself_once_the_name_leads_there(stack: Stack, authority: Authority, network: Network) -> None:
    """The unit is what the machine's timer starts."""
    authority.set_records({DOMAIN: [stack.outputs()["dns"]["value"]]})
    only_machine(network).run("systemctl start decant-certificate.service")
    assert authority.orders() == [201]
    answer = ask(stack, authority)
    assert (answer.status, answer.release) == (200, stack.outputs()["release"])


def test_the_next_up_notices_it(stack: Stack, authority: Authority) -> None:
    made = stack.make("up")
    assert made.returncode == 0, made.stdout
    assert "HTTPS works now" in made.stdout
    assert f"for {DOMAIN}, valid for 90 days" in made.stdout
    outputs = stack.outputs()
    assert outputs["url"] == f"https://{DOMAIN}"
    assert outputs["certificate"]["state"] == "live"
    assert stack.up().counts.keys() == {"unchanged"}
    assert authority.orders() == [201]


def test_a_release_is_checked_over_https(stack: Stack, authority: Authority) -> None:
    stack.edit("app/hello/templates/index.html", "<main>", "<main><!-- edited -->")
    stack.up()
    outputs = stack.outputs()
    assert outputs["url"] == f"https://{DOMAIN}"
    assert outputs["receipt"]["failed"] == 0
    assert ask(stack, authority).release == outputs["release"]


def replace(stack: Stack, authority: Authority, network: Network, times: int) -> None:
    """Replace the machine by new ones, one after the other; each serves the site over HTTPS."""
    for _ in range(times):
        before = only_machine(network).name
        stack.up("--replace", machine_urn(stack))
        assert only_machine(network).name != before
        answer = ask(stack, authority)
        assert (answer.status, answer.release) == (200, stack.outputs()["release"])
        assert stack.outputs()["url"] == f"https://{DOMAIN}"


def test_a_replaced_machine_goes_on_with_the_certificate(stack: Stack, authority: Authority, network: Network) -> None:
    replace(stack, authority, network, 2)
    assert authority.orders() == [201], "one order for all machines"
    assert stack.up().counts.keys() == {"unchanged"}


@pytest.mark.thorough  # two minutes
def test_six_replacements_in_a_row_cost_one_order(stack: Stack, authority: Authority, network: Network) -> None:
    """Let's Encrypt gives five certificates a week for the same names, so a sixth machine would have none."""
    if not stack.outputs():  # this test alone: what those before have done
        stack.up()
        authority.set_records({DOMAIN: [stack.outputs()["dns"]["value"]]})
        only_machine(network).run("systemctl start decant-certificate.service")
        stack.make("up")
    assert stack.outputs()["url"] == f"https://{DOMAIN}"
    replace(stack, authority, network, 6)
    assert authority.orders() == [201], "one order for all machines"


def test_a_stack_that_is_made_again_goes_on_with_it_too(stack: Stack, authority: Authority) -> None:
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    assert "The site's certificate is kept, encrypted, as decant:savedCertificate" in done.stdout
    made = stack.make("up")
    assert made.returncode == 0, made.stdout
    # The address is another one, and nobody has changed the records yet.
    assert stack.outputs()["url"] == f"https://{DOMAIN}", made.stdout
    assert ask(stack, authority).status == 200
    assert authority.orders() == [201]


def test_no_private_key_was_ever_said_or_stored_in_clear(stack: Stack) -> None:
    stored = [path.read_text(errors="replace") for path in stack.backend.rglob("*") if path.is_file()]
    saved = stack.revealed("savedCertificate")
    assert len(saved) > 1000
    for text in [*stack.said, *stored, (stack.project / "Pulumi.engine.yaml").read_text()]:
        assert "PRIVATE KEY" not in text
        assert saved[:200] not in text


def test_destroy_leaves_nothing(stack: Stack, cloud: Rented) -> None:
    done = stack.make("destroy")
    assert done.returncode == 0, done.stdout
    assert cloud.account.inventory() == {}
