"""The site's records in DigitalOcean's DNS, where `decant:dnsZone` names a domain of the account."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pulumi

from decant.clouds.base import CloudComponent, when_used
from decant.clouds.dns import TTL, Delegation
from decant.clouds.look_up import look_up
from decant.errors import LookUpError, RecordExistsError

if TYPE_CHECKING:
    import pulumi_digitalocean as digitalocean
else:
    digitalocean = when_used("pulumi_digitalocean")

# https://docs.digitalocean.com/products/networking/dns/getting-started/dns-registrars/
NAME_SERVERS = ("ns1.digitalocean.com", "ns2.digitalocean.com", "ns3.digitalocean.com")


class Zone:
    """A domain of the account, which the user has made. Records in it belong to `cloud`.

    It is no resource of the stack: a `destroy` would delete all its records.
    """

    def __init__(self, cloud: CloudComponent, name: str) -> None:
        self.cloud = cloud
        self.plain_name = name
        self.name: pulumi.Output[str] = pulumi.Output.from_input(name).apply(self._found)
        """Known once the account is known to have it."""
        self.delegation = Delegation(name, list(NAME_SERVERS), cloud.settings.site.resolvers)

    def lead_to(self, name: str, address: pulumi.Input[str]) -> digitalocean.DnsRecord:
        """Let a name lead to an address. It must not lead anywhere yet: DigitalOcean would let it lead to both."""
        short = name.removesuffix(self.plain_name).rstrip(".") or "@"

        async def check_free(_: pulumi.ResourceHookArgs) -> None:
            await self._check_free(short)

        free = pulumi.ResourceHook(f"{name} leads nowhere", check_free)
        return digitalocean.DnsRecord(
            f"record-{name}",
            domain=self.name,
            type="A",
            name=short,
            value=address,
            ttl=TTL,
            opts=pulumi.ResourceOptions(
                parent=self.cloud,
                hooks=pulumi.ResourceHookBinding(before_create=[self.delegation.warning, free]),
            ),
        )

    async def _check_free(self, short: str) -> None:
        """Raise RecordExistsError if there is a record that leads the name somewhere."""
        filters = [{"key": "name", "values": [short]}, {"key": "type", "values": ["A", "AAAA", "CNAME"]}]
        options = pulumi.InvokeOptions(parent=self.cloud)
        found = await look_up(
            "digitalocean:index/getRecords:getRecords", options, domain=self.plain_name, filters=filters
        )
        for record in found["records"]:
            identity = int(record["id"])
            raise RecordExistsError(
                f"decant:dnsZone is {self.plain_name}, which has a record {short} {record['type']} {record['value']}"
                " already: it may be a live site's\n"
                f"      doctl compute domain records delete {self.plain_name} {identity}; or, to change it yourself:"
                f" pulumi config rm decant:dnsZone --stack {self.cloud.settings.stack}"
            )

    async def _found(self, name: str) -> str:
        """The name of the domain. Raises pulumi.RunError where the account does not have it."""
        options = pulumi.InvokeOptions(parent=self.cloud)
        try:
            await look_up("digitalocean:index/getDomain:getDomain", options, name=name)
        except LookUpError as error:
            if "not found" not in str(error).lower():
                raise pulumi.RunError(
                    f"decant:dnsZone is {name}, and DigitalOcean does not answer a question about it: {error}\n"
                    "      a token with custom scopes needs domain:read; docs/go-live.md has all that it needs"
                ) from None
            raise pulumi.RunError(
                f"decant:dnsZone is {name}: the account has no domain of that name\n"
                f"      doctl compute domain create {name}\n"
                f"      then set its name servers where {name} is registered: {', '.join(NAME_SERVERS)}; or, if its DNS"
                f" is elsewhere: pulumi config rm decant:dnsZone --stack {self.cloud.settings.stack}"
            ) from None
        return name
