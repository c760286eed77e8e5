"""The stacks of pull requests in a DigitalOcean account: found by their tags, and deleted where their state is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Any

from decant.clouds.digitalocean import names
from decant.clouds.digitalocean.api import Api, connect
from decant.clouds.digitalocean.names import ReviewTag
from decant.clouds.inventory import StackInAccount
from decant.clouds.reviews import ReviewStack, in_use, when_free
from decant.errors import CloudApiError

Thing = dict[str, Any]

ADDRESSES = "/v2/reserved_ips/"


def find(account: StackInAccount) -> list[ReviewStack]:
    """The review stacks of the project. While the expiry of one moves, it has two tags, and the later one counts.

    Raises:
        CloudApiError: the API cannot be asked.
    """
    latest: dict[str, ReviewTag] = {}
    for _, tag in _review_tags(connect(account.provider, account.environ), account.project):
        if tag.unique not in latest or latest[tag.unique].expires < tag.expires:
            latest[tag.unique] = tag
    return [
        ReviewStack(stack=tag.stack, expires=tag.expires, ids=frozenset({tag.unique}))
        for tag in sorted(latest.values())
    ]


def remove(account: StackInAccount, review: ReviewStack, others: Collection[str]) -> list[str]:
    """Delete all that has the unique name of a review stack, its tags last: until then, the next run finds it again.

    Raises:
        StackError: something with that name may be another stack's.
        CloudApiError: the API refused, or cannot be asked.
    """
    api = connect(account.provider, account.environ)
    (unique,) = review.ids
    things = list(_things(api, account.project, review.stack, unique))
    for what, path in things:
        if path.rpartition("/")[2] in others:
            raise in_use(review.stack, what, "is in the state of another stack")
    deleted = []
    for _, path in things:
        if path.startswith(ADDRESSES):  # before its droplet: an address alone has neither a tag nor a name
            with contextlib.suppress(CloudApiError):
                api.delete(path)
    for what, path in things:
        when_free(lambda path=path: _delete(api, path), _busy)  # type: ignore[misc]
        deleted.append(what)
    return deleted


def _review_tags(api: Api, project: str) -> Iterator[tuple[str, ReviewTag]]:
    for one in api.every("/v2/tags", "tags"):
        tag = names.read_review_tag(project, one["name"])
        if tag:
            yield one["name"], tag


def _things(api: Api, project: str, stack: str, unique: str) -> Iterator[tuple[str, str]]:
    """What a review stack has, as a text and a path each, in an order in which it can be deleted. Raises StackError."""
    reviews = {name for name, tag in _review_tags(api, project) if tag.unique == unique}
    droplets = {}
    for one in api.every("/v2/droplets", "droplets"):
        if {unique, *reviews}.intersection(_tags(one)):
            _check_droplet(one, stack, unique, reviews)
            droplets[str(one["id"])] = one
    for identity, one in droplets.items():
        yield f"droplet {one['name']} ({identity})", f"/v2/droplets/{identity}"
    for one in api.every("/v2/reserved_ips", "reserved_ips"):
        if str((one.get("droplet") or {}).get("id")) in droplets:
            yield f"reserved address {one['ip']}", f"{ADDRESSES}{one['ip']}"
    for one in api.every("/v2/firewalls", "firewalls"):
        if one["name"] in (unique, f"{unique}-web") or names.read_run(unique, one["name"]):
            yield f"firewall {one['name']} ({one['id']})", f"/v2/firewalls/{one['id']}"
    for one in api.every("/v2/account/keys", "ssh_keys"):
        if one["name"] == unique:
            yield f"SSH key {unique} ({one['id']})", f"/v2/account/keys/{one['id']}"
    for one in api.every("/v2/vpcs", "vpcs"):
        if one.get("description") == names.description(unique) and not one.get("default"):
            yield f"VPC {one['name']} ({one['id']})", f"/v2/vpcs/{one['id']}"
    if any(one["name"] == unique for one in api.every("/v2/tags", "tags")):
        yield f"tag {unique}", f"/v2/tags/{unique}"
    for name in sorted(reviews):
        yield f"tag {name}", f"/v2/tags/{name}"


def _check_droplet(droplet: Thing, stack: str, unique: str, reviews: Collection[str]) -> None:
    """Refuse a droplet that a person may have given one of the stack's tags by hand. Raises StackError."""
    what, tags = f"droplet {droplet['name']} ({droplet['id']})", _tags(droplet)
    if unique not in tags:
        raise in_use(stack, what, f"does not have the stack's tag {unique}")
    if not any(tag in reviews for tag in tags):
        raise in_use(stack, what, "has no tag that says when it expires")
    foreign = sorted(tag for tag in tags if tag != unique and names.is_unique(tag))
    if foreign:
        raise in_use(stack, what, f"has the tag of another stack, {foreign[0]}, as well")


def _tags(droplet: Thing) -> list[str]:
    return list(droplet.get("tags") or ())


def _delete(api: Api, path: str) -> None:
    api.delete(path)


def _busy(error: CloudApiError) -> bool:
    """A pending event, or a VPC that still counts what was deleted as its member."""
    return error.status in (409, 422, 423)
