"""The cloud-init user data of a new machine: its host key, and the user that may log in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pulumi

from decant.clouds.base import LOGIN, secret
from decant.host import manifest

if TYPE_CHECKING:
    import pulumi_tls as tls


def user_data(host_key: tls.PrivateKey, login_key: tls.PrivateKey) -> pulumi.Output[str]:
    """The user data for a machine with these keys. It is a secret, because it holds the private host key."""
    made = pulumi.Output.all(
        private=host_key.private_key_openssh, public=host_key.public_key_openssh, login=login_key.public_key_openssh
    ).apply(lambda keys: cloud_config(host_private=keys["private"], host_public=keys["public"], login=keys["login"]))
    return secret(made)


def cloud_config(*, host_private: str, host_public: str, login: str) -> str:
    """The cloud-config text, with a known host key, so that the first login can be verified.

    The text is JSON, which is also YAML: quoting in JSON is unambiguous. sshd's settings are written as a file,
    because cloud-init's own option for them restarts sshd during the first login. The user may run every command as
    root, because the steps install packages and units as root; a narrower rule would name a shell script that the same
    user copies. Reference of the keys: https://cloudinit.readthedocs.io/en/latest/reference/modules.html
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
