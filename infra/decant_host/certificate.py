"""The machine's certificate: ordered, renewed and served by the machine itself, and what its status is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

from decant_host.atomic import read_json, write
from decant_host.certificate_checks import Problem, check_names
from decant_host.certificate_files import (
    Certificate,
    certificate_lock,
    install_certificate,
    live_certificate,
    missing_names,
    plain_name,
    read_certificate,
    withdraw_certificate,
)
from decant_host.certificate_order import CHAIN, KEY, Failure, order, ordered_from
from decant_host.paths import CERTIFICATE_STATE, CURRENT, HSTS, OWN_CERTIFICATE, OWN_KEY, RENEW_NOW, SETTINGS
from decant_host.processes import run
from decant_host.protocol import CERTIFICATE_TIMEOUT, LEADS_ELSEWHERE, CertificateStatus, HttpsSettings

UNIT = "decant-certificate.service"
COMMAND_SECONDS = CERTIFICATE_TIMEOUT / 2
"""`certificate` waits this long for the unit, which goes on by itself. The coordinator has its reply in time."""

CHECK_INTERVAL = 6 * 3600
CHECKS_PER_LIFETIME = 30
"""Whether a renewal is due is asked four times a day, and more often for a certificate of a few days."""

RENEWAL_DUE = 1 / 3
"""With less than this part of the lifetime left, a name that leads elsewhere holds the others up no more."""

FIRST_PAUSE, LONGEST_PAUSE = 15 * 60, 12 * 3600
"""Seconds until another order after one that failed; twice as long after each. Let's Encrypt allows five an hour."""

FIRST_PAUSE_AWAY, LONGEST_PAUSE_AWAY = 5 * 60, 6 * 3600
"""The same where the authority did not answer, so that nothing was ordered."""

PAUSE_LIMITED, LONGEST_PAUSE_LIMITED = 3 * 3600, 8 * 86400
"""The same where it limits the number of orders and does not say until when; and the longest that it may ask for."""

PAUSE_INVALID = 86400
"""The same where the certificate that came has ended by this machine's clock: the clock is wrong, and orders count."""

# Causes that are seen before an order.
WAITING = ("", "no-release", "no-resolver", "caa", *LEADS_ELSEWHERE)


class State(NamedTuple):
    """What the orders so far came to, as it is kept in CERTIFICATE_STATE. Times are Unix times.

    `settings` is a hash of what is wanted: after a change of it, an order is made at once. `failures`: orders in a row
    that failed. No order is made before `next_try`; a client that renews by itself is asked at `next_check`.
    """

    settings: str = ""
    failures: int = 0
    last_try: float | None = None
    next_try: float | None = None
    next_check: float = 0.0
    issued: float | None = None
    renewed: float | None = None
    cause: str = ""
    reason: str = ""


def certificate(*, renew: bool = False) -> CertificateStatus:
    """Do what is due now, in the unit that the timer starts, too, and return the status.

    The unit limits what the ACME client may read and write. `renew` orders in any case, with a new key.
    """
    if https_settings() is not None:
        if renew:
            RENEW_NOW.touch(mode=0o600)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run("systemctl", "start", UNIT, check=False, timeout=COMMAND_SECONDS)
    return certificate_status()


def https_settings() -> HttpsSettings | None:
    """How this machine gets its certificate; None where it gets none."""
    return cast("HttpsSettings | None", read_json(SETTINGS).get("https"))


def has_valid_certificate() -> bool | None:
    """Whether browsers get a valid certificate for the site's name; None where the machine is to get none."""
    settings = https_settings()
    if settings is None:
        return None
    live = live_certificate()
    return live is not None and live.is_valid(plain_name(settings["names"][0]))


def certificate_status() -> CertificateStatus:
    """The status of the certificate."""
    settings, kept = https_settings(), _load()
    live = live_certificate() if settings else None
    wanted = [plain_name(name) for name in settings["names"]] if settings else []
    if settings is None:
        state = "off"
    elif live and live.is_valid(wanted[0]):
        state = "live"
    else:
        state = "waiting" if kept.cause in WAITING and not kept.failures else "failed"
    return {
        "state": state,
        "names": list(live.names) if live else [],
        "missing": missing_names(live, wanted),
        "not_before": live.not_before if live else None,
        "not_after": live.not_after if live else None,
        "issued": kept.issued,
        "renewed": kept.renewed,
        "last_try": kept.last_try,
        "next_try": kept.next_try,
        "cause": kept.cause if settings else "",
        "reason": kept.reason if settings else "",
    }


def certificate_run() -> None:
    """Do what is due now. This is what the unit runs; everything else asks for it by `certificate`."""
    settings = https_settings()
    if settings is None:
        return
    with certificate_lock():
        renew = RENEW_NOW.exists()
        RENEW_NOW.unlink(missing_ok=True)
        before = state = _load()
        wanted = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        if state.settings != wanted:
            state = state._replace(settings=wanted, failures=0, next_try=None, next_check=0.0, cause="", reason="")
        live = live_certificate()
        if live and not live.is_valid(plain_name(settings["names"][0])):
            # Plain HTTP goes on, where visitors would otherwise be led to a certificate that browsers refuse.
            withdraw_certificate()
            live = None
            state = state._replace(cause="expired", reason=_ended(settings))
        if settings["own"]:
            state = _install_own(settings, state, live)
        else:
            state = _get_certificate(settings, state, live, renew=renew)
        _save(state)
        _set_hsts(settings, state)
    if state.reason and state.reason != before.reason:
        print(state.reason)  # to the journal
    if state.issued != before.issued:
        print(f"a certificate for {', '.join(certificate_status()['names'])} is served from now on.")


def _ended(settings: HttpsSettings) -> str:
    return f"the certificate of {settings['names'][0]} is not valid any more, so the site is served over plain HTTP."


