"""What a stack costs a month, from the dated table of list prices that each cloud has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

HOURS = 730  # of a month, as the clouds' own calculators count


class CostOutput(TypedDict):
    """The stack's output `cost`."""

    usdPerMonth: float | None
    items: list[str]
    pricesOf: str


@dataclass(frozen=True, kw_only=True)
class CostItem:
    """A number of equal things. `each` is the price of one in USD a month, None where the table has none."""

    what: str
    count: int
    each: float | None

    def __str__(self) -> str:
        each = "price unknown" if self.each is None else f"{self.each:.2f} each"
        return f"{self.count} x {self.what}, {each}"


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A stack's cost: before tax, at list prices of the day `date`. `extra` says what comes on top by use."""

    items: tuple[CostItem, ...]
    date: str
    extra: str

    @property
    def per_month(self) -> float | None:
        """USD a month, None where a price is unknown."""
        prices = [item.each for item in self.items]
        if None in prices:
            return None
        return round(sum(item.count * (item.each or 0) for item in self.items), 2)

    def output(self) -> CostOutput:
        """The cost as an output of the stack, so that a preview shows what an `up` changes in it."""
        return {"usdPerMonth": self.per_month, "items": [str(item) for item in self.items], "pricesOf": self.date}

    def __str__(self) -> str:
        """One sentence, such as "about 24.00 USD a month: ...; prices of 2026-11-28; traffic comes on top"."""
        total = "an unknown sum" if self.per_month is None else f"about {self.per_month:.2f} USD"
        items = "; ".join(map(str, self.items))
        return f"{total} a month ({items}; list prices of {self.date}, before tax). {self.extra}"
