"""The command `table`: results of any runs as one table, for a README, a paper or a spreadsheet."""

import json
import logging
import re
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from difftalk_pl.errors import UserError
from difftalk_pl.evaluation.paper_tables import TABLES
from difftalk_pl.evaluation.results import COMPARED, FORMAT, compared, protocol_hash

if TYPE_CHECKING:
    from pandas import DataFrame, Series

log = logging.getLogger(__name__)

RESULTS = "results.json"
NEVER_MARKED = ("ground truth", "codec", "shuffled audio")  # the first two stand on top
BOUNDS = NEVER_MARKED[:2]
Better = Literal["up", "down", "1"] | None  # "1": closest to 1; None: not ordered
MEASURES: dict[str, tuple[str, Better, int]] = {  # title, better, digits
    "psnr": ("PSNR", "up", 2),
    "ssim": ("SSIM", "up", 3),
    "lpips": ("LPIPS", "down", 3),
    "mouth_psnr": ("mouth PSNR", "up", 2),
    "mouth_ssim": ("mouth SSIM", "up", 3),
    "mouth_lpips": ("mouth LPIPS", "down", 3),
    "sync_offset": ("sync offset", None, 2),
    "sync_confidence": ("sync confidence", "up", 3),
    "sync_distance": ("sync distance", "down", 3),
    "lmd": ("LMD", "down", 2),
    "identity": ("identity", "up", 3),
    "jitter_landmarks": ("landmark jitter", "1", 3),  # of the true video's: less is frozen, not better
    "silent_motion": ("silent motion", "down", 4),
    "jitter_pixels": ("pixel jitter", "1", 3),
    "opening_correlation": ("opening correlation", "up", 3),
}
MARKDOWN: dict[Any, str] = {"up": " ↑", "down": " ↓", "1": " (to 1)", "bold": "**{}**", "special": r"([|*_<>`\\])"}
LATEX: dict[Any, str] = {
    "up": r" $\uparrow$",
    "down": r" $\downarrow$",
    "1": " (to 1)",
    "bold": r"\textbf{{{}}}",
    "special": r"([&%$#_{}])",
}


def table(
    runs: list[Path],
    format: Literal["markdown", "latex", "csv"] = "markdown",
    paper: Literal["table1", "table2", "table3", "all"] | None = None,
    metrics: str = "",
    intervals: bool = False,
    out: Path | None = None,
) -> None:
    """Print the results of runs as one table: methods in rows, measures in columns, the best value of a column bold.

    Ground truth and codec stand on top; they and the control with shuffled audio are never marked. Only rows of one
    protocol, over the same clips, compete; a note names what differs. A row whose mean leaves out clips that others
    cover is not marked either. What was not measured is a dash, in csv an empty field.

    Args:
        runs: folders with a results.json, or such files.
        format: markdown, latex (needs the package booktabs), or csv (all digits, no marks).
        paper: append the rows of this table of the paper, or of all. Its protocol is another one.
        metrics: which, separated by commas, such as psnr,ssim. By default all there are.
        intervals: with the 95 % intervals over clips.
        out: the file to write; without it, the table goes to the terminal.
    """
    import pandas

    contents = read_runs(runs)
    remarks, rows = notes(contents), arranged(contents)
    if paper:
        printed = pandas.read_csv(StringIO(TABLES))
        printed = printed[(printed.table == paper) | (paper == "all")]
        group = "paper, table " + printed.table.str[-1] + ", set " + printed.set + " (not comparable)"
        printed = printed.assign(protocol=group, method=printed.method + " (paper)", title=printed.method + " (paper)")
        rows = pandas.concat([rows, printed], ignore_index=True)
    columns = (
        metrics.replace(" ", "").split(",") if metrics else [name for name in MEASURES if rows[name].notna().any()]
    )
    if unknown := [name for name in columns if name not in MEASURES]:
        raise UserError(f"--metrics {', '.join(unknown)}: unknown; there are {', '.join(MEASURES)}")
    if format == "csv":
        frame = rows[["protocol", "run", "method", "clips", "failed"]].astype({"clips": "Int64", "failed": "Int64"})
        for name in columns:
            frame[name] = rows[name]
            for place, end in enumerate(("low", "high") if intervals else ()):
                frame[f"{name}_{end}"] = rows[f"{name} interval"].str[place]
        text = frame.to_csv(index=False)
    else:
        text = _printed(rows, columns, format, intervals, remarks)
    for note in remarks:
        log.warning("%s", note)
    if out is None:
        sys.stdout.write(text)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    log.info("%s: %d rows", out, len(rows))


