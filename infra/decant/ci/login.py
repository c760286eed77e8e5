"""`make ci-login`: the job's own token is exchanged for an hour's credentials of the environment's AWS role.

Nothing is stored at the forge for this, and nothing is printed. The credentials are in the file where Pulumi, its
providers and boto3 look for them, and in no environment variable, which every program of the job would get.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from decant import clouds
from decant.clouds.ci import AUDIENCE
from decant.errors import CloudApiError, DecantError, StackError

MARK = "# Written by make ci-login, for one job of CI."
GITLAB_VARIABLE = "DECANT_ID_TOKEN"  # id_tokens in ci/gitlab.yml
SPACES = ("SPACES_ACCESS_KEY_ID", "SPACES_SECRET_ACCESS_KEY")
NOTHING_TO_EXCHANGE = """This job cannot get a token of its own, so there is nothing to exchange for the role {role}.
  GitHub: the job needs `permissions: id-token: write`. Pull requests of forks never get one.
  GitLab: the job needs `id_tokens: {variable}: aud: {audience}`, as in ci/gitlab.yml."""
REFUSED = """AWS does not give this job the role {role}: {error}
  The job's token says of itself: {subject}
  The role must trust exactly this (docs/ci.md, "If it does not work"). Give it that trust: make ci-init{fix}"""


def main() -> int:
    """Log in as the environment's variables say, and return the exit status."""
    try:
        print(login(os.environ))
    except DecantError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


def login(environ: Mapping[str, str]) -> str:
    """Store credentials of the role `AWS_ROLE`, or the keys of Spaces, and return a line that says so.

    Raises:
        StackError: there is no token, AWS refuses the role, or the file has somebody else's credentials.
    """
    role = environ.get("AWS_ROLE", "").strip()
    if not role:
        return _spaces(environ)
    token = _token(environ, role)
    try:
        name = f"decant-ci-{environ.get('GITHUB_RUN_ID') or environ.get('CI_PIPELINE_ID') or 'job'}"
        keys = clouds.ci_credentials(role, token, region=_region(environ), name=name)
    except CloudApiError as error:
        raise StackError(REFUSED.format(role=role, error=error, subject=subject_of(token), fix=_fix(token))) from None
    _store(environ, keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"])
    return f"This job has the role {role} for an hour."


def subject_of(token: str) -> str:
    """What a token says of its job, without proof: only for messages."""
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return str(claims["sub"])[:300]
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return "nothing that can be read"


def _fix(token: str) -> str:
    """The argument of `make ci-init` that makes the roles trust this repository's tokens."""
    prefix, environment, _ = subject_of(token).partition(":environment:")
    safe = all(char.isalnum() or char in ":@/._-" for char in prefix)
    return f" SUBJECT='{prefix}'" if environment and safe else ""


def _token(environ: Mapping[str, str], role: str) -> str:
    if environ.get(GITLAB_VARIABLE):
        return environ[GITLAB_VARIABLE]
    address, key = environ.get("ACTIONS_ID_TOKEN_REQUEST_URL", ""), environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "")
    if not re.match(r"https://|http://127\.0\.0\.1:\d+/", address) or not key:
        raise StackError(NOTHING_TO_EXCHANGE.format(role=role, variable=GITLAB_VARIABLE, audience=AUDIENCE))
    joined = f"{address}{'&' if '?' in address else '?'}{urllib.parse.urlencode({'audience': AUDIENCE})}"
    request = urllib.request.Request(joined, headers={"Authorization": f"bearer {key}"})  # noqa: S310  checked above
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return str(json.loads(answer.read())["value"])
    except (OSError, urllib.error.URLError, LookupError, TypeError, ValueError) as error:
        reason = type(error).__name__ if not isinstance(error, urllib.error.HTTPError) else f"status {error.code}"
        raise StackError(f"The forge did not give this job a token ({reason}). Run the job again.") from None


def _region(environ: Mapping[str, str]) -> str:
    """The state's region, which STS is asked in. Any region would do."""
    asked = urllib.parse.parse_qs(urllib.parse.urlsplit(environ.get("PULUMI_BACKEND_URL", "")).query)
    return (asked.get("region") or ["us-east-1"])[0]


def _spaces(environ: Mapping[str, str]) -> str:
    key, secret = (environ.get(name, "").strip() for name in SPACES)
    if not key or not secret:
        return "AWS_ROLE is not set: this job has no role on AWS. docs/ci.md says where it is set."
    _store(environ, key, secret)
    return "This job has the keys of Spaces, for the state."


def _store(environ: Mapping[str, str], key: str, secret: str, token: str = "") -> None:
    home = environ.get("HOME", "")
    file = Path(environ.get("AWS_SHARED_CREDENTIALS_FILE") or Path(home) / ".aws" / "credentials")
    try:
        known = file.read_text(encoding="utf-8") if file.exists() else MARK
        if not known.startswith(MARK):
            raise StackError(
                f"{file} has credentials that make ci-login did not write, so it does not replace them. On your own"
                " computer you need no ci-login. In CI, name another file: AWS_SHARED_CREDENTIALS_FILE=path"
            )
        lines = [MARK, "[default]", f"aws_access_key_id = {key}", f"aws_secret_access_key = {secret}"]
        lines += [f"aws_session_token = {token}"] if token else []
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}.new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write("\n".join(lines) + "\n")
        fresh.replace(file)
    except OSError as error:
        raise StackError(f"The credentials cannot be stored in {file}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main())
