"""Doubles of AWS, with an account in memory that says what AWS allows and refuses (rehearsal/accounts/aws.py)."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from rehearsal.accounts.aws import Account
from rehearsal.backend import Backend
from rehearsal.doubles import Call, Double
from rehearsal.doubles.aws.look_ups import LookUps
from rehearsal.doubles.aws.resources import Aws, strict

ENVIRONMENT = ("AWS_",)


def account_of(backend: Backend) -> Account:
    """Return the backend's account at AWS: the one that it was given, else a new one."""
    return cast(Account, backend.accounts.setdefault("aws", Account()))


def doubles(backend: Backend, numbers: Callable[[], str]) -> dict[str, Double]:
    """Return the doubles of this provider by the type of their resource."""
    return doubles_of(Aws(backend, numbers, account_of(backend)))


def doubles_of(cloud: Aws) -> dict[str, Double]:
    """Return the doubles of what a program makes in one account."""
    table = {
        "ec2/keyPair:KeyPair": cloud.key_pair,
        "ec2/vpc:Vpc": cloud.vpc,
        "ec2/internetGateway:InternetGateway": cloud.simple("igw", "ec2", "internet-gateway"),
        "ec2/routeTable:RouteTable": cloud.simple("rtb", "ec2", "route-table"),
        "ec2/subnet:Subnet": cloud.subnet,
        "ec2/routeTableAssociation:RouteTableAssociation": cloud.simple("rtbassoc", "ec2", ""),
        "ec2/securityGroup:SecurityGroup": cloud.security_group,
        "vpc/securityGroupIngressRule:SecurityGroupIngressRule": cloud.rule,
        "vpc/securityGroupEgressRule:SecurityGroupEgressRule": cloud.rule,
        "ec2/instance:Instance": cloud.instance,
        "ec2/eip:Eip": cloud.elastic_ip,
        "ec2/eipAssociation:EipAssociation": cloud.association,
        "lb/loadBalancer:LoadBalancer": cloud.load_balancer,
        "lb/targetGroup:TargetGroup": cloud.target_group,
        "lb/listener:Listener": cloud.listener,
        "lb/listenerCertificate:ListenerCertificate": cloud.listener_certificate,
        "acm/certificate:Certificate": cloud.names.certificate,
        "acm/certificateValidation:CertificateValidation": cloud.names.validation,
        "route53/record:Record": cloud.names.record,
        "lb/targetGroupAttachment:TargetGroupAttachment": cloud.attachment,
    }
    return {f"aws:{kind}": strict(kind, double) for kind, double in table.items()}


def calls(backend: Backend) -> dict[str, Call]:
    """Return the look-ups of this provider by their token."""
    look_ups = LookUps(account_of(backend))
    return {
        "aws:index/getAvailabilityZones:getAvailabilityZones": look_ups.zones,
        "aws:ec2/getAmi:getAmi": look_ups.image,
        "aws:ec2/getInstance:getInstance": look_ups.instance,
        "aws:ec2/getInstances:getInstances": look_ups.instances,
        "aws:ec2/getInstanceType:getInstanceType": look_ups.instance_type,
        "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings": look_ups.offerings,
        "aws:route53/getZone:getZone": look_ups.zone,
        "aws:acm/getCertificate:getCertificate": look_ups.certificate,
        "aws:servicequotas/getServiceQuota:getServiceQuota": look_ups.quota,
    }
