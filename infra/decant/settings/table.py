"""The table of settings: the name, values, default, meaning, example and parser of every setting.

The checks, the hint for an unknown setting and docs/settings.md all read this table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from decant.settings import parsers, site
from decant.settings.model import Clouds
from decant_host.protocol import LONGEST_REQUEST_TIMEOUT, RELEASE_ID


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting: its row in docs/settings.md, and the parser of its value.

    `secret` settings are stored encrypted; `structured` ones hold a list or an object.
    """

    name: str
    value: str
    default: str
    meaning: str
    example: str
    parse: Callable[[Any], Any]
    secret: bool = False
    structured: bool = False

    @property
    def command(self) -> str:
        """The command that gives the setting a valid value."""
        # A secret comes through a pipe, because other users of the computer can read command lines.
        if self.secret:
            return self.example
        return f"pulumi config set {'--path ' if self.structured else ''}{self.example}"


Table = Mapping[str, Setting]
"""Every setting by its name, in the order of the documentation."""


def settings_table(clouds: Clouds, *, example_networks: Sequence[str] = ()) -> Table:
    """The table for these clouds.

    `example_networks` are networks reserved for examples that `adminCidrs` takes all the same (see
    `parsers.admin_networks`).
    """
    rows = (
        *_machine_rows(clouds),
        _CREDITS_ROW,
        *_access_rows(clouds, example_networks),
        *_ADDRESS_ROWS,
        *_SITE_ROWS,
        *_APP_ROWS,
        *_SERVING_ROWS,
        *_RELEASE_ROWS,
    )
    return {row.name: row for row in rows}


def _defaults(clouds: Clouds, name: str) -> str:
    """The default of a setting on each cloud that has one."""
    shown = {cloud: spec.defaults[name] for cloud, spec in clouds.items() if name in spec.defaults}
    return ", ".join(f"`{v if isinstance(v, str) else json.dumps(v)}` on {cloud}" for cloud, v in shown.items())


def _provider_setting(clouds: Clouds, ending: str) -> str:
    """The clouds whose own Pulumi provider has the setting, each with the provider's name for it."""
    found = ((cloud, name) for cloud, spec in clouds.items() for name in spec.provider if name.endswith(ending))
    return ", ".join(f"on {cloud} set `{name}`" for cloud, name in found)


def _required(clouds: Clouds, name: str) -> str:
    return "required on " + " and ".join(cloud for cloud, spec in clouds.items() if name in spec.required)


_CLOUD_NAME = "a name that the cloud uses: lower-case letters, digits, . _ and -"


def _machine_rows(clouds: Clouds) -> tuple[Setting, ...]:
    slug = parsers.text(r"[a-z0-9][a-z0-9._-]*", _CLOUD_NAME)
    titles = ", ".join(f"`{name}` ({spec.title})" for name, spec in clouds.items())
    return (
        Setting(
            name="cloud",
            value=", ".join(f"`{name}`" for name in clouds),
            default="required",
            meaning=f"Where machines come from: {titles}.",
            example=f"decant:cloud {next(name for name, spec in clouds.items() if 'region' in spec.settings)}",
            parse=parsers.one_of(*clouds),
        ),
        Setting(
            name="machines",
            value="1 to 50",
            default="1",
            meaning="The number of machines. Two or more stand behind a load balancer.",
            example="decant:machines 2",
            parse=parsers.integer(1, 50),
        ),
        Setting(
            name="size",
            value="a name that the cloud uses",
            default=_defaults(clouds, "size"),
            meaning="The kind of machine. It needs at least 1 GB of memory: during a release, two releases run side by"
            " side.",
            example="decant:size s-1vcpu-2gb",
            parse=slug,
        ),
        Setting(
            name="region",
            value="a name that the cloud uses",
            default=_defaults(clouds, "region"),
            meaning=f"Where the machines stand; {_provider_setting(clouds, ':region')}.",
            example="decant:region nyc3",
            parse=slug,
        ),
        Setting(
            name="image",
            value="a name that the cloud uses",
            default=_defaults(clouds, "image"),
            meaning="The system that a new machine boots. Everything but Debian 13 is refused at the first login.",
            example="decant:image debian-13-x64",
            parse=slug,
        ),
        Setting(
            name="balancer",
            value="boolean",
            default="`true` where `machines` is more than 1",
            meaning="Whether the cloud's load balancer stands before the machines. With it, a single machine can be"
            " replaced without a pause.",
            example="decant:balancer true",
            parse=parsers.boolean,
        ),
    )


