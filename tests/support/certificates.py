"""Certificates of a throwaway authority, for tests that speak TLS."""

from __future__ import annotations

from rehearsal.issuer import DAY, Issued
from rehearsal.issuer import Issuer as Authority

__all__ = ["DAY", "Authority", "Issued"]
