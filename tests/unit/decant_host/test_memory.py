"""The machine's memory: the warning, and whom the kernel ends first."""

from __future__ import annotations

import pytest

from decant_host import memory
from tests.unit.decant_host.machine import NEW, OLD, Machine


@pytest.mark.parametrize(
    ("total", "swap", "warned"),
    [(480_000, 0, True), (921_599, 0, True), (921_600, 0, False), (480_000, 1, False), (8_000_000, 0, False)],
)
def test_little_memory_without_swap_is_warned_of(machine: Machine, total: int, swap: int, warned: bool) -> None:
    (memory.PROC / "meminfo").write_text(f"MemTotal: {total} kB\nMemFree: 1 kB\nSwapTotal:   {swap} kB\nHuge: 0\n")
    said = memory.small_memory_warning()
    assert (said is not None) == warned
    if said:
        assert said.startswith(
            f"warning: this machine has {total >> 10} MB of memory and no swap. During a release two"
        )
        assert "  Take a machine with 1 GB or more, or add swap, on the machine as root: fallocate -l 1G /swap" in said


def test_the_score_is_set_for_the_processes_of_one_unit(machine: Machine) -> None:
    groups = {
        "10": f"0::/system.slice/system-app.slice/app@{NEW}.service\n",
        "11": f"1:name=systemd:/system.slice/app@{NEW}.service\n0::/other\n",
        "12": f"0::/system.slice/system-app.slice/app@{OLD}.service\n",
        "self": f"0::/system.slice/app@{NEW}.service\n",
    }
    for name, group in groups.items():
        (memory.PROC / name).mkdir()
        (memory.PROC / name / "cgroup").write_text(group)
        (memory.PROC / name / "oom_score_adj").write_text("7")
    (memory.PROC / "13").mkdir()  # it has ended meanwhile
    memory.set_oom_score(f"app@{NEW}.service", 300)
    scores = {name: (memory.PROC / name / "oom_score_adj").read_text() for name in groups}
    assert scores == {"10": "300", "11": "300", "12": "7", "self": "7"}
