"""The settings of the site's names and its HTTPS: their rows in the table, their parsers and the rules across them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from decant.errors import InvalidValueError
from decant.settings.model import NAMESPACE, Site
from decant.settings.parsers import part

if TYPE_CHECKING:
    from cryptography import x509

    from decant.settings.validator import Validator, Values

LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
STAGING = "https://acme-staging-v02.api.letsencrypt.org/directory"

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"(?=.{{1,253}}$)({_LABEL}\.)+[a-z][a-z0-9-]*[a-z0-9]")


def domain(value: Any) -> str:
    """A host name with at least one dot, in lower case; letters outside of ASCII become their xn-- form."""
    wanted = InvalidValueError("a host name such as example.com, without https:// and without a path")
    name = str(value).strip().rstrip(".")
    try:
        name = name.encode("idna").decode().lower() if not name.isascii() else name.lower()
    except UnicodeError:
        raise wanted from None
    if not _DOMAIN.fullmatch(name):
        raise wanted
    return name


def domains(value: Any) -> tuple[str, ...]:
    """A list of host names, which may be empty."""
    if not isinstance(value, list):
        raise InvalidValueError('a list of host names, such as ["www.example.com"], or [] for none')
    return tuple(dict.fromkeys(part(domain, item, f"[{i}]") for i, item in enumerate(value)))


def acme_server(value: Any) -> str:
    """The directory URL of an ACME server; `letsencrypt` and `staging` are names of Let's Encrypt's."""
    known = {"letsencrypt": LETS_ENCRYPT, "staging": STAGING}
    name = str(value)
    if name in known:
        return known[name]
    parts = urlsplit(name)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc or re.search(r"[\s'\"\\]", name):
        raise InvalidValueError("letsencrypt, staging, or the https:// URL of an ACME directory")
    return name


def certificates(value: Any) -> str:
    """One or more certificates as PEM, checked to be readable."""
    try:
        return _normal_pem(load_certificates(str(value)))
    except ValueError as error:
        raise InvalidValueError(
            f"certificates in PEM form, -----BEGIN CERTIFICATE----- ({error})", shown="..."
        ) from None


def certificate_key(value: Any) -> str:
    """A private key in PEM form without a passphrase. Errors show nothing of it."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        load_pem_private_key(str(value).encode(), password=None)
    except (ValueError, TypeError):
        raise InvalidValueError("a private key in PEM form without a passphrase") from None
    return str(value).strip() + "\n"


