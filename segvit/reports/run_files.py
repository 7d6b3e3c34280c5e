"""Files of a run that its report is made from: config.yaml, metrics.jsonl, timing.jsonl, report.json.

run = load_run(Path("runs/camvid"))
run.scored[-1]["miou"]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from segvit.config import TrainConfig
from segvit.config_files import RUN_CONFIG
from segvit.errors import UserError
from segvit.reports.facts import Facts, load_facts
from segvit.reports.records import read_records, read_times

FACTS = "report.json"


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """Settings, logs and facts of a run."""

    name: str
    """Name of its folder."""
    config: TrainConfig
    records: Sequence[Mapping[str, Any]]
    """Records of metrics.jsonl."""
    times: Sequence[Mapping[str, Any]]
    """Records of timing.jsonl; none for a run without that file."""
    facts: Facts | None
    """Contents of report.json; None without that file."""

    @property
    def trained(self) -> list[Mapping[str, Any]]:
        """Records of the steps."""
        return [record for record in self.records if "loss" in record]

    @property
    def scored(self) -> list[Mapping[str, Any]]:
        """Records of the validations that have a score."""
        return [record for record in self.records if "miou" in record]

    @property
    def steps_done(self) -> int:
        """Number of the last logged step."""
        trained = self.trained
        return int(trained[-1]["step"]) if trained else 0

    def seconds(self, *kinds: str) -> float:
        """Return the logged seconds of some kinds, such as `validation_seconds`."""
        return float(sum(record.get(kind, 0) for record in self.times for kind in kinds))

    def pace(self) -> float | None:
        """Return the median seconds of a step, or None if no step has been timed."""
        steps = [record["seconds"] for record in self.times if "seconds" in record]
        return median(steps) if steps else None

    def describe(self) -> str:
        """Return backbone, structure and dataset in one line."""
        data = self.config.data
        named = data.hub or data.shards or data.spec or data.images
        named = named or "your own dataset"  # datasets that a program hands in have no name
        dataset = self.facts.about["dataset"] if self.facts else named
        return f"{self.config.model.backbone}, {self.config.model.outline}, on {dataset}"


def load_run(folder: Path, facts: Facts | None = None, config: TrainConfig | None = None) -> RunFiles:
    """Load the files of a run.

    Args:
        folder: folder of the run.
        facts: replaces the contents of report.json.
        config: replaces those of config.yaml, which take a quarter of a second to read.

    Raises:
        UserError: the folder is not a run, or a file in it cannot be read.
    """
    if not (folder / RUN_CONFIG).is_file():
        raise UserError(f"{folder} is not a run of segvit train: it has no {RUN_CONFIG}; name the --output of a run")
    return RunFiles(
        name=folder.resolve().name,
        facts=facts or load_facts(folder / FACTS),
        config=config or TrainConfig.load(folder / RUN_CONFIG),
        records=list(read_records(folder)),
        times=read_times(folder),
    )
