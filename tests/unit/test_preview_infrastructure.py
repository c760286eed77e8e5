"""The sentences on machines, data, ports and names, from steps as the engine tells them."""

from __future__ import annotations

import importlib
import re

import pytest

from decant import clouds
from decant.host.steps import remove_step
from decant.preview.events import Hidden, Step
from decant.preview.infrastructure import Infrastructure, infrastructure
from tests.support.preview_steps import changed, deleted, left_over, made, replaced, same

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MICRO, SMALL = {"instanceType": "t3.micro"}, {"instanceType": "t3.small"}
SMALL_DROPLET, LARGE_DROPLET = {"size": "s-1vcpu-1gb"}, {"size": "s-2vcpu-2gb"}
BALANCER = same("LoadBalancer", "balancer", {}, {"dnsName": "balancer-1.elb.amazonaws.com"})
ADDRESS = same("Eip", "web-1-address", {}, {"publicIp": "203.0.113.7"})
RESERVED = same("ReservedIp", "web-1-address", {}, {"ipAddress": "203.0.113.7"})
DISK_OF = (
    "{}: what the app has written to its disk is deleted with it, $DATA_DIR and the paths of"
    " decant:persistent included. Copy it first."
)


def on_aws(*steps: Step) -> Infrastructure:
    return infrastructure("aws", steps)


def on_digitalocean(*steps: Step) -> Infrastructure:
    return infrastructure("digitalocean", steps)


# ------------------------------------------------------------------------------------------------ machines


def test_nothing_changes() -> None:
    assert on_aws(same("Instance", "web-1", MICRO), ADDRESS, same("Command", "web-1-provision")) == Infrastructure()


def test_a_new_stack() -> None:
    found = on_aws(made("Instance", "web-1", MICRO), made("Eip", "web-1-address"), made("EipAssociation", "web-1"))
    assert found == Infrastructure(machines=("web-1 is made (t3.micro). The site is new.",))


def test_a_machine_behind_a_balancer_is_added() -> None:
    found = on_aws(
        BALANCER,
        *(same("Instance", name, MICRO) for name in ("web-1", "web-2", "web-9")),
        made("Instance", "web-10", SMALL),
        made("TargetGroupAttachment", "web-10"),
        made("Command", "web-10-provision"),
        made("PrivateKey", "web-10-host-key"),
    )
    assert found == Infrastructure(
        machines=(
            "web-10 is made (t3.small). It gets requests from the load balancer once it serves the release. Visitors"
            " notice nothing.",
        )
    )


def test_a_machine_behind_a_balancer_is_removed() -> None:
    found = on_aws(BALANCER, same("Instance", "web-1", MICRO), deleted("Instance", "web-2", MICRO))
    assert found.machines == (
        "web-2 is deleted. It leaves the load balancer and answers the requests that it has first. Visitors notice"
        " nothing.",
    )
    assert found.data_at_risk == (DISK_OF.format("web-2"),)


def test_machines_behind_a_balancer_get_another_size() -> None:
    found = on_aws(
        BALANCER, *replaced("Instance", "web-10", MICRO, SMALL), *replaced("Instance", "web-9", MICRO, SMALL)
    )
    text = (
        "{} is replaced by a new machine (t3.micro before, t3.small afterwards). The new one gets requests from the"
        " load balancer before the old one leaves it. Visitors notice nothing."
    )
    assert found.machines == (text.format("web-9"), text.format("web-10"))
    assert found.data_at_risk == (DISK_OF.format("web-9"), DISK_OF.format("web-10"))


def test_the_only_machine_of_aws_gets_another_size() -> None:
    found = on_aws(ADDRESS, changed("Instance", "web-1", MICRO, SMALL))
    assert found == Infrastructure(
        machines=(
            "web-1 goes from t3.micro to t3.small. AWS stops it for that, and the site is away for a minute or two. It"
            " keeps its disk and its address.",
        )
    )


