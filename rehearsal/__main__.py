"""The commands behind `make try`, `make rehearse STACK=name`, `make try-down` and `make inspect`."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

from decant.cli.https import certificate_lines, site_route
from decant.cli.summary import summary
from decant.clouds import specs
from decant.errors import NotServingError, SettingsError
from decant.rollout.http_probe import probe
from decant.rollout.route import Route
from rehearsal import stackfile
from rehearsal.card import find_browser, picture_note, take_screenshot, write_card
from rehearsal.doubles import key_pair
from rehearsal.errors import RehearsalError
from rehearsal.inspection import inspect
from rehearsal.machines.image import base_image, install_needs
from rehearsal.machines.machine import Machine
from rehearsal.machines.network import Network
from rehearsal.machines.reaper import abandoned_networks
from rehearsal.names import Names, start_names
from rehearsal.progress import Progress
from rehearsal.runner import finish, run_program
from rehearsal.this_host import STATE
from rehearsal.throwaway_backend import PROJECT, ThrowawayBackend

NETWORK = "try"


def up(stack: str, card: Path | None = None) -> None:
    """Rehearse a stack on new throwaway machines, which keep running. `card` gets a card with a screenshot.

    Raises:
        RehearsalError: Something is missing on this computer, or the stack's program failed.
    """
    progress = Progress()
    config, secret_keys, notes = stackfile.read(PROJECT, stack)
    kind = specs().get(str(config.get("decant:cloud")))
    takes = kind.settings if kind else frozenset()
    install_needs(progress.say)
    base_image("bare" if "hosts" in takes else "cloud", progress.say)
    network = Network(name=NETWORK)
    if network.machines():
        progress.say("removing the last rehearsal's machines")
    network.down()
    network.up()
    if "hosts" in takes:
        notes += _stand_in_hosts(config, secret_keys, network, progress)
    if "adminCidrs" in takes:
        config["decant:adminCidrs"] = [*(config.get("decant:adminCidrs") or []), network.cidr]
    for note in notes:
        progress.say(note)
    names = start_names(config, secret_keys, stack, network, progress)
    if names and "hosts" in takes:
        names.lead_to(config["decant:hosts"][0]["address"])
    backend = ThrowawayBackend(network, progress, names)
    if config.get("decant:domain") and "balancer" in takes and stackfile.has_balancer(config):
        config["decant:acmeRoot"] = backend.issuer.root  # of the certificates that the cloud's double issues
    outputs = run_program(stack, stackfile.as_text(config), sorted(secret_keys), backend)
    key = _keep_key(outputs["ssh"])
    first, *others = outputs["ssh"]
    way = site_route(outputs, config.get("decant:acmeRoot"))
    facts = [
        *certificate_lines(outputs.get("certificate"), outputs),
        *(
            ("balancer", _reached(machine, outputs["url"], way))
            for machine in network.machines()
            if machine.flavour == "balancer"
        ),
        ("unchecked", "the cloud's own API, firewall and prices: a rehearsal has none"),
    ]
    next_steps = [
        *(_open_by_name(outputs, names) if names else ()),
        ("log in", f"ssh -i {key} -o UserKnownHostsFile={key}.known {first['user']}@{first['address']}"),
        *([("", f"the same for {_listed([login['address'] for login in others])}")] if others else []),
        ("again", f"make {'try' if stack == 'dev' else f'rehearse STACK={stack}'} (new machines, the same steps)"),
        ("stop", "make try-down"),
        ("for real", _page(str(config["decant:cloud"]))),
    ]
    title = f"Stack {stack} is rehearsed and runs."
    show = partial(summary, outputs=outputs, title=title, seconds=progress.seconds, route=way)
    print(show(lines=[*facts, *next_steps]))
    if card:
        _keep_card(card, title, show(lines=facts), outputs, progress)


def _keep_card(folder: Path, title: str, text: str, outputs: dict[str, Any], progress: Progress) -> None:
    """Write the card of a rehearsal that serves, with a screenshot of its front page."""
    records = outputs.get("dns") or {"names": (), "value": ""}
    with progress.step("take a screenshot of the front page"):
        picture = folder / "screenshot.png"
        browser = find_browser(progress.say)
        take_screenshot(browser, outputs["url"] + "/", picture, names=records["names"], address=records["value"])
    print(f"The card is {write_card(folder, title, text, notes=[picture_note()])}")


def _open_by_name(outputs: dict[str, Any], names: Names) -> list[tuple[str, str]]:
    """Return the row with the command that opens the page by its name, which only the rehearsal's DNS knows."""
    root, records = names.keep_root(STATE / NETWORK), outputs["dns"]
    where = " ".join(f"--resolve {names.names[0]}:{port}:{records['value']}" for port in (443, 80))
    return [("by name", f"curl {where} --cacert {root} {outputs['url']}/")]