def _access_rows(clouds: Clouds, example_networks: Sequence[str]) -> tuple[Setting, ...]:
    return (
        Setting(
            name="adminCidrs",
            value="list of CIDRs",
            default=_required(clouds, "adminCidrs"),
            meaning="The networks that the cloud's firewall lets connect by SSH. Include the address that `pulumi up`"
            " runs from. The whole internet, IPv4 networks larger than /8, IPv6 networks larger than /16 and networks"
            " reserved for examples are refused.",
            example="'decant:adminCidrs[0]' \"$(curl -fsS4 https://checkip.amazonaws.com)/32\"",
            parse=parsers.admin_networks(example_networks),
            structured=True,
        ),
        Setting(
            name="hosts",
            value="list of `{address, hostKey, user, port, name}`",
            default=_required(clouds, "hosts"),
            meaning="The servers. `hostKey` is the line of `/etc/ssh/ssh_host_ed25519_key.pub` on the host. `user` is"
            " root (the default), or a user with passwordless sudo. `port` is 22 by default, `name` the address.",
            example="'decant:hosts[0].address' server.example.com && pulumi config set --path"
            " 'decant:hosts[0].hostKey' 'ssh-ed25519 AAAA...'",
            parse=parsers.hosts,
            structured=True,
        ),
        Setting(
            name="sshPrivateKey",
            value="secret text",
            default=_required(clouds, "sshPrivateKey"),
            meaning="The key that logs in to `hosts`. On the other clouds, Decant makes a key for each stack.",
            example="cat ~/.ssh/id_ed25519 | pulumi config set --secret decant:sshPrivateKey",
            parse=parsers.private_key,
            secret=True,
        ),
        Setting(
            name="harden",
            value="boolean",
            default=_defaults(clouds, "harden"),
            meaning="Whether Decant sets up the machine's firewall and a strict sshd, or leaves both as they are.",
            example="decant:harden true",
            parse=parsers.boolean,
        ),
    )


_CREDITS_ROW = Setting(
    name="cpuCredits",
    value="`standard` or `unlimited`",
    default="as the cloud does it for the size",
    meaning="What a machine of a burstable size does when it needs more than its share of CPU time for long: it becomes"
    " slow (`standard`), or costs more (`unlimited`).",
    example="decant:cpuCredits standard",
    parse=parsers.one_of("standard", "unlimited"),
)

_ADDRESS_ROWS = (
    Setting(
        name="trustedProxies",
        value="list of CIDRs",
        default="none",
        meaning="The proxy or load balancer of your own before `ssh` hosts. What it says of the client's address and"
        " scheme is trusted.",
        example="'decant:trustedProxies[0]' 10.0.0.5/32",
        parse=parsers.networks,
        structured=True,
    ),
    Setting(
        name="url",
        value="`http://NAME` or `https://NAME`",
        default="`http://ADDRESS` of the host, of the first by name where there are several",
        meaning="The public URL of `ssh` hosts, where it is not their address (a name, a load balancer of your own).",
        example="decant:url http://www.example.com",
        parse=parsers.url,
    ),
)

