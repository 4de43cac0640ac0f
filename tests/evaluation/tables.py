"""Results that are written by hand, and the cells of the table that is made of them."""

import json

from difftalk_pl.evaluation.table import table


def method(failed=None, clips=("a", "b"), **overall):
    """As summarise writes it; a measure that failed is missing on its clips."""
    failed = failed or {}
    rows = {clip: {**{k: None if clip in failed.get(k, {}) else v for k, v in overall.items()}} for clip in clips}
    undefined = {name: sum(row[name] is None for row in rows.values()) for name in overall}
    bounds = {name: None if value is None else [value - 1, value + 1] for name, value in overall.items()}
    return {"overall": overall, "interval": bounds, "undefined": undefined, "failed": failed, "per_clip": rows}


def write(folder, methods, protocol=None, **more):
    folder.mkdir(exist_ok=True)
    protocol = {"data": {"frame_size": 256}, "measures": {}, **(protocol or {})}
    (folder / "results.json").write_text(json.dumps({"format": 2, "methods": methods, "protocol": protocol} | more))
    return folder


def rows(text):
    """Cells by the first one."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    return {cells[0].strip(): [cell.strip() for cell in cells[1:]] for cells in lines}


def shown(capsys, *arguments, **options):
    table(list(arguments), **options)
    return capsys.readouterr().out
