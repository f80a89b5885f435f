"""From a run's folders to `report.html`: collect, turn into what the page shows, render, write.

The page is one file: style and figures inside, no script, nothing fetched. Times and versions come from the stages'
manifests, never from the clock, so the same run gives the same bytes.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lang1 import config, figures, runs
from lang1.config import ReportConfig
from lang1.report import curves, limits, plots, rows, sections, words
from lang1.report.collect import RunData, collect, complete_folders
from lang1.report.decisions import decision_panels
from lang1.report.flow import WIDTH, draw_flow
from lang1.report.verdicts import BOOSTING, answer, find_subject

DECAY_SPLITS = ("test", "temporal_1", "temporal_2")


def build_report(cfg: ReportConfig, *, run: Path, out: Path, seed: int, force: bool = False) -> dict[str, Any]:
    """Write `out/report.html` about the finished stages of `run`; return the manifest.

    Raises InputError when `run` holds no finished stage or a file of one cannot be read.
    """
    folders = complete_folders(run)

    def work(stage: runs.Stage) -> None:
        data = collect(folders, run)
        page = render(cfg, data)
        runs.write_text(stage.out / "report.html", page)
        stage.count(
            bytes=len(page.encode("utf-8")),
            stages=len(folders),
            results=len(data.results),
            comparisons=len(data.comparisons),
        )

    return runs.run_stage(out, "report", config.dump(cfg), seed, inputs=dict(folders), work=work, force=force)


def render(cfg: ReportConfig, data: RunData) -> str:
    """The whole page. Every text that comes from a file is escaped; only our own style and figures are not."""
    environment = Environment(
        loader=PackageLoader("lang1.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals.update(w=words, look=figures.look, flow_width=WIDTH)
    environment.filters["svg"] = Markup
    style = (files("lang1.report") / "templates" / "report.css").read_text(encoding="utf-8")
    page = environment.get_template("report.html").render(
        cfg=cfg, data=data, style=Markup(style), **_context(cfg, data)
    )
    return "\n".join(line.rstrip() for line in page.split("\n") if line.strip()) + "\n"


def _context(cfg: ReportConfig, data: RunData) -> dict[str, Any]:
    split = sections.headline_split(data)
    models, table = sections.results_table(data, split)
    seen = rows.read_seen(data, split)
    macro = [words.task(row.task) for row in table if row.metric == "auroc_ovr_macro"]
    return {
        "split": split,
        "split_meaning": sections.split_meaning(data, split),
        "exploratory": sections.is_exploratory(data, split),
        "future": sections.is_future_window(data, split),
        "contaminated": limits.say_contaminated(seen),
        "simulated": sections.is_simulated(data),
        "answer": answer(data.results, data.comparisons, split),
        "tasks": sections.task_ids(data),
        "skipped": sections.skipped_tasks(data),
        "models": models,
        "table": table,
        "macro": words.join(macro),
        "macro_tasks": len(macro),
        "not_measured": sections.not_measured(data),
        "limits": limits.find_limits(data, split, seen),
        "seen": seen,
        "examples": rows.read_examples(cfg, data, split),
        "example_refusal": rows.example_refusal(cfg, data),
        **_cohort(data),
        **_corpus(data),
        **_figures(data, split),
        **_making(data),
    }


def _cohort(data: RunData) -> dict[str, Any]:
    statistics = sections.split_statistics(data)
    rates = sections.base_rates(data)
    return {
        "rate_splits": [name for name in sections.SPLITS if any(name in rate.counts for rate in rates)],
        "flows": [
            draw_flow(task, data.attrition[task], statistics.get(task, {}))
            for task in sections.task_ids(data)
            if task in data.attrition
        ],
        "rates": rates,
        "aims_at_the_paper": sections.aims_at_the_paper(data),
    }


def _corpus(data: RunData) -> dict[str, Any]:
    return {
        "sources": sections.sources_table(data),
        "web": sections.web_text(data),
        "clean_counts": [(key.replace("_", " "), words.count(value)) for key, value in data.counts("corpus").items()],
        "pretraining": plots.pretraining_panels(data.pretraining),
        "pretrain_config": data.config("checkpoints"),
        "tokens_read": sections.tokens_read(data),
    }


def _figures(data: RunData, split: str) -> dict[str, Any]:
    present = [name for name in DECAY_SPLITS if any(row["split"] == name for row in data.results)]
    names = {task: [_split_name(data, task, name) for name in present] for task in sections.task_ids(data)}
    calibration = curves.calibration_curves(data, split)
    subject = find_subject(data.results)
    drawn = [curve for curve in calibration if curve.model in (subject, *BOOSTING)] or calibration
    decisions = curves.decision_curves(data, split)
    decided = [curve for curve in decisions if curve.model in (subject, *BOOSTING)] or decisions
    return {
        "auroc": plots.auroc_panels(data.results, split),
        "decay": plots.decay_panels(data.results, present, names) if len(present) > 1 else [],
        "decay_splits": present,
        "calibration": plots.calibration_panels(drawn),
        "calibration_curves": calibration,
        "calibration_models": figures.order_models({curve.model for curve in drawn}),
        "recalibrated": curves.recalibrated(data, split),
        "decisions": decision_panels(decided),
        "decision_models": figures.order_models({curve.model for curve in decided}),
        "decision_methods": sorted({curve.recalibration for curve in decided if curve.recalibration is not None}),
        "finetuning": plots.finetuning_panels(
            curves.finetuning_points(data), curves.finetuning_losses(data), curves.best_steps(data)
        ),
        "finetuned_models": list(curves.finetuning_losses(data)),
    }


def _split_name(data: RunData, task: str, split: str) -> str:
    dates = sections.split_dates(data, task, split) if split.startswith("temporal") else ""
    return f"{words.split(split)}\n{dates}" if dates else words.split(split)


def _making(data: RunData) -> dict[str, Any]:
    return {
        "stages": sections.stage_rows(data),
        "versions": sections.versions(data),
        "revisions": sections.revisions(data),
        "configs": [
            (words.stage(folder, manifest["stage"]), json.dumps(manifest["config"], indent=1, sort_keys=True))
            for folder, manifest in data.manifests.items()
        ],
    }
