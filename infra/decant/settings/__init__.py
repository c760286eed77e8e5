"""A stack's settings: which settings there are, how each value is checked, and the checked result."""

from decant.settings.model import Host, Settings

__all__ = ["Host", "Settings"]