def test_the_only_droplet_gets_another_size() -> None:
    found = on_digitalocean(RESERVED, changed("Droplet", "web-1", SMALL_DROPLET, LARGE_DROPLET))
    assert found == Infrastructure(
        data_at_risk=(
            "web-1: its power is cut, and what the app has not yet written to the disk is lost. Stop the app first:"
            " docs/fleets.md#another-size-for-a-droplet-alone",
        ),
        machines=(
            "web-1 goes from s-1vcpu-1gb to s-2vcpu-2gb. DigitalOcean cuts its power for that, and the site is away"
            " for about a minute. It keeps its disk and its address.",
        ),
    )


def test_a_machine_is_stopped_while_others_still_serve() -> None:
    """From two machines to one of another size: the balancer goes only at the end."""
    found = on_aws(
        deleted("LoadBalancer", "balancer", {}, {"dnsName": "b.example"}),
        made("Eip", "web-1-address"),
        changed("Instance", "web-1", MICRO, SMALL),
        deleted("Instance", "web-2", MICRO),
    )
    assert found.machines == (
        "web-1 goes from t3.micro to t3.small. AWS stops it for that. Requests that it has, and those until the load"
        " balancer notices (25 seconds at most), fail. It keeps its disk.",
        "web-2 is deleted. Another machine serves before.",
    )


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({"creditSpecification": {}, "tags": {}}, "web-1: creditSpecification and tags changes while it runs. "
         "Visitors notice nothing."),
        ({"hibernation": True}, "web-1: hibernation changes in place. AWS may restart the machine for that: the site"
         " would be away for about a minute."),
        ({"ebsOptimized": True}, "web-1 gets another ebsOptimized. AWS stops it for that, and the site is away for a"
         " minute or two. It keeps its disk and its address."),
    ],
)  # fmt: skip
def test_what_else_changes_in_place(inputs: dict[str, object], text: str) -> None:
    found = on_aws(ADDRESS, changed("Instance", "web-1", MICRO, {**MICRO, **inputs}))
    assert found == Infrastructure(machines=(text,))


def test_the_only_machine_is_replaced_on_request() -> None:
    found = on_aws(ADDRESS, *replaced("Instance", "web-1", MICRO, MICRO), *replaced("EipAssociation", "web-1", {}, {}))
    assert found == Infrastructure(
        data_at_risk=(DISK_OF.format("web-1"),),
        machines=(
            "web-1 is replaced by a new machine. The new one serves the release before the site's address moves to it."
            " Visitors notice some seconds without an answer.",
        ),
    )


def test_the_only_machine_is_replaced_together_with_its_address() -> None:
    region, other = {"region": "fra1"}, {"region": "ams3"}
    found = on_digitalocean(
        *replaced("Droplet", "web-1", {**SMALL_DROPLET, **region}, {**SMALL_DROPLET, **other}),
        *replaced("ReservedIp", "web-1-address", region, other, outputs={"ipAddress": "203.0.113.7"}),
    )
    assert found.machines == (
        "web-1 is replaced by a new machine (because of another region). The new one serves the release before the old"
        " one is deleted.",
    )
    assert found.certificates_and_dns == (
        "The site's address changes: from the machine's address (203.0.113.7) to a new address, which is known after"
        " the run. Visitors who come by the old one reach nobody any more. A name of yours has to lead there: make up"
        " prints the records.",
    )


def test_a_machine_that_is_deleted_before_its_replacement_is_made() -> None:
    text = "The old one is deleted first: the site is away for the minutes until the new one serves."
    (alone,) = on_aws(ADDRESS, *replaced("Instance", "web-1", MICRO, SMALL, deleted_first=True)).machines
    assert alone.endswith(text)
    both = on_aws(
        BALANCER,
        *replaced("Instance", "web-1", MICRO, SMALL, deleted_first=True),
        *replaced("Instance", "web-2", MICRO, SMALL, deleted_first=True),
    ).machines
    assert [sentence.endswith(text) for sentence in both] == [True, True]
    (one,) = on_aws(
        BALANCER, *replaced("Instance", "web-1", MICRO, SMALL, deleted_first=True), same("Instance", "web-2", MICRO)
    ).machines
    assert one.endswith(
        "The old one leaves the load balancer and is deleted first; the others serve meanwhile. Visitors notice"
        " nothing."
    )


