"""What a cloud's machine gets before it boots for the first time: a host key of its own, and who may log in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pulumi

from decant.clouds import when_used
from decant.host import manifest
from decant.machine import Machine, secret

if TYPE_CHECKING:
    import pulumi_tls as tls
else:
    tls = when_used("pulumi_tls")

LOGIN = "deploy"


def new_key(name: str, opts: pulumi.ResourceOptions) -> tls.PrivateKey:
    """A key of the stack's own, which goes when the stack goes: one to log in, one per machine as its host key."""
    return tls.PrivateKey(name, algorithm="ED25519", opts=opts)


def user_data(host_key: tls.PrivateKey, login_key: tls.PrivateKey) -> pulumi.Output[str]:
    """The cloud-init data of a machine; secret, because the host key is in it."""
    made = pulumi.Output.all(
        private=host_key.private_key_openssh, public=host_key.public_key_openssh, login=login_key.public_key_openssh
    ).apply(lambda keys: first_boot(host_private=keys["private"], host_public=keys["public"], login=keys["login"]))
    return secret(made)


def machine(
    name: str,
    resource: pulumi.CustomResource,
    address: pulumi.Input[str],
    *,
    host_key: tls.PrivateKey,
    login_key: tls.PrivateKey,
    parent: pulumi.Resource,
    first: tuple[pulumi.Resource, ...],
    registration: tuple[pulumi.Resource, ...] = (),
) -> Machine:
    """What was born with `user_data` of these keys, as the rest of the program knows it."""
    return Machine(
        name=name,
        address=address,
        user=LOGIN,
        port=22,
        host_key=host_key.public_key_openssh.apply(str.strip),
        private_key=login_key.private_key_openssh,
        id=resource.id,
        parent=parent,
        resource=resource,
        first=first,
        registration=registration,
    )


def first_boot(*, host_private: str, host_public: str, login: str) -> str:
    """cloud-init data: the host key, so that the first login is verified, and who may log in.

    sshd's settings are a file, because cloud-init's own switch for them restarts sshd under the first login.
    JSON is YAML: what is quoted here cannot be misread there.
    """
    data = {
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_private, "ed25519_public": host_public.strip()},
        "disable_root": True,
        "users": [
            {
                "name": LOGIN,
                "gecos": "Deploys the app",
                "shell": "/bin/bash",
                "lock_passwd": True,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [login.strip()],
            }
        ],
        "write_files": [
            {
                "path": "/etc/ssh/sshd_config.d/00-decant.conf",
                "content": manifest.read("sshd/sshd.conf").decode(),
                "permissions": "0644",
            }
        ],
    }
    return "#cloud-config\n" + json.dumps(data, indent=1)
