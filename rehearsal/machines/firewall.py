"""The firewall rules of a network: its machines reach the outside, and nothing outside reaches them.

Tested beside nftables rules, beside iptables on nftables with a FORWARD policy of DROP (Docker sets that), and beside a
chain that rejects at its end (firewalld has one).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from rehearsal.this_host import command, succeeds


def open_for(bridge: str, cidr: str, space: str) -> None:
    """Translate addresses in `cidr` to this computer's own, except on the way to another address in `space`."""
    rules = f"""
        table ip {bridge} {{
            chain postrouting {{
                type nat hook postrouting priority srcnat
                ip saddr {cidr} ip daddr != {space} masquerade
            }}
            chain forward {{
                type filter hook forward priority filter
                oifname "{bridge}" iifname != "{bridge}" ct state != {{ established, related }} drop
            }}
        }}
    """
    # A packet has to pass every table, so each chain that could drop it gets an exception.
    for family, table, chain in _foreign_chains():
        for side in ("iifname", "oifname"):
            rules += f'insert rule {family} {table} {chain} {side} "{bridge}" accept comment "{_tag(bridge)}"\n'
    command("nft", "-f", "-", input=rules)
    for rule in _legacy_rules(bridge):
        command("iptables-legacy", "-I", *rule)


def close_for(bridge: str) -> None:
    """Remove what `open_for` added, as far as it is still there."""
    succeeds("nft", "delete", "table", "ip", bridge)
    for entry in _ruleset():
        rule = entry.get("rule", {})
        if rule.get("comment") == _tag(bridge):
            where = [rule["family"], rule["table"], rule["chain"], "handle", str(rule["handle"])]
            command("nft", "delete", "rule", *where)
    for legacy_rule in _legacy_rules(bridge):
        succeeds("iptables-legacy", "-D", *legacy_rule)


def _foreign_chains() -> Iterator[tuple[str, str, str]]:
    for entry in _ruleset():
        chain = entry.get("chain", {})
        from_decant = chain.get("table", "").startswith("decant-br")
        if chain.get("hook") == "forward" and chain["family"] in ("ip", "inet") and not from_decant:
            yield chain["family"], chain["table"], chain["name"]


def _ruleset() -> list[dict[str, dict[str, str]]]:
    entries: list[dict[str, dict[str, str]]] = json.loads(command("nft", "-j", "list", "ruleset"))["nftables"]
    return entries


def _legacy_rules(bridge: str) -> list[list[str]]:
    """The same exceptions for iptables-legacy, whose tables nft does not see. Empty where those are not in use."""
    tables = Path("/proc/net/ip_tables_names")
    if not tables.exists() or "filter" not in tables.read_text().split():
        return []
    return [["FORWARD", side, bridge, "-j", "ACCEPT"] for side in ("-i", "-o")]


def _tag(bridge: str) -> str:
    return f"decant-rehearsal {bridge}"