def test_an_old_machine_that_an_earlier_run_has_left_is_deleted() -> None:
    found = on_aws(BALANCER, same("Instance", "web-1", MICRO), left_over("Instance", "web-1", MICRO))
    assert found == on_aws(BALANCER, same("Instance", "web-1", MICRO), deleted("Instance", "web-1", MICRO))
    assert found.machines == (
        "An old machine in the place of web-1, which an earlier run could not delete, is deleted. Visitors notice"
        " nothing.",
    )
    assert found.data_at_risk == (
        "web-1: what is still on the disk of the machine that it has replaced is deleted, $DATA_DIR included. Copy it"
        " first.",
    )
    twice = on_aws(
        BALANCER, *replaced("Instance", "web-1", MICRO, MICRO), left_over("Instance", "web-1", MICRO)
    ).machines
    assert twice[1:] == found.machines
    assert len(on_aws(BALANCER, *replaced("Instance", "web-1", MICRO, MICRO)).machines) == 1


def test_the_whole_stack_goes() -> None:
    found = on_aws(deleted("Instance", "web-1", MICRO), deleted("Eip", "web-1-address", {}, {"publicIp": "192.0.2.1"}))
    assert found.machines == ("web-1 is deleted. No machine is left: the site is gone.",)
    assert found.certificates_and_dns == ()
    assert found.data_at_risk == (DISK_OF.format("web-1"),)


def test_settings_of_machines_that_stay_are_brought_up_to_date() -> None:
    provision = [changed("Command", f"web-{n}-provision", {"create": "old"}, {"create": "new"}) for n in (1, 2)]
    found = on_aws(BALANCER, same("Instance", "web-1"), same("Instance", "web-2"), *provision)
    assert found == Infrastructure(
        machines=(
            "web-1 and web-2: nginx, packages and settings of the system are brought up to date. nginx drops no"
            " connection for it. Visitors notice nothing.",
        )
    )
    found = on_aws(BALANCER, same("Instance", "web-1"), *replaced("Instance", "web-2", MICRO, MICRO), *provision)
    assert [sentence.partition(":")[0] for sentence in found.machines[1:]] == ["web-1"]


def test_what_is_protected() -> None:
    found = on_aws(BALANCER, same("Instance", "web-1"), deleted("Instance", "web-2", MICRO, protected=True))
    assert found.data_at_risk == (
        DISK_OF.format("web-2"),
        "Instance web-2 would be deleted, but is protected: make up fails. To let it go: pulumi state unprotect URN",
    )


# ------------------------------------------------------------------------------------------------ the address


def test_from_one_machine_to_a_balancer() -> None:
    found = on_aws(
        made("LoadBalancer", "balancer", {"internal": False}),
        same("Instance", "web-1", MICRO),
        made("Instance", "web-2", MICRO),
        deleted("Eip", "web-1-address", {}, {"publicIp": "203.0.113.7"}),
    )
    assert found.machines == ("web-2 is made (t3.micro). It gets requests once it serves the release.",)
    assert found.certificates_and_dns == (
        "The site's address changes: from the machine's address (203.0.113.7) to a new load balancer, which is known"
        " after the run. Visitors who come by the old one reach nobody any more. A name of yours has to lead there:"
        " make up prints the records.",
    )
    assert found.data_at_risk == ()
    assert found.other == ("Made: LoadBalancer balancer.",)


def test_a_record_for_a_certificate_leads_nobody_to_the_site() -> None:
    found = on_aws(
        same("Record", "validation-example.com", {"name": "_1.example.com", "type": "CNAME", "records": ["x"]}),
        same("Instance", "web-1", MICRO),
        *replaced("LoadBalancer", "balancer", {}, {}, outputs={"dnsName": "balancer-1.elb.amazonaws.com"}),
    )
    assert found.certificates_and_dns == (
        "The site's address changes: from the load balancer (balancer-1.elb.amazonaws.com) to a new load balancer,"
        " which is known after the run. Visitors who come by the old one reach nobody any more. A name of yours has to"
        " lead there: make up prints the records.",
    )


