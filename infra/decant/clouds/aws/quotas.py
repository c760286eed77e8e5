"""Whether a stack fits under the quotas of an AWS account, with one more machine for a replacement."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from decant.clouds.aws.permissions import POLICY_PAGE
from decant.clouds.aws.session import Session
from decant.clouds.checks import Check, StackFacts, answered, limit_check
from decant.errors import CloudApiError

INSTANCE = "aws:ec2/instance:Instance"
ADDRESS = "aws:ec2/eip:Eip"
VPC = "aws:ec2/vpc:Vpc"
BALANCER = "aws:lb/loadBalancer:LoadBalancer"
# https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
STANDARD_VCPUS = ("ec2", "L-1216C47A")
STANDARD_FAMILIES = re.compile(r"(a|c|d|h|i|im|is|m|r|t|z)\d")  # not: inf, trn, mac, dl, hpc, p, g, u
VPCS = ("vpc", "L-F678F1CE")
ADDRESSES = ("ec2", "L-0263D0A3")
BALANCERS = ("elasticloadbalancing", "L-53DA6B97")
NO_SUBNETS = ("subnet-00000000000000000", "subnet-00000000000000001")
SUPPORT_CASE = (
    "open a case, which costs nothing: https://console.aws.amazon.com/support/home#/case/create"
    ' (Account and billing: "enable load balancers")'
)


class Quotas:
    """The quotas that the stack's kinds of resources have, and how much of each is in use in the region."""

    def __init__(self, stack: StackFacts, session: Session, instance_type: dict[str, Any] | None) -> None:
        self.stack = stack
        self.settings = stack.settings
        self.session = session
        self.type = instance_type

    def checks(self) -> Iterator[Check]:
        """One answer for each quota."""
        if self.type:
            yield self._ask("vCPUs", lambda: self._vcpus(later=False))
            yield self._ask("a replacement", lambda: self._vcpus(later=True))
        yield self._ask("VPCs", self._vpcs)
        if self.settings.balancer:
            yield self._ask("load balancer", self._balancers)
        else:
            yield self._ask("Elastic IPs", self._addresses)

    def _ask(self, subject: str, ask: Callable[[], Check]) -> Check:
        return answered(subject, ask, denied=f"allow servicequotas:GetServiceQuota ({POLICY_PAGE})")

    def _quota(self, quota: tuple[str, str]) -> int:
        """The account's quota; AWS's default where the account has none of its own."""
        asked = dict(zip(("ServiceCode", "QuotaCode"), quota, strict=True))
        try:
            found = self.session.ask("service-quotas", "get_service_quota", **asked)
        except CloudApiError as error:
            if error.code != "NoSuchResourceException":
                raise
            found = self.session.ask("service-quotas", "get_aws_default_service_quota", **asked)
        return int(found["Quota"]["Value"])

    def _raise(self, quota: tuple[str, str], wanted: int) -> str:
        service, code = quota
        return (
            f"aws service-quotas request-service-quota-increase --service-code {service} --quota-code {code}"
            f" --desired-value {wanted} --region {self.session.region}"
        )

    def _limit(
        self, subject: str, quota: tuple[str, str], used: int, more: int, what: str, *, later: bool = False
    ) -> Check:
        limit = self._quota(quota)
        fix = self._raise(quota, used + more)
        return limit_check(subject, used=used, limit=limit, more=more, what=what, fix=fix, later=later)

    def _vcpus(self, *, later: bool) -> Check:
        """The quota on running instances counts vCPUs, together for all families whose names begin alike."""
        subject = "a replacement" if later else "vCPUs"
        if not STANDARD_FAMILIES.match(self.settings.size) or self.type is None:
            detail = f"{self.settings.size} has a quota of its own kind"
            return Check(subject=subject, answer="unknown", detail=detail, fix="see Service Quotas in AWS's console")
        each = self.type["VCpuInfo"]["DefaultVCpus"]
        more = max(0, self.settings.machines - len(self.stack.ids(INSTANCE))) + (1 if later else 0)
        return self._limit(subject, STANDARD_VCPUS, self._used_vcpus(), more * each, "vCPUs", later=later)

    def _used_vcpus(self) -> int:
        running = {"Name": "instance-state-name", "Values": ["pending", "running"]}
        return sum(
            instance["CpuOptions"]["CoreCount"] * instance["CpuOptions"]["ThreadsPerCore"]
            for group in self.session.every("ec2", "describe_instances", "Reservations", Filters=[running])
            for instance in group["Instances"]
            if STANDARD_FAMILIES.match(instance["InstanceType"]) and not instance.get("InstanceLifecycle")
        )

    def _vpcs(self) -> Check:
        used = len(list(self.session.every("ec2", "describe_vpcs", "Vpcs")))
        return self._limit("VPCs", VPCS, used, 0 if self.stack.ids(VPC) else 1, "VPCs")

    def _addresses(self) -> Check:
        used = len(self.session.ask("ec2", "describe_addresses")["Addresses"])
        more = max(0, self.settings.machines - len(self.stack.ids(ADDRESS)))
        return self._limit("Elastic IPs", ADDRESSES, used, more, "Elastic IPs")

    def _balancers(self) -> Check:
        """AWS opens load balancers to some new accounts only after a support case, and has no question about it."""
        subject = "load balancer"
        limits = self.session.every("elbv2", "describe_account_limits", "Limits")
        limit = next((int(entry["Max"]) for entry in limits if entry["Name"] == "application-load-balancers"), None)
        found = list(self.session.every("elbv2", "describe_load_balancers", "LoadBalancers"))
        used = sum(entry["Type"] == "application" for entry in found)
        more = 0 if self.stack.ids(BALANCER) else 1
        if limit is None:
            return Check(subject=subject, answer="unknown", detail="AWS does not tell how many the account may have")
        if used + more > limit:
            fix = self._raise(BALANCERS, used + more)
            return limit_check(subject, used=used, limit=limit, more=more, what="load balancers", fix=fix)
        if found or not more:
            return limit_check(subject, used=used, limit=limit, more=more, what="load balancers", fix="")
        return self._first_balancer(limit)

    def _first_balancer(self, limit: int) -> Check:
        """Whether AWS refuses any load balancer: said only to who makes one, so this asks for an impossible one.

        Its subnets exist in no account, so nothing can come of the call. An account without load balancers is refused
        with OperationNotPermitted, another one because of the subnets.
        """
        subject = "load balancer"
        if self.stack.reads_only:
            detail = "whether the account may have one, AWS says only to credentials that may make one"
            return Check(subject=subject, answer="unknown", detail=detail)
        try:
            self.session.ask("elbv2", "create_load_balancer", Name="decant-check", Subnets=list(NO_SUBNETS))
        except CloudApiError as error:
            if error.code == "OperationNotPermitted":
                return Check(subject=subject, answer="no", detail=str(error), fix=SUPPORT_CASE)
            if error.code in ("SubnetNotFound", "InvalidSubnet"):
                return limit_check(subject, used=0, limit=limit, more=1, what="load balancers", fix="")
            return Check(subject=subject, answer="unknown", detail=str(error))
        return Check(subject=subject, answer="unknown", detail="AWS did not refuse a load balancer without a network")
