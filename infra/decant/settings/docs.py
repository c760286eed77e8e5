"""The generator of docs/settings.md: `python -m decant.settings.docs` prints the page."""

from __future__ import annotations

from decant import clouds
from decant.settings.table import Table, settings_table

_HEAD = """\
# Settings

A stack's settings live in `Pulumi.<stack>.yaml` and are set with `pulumi config set`. Decant checks all of them before
it changes anything, and reports every problem at once. This page is made from the program's own table: `make docs`.

| setting | value | default | meaning |
|---|---|---|---|
"""


def document(table: Table) -> str:
    """The text of docs/settings.md."""
    rows = "".join(f"| `{s.name}` | {s.value} | {s.default} | {s.meaning} |\n" for s in table.values())
    commands = "".join(f"# {s.name}\n{s.command}\n" for s in table.values())
    return f"{_HEAD}{rows}\n## The exact command of each\n\n```sh\n{commands}```\n"


if __name__ == "__main__":
    print(document(settings_table(clouds.specs())), end="")