def read_runs(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Read results, named by their folders or files, or by their whole paths where those names are not unique.

    Raises:
        UserError: a file is missing, is not one of this project, or is newer.
    """
    names = [path.parent.name if path.name == RESULTS else path.stem if path.is_file() else path.name for path in paths]
    unique = len({*names}) == len(paths) and all(names)
    contents = {}
    for name, path in zip(names, paths):
        file = path / RESULTS if path.is_dir() else path
        if not file.exists():
            raise UserError(f"{file}: no such file; test writes it into a run's folder, score where --out says")
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            newer = content["format"] > FORMAT
            _ = content["protocol"], [found["overall"] for found in content["methods"].values()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{file}: is not a results.json of this project; give a run's folder or the file"
            ) from error
        if newer:
            raise UserError(f"{file}: format {content['format']}, this version reads {FORMAT}; update difftalk_pl")
        contents[name if unique else str(path)] = content
    return contents


def notes(contents: dict[str, dict[str, Any]]) -> list[str]:
    """Return what keeps runs from being compared, and how else they differ."""
    found, names = [], ", ".join(contents)
    protocols = [content["protocol"] for content in contents.values()]
    shared = [compared({part: protocol.get(part) for part in COMPARED}) for protocol in protocols]
    if differing := "; ".join(_differences(shared)):
        found.append(f"Measured under different protocols, not comparable: {differing} ({names})")
    elif len({_clips(content) for content in contents.values()}) > 1:
        found.append(f"Measured on different clips, not comparable: {names}")
    if differing := "; ".join(_differences([protocol.get("generation") for protocol in protocols], "generation")):
        found.append(f"Generated differently: {differing} ({names})")
    return found


def _differences(values: list[Any], name: str = "") -> Iterator[str]:
    """Yield keys such as data.mask with their value in each protocol, where they are not all the same."""
    if all(isinstance(value, dict) for value in values):
        for key in dict.fromkeys(key for value in values for key in value):
            yield from _differences([value.get(key, "not given") for value in values], f"{name}.{key}".lstrip("."))
    elif any(value != values[0] for value in values):
        yield f"{name} {' / '.join(json.dumps(value)[:60] for value in values)}"


def _clips(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the clips, failed ones included."""
    return tuple(sorted({clip for found in content["methods"].values() for clip in found["per_clip"]}))


def arranged(contents: dict[str, dict[str, Any]]) -> "DataFrame":
    """Return a row for every method: its means, their intervals, and how many clips each mean covers.

    Runs of one protocol and of the same clips stand together, below their ground truth and codec, which stand there
    once where several runs have the same numbers.
    """
    from pandas import DataFrame

    found = []
    for run, content in contents.items():
        clips = _clips(content)
        group = f"{protocol_hash(content['protocol'])}, {len(clips)} clips ({protocol_hash({'data': clips})[:4]})"
        for method, summary in content["methods"].items():
            row: dict[str, Any] = {"protocol": group, "run": run, "method": method}
            per_clip = summary["per_clip"].values()
            for name in MEASURES:
                row[name], row[f"{name} interval"] = summary["overall"].get(name), summary["interval"].get(name)
                row[f"{name} clips"] = sum(clip.get(name) is not None for clip in per_clip)
            row["failed"] = sum(all(clip.get(name) is None for name in MEASURES) for clip in per_clip)
            found.append({**row, "clips": len(per_clip) - row["failed"]})
    rows, same = DataFrame(found), ["protocol", "method", *MEASURES]
    shared = rows.method.isin(BOUNDS) & rows.duplicated(same, keep=False)
    titles = rows.method.where(shared | (len(contents) == 1), rows.run + ": " + rows.method)
    rows = rows.assign(title=titles, order=[BOUNDS.index(one) if one in BOUNDS else 2 for one in rows.method])
    rows = rows[~(shared & rows.duplicated(same))]
    rows = rows.assign(group=rows.groupby("protocol", sort=False).ngroup())
    return rows.sort_values(["group", "order"], kind="stable")


def _best(rows: "DataFrame", name: str) -> "Series":
    """Return which rows have the best printed value within their protocol, among means over the most clips."""
    (_, better, digits), covered = MEASURES[name], rows[f"{name} clips"]
    competes = ~rows.method.isin(NEVER_MARKED) & rows[name].notna() & (better is not None)
    competes &= covered == covered.where(competes).groupby(rows.protocol).transform("max")
    values = rows[name].astype(float).round(digits).where(competes)
    if better != "up":
        values = -values if better == "down" else -(values - 1).abs().round(digits)
    groups = values.groupby(rows.protocol)
    return competes & (values == groups.transform("max")) & (groups.transform("count") > 1)


def _printed(rows: "DataFrame", columns: list[str], format: str, intervals: bool, remarks: list[str]) -> str:
    """Return the table in markdown or LaTeX with the notes below."""
    style, dash = (LATEX, "--") if format == "latex" else (MARKDOWN, "–")

    def escape(text: str) -> str:
        return re.sub(style["special"], r"\\\1", text.replace("\\", "/"))

    frame = rows[["protocol", "title"]].map(escape).rename(columns={"title": "method"})
    if rows.protocol.nunique() == 1:
        frame = frame.drop(columns="protocol")
    for name in columns:
        title, better, digits = MEASURES[name]
        texts = rows[name].astype(float).map(f"{{:.{digits}f}}".format)
        texts = texts.where(~_best(rows, name), texts.map(style["bold"].format)).where(rows[name].notna(), dash)
        if intervals:
            ends = rows[f"{name} interval"].map(
                lambda pair: f" [{pair[0]:.{digits}f}, {pair[1]:.{digits}f}]" if isinstance(pair, list) else ""  # noqa: B023
            )
            texts += ends
        frame[title + style.get(better, "")] = texts
    frame["clips"] = rows.clips.map("{:.0f}".format).where(rows.clips.notna(), "")
    frame["clips"] += rows.failed.map(" ({:.0f} failed)".format).where(rows.failed > 0, "")
    if format == "latex":
        text = frame.to_latex(index=False, escape=False, column_format="l" + "r" * (len(frame.columns) - 1))
        return text + "".join(f"\\par{{\\footnotesize {escape(note)}}}\n" for note in remarks)
    align = ["left" if name in ("protocol", "method") else "right" for name in frame]
    text = frame.to_markdown(index=False, disable_numparse=True, colalign=align)
    return text + "\n" + "".join(f"\n{escape(note)}\n" for note in remarks)