def test_from_a_balancer_to_one_machine_with_a_record_of_the_stack() -> None:
    alias = {"name": "example.com", "type": "A", "aliases": [{"name": "balancer-1.elb.amazonaws.com"}]}
    plain = {"name": "example.com", "type": "A", "ttl": 300, "records": [Hidden.UNKNOWN]}
    found = on_aws(
        deleted("LoadBalancer", "balancer", {}, {"dnsName": "balancer-1.elb.amazonaws.com"}),
        made("Eip", "web-1-address"),
        same("Instance", "web-1", MICRO),
        changed("Record", "record-example.com", alias, plain),
    )
    assert found.certificates_and_dns == (
        "The site's address changes: from the load balancer (balancer-1.elb.amazonaws.com) to a new address, which is"
        " known after the run. Visitors who come by the old one reach nobody any more. The stack's DNS records follow"
        " it; other names have to lead there, too.",
        "DNS: the record of example.com (A) leads to the new address. Visitors follow within 1 minute.",
    )


# ------------------------------------------------------------------------------------------------ openings


def test_openings_on_aws() -> None:
    tcp = {"ipProtocol": "tcp"}
    found = on_aws(
        made("Ingress", "http", {**tcp, "fromPort": 80, "toPort": 80, "cidrIpv4": "0.0.0.0/0"}),
        made("Ingress", "ssh-from-a", {**tcp, "fromPort": 22, "toPort": 22, "cidrIpv4": "198.51.100.0/24"}),
        made("Ingress", "ssh-from-b", {**tcp, "fromPort": 22, "toPort": 22, "cidrIpv6": "2001:db8::/64"}),
        made("Ingress", "balancer-https", {**tcp, "fromPort": 443, "toPort": 443, "cidrIpv4": "0.0.0.0/0"}),
        made("Ingress", "http-from-balancer", {**tcp, "fromPort": 80, "toPort": 80, "referencedSecurityGroupId": "x"}),
        made("Ingress", "path-mtu", {"ipProtocol": "icmp", "fromPort": 3, "toPort": 4, "cidrIpv4": "0.0.0.0/0"}),
        made("Ingress", "debug", {**tcp, "fromPort": 8000, "toPort": 8010, "cidrIpv4": "0.0.0.0/0"}),
        made("Ingress", "all", {"ipProtocol": "-1", "cidrIpv4": "10.0.0.0/8"}),
        made("Ingress", "dns", {"ipProtocol": "udp", "fromPort": 53, "toPort": 53, "cidrIpv6": "::/0"}),
        deleted("Ingress", "ssh-from-c", {**tcp, "fromPort": 22, "toPort": 22, "cidrIpv4": "192.0.2.1/32"}),
    )
    assert found.openings == (
        "Port 443 (HTTPS) of the load balancer opens to everybody.",
        "Every port of the machines opens to 10.0.0.0/8.",
        "Port 22 (SSH) of the machines opens to 198.51.100.0/24 and 2001:db8::/64.",
        "Port 53 (UDP) of the machines opens to everybody. Anybody on the Internet can connect.",
        "Port 80 (HTTP) of the machines opens to everybody and the load balancer.",
        "Ports 8000-8010 of the machines open to everybody. Anybody on the Internet can connect.",
        "ICMP of the machines opens to everybody.",
        "Port 22 (SSH) of the machines closes to 192.0.2.1/32.",
    )


def test_a_rule_that_is_made_anew_opens_nothing() -> None:
    rule = {"ipProtocol": "tcp", "fromPort": 22, "toPort": 22, "cidrIpv4": "192.0.2.1/32"}
    found = on_aws(*replaced("Ingress", "ssh", {**rule, "securityGroupId": "a"}, {**rule, "securityGroupId": "b"}))
    assert found == Infrastructure(other=("Made anew: SecurityGroupIngressRule ssh.",))