_SITE_ROWS = (
    Setting(
        name="domain",
        value="host name",
        default="none: visitors use the address",
        meaning="The site's name. The site is served at `https://NAME` as soon as the name leads to it:"
        " [Your domain](domain.md).",
        example="decant:domain example.com",
        parse=site.domain,
    ),
    Setting(
        name="redirects",
        value="list of host names",
        default="`www.` and the domain, where the domain is one that registrars sell",
        meaning="Other names, which lead to `domain`; `[]` for none.",
        example="'decant:redirects[0]' www.example.com",
        parse=site.domains,
        structured=True,
    ),
    Setting(
        name="dnsZone",
        value="host name",
        default="none: the records are yours to set",
        meaning="A zone in the cloud's own DNS. The site's records are made in it.",
        example="decant:dnsZone example.com",
        parse=site.domain,
    ),
    Setting(
        name="https",
        value="`auto` or `off`",
        default="`auto`",
        meaning="Whether the site gets a certificate by itself.",
        example="decant:https off",
        parse=parsers.one_of("auto", "off"),
    ),
    Setting(
        name="hsts",
        value="boolean",
        default="`true` from the first renewal of the certificate on",
        meaning="Whether browsers are told to use HTTPS alone from now on, for two years.",
        example="decant:hsts true",
        parse=parsers.boolean,
    ),
    Setting(
        name="email",
        value="e-mail address",
        default="none",
        meaning="For the account at the certificate authority.",
        example="decant:email ann@example.com",
        parse=parsers.text(r"[^\s@'\"\\]+@[^\s@'\"\\]+\.[^\s@'\"\\]+", "an e-mail address"),
    ),
    Setting(
        name="acmeServer",
        value="`letsencrypt`, `staging` or the URL of an ACME directory",
        default="`letsencrypt`",
        meaning="The certificate authority. `staging` is Let's Encrypt's for trials, which browsers do not trust.",
        example="decant:acmeServer staging",
        parse=site.acme_server,
    ),
    Setting(
        name="acmeRoot",
        value="certificates in PEM form",
        default="those that the machine trusts",
        meaning="The root certificates of a private `acmeServer`.",
        example='decant:acmeRoot -- "$(cat root.pem)"',
        parse=site.certificates,
    ),
    Setting(
        name="resolvers",
        value="list of IP addresses",
        default="public ones: 1.1.1.1, 8.8.8.8, 9.9.9.9",
        meaning="The DNS servers that the machine asks where the site's names lead, before it asks for a certificate.",
        example="'decant:resolvers[0]' 10.0.0.2",
        parse=site.resolvers,
        structured=True,
    ),
    Setting(
        name="certificate",
        value="certificates in PEM form",
        default="one that the site gets by itself",
        meaning="A certificate of your own, followed by its chain. Nobody renews it.",
        example='decant:certificate -- "$(cat fullchain.pem)"',
        parse=site.certificates,
    ),
    Setting(
        name="certificateKey",
        value="secret text",
        default="none",
        meaning="The private key of `certificate`, in PEM form.",
        example="cat privkey.pem | pulumi config set --secret decant:certificateKey",
        parse=site.certificate_key,
        secret=True,
    ),
    Setting(
        name="savedCertificate",
        value="secret text",
        default="none",
        meaning="What `make destroy` keeps of the site's certificate, for the next `make up`. Decant sets it.",
        example="cat saved.txt | pulumi config set --secret decant:savedCertificate",
        parse=parsers.text(r"[A-Za-z0-9+/]+={0,2}", "what `make destroy` has stored here, in base64"),
        secret=True,
    ),
)

_APP_ROWS = (
    Setting(
        name="app",
        value="folder",
        default="`app`",
        meaning="The folder of the Flask app. The entry point is `wsgi:app`, or the application argument of gunicorn"
        " in the folder's `Procfile`.",
        example="decant:app app",
        parse=parsers.project_folder,
    ),
    Setting(
        name="static",
        value="folder in the app",
        default="`static`, where there is one",
        meaning="The files that nginx serves under `/static/`.",
        example="decant:static static",
        parse=parsers.app_subfolder,
    ),
    Setting(
        name="wsgiApp",
        value="`MODULE:NAME` or `MODULE:FACTORY()`",
        default="what the app folder names: see [Bring your app](app.md)",
        meaning="gunicorn's application argument, where the folder names none or another one.",
        example="decant:wsgiApp 'shop:create_app()'",
        parse=parsers.text(
            r"[A-Za-z_][\w.]*(:[A-Za-z_][\w.]*(\(.*\))?)?", "an application such as wsgi:app or shop:create_app()"
        ),
    ),
    Setting(
        name="python",
        value="a version such as `3.12`",
        default="what the app folder asks for, else the machines' own, 3.13",
        meaning="The Python that runs the app. One that is not Debian's own is downloaded by the machines.",
        example="decant:python 3.12",
        parse=parsers.text(r"3\.\d{1,2}(\.\d{1,2})?", 'a version such as "3.12", in quotation marks'),
    ),
    Setting(
        name="pythonMirror",
        value="URL",
        default="the releases of python-build-standalone",
        meaning="Where machines download a Python that is not Debian's own.",
        example="decant:pythonMirror https://mirror.example.com/python",
        parse=parsers.text(r"https?://(?![^/]*@)[^\s'\"\\]+", "a URL that starts with https://, without a password"),
    ),
    Setting(
        name="build",
        value="command",
        default="none",
        meaning="A command that runs where `pulumi` runs, in a copy of the app folder, before it is packed. What it"
        " makes is shipped.",
        example="decant:build 'npm ci && npm run build'",
        parse=parsers.text(r"\S.*", "a command"),
    ),
    Setting(
        name="persistent",
        value="list of paths in the app",
        default="Flask's instance folder",
        meaning="What the app may write besides `$DATA_DIR`. It stays when a release goes live; each machine has its"
        " own. Everything else in the app folder is read-only.",
        example="'decant:persistent[0]' uploads",
        parse=parsers.app_paths,
        structured=True,
    ),
    Setting(
        name="env",
        value="object",
        default="empty",
        meaning="The app's environment. Values become text as YAML writes them.",
        example="'decant:env.GREETING' hello",
        parse=parsers.environment,
        structured=True,
    ),
    Setting(
        name="secrets",
        value="secret object",
        default="empty",
        meaning="The app's secret environment: encrypted in the stack file, readable by the app alone on a machine.",
        example="python3 -c 'import secrets; print(secrets.token_hex(32))' | pulumi config set --secret --path"
        " 'decant:secrets.SECRET_KEY'",
        parse=parsers.environment,
        secret=True,
        structured=True,
    ),
)

