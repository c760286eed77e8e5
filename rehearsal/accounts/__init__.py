"""Accounts: how each cloud behaves, described once for the rehearsal, the tests with the real engine and unit tests."""