def test_openings_on_digitalocean() -> None:
    ssh = {"protocol": "tcp", "portRange": "22", "sourceAddresses": ["192.0.2.1/32"]}
    web = {"protocol": "tcp", "portRange": "80", "sourceAddresses": ["0.0.0.0/0", "::/0"]}
    closed = {"protocol": "tcp", "portRange": "80", "sourceLoadBalancerUids": [Hidden.UNKNOWN]}
    found = on_digitalocean(
        changed(
            "Firewall", "firewall", {"inboundRules": [ssh]},
            {"inboundRules": [{**ssh, "sourceAddresses": ["192.0.2.1/32", "198.51.100.0/24"]}]},
        ),
        changed("Firewall", "web-firewall", {"inboundRules": [web]}, {"inboundRules": [closed]}),
        made("DoLoadBalancer", "balancer", {"forwardingRules": [
            {"entryProtocol": "http", "entryPort": 80, "targetPort": 80},
            {"entryProtocol": "https", "entryPort": 443, "targetPort": 80},
        ]}),
    )  # fmt: skip
    assert found.openings == (
        "Port 80 (HTTP) of the load balancer opens to everybody.",
        "Port 443 (HTTPS) of the load balancer opens to everybody.",
        "Port 22 (SSH) of the machines opens to 198.51.100.0/24.",
        "Port 80 (HTTP) of the machines opens to the load balancer.",
        "Port 80 (HTTP) of the machines closes to everybody.",
    )
    assert found.other == ("Made: LoadBalancer balancer.",)


def test_what_a_firewall_changes_beside_its_openings() -> None:
    ssh = {"protocol": "tcp", "portRange": "22", "sourceAddresses": ["192.0.2.1/32"]}
    found = on_digitalocean(
        changed("Firewall", "firewall", {"inboundRules": [], "tags": ["a"]}, {"inboundRules": [ssh], "tags": ["b"]})
    )
    assert found.openings == ("Port 22 (SSH) of the machines opens to 192.0.2.1/32.",)
    assert found.other == ("Changed in place: Firewall firewall (inboundRules and tags).",)


# ------------------------------------------------------------------------------------------------ names


def test_records_and_certificates_on_aws() -> None:
    record = {"name": "www.example.com", "type": "A", "ttl": 300, "records": ["192.0.2.1"]}
    certificate = {"domainName": "www.example.com", "validationMethod": "DNS"}
    found = on_aws(
        made("Certificate", "certificate-www.example.com", certificate),
        made("CertificateValidation", "certificate-www.example.com"),
        made("Record", "validation-www.example.com", {"name": Hidden.UNKNOWN, "type": Hidden.UNKNOWN, "ttl": 300}),
        made("Record", "record-www.example.com", record),
        deleted("Record", "record-old.example.com", {**record, "name": "old.example.com"}),
        changed("Record", "record-example.com", {**record, "name": "example.com"},
                {**record, "name": "example.com", "records": ["192.0.2.2"]}),
        changed("Record", "record-same.example.com", record, {**record, "allowOverwrite": True}),
    )  # fmt: skip
    assert found.certificates_and_dns == (
        "Certificate: that for www.example.com is ordered from AWS. The run waits for it, 15 minutes at most.",
        "DNS: the record of example.com (A) leads to 192.0.2.2, before to 192.0.2.1. Visitors follow within 5 minutes.",
        "DNS: the record of old.example.com (A) is deleted, and the name leads nowhere.",
        "DNS: www.example.com leads to 192.0.2.1 by a new record (A).",
        "DNS: the record by which AWS sees that www.example.com is yours is made.",
    )
    assert found.other == ("Made: CertificateValidation certificate-www.example.com.",)


def test_other_certificates_on_aws() -> None:
    own = {"certificateBody": "PEM", "privateKey": Hidden.SECRET}
    other = made("CertificateValidation", "certificate-b.example")
    requested = made("Certificate", "certificate-a.example", {"domainName": "a.example"})
    assert on_aws(requested, other).certificates_and_dns == (
        "Certificate: that for a.example is ordered from AWS. It is issued when its DNS record is set, which make up"
        " prints. A later make up turns HTTPS on.",
    )
    assert on_aws(made("Certificate", "certificate", own)).certificates_and_dns == (
        "Certificate: your own is uploaded.",
    )
    assert on_aws(changed("Certificate", "certificate", own, {**own, "certificateBody": "2"})).certificates_and_dns == (
        "Certificate: your own is exchanged in place. Visitors notice nothing.",
    )
    assert on_aws(deleted("Record", "validation-a.example", {})).certificates_and_dns == (
        "DNS: the record by which AWS sees that a.example is yours is deleted, so the certificate can no longer be"
        " renewed.",
    )