def load_certificates(pem: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, in its order. Raises ValueError where there is none or one is broken."""
    from cryptography import x509

    found = x509.load_pem_x509_certificates(pem.encode())
    if not found:
        raise ValueError("it holds no certificate")
    return found


def _normal_pem(chain: Sequence[x509.Certificate]) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in chain)


def is_apex(name: str) -> bool:
    """Whether a name is one that registrars sell, such as example.com or example.co.uk: it is its zone's apex."""
    from publicsuffixlist import PublicSuffixList

    return bool(PublicSuffixList(accept_unknown=True).privatesuffix(name) == name)


def site(values: Values) -> Site:
    """The checked values as one `Site`."""
    name, redirects = values["domain"], values["redirects"]
    if name and redirects is None:
        zone_apex = name == values["dnsZone"] or is_apex(name)
        redirects = (f"www.{name}",) if zone_apex and not name.startswith("www.") else ()
    https = values["https"] != "off"
    own = values["certificate"] is not None
    return Site(
        domain=name,
        redirects=redirects or (),
        dns_zone=values["dnsZone"],
        email=values["email"],
        https=https,
        hsts=values["hsts"],
        acme_server=(values["acmeServer"] or LETS_ENCRYPT) if https and not own else "",
        acme_root=values["acmeRoot"],
        certificate=values["certificate"],
        certificate_key=values["certificateKey"],
    )


# ------------------------------------------------------------------------------------------------ across settings


def check_site(validator: Validator, values: Values) -> None:
    """The settings of the site fit each other."""
    table = validator.table
    if not values["domain"] and "domain" not in validator.raw:
        for name in ("redirects", "dnsZone", "hsts", "certificate"):
            if name in validator.raw:
                fix = f"{table['domain'].command}, or pulumi config rm {NAMESPACE}:{name}"
                validator.add(name, "", "needs decant:domain, the site's name", fix)
    for name in ("url", "trustedProxies"):
        if values["domain"] and name in validator.raw:
            expected = (
                "does not go with decant:domain: a proxy of your own before the machines ends HTTPS by itself, and"
                " decant:url names it"
            )
            validator.add(
                name, "", expected, f"pulumi config rm {NAMESPACE}:domain, or pulumi config rm {NAMESPACE}:{name}"
            )
    if values["domain"] and len(values["hosts"] or ()) > 1:
        expected = (
            f"leads to one machine, and there are {len(values['hosts'] or ())} hosts: a load balancer of yours has to"
            " stand before them and end HTTPS"
        )
        validator.add(
            "domain", values["domain"], expected, f"pulumi config rm {NAMESPACE}:domain && {table['url'].command}"
        )
    if values["domain"] and values["dnsZone"] and not _is_inside(values["domain"], values["dnsZone"]):
        expected = f"must be {values['domain']} or end of it: the zone holds the records of decant:domain"
        validator.add("dnsZone", values["dnsZone"], expected, f"pulumi config set {NAMESPACE}:dnsZone ZONE")
    if values["domain"] and values["domain"] in (values["redirects"] or ()):
        validator.add("redirects", values["domain"], "must not hold decant:domain itself", table["redirects"].command)
    _check_own_certificate(validator, values)


def _is_inside(name: str, zone: str) -> bool:
    return name == zone or name.endswith(f".{zone}")


def _check_own_certificate(validator: Validator, values: Values) -> None:
    """The user's certificate has its key, is for all names of the site, and is valid today."""
    table, pem, key = validator.table, values["certificate"], values["certificateKey"]
    for name, other in (("certificate", "certificateKey"), ("certificateKey", "certificate")):
        if name in validator.raw and other not in validator.raw:
            validator.add(other, "", f"is required with decant:{name}", table[other].command)
    if values["https"] == "off" and pem:
        validator.add("https", "off", "must be auto with decant:certificate", f"pulumi config rm {NAMESPACE}:https")
    if pem is None or values["domain"] is None:
        return
    first = load_certificates(pem)[0]
    fix = table["certificate"].command
    names = certificate_names(first)
    missing = [name for name in site(values).names if not covers(names, name)]
    if missing:
        expected = f"must be for {' and '.join(missing)}; it is for {', '.join(names) or 'no name'}"
        validator.add("certificate", "", expected, fix)
    now = datetime.now(UTC)
    begins, ends = first.not_valid_before_utc, first.not_valid_after_utc
    if not begins <= now < ends:
        expected = f"must be valid today; it is from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}"
        validator.add("certificate", "", expected, fix)
    if key is not None and not fits(first, key):
        validator.add("certificateKey", "", "must be the key of decant:certificate", table["certificateKey"].command)


def certificate_names(certificate: x509.Certificate) -> list[str]:
    """The DNS names of a certificate, wildcards included."""
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [str(name).lower() for name in extension.value.get_values_for_type(x509.DNSName)]


def covers(names: Sequence[str], name: str) -> bool:
    """Whether one of a certificate's names is for `name`; a wildcard stands for one label (RFC 6125, 6.4.3)."""
    return name in names or f"*.{name.partition('.')[2]}" in names


def fits(certificate: x509.Certificate, key: str) -> bool:
    """Whether a private key in PEM form is the certificate's."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

    public = load_pem_private_key(key.encode(), password=None).public_key()
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    return public.public_bytes(*form) == certificate.public_key().public_bytes(*form)
