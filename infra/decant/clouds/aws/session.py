"""Questions to AWS: a boto3 session with the credentials that the stack's `aws:` settings name.

boto3 takes a second to import and is imported only when a session is opened. It reads the same files and environment
variables as the Pulumi provider, `AWS_ENDPOINT_URL` among them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from decant.clouds.base import when_used
from decant.errors import CloudApiError

boto3 = when_used("boto3")
botocore_config = when_used("botocore.config")
botocore_exceptions = when_used("botocore.exceptions")
botocore_session = when_used("botocore.session")

ROLE_SESSION = "decant"
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")  # in the provider's order


class Session:
    """The credentials and the region of a stack."""

    def __init__(self, boto: Any, region: str, provider: Mapping[str, Any]) -> None:
        self._boto = boto
        self.region = region
        self._provider = provider
        self._clients: dict[str, Any] = {}
        self._endpoints = {
            name: url for group in _structure(provider, "endpoints") or [] for name, url in group.items()
        }

    def known_regions(self) -> list[str]:
        """The regions that boto3 knows, without a question to AWS."""
        return [
            name
            for part in self._boto.get_available_partitions()
            for name in self._boto.get_available_regions("ec2", part)
        ]

    def ask(self, service: str, operation: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one call, such as `ask("ec2", "describe_vpcs")`. Raises CloudApiError."""
        with _translated_errors():
            answer: dict[str, Any] = getattr(self._client(service), operation)(**arguments)
            return answer

    def every(self, service: str, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
        """The entries of a list, through all pages; `key` is the list's name in the answer. Raises CloudApiError."""
        with _translated_errors():
            client = self._client(service)
            if not client.can_paginate(operation):
                yield from getattr(client, operation)(**arguments).get(key, [])
                return
            for page in client.get_paginator(operation).paginate(**arguments):
                yield from page.get(key, [])

    def assume(self, role: Mapping[str, Any]) -> Session:
        """A session with the credentials of a role, as an entry of `aws:assumeRoles` names it. Raises CloudApiError."""
        arguments = {"RoleArn": role["roleArn"], "RoleSessionName": role.get("sessionName", ROLE_SESSION)}
        if role.get("externalId"):
            arguments["ExternalId"] = role["externalId"]
        return self._with_credentials(self.ask("sts", "assume_role", **arguments))

    def assume_with_token(self, role: Mapping[str, Any]) -> Session:
        """A session with the role of `aws:assumeRoleWithWebIdentity`. Raises CloudApiError."""
        with _translated_errors():
            token = role.get("webIdentityToken") or Path(role["webIdentityTokenFile"]).read_text(encoding="utf-8")
        arguments = {"RoleArn": role["roleArn"], "RoleSessionName": role.get("sessionName", ROLE_SESSION)}
        return self._with_credentials(
            self.ask("sts", "assume_role_with_web_identity", WebIdentityToken=token, **arguments)
        )

    def _with_credentials(self, answer: Mapping[str, Any]) -> Session:
        keys = answer["Credentials"]
        boto = boto3.Session(
            botocore_session=botocore_session.Session(),
            aws_access_key_id=keys["AccessKeyId"],
            aws_secret_access_key=keys["SecretAccessKey"],
            aws_session_token=keys["SessionToken"],
            region_name=self.region,
        )
        return Session(boto, self.region, self._provider)

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._boto.client(
                service,
                endpoint_url=self._endpoints.get(service),
                verify=self._provider.get("customCaBundle"),
                config=botocore_config.Config(
                    connect_timeout=10, read_timeout=30, retries={"mode": "standard", "total_max_attempts": 5}
                ),
            )
        return self._clients[service]


def connect(provider: Mapping[str, Any], environ: Mapping[str, str]) -> Session:
    """A session with the stack's settings in the namespace `aws:`, in clear.

    boto3 reads the environment of this process; `environ` is asked for the region alone.

    Raises:
        CloudApiError: there is no region, the profile does not exist, or a role cannot be assumed.
    """
    region = provider.get("region") or next((environ[name] for name in REGION_VARIABLES if environ.get(name)), "")
    if not region:
        raise CloudApiError("aws:region is not set", code="NoRegion")
    with _translated_errors():
        core = botocore_session.Session(profile=provider.get("profile"))
        for setting, variable in (("sharedCredentialsFiles", "credentials_file"), ("sharedConfigFiles", "config_file")):
            files = _structure(provider, setting)
            if files:
                core.set_config_variable(variable, str(Path(files[0]).expanduser()))
        boto = boto3.Session(
            botocore_session=core,
            aws_access_key_id=_stripped(provider, "accessKey"),
            aws_secret_access_key=_stripped(provider, "secretKey"),
            aws_session_token=_stripped(provider, "token"),
            region_name=region,
        )
        session = Session(boto, region, provider)
        by_token = _structure(provider, "assumeRoleWithWebIdentity")
        if by_token:
            session = session.assume_with_token(by_token)
        for role in _structure(provider, "assumeRoles") or []:
            session = session.assume(role)
    return session


def _stripped(provider: Mapping[str, Any], name: str) -> str | None:
    """A credential without the line end that it has where it was set from a file."""
    value = provider.get(name)
    return value.strip() if isinstance(value, str) else None


def _structure(provider: Mapping[str, Any], name: str) -> Any:
    """The value of a setting that is a list or an object: Pulumi keeps it as JSON."""
    value = provider.get(name)
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise CloudApiError(f"aws:{name} must be a list or an object in JSON", code="BadSetting") from None


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """Turn botocore's errors, and those of files that it or a setting names, into CloudApiError."""
    try:
        yield
    except botocore_exceptions.ClientError as error:
        told = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        message = told.get("Message") or told.get("Code") or str(error)
        raise CloudApiError(message, status=status, code=told.get("Code", "")) from None
    except botocore_exceptions.BotoCoreError as error:
        if type(error) is botocore_exceptions.HTTPClientError:
            # Its text has the header that could not be sent, which may be the session token.
            raise CloudApiError(
                "the request could not be sent (HTTPClientError): is there a line end in a credential?",
                code="HTTPClient",
            ) from None
        raise CloudApiError(str(error), code=type(error).__name__.removesuffix("Error")) from None
    except OSError as error:
        raise CloudApiError(str(error)) from None