def test_records_and_certificates_on_digitalocean() -> None:
    record = {"domain": "example.com", "name": "@", "type": "A", "value": Hidden.UNKNOWN, "ttl": 300}
    issued = {"type": "lets_encrypt", "domains": ["example.com", "www.example.com"]}
    own = {"type": "custom", "name": "a-1"}
    found = on_digitalocean(
        made("DnsRecord", "record-example.com", record),
        made("DnsRecord", "record-www.example.com", {**record, "name": "www", "value": "192.0.2.1"}),
        made("DoCertificate", "certificate", issued),
    )
    assert found.certificates_and_dns == (
        "Certificate: that for example.com and www.example.com is ordered from DigitalOcean. The run waits for it, 15"
        " minutes at most.",
        "DNS: example.com leads to the new address by a new record (A).",
        "DNS: www.example.com leads to 192.0.2.1 by a new record (A).",
    )
    found = on_digitalocean(*replaced("DoCertificate", "certificate", own, {**own, "name": "a-2"}))
    assert found.certificates_and_dns == (
        "Certificate: your own is replaced: visitors get the new one before the old one goes. They notice nothing.",
    )
    assert on_digitalocean(deleted("DoCertificate", "certificate", issued)).certificates_and_dns == (
        "Certificate: that for example.com and www.example.com is deleted.",
    )


# ------------------------------------------------------------------------------------------------ the rest


@pytest.mark.parametrize("cloud", ["aws", "digitalocean"])
def test_the_names_of_properties_are_the_providers_own(cloud: str) -> None:
    facts = clouds.changes(cloud)

    def properties(kind: str) -> set[str]:
        module = kind.split(":")[1].partition("/")[0]
        package = importlib.import_module(f"pulumi_{cloud}")
        resource = getattr(package if module == "index" else getattr(package, module), kind.rpartition(":")[2])
        return {re.sub(r"_(\w)", lambda found: found[1].upper(), one) for one in vars(resource)}

    assert facts.stopping | facts.running | {facts.size} <= properties(facts.machine)
    assert facts.address_output in properties(facts.address)
    assert facts.balancer_output in properties(facts.balancer)


def test_the_rest_is_named() -> None:
    found = on_aws(
        made("Vpc", "network"),
        made("KeyPair", "login-key"),
        deleted("Command", "somebody-elses"),
        *replaced("Vpc", "other", {"cidrBlock": "a"}, {"cidrBlock": "b"}),
        changed("KeyPair", "key", {"tags": {}}, {"tags": {"a": "b"}}),
        made("MachineSteps", "web-1"),
        changed("Command", "rollout", {"stdin": "a"}, {"stdin": "b"}),
        changed("Command", "web-1-stage", {"stdin": "a"}, {"stdin": "b"}),
    )
    assert found == Infrastructure(
        other=(
            "Made: KeyPair login-key and Vpc network.",
            "Made anew: Vpc other.",
            "Deleted: Command somebody-elses.",
            "Changed in place: KeyPair key (tags).",
        )
    )


def test_a_name_with_lines_stays_in_one_line() -> None:
    assert on_aws(made("Vpc", "net\n#\u2028work")).other == ("Made: Vpc net # work.",)


def test_what_belongs_to_a_machine_that_stays_is_named() -> None:
    found = on_aws(ADDRESS, same("Instance", "web-1", MICRO), *replaced("EipAssociation", "web-1-address", {}, {}))
    assert found == Infrastructure(other=("Made anew: EipAssociation web-1-address.",))


def test_providers() -> None:
    old = {"version": "7.10.0", "region": "eu-central-1", "defaultTags": {"tags": {}}}
    new = {"version": "7.12.0", "region": "eu-west-1", "defaultTags": {"tags": {"Owner": "ann"}}}
    assert on_aws(*replaced("Provider", "aws", old, new)).other == (
        "Provider aws: another defaultTags and region (eu-west-1, before eu-central-1).",
        "Provider aws: version 7.12.0, before 7.10.0.",
    )
    found = on_digitalocean(
        deleted("DoProvider", "default_4_54_0", {"version": "4.54.0", "token": Hidden.SECRET}),
        made("DoProvider", "default_4_55_0", {"version": "4.55.0", "token": Hidden.SECRET}),
    )
    assert found == Infrastructure(other=("Provider digitalocean: version 4.55.0, before 4.54.0.",))


