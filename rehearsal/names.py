"""The names of a rehearsed stack: a certificate authority and a DNS server on a throwaway machine, for HTTPS."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decant.clouds import specs
from decant.settings.load import check_config
from decant.settings.model import NAMESPACE, Settings
from rehearsal import stackfile
from rehearsal.authority import Authority
from rehearsal.machines.network import Network
from rehearsal.progress import Progress


@dataclass(frozen=True)
class Names:
    """The site's names in a rehearsal, which lead where `lead_to` says."""

    names: tuple[str, ...]
    authority: Authority

    def lead_to(self, address: str) -> None:
        """Set the records of all names."""
        self.authority.set_records({name: [address] for name in self.names})

    def keep_root(self, folder: Path) -> Path:
        """Write the authority's root into a file for `curl --cacert`, and return the file."""
        file = folder / "root.pem"
        file.write_text(self.authority.root, encoding="utf-8")
        return file


def start_names(
    config: dict[str, Any], secret_keys: set[str], stack: str, network: Network, progress: Progress
) -> Names | None:
    """Start an authority for a stack whose machine gets a certificate for its name, and put it into `config`.

    None where the stack has no domain, gets no certificate by itself, or has wrong settings, which the program reports.
    """
    settings = _settings(config, secret_keys, stack, network)
    if settings is None or not settings.site.domain or not settings.site.acme_server or settings.balancer:
        return None
    with progress.step("boot the certificate authority"):
        authority = Authority.start(network, say=progress.say)
    config[f"{NAMESPACE}:acmeServer"] = authority.directory
    config[f"{NAMESPACE}:acmeRoot"] = authority.root
    config[f"{NAMESPACE}:resolvers"] = [authority.resolver]
    return Names(settings.site.names, authority)


def _settings(config: dict[str, Any], secret_keys: set[str], stack: str, network: Network) -> Settings | None:
    values = stackfile.as_text(config)
    checked = check_config(values, secret_keys, stack=stack, clouds=specs(), example_networks=(network.cidr,))
    return checked.settings