_SERVING_ROWS = (
    Setting(
        name="healthPath",
        value="path",
        default="`/healthz` where it answers 200, else `/`, where every answer below 500 will do",
        meaning="The path that must answer 200 before a release gets traffic.",
        example="decant:healthPath /healthz",
        parse=parsers.text(r"/[A-Za-z0-9._~/-]*(\?[A-Za-z0-9._~=&-]*)?", "a path that starts with /, such as /healthz"),
    ),
    Setting(
        name="healthTimeout",
        value="1 to 300 seconds",
        default="60",
        meaning="The time that a new release has to become healthy.",
        example="decant:healthTimeout 120",
        parse=parsers.integer(1, 300),
    ),
    Setting(
        name="maxBody",
        value="a size such as `16m` or `2g`",
        default="16m",
        meaning="The largest request body. nginx answers 413 to a larger one.",
        example="decant:maxBody 100m",
        parse=parsers.size,
    ),
    Setting(
        name="requestTimeout",
        value="1 to 3600 seconds",
        default="30, or the `--timeout` of the Procfile where that is more",
        meaning="The time that the app has to answer, or to send more of an answer. nginx answers 504 after it. A"
        " release that is replaced keeps its requests, streams and WebSockets as long, and for at least 30 seconds.",
        example="decant:requestTimeout 120",
        parse=parsers.integer(1, LONGEST_REQUEST_TIMEOUT),
    ),
    Setting(
        name="workers",
        value="1 to 64",
        default="from cores and memory",
        meaning="gunicorn's worker processes.",
        example="decant:workers 3",
        parse=parsers.integer(1, 64),
    ),
    Setting(
        name="threads",
        value="1 to 4096",
        default="8",
        meaning="The threads of each worker: how many requests it answers at once. Each open WebSocket or event stream"
        " takes one.",
        example="decant:threads 16",
        parse=parsers.integer(1, 4096),
    ),
)

_RELEASE_ROWS = (
    Setting(
        name="rollout",
        value="`serial`, `parallel` or a batch size",
        default="`serial`",
        meaning="How a release goes through a fleet: one machine after the other, all at once, or in batches.",
        example="decant:rollout serial",
        parse=parsers.text(r"serial|parallel|[1-9]\d?", "serial, parallel or a batch size from 1 to 99"),
    ),
    Setting(
        name="release",
        value="release id",
        default="what the app folder holds",
        meaning="Stay on a release that is still on the machines (the last five are).",
        example="decant:release 1f0c9ab27d3e",
        parse=parsers.text(RELEASE_ID, "a release id: 12 hexadecimal digits, as the output `release` shows"),
    ),
    Setting(
        name="review",
        value="object of `atOnce` (1 to 50), `days` (1 to 90)",
        default="`atOnce` 3, `days` 7",
        meaning="In `Pulumi.review.yaml` alone: how many stacks of pull requests there may be at a time, and how many"
        " days one is kept without a push: [Stacks for pull requests](review.md).",
        example="'decant:review.days' 7",
        parse=parsers.review,
        structured=True,
    ),
)