# ------------------------------------------------------------------------------------------------ hosts


def host(name: str, what: str, before: str = "", after: str = "", cleanup: str = "") -> tuple[Step, ...]:
    old, new = {"triggers": [before]}, {"triggers": [after]}
    if what == "made":
        return made("Command", f"{name}-cleanup"), made("Command", f"{name}-ready", new)
    if what == "deleted":
        return deleted("Command", f"{name}-cleanup", {"delete": cleanup}), deleted("Command", f"{name}-ready", old)
    return same("Command", f"{name}-cleanup"), *replaced("Command", f"{name}-ready", old, new)


def on_hosts(*hosts: tuple[Step, ...]) -> Infrastructure:
    return infrastructure("ssh", [step for one in hosts for step in one])


def test_new_hosts() -> None:
    assert on_hosts(host("a", "made", after="1")) == Infrastructure(machines=("a is set up. The site is new.",))
    kept = (same("Command", "a-cleanup"), same("Command", "a-ready", {"triggers": ["1"]}))
    assert on_hosts(kept, host("b", "made", after="2")) == Infrastructure(
        machines=("b is set up. Visitors notice nothing.",)
    )
    assert on_hosts(kept) == Infrastructure()


def test_a_host_that_a_failed_run_has_left_unfinished() -> None:
    found = on_hosts((same("Command", "a-cleanup"), made("Command", "a-ready", {"triggers": ["1"]})))
    assert found == Infrastructure(machines=("a is set up. The site is new.",))


def test_a_host_leaves() -> None:
    kept = (same("Command", "a-cleanup"), same("Command", "a-ready", {"triggers": ["1"]}))
    assert on_hosts(kept, host("b", "deleted", before="2")) == Infrastructure(
        data_at_risk=(
            "b: what the app has written to its disk is deleted, $DATA_DIR and the paths of decant:persistent"
            " included. Copy it first.",
        ),
        machines=(
            "b leaves the stack: Decant is removed from it. With a load balancer of yours before it, it leaves the"
            " rotation first, and visitors notice nothing. A name that leads to it has to lead elsewhere before.",
        ),
    )
    assert on_hosts(host("b", "deleted", before="2")).machines == (
        "b leaves the stack: Decant is removed from it. No host is left: the site is gone.",
    )


def test_a_host_that_is_renamed_keeps_its_data() -> None:
    """Its cleanup, as it stands in the state, leaves a host alone that has another name by now."""
    found = on_hosts(host("new", "made", after="1"), host("old", "deleted", before="1", cleanup=remove_step("old")))
    assert found == Infrastructure(machines=("old is set up as new and keeps its data. Visitors notice nothing.",))


def test_a_host_that_is_renamed_loses_its_data_by_an_older_cleanup() -> None:
    found = on_hosts(host("new", "made", after="1"), host("old", "deleted", before="1"))
    assert found.machines == ("old is set up as new, and then removed. The site is gone from it.",)
    assert found.data_at_risk == (
        "old and new are one machine (the same host key). At the end of the run, the removal of old deletes Decant, the"
        " release and $DATA_DIR from it, and the site is gone. Keep the name for one more run: set"
        " decant:hosts[...].name to old.",
    )


def test_a_host_with_another_key() -> None:
    assert on_hosts(host("a", "replaced", "1", "2")) == Infrastructure(
        machines=(
            "a shows another host key, so it is taken for another machine: everything is set up on it again. If it is"
            " a new machine, visitors see nothing on it until then.",
        )
    )


def test_many_new_things_are_counted_and_deleted_ones_are_all_named() -> None:
    names = [f"k{number}" for number in range(9)]
    found = on_aws(*(made("KeyPair", name) for name in names), *(deleted("Vpc", name) for name in names))
    assert found.other == (
        "Made: " + ", ".join(f"KeyPair {name}" for name in names[:8]) + " and 1 more.",
        "Deleted: " + ", ".join(f"Vpc {name}" for name in names[:8]) + " and Vpc k8.",
    )