def _page(cloud: str) -> str:
    """Return the page that says how to go live on a cloud."""
    page = f"docs/{cloud}.md"
    return page if (PROJECT / page).exists() else "docs/go-live.md"


def _reached(balancer: Machine, url: str, way: Route) -> str:
    """Return the balancer's kind and address, and the names of the machines that 20 requests reach."""
    names = {probe(url + "/", route=way).machine.partition(".")[0] for _ in range(20)} - {""}
    return f"HAProxy ({balancer.address}); 20 requests reached {_listed(sorted(names)) or 'no machine'}"


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _stand_in_hosts(config: dict[str, Any], secret_keys: set[str], network: Network, progress: Progress) -> list[str]:
    """Boot a throwaway machine for each of the stack's hosts, put it into `config`, and return notes about it."""
    configured = config.get("decant:hosts")
    if not isinstance(configured, list) or not all(isinstance(host, dict) for host in configured):
        return []  # the program reports what is wrong with them
    private, public = key_pair()
    hosts, notes = [], []
    for number, host in enumerate(configured, 1):
        name = host.get("name", host.get("address", f"host-{number}"))
        machine = network.boot(f"host-{number}", flavour="bare", authorized_key=public.strip(), say=progress.say)
        hosts.append({"address": machine.address, "hostKey": machine.host_key, "name": name})
        notes.append(f"host {name} is a throwaway machine at {machine.address} here, with login root")
    if hosts:
        config["decant:hosts"] = hosts
        config["decant:sshPrivateKey"] = private
        secret_keys.add("decant:sshPrivateKey")
    if config.pop("decant:url", None):
        notes.append("decant:url is left out, because it leads to the real host")
    return notes


def _keep_key(machines: list[dict[str, Any]]) -> Path:
    """Write the machines' login key into a file that `ssh` accepts (only its owner can read it); return the file."""
    key = STATE / NETWORK / "key"  # only root can enter the folder; `down` removes it
    key.unlink(missing_ok=True)
    key.touch(mode=0o600)
    key.write_text(machines[0]["private_key"], encoding="utf-8")
    known = "".join(f"{machine['address']} {machine['host_key']}\n" for machine in machines)
    (key.parent / "key.known").write_text(known, encoding="utf-8")
    return key


def down() -> None:
    """Remove the rehearsal, and the networks of tests and benches that were killed."""
    for network in abandoned_networks():
        if network.name != NETWORK:
            network.down()
            print(f"network {network.name}, left by a process that was killed, is gone with its machines")
    Network(name=NETWORK).down()
    print("the rehearsal is down: its machines, network and keys are gone; the cached base image stays"
          " (/var/cache/decant-rehearsal)")  # fmt: skip


def main() -> int:
    """Run the command that the command line names, and return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    rehearse = commands.add_parser("up", help="rehearse a stack")
    rehearse.add_argument("stack", nargs="?", default="dev")
    rehearse.add_argument("--card", help="a folder that gets a card of the rehearsal, with a screenshot")
    inspection = commands.add_parser("inspect", help="show what is understood of an app, without a machine")
    inspection.add_argument("stack", nargs="?", default="dev")
    inspection.add_argument("--app", help="the app folder, in place of the stack's")
    commands.add_parser("needs", help="install what a rehearsal needs, where that can be done")
    commands.add_parser("down", help="remove the rehearsal's machines, and those of tests that were killed")
    options = parser.parse_args()
    card = Path(options.card).resolve() if getattr(options, "card", None) else None
    try:
        if options.command == "up":
            if card:
                card.mkdir(parents=True, exist_ok=True)
            up(options.stack, card)
        elif options.command == "inspect":
            print(inspect(PROJECT, options.stack, options.app))
        elif options.command == "needs":
            install_needs(print)
        else:
            down()
    except (RehearsalError, NotServingError, SettingsError) as error:
        print(f"\n{error}\n", file=sys.stderr)
        if card:
            write_card(card, f"The rehearsal of stack {options.stack} failed.", str(error))
        if options.command == "up" and Network(name=NETWORK).machines():
            print(
                "Machines that were booted still run, so that you can look at them; make try-down removes them.",
                file=sys.stderr,
            )
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. make try-down removes what was made so far.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    finish(main())
