"""The parsers of the settings of the site's names and its HTTPS, and what a certificate is for."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from decant.errors import InvalidValueError
from decant.settings.parsers import part

if TYPE_CHECKING:
    from cryptography import x509

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


def resolvers(value: Any) -> tuple[str, ...]:
    """A list of the IP addresses of DNS servers."""
    if not isinstance(value, list) or not value:
        raise InvalidValueError("a list of IP addresses, at least one")
    for i, item in enumerate(value):
        try:
            ipaddress.ip_address(str(item))
        except ValueError:
            raise InvalidValueError("an IP address", at=f"[{i}]", shown=str(item)) from None
    return tuple(map(str, value))


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
