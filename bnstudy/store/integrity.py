"""What ties the files of a finished run together: the record `integrity` in its `summary.json`.

It is checked whenever a file is read. A summary of an earlier version has no record. Then only what can be seen in
the files themselves is checked.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from bnstudy.store.identity import digest
from bnstudy.validation import ConfigError, show

SUMMARY_FORMAT = 2
"""The number of the summary's format. Increase it when earlier versions would read a new summary wrongly."""

STATUSES = ("finished", "diverged")
NUMBERS = ("final", "best", "seconds", "probe_seconds")
"""The parts of a summary that hold numbers by name."""

PARTS: dict[str, tuple[str, ...]] = {
    "final": ("train_loss", "val_loss", "val_accuracy", "test_loss", "test_accuracy"),
    "best": ("step", "val_accuracy", "test_accuracy"),
    "seconds": ("training", "evaluation", "probes", "total"),
    "dataset": ("name", "checksum", "classes", "train", "val", "test"),
}
"""What the summaries of all versions have, by part."""

FORMATS = {".json": "JSON", ".yaml": "YAML", ".parquet": "a Parquet table"}


class DamagedRun(ConfigError):  # noqa: N818
    """A run has a file that cannot be used. Its other files, and other runs, are not affected."""


class WrongContent(ValueError):  # noqa: N818
    """What is wrong with the content of a file, in words."""


class LaterVersion(WrongContent):
    """The file has a format that this version does not know."""


def damaged(path: Path, error: Exception) -> DamagedRun:
    """The error for a file of a run that cannot be used: the run, the file, what is wrong and what to do."""
    problem, advice = "is damaged", "delete the folder, and the bnstudy command that trained it trains it again"
    reason = str(error) if isinstance(error, WrongContent) else f"it is not {FORMATS.get(path.suffix, 'readable')}"
    if isinstance(error, LaterVersion):
        problem, advice = "was stored by a later version of bnstudy", "read it with that version"
    elif isinstance(error, OSError) and error.errno is not None:  # pyarrow's errors about a file's content have none
        problem, reason, advice = "cannot be read", str(error.strerror), "make the file readable"
    return DamagedRun(f"Run {path.parent.name} in {path.parent} {problem} ({path.name}: {reason}): {advice}.")