def _get_certificate(settings: HttpsSettings, state: State, live: Certificate | None, *, renew: bool) -> State:
    """Order or renew, where that is due and allowed."""
    now, wanted = time.time(), [plain_name(name) for name in settings["names"]]
    if not CURRENT.is_symlink():
        return state._replace(cause="no-release", reason="no release is live on this machine yet.")
    missing = missing_names(live, wanted)
    changed = ordered_from() not in ("", settings["server"])
    if state.last_try and state.last_try > now:
        state = state._replace(next_try=None)  # the clock was wrong then
    checked = live is not None and not changed and now < state.next_check <= now + CHECK_INTERVAL
    if not renew and ((state.next_try and now < state.next_try) or (checked and not missing)):
        return state
    problems = check_names(settings, wanted)
    names = _names_to_order(wanted, problems, live, now)
    first = next(iter(problems.values()), None)
    if wanted[0] not in names:
        problem = problems[wanted[0]]
        return state._replace(cause=problem.cause, reason=problem.reason)
    if checked and not renew and not set(missing) & set(names):
        return _with_problem(state, first)  # the missing names lead elsewhere still
    failure = order(settings, names, renew=renew or changed, new_key=renew) or _take(names[0])
    if failure:
        return _failed(state, failure, now)
    return _with_problem(_succeeded(state, live, names, now), first)


def _names_to_order(
    wanted: Sequence[str], problems: dict[str, Problem], live: Certificate | None, now: float
) -> list[str]:
    """The names that lead here. Those of the certificate that is served stay in it until its renewal is due."""
    due = live is None or live.not_after - now < live.lifetime * RENEWAL_DUE
    return [name for name in wanted if name not in problems or (live and not due and live.covers(name))]


def _take(name: str) -> Failure | None:
    """Let nginx serve what the client has."""
    found = read_certificate(CHAIN, KEY)
    if found is None or not found.is_valid(name):
        reason = (
            f"the certificate that came for {name} is not valid on this machine. Is its clock right? See: timedatectl"
        )
        return Failure("invalid", reason)
    live = live_certificate()
    if live is None or live.serial != found.serial:
        install_certificate(CHAIN, KEY, found)
    return None


def _succeeded(state: State, before: Certificate | None, names: Sequence[str], now: float) -> State:
    found = live_certificate()
    assert found is not None  # noqa: S101 - `_take` has just installed it
    state = state._replace(failures=0, next_try=None, cause="", reason="")
    state = state._replace(next_check=now + min(CHECK_INTERVAL, found.lifetime / CHECKS_PER_LIFETIME))
    if before is None or before.serial != found.serial:
        # One name more is no proof that renewals work, and neither is a first certificate.
        again = state.issued is not None and (before is None or set(before.names) == set(found.names))
        state = state._replace(last_try=now, issued=now, renewed=now if again else state.renewed)
    return state


def _with_problem(state: State, problem: Problem | None) -> State:
    """The certificate is fine; a name that leads elsewhere is named all the same."""
    return state._replace(cause=problem.cause if problem else "", reason=problem.reason if problem else "")


def _failed(state: State, failure: Failure, now: float) -> State:
    failures = state.failures + 1
    if failure.cause == "rate-limited":
        until = failure.retry_at or now + PAUSE_LIMITED
        pause = min(max(until - now, FIRST_PAUSE), LONGEST_PAUSE_LIMITED)
    elif failure.cause == "invalid":
        pause = PAUSE_INVALID
    elif failure.cause == "away":
        pause = min(FIRST_PAUSE_AWAY * 2**state.failures, LONGEST_PAUSE_AWAY)
    else:
        pause = min(FIRST_PAUSE * 2**state.failures, LONGEST_PAUSE)
    return state._replace(
        failures=failures, last_try=now, next_try=now + pause, cause=failure.cause, reason=failure.reason
    )


def _install_own(settings: HttpsSettings, state: State, live: Certificate | None) -> State:
    """Let nginx serve the user's own certificate."""
    name, own = settings["names"][0], read_certificate(OWN_CERTIFICATE, OWN_KEY)
    if own is None or not own.is_valid(name):
        reason = (
            f"decant:certificate is not valid for {name} now. Set one that is: pulumi config set decant:certificate"
            ' -- "$(cat fullchain.pem)", and its key; then run pulumi up.'
        )
        return state._replace(cause="own-invalid", reason=reason)
    if live is None or live.serial != own.serial:
        install_certificate(OWN_CERTIFICATE, OWN_KEY, own)
        state = state._replace(issued=time.time(), renewed=time.time() if live else state.renewed)
    return state._replace(cause="", reason="")


def _set_hsts(settings: HttpsSettings, state: State) -> None:
    """Browsers remember HTTPS for two years, so they are told once a renewal has worked, or where the stack says so."""
    wanted = settings["hsts"] if settings["hsts"] is not None else state.renewed is not None
    if wanted and not settings["by_address"] and live_certificate():
        HSTS.touch(mode=0o644)
    else:
        HSTS.unlink(missing_ok=True)


def adopt_state(kept: dict[str, Any]) -> None:
    """Go on with the state of another machine, whose certificate this one has now. What failed there may work here."""
    state = _state(kept)
    _save(State(settings=state.settings, last_try=state.last_try, issued=state.issued, renewed=state.renewed))


def _load() -> State:
    try:
        return _state(read_json(CERTIFICATE_STATE))
    except ValueError:
        return State()


def _state(kept: dict[str, Any]) -> State:
    return State(**{name: value for name, value in kept.items() if name in State._fields})


def _save(state: State) -> None:
    write(CERTIFICATE_STATE, json.dumps(state._asdict()), mode=0o600)
