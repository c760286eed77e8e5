"""`make try`, `make rehearse STACK=name` and `make try-down`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from decant.cli.summary import summary
from decant.clouds import specs
from decant.errors import NotServingError
from decant.rollout.http_probe import probe
from rehearsal import stackfile
from rehearsal.computer import STATE
from rehearsal.doubles import key_pair
from rehearsal.image import RehearsalError, base_image, install_needs
from rehearsal.machines import Machine, Network
from rehearsal.runner import PROJECT, Progress, ThrowawayWorld, finish, run_program

NETWORK = "try"


def up(stack: str) -> None:
    """Rehearse a stack on new throwaway machines and leave them running."""
    progress = Progress()
    config, secret_keys, notes = stackfile.read(PROJECT, stack)
    kind = specs().get(str(config.get("decant:cloud")))
    takes = kind.settings if kind else frozenset()
    install_needs(progress.say)
    base_image("bare" if "hosts" in takes else "cloud", progress.say)
    network = Network(name=NETWORK)
    if network.machines():
        progress.say("the last rehearsal's machines make room")
    network.down()
    network.up()
    if "hosts" in takes:
        notes += _stand_in_hosts(config, secret_keys, network, progress)
    if "adminCidrs" in takes:
        config["decant:adminCidrs"] = [*(config.get("decant:adminCidrs") or []), network.cidr]
    for name, (variable, _) in kind.provider.items() if kind else ():
        if name not in config and os.environ.get(variable):  # the environment itself is dropped, accounts and all
            config[name] = os.environ[variable]
    for note in notes:
        progress.say(note)
    outputs = run_program(stack, stackfile.as_text(config), sorted(secret_keys), ThrowawayWorld(network, progress))
    key = _keep_key(outputs["ssh"])
    first, *more = outputs["ssh"]
    lines = [
        *(("balancer", _reached(one, outputs["url"])) for one in network.machines() if one.flavour == "balancer"),
        ("log in", f"ssh -i {key} -o UserKnownHostsFile={key}.known {first['user']}@{first['address']}"),
        *([("", f"the same for {_listed([one['address'] for one in more])}")] if more else []),
        ("again", f"make {'try' if stack == 'dev' else f'rehearse STACK={stack}'} (new machines, the same steps)"),
        ("stop", "make try-down"),
        ("for real", "docs/go-live.md"),
        ("unchecked", "the cloud's own API, firewall and prices: a rehearsal has none"),
    ]
    print(
        summary(outputs=outputs, title=f"Stack {stack} is rehearsed and runs.", lines=lines, seconds=progress.seconds)
    )


def _reached(balancer: Machine, url: str) -> str:
    """What it is, and whom a few requests reach."""
    names = {probe(url + "/").machine.partition(".")[0] for _ in range(20)} - {""}
    return f"HAProxy ({balancer.address}); 20 requests reached {_listed(sorted(names)) or 'nobody'}"


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _stand_in_hosts(config: dict[str, Any], secret_keys: set[str], network: Network, progress: Progress) -> list[str]:
    """Throwaway machines in place of the stack's own hosts, under the same names."""
    given = config.get("decant:hosts")
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        return []  # the program will say what is wrong with them
    private, public = key_pair()
    hosts, notes = [], []
    for number, one in enumerate(given, 1):
        name = one.get("name", one.get("address", f"host-{number}"))
        machine = network.boot(f"host-{number}", flavour="bare", authorized_key=public.strip(), say=progress.say)
        hosts.append({"address": machine.address, "hostKey": machine.host_key, "name": name})
        notes.append(f"host {name} is played by a throwaway machine at {machine.address}, with login root")
    if hosts:
        config["decant:hosts"] = hosts
        config["decant:sshPrivateKey"] = private
        secret_keys.add("decant:sshPrivateKey")
    if config.pop("decant:url", None):
        notes.append("decant:url is left out: it leads to the real host")
    return notes


def _keep_key(machines: list[dict[str, Any]]) -> Path:
    """The login key of the rehearsed machines, where `ssh` takes it: a file that only its owner reads."""
    key = STATE / NETWORK / "key"  # only root can enter the folder; `down` removes it
    key.unlink(missing_ok=True)
    key.touch(mode=0o600)
    key.write_text(machines[0]["private_key"], encoding="utf-8")
    known = "".join(f"{one['address']} {one['host_key']}\n" for one in machines)
    (key.parent / "key.known").write_text(known, encoding="utf-8")
    return key


def down() -> None:
    """Remove every trace of the rehearsal."""
    Network(name=NETWORK).down()
    print("the rehearsal is down: its machines, network and keys are gone; the cached base image stays"
          " (/var/cache/decant-rehearsal)")  # fmt: skip


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m rehearsal", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="rehearse a stack").add_argument("stack", nargs="?", default="dev")
    verbs.add_parser("needs", help="install what a rehearsal needs, where that can be done")
    verbs.add_parser("down", help="remove the rehearsal's machines")
    words = parser.parse_args()
    try:
        if words.verb == "up":
            up(words.stack)
        elif words.verb == "needs":
            install_needs(print)
        else:
            down()
    except (RehearsalError, NotServingError) as error:
        print(f"\n{error}\n", file=sys.stderr)
        if words.verb == "up":
            print("The machines, if any, still run for a look; make try-down removes them.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. make try-down removes what was made so far.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    finish(main())