def seal(summary: Mapping[str, Any], run_id: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    """The summary with its integrity record: the format's number, the SHA-256 of each file, and of all the rest.

    Raises:
        ValueError: a number is not finite.
    """
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    sealed = {**summary, "run_id": run_id, "integrity": {"schema": SUMMARY_FORMAT, "files": hashes}}
    return {**sealed, "integrity": {**sealed["integrity"], "sha256": digest(sealed)}}


def check_summary(summary: Any, run_id: str) -> dict[str, Any]:
    """The content of a `summary.json`. Raises WrongContent if it is not what was stored for this run."""
    require(isinstance(summary, dict), "it is not a mapping")
    if "integrity" in summary:
        _check_record(summary)
    owner, status, steps = summary.get("run_id", run_id), summary.get("status"), summary.get("steps", 1)
    require(owner == run_id, f"it belongs to run {owner}")
    require(status in STATUSES, f"its status is {show(status)}, not {' or '.join(STATUSES)}")
    require(type(steps) is int and steps >= 1, f"steps={show(steps)}")
    for part in (*NUMBERS, "dataset"):
        require(isinstance(summary.get(part, {}), dict), f"{part} is not a mapping")
    for part in NUMBERS:
        for name, value in summary.get(part, {}).items():
            _check_number(f"{part}.{name}", value)
    if "integrity" not in summary:
        _check_parts(summary)
    return summary


def check_agreement(summary: Mapping[str, Any], spec: Mapping[str, Any]) -> None:
    """Raises WrongContent if the summary has settings of its own. It repeats `steps`, which a spec may leave open."""
    own = sorted(key for key in summary if key.partition(".")[0] in spec and key != "steps")
    require(not own, f"it has {', '.join(own)}, which only config.yaml has")
    given = spec.get("steps")
    require(given in (None, summary.get("steps", given)), f"steps={show(summary.get('steps'))}, not {show(given)}")


def _check_record(summary: Mapping[str, Any]) -> None:
    record = summary["integrity"]
    require(isinstance(record, dict) and isinstance(record.get("files"), dict), "its integrity record is incomplete")
    schema = record.get("schema")
    if isinstance(schema, int) and schema > SUMMARY_FORMAT:
        raise LaterVersion(f"it has schema {schema}, and this version reads up to {SUMMARY_FORMAT}")
    unsealed = {**summary, "integrity": {key: value for key, value in record.items() if key != "sha256"}}
    require(record.get("sha256") == digest(unsealed), "it was changed after it was stored")


def _check_parts(summary: Mapping[str, Any]) -> None:
    """Without a record, a summary may have lost what every version writes."""
    values: dict[str, Any] = {
        "engine": summary.get("engine"),
        "device": summary.get("device"),
        "steps": summary.get("steps"),
    }
    for part, names in PARTS.items():
        lacking = [f"{part}.{name}" for name in names if name not in summary.get(part, {})]
        require(not lacking, f"it lacks {', '.join(lacking)}")
        values |= {f"{part}.{name}": value for name, value in summary[part].items()}
    for key in ("engine", "device", "dataset.name", "dataset.checksum"):
        require(isinstance(values[key], str), f"{key}={show(values[key])} is not a text")
    is_labelled = values["dataset.classes"] is not None
    for key in ("steps", "dataset.train", "dataset.val", "dataset.test", *["dataset.classes"] * is_labelled):
        require(type(values[key]) is int and values[key] >= 1, f"{key}={show(values[key])} is not a count")
    accuracies = ("final.val_accuracy", "final.test_accuracy", "best.val_accuracy")
    for key in (*(f"seconds.{name}" for name in PARTS["seconds"]), "best.step", *accuracies):
        may_lack = key in accuracies and not (is_labelled and summary["status"] == "finished")
        require(may_lack or values[key] is not None, f"it lacks {key}")
    _check_outcome(summary)


def _check_outcome(summary: Mapping[str, Any]) -> None:
    lacking = [key for key in ("diverged_step", "diverged_because") if key not in summary]
    require(not lacking, f"it lacks {', '.join(lacking)}")
    learned, step = summary.get("learned"), summary["diverged_step"]
    require(learned is None or isinstance(learned, bool), f"learned={show(learned)} is not true, false or null")
    require(step is None or type(step) is int, f"diverged_step={show(step)} is not a number of steps")
    if "learned" in summary:  # earlier versions have neither
        guessing = summary["dataset"].get("guessing")
        require(isinstance(guessing, dict) and {"val", "test"} <= {*guessing}, "it lacks dataset.guessing")
        for split in ("val", "test"):
            _check_number(f"dataset.guessing.{split}", guessing[split])


def _check_number(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise WrongContent(f"{name}={show(value)} is not a finite number")
    if name.endswith("accuracy") and not 0 <= value <= 1:
        raise WrongContent(f"{name}={show(value)} is not from 0 to 1")


def read_stored(path: Path, summary: Mapping[str, Any]) -> bytes:
    """The content of a file beside the summary. Raises WrongContent if it is not the one that was stored with it."""
    content = path.read_bytes()
    if "integrity" in summary:
        same = summary["integrity"]["files"].get(path.name) == hashlib.sha256(content).hexdigest()
        require(same, "it is not the file that was stored with summary.json")
    return content


def check_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table itself. Raises WrongContent if it lacks rows or values, or has other columns than the schema."""
    if not table.schema.equals(schema):
        found, expected = ([f"{field.name} ({field.type})" for field in s] for s in (table.schema, schema))
        lacking = ", ".join(column for column in expected if column not in found)
        surplus = ", ".join(column for column in found if column not in expected)
        differences = [f"lacks {lacking}"] * bool(lacking) + [f"has {surplus}"] * bool(surplus)
        raise WrongContent(f"it {' and '.join(differences) or 'has its columns in another order'}")
    require(table.num_rows > 0, "it has no rows")
    for name, column in zip(table.column_names, table.columns, strict=True):
        require(not column.null_count, f"{column.null_count} of {table.num_rows} values of {name} are missing")
    return table


def require(condition: bool, reason: str) -> None:
    if not condition:
        raise WrongContent(reason)
