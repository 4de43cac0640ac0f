"""How much memory a process can still have: of the machine, and of the control group that a job was given."""

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
GROUPS = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def available_memory() -> int | None:
    """Bytes, the page cache that would give way included; None where the system does not say. Linux."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        machine = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    return int(min([machine, *map(_left_in, _own_groups())]))


def _own_groups() -> list[tuple[Path, bool]]:
    """Of this process, and all above it, with whether they are of the first version of control groups."""
    try:
        lines = OWN.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    found = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers in ("", "memory"):
            root = GROUPS / controllers
            folder = root / path.lstrip("/")
            above = [parent for parent in folder.parents if root in (parent, *parent.parents)]
            found += [(group, controllers == "memory") for group in (folder, *above)]
    return found


def _left_in(found: tuple[Path, bool]) -> float:
    group, first_version = found
    names = ("limit_in_bytes", "usage_in_bytes") if first_version else ("max", "current")
    total = "total_" if first_version else ""
    try:
        limit, used = ((group / f"memory.{name}").read_text(encoding="ascii").strip() for name in names)
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:  # not mounted here, or without a limit
        return float("inf")
    if limit == "max":
        return float("inf")
    return int(limit) - int(used) + int(stat[f"{total}active_file"]) + int(stat[f"{total}inactive_file"])
