"""A stack's settings: what a stack may say, how each value is checked, and the checked result."""

from decant.settings.model import Host, Settings

__all__ = ["Host", "Settings"]
