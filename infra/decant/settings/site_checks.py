"""The rules across the settings of the site's names and its HTTPS, and their values as one `Site`."""

from __future__ import annotations

from datetime import UTC, datetime

from decant.settings.model import NAMESPACE, Site
from decant.settings.site import LETS_ENCRYPT, certificate_names, covers, fits, is_apex, load_certificates
from decant.settings.validator import Validator, Values


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
        saved_certificate=values["savedCertificate"],
        resolvers=values["resolvers"] or (),
    )


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
