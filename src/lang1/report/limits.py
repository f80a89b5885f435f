"""What the numbers do not show, each said only where it is true of this run."""

from __future__ import annotations

from dataclasses import dataclass

from lang1 import figures
from lang1.report import sections, words
from lang1.report.collect import RunData
from lang1.report.rows import Seen


@dataclass(frozen=True)
class Limit:
    """A heading and what to keep in mind."""

    title: str
    text: str


def find_limits(data: RunData, split: str, seen: list[Seen]) -> list[Limit]:
    """The limits of this run, the weightiest first."""
    limits = [
        _source(data),
        Limit(
            "No clinical claim",
            "AUROC ranks patients; it does not say that acting on a prediction helps anyone. Nothing here was tested "
            "in care, and no threshold was chosen.",
        ),
    ]
    if any(sections.is_exploratory(data, name) for name in {split, *(row["split"] for row in data.results)}):
        limits.append(
            Limit(
                "An exploratory split",
                "The records carry no dates. The later split was made by the order "
                "of the records, which may not be their order in time: read it as a hint, no more.",
            )
        )
    if any(row.get("ceiling") is not None for row in data.results):
        limits.append(
            Limit(
                "The ceiling is measured on a sample",
                "It is the AUROC that the true probabilities reach on these very rows. It moves from sample to sample "
                "as any AUROC does, and a model can pass it by chance. Its share is a guide to size, not a test.",
            )
        )
    limits += _labels(data)
    limits += [
        found
        for found in (
            _sampling(data),
            _sample_of_rows(data, split),
            _few_events(data, split),
            _contamination(seen),
            _cut(seen),
        )
        if found is not None
    ]
    if data.results:
        limits.append(
            Limit(
                "One training run a model",
                "Intervals resample the patients who are measured. What another seed of the training would give is not "
                "in them.",
            )
        )
    return limits


def _source(data: RunData) -> Limit:
    if sections.is_simulated(data):
        return Limit(
            "Simulated patients",
            "Every record was drawn from a written-down model of a hospital "
            "(docs/simulated-hospital.md). The numbers show that the method works end to end and how the "
            "models compare on this hospital; they say nothing about real patients.",
        )
    return Limit(
        "One source of records",
        "Every number comes from the records of one source. Another hospital writes, "
        "codes and treats in other ways: measure there before you believe it there.",
    )


def _labels(data: RunData) -> list[Limit]:
    tasks = [task for task in sections.task_ids(data) if task not in sections.skipped_tasks(data)]
    settings = data.config("tasks")
    says = {
        "readmission": "a readmission to another hospital is not seen"
        + (", and planned stays are left out" if settings.get("exclude_planned") else ", and planned stays count"),
        "mortality": "only deaths within the stay count",
        "los": f"days are counted as {settings.get('los_unit', 'calendar')} days",
        "cci": "the Charlson score is read from coded diagnoses, so what was never coded is missing",
        "denial": "claims that were pending or too young have no label",
    }
    parts = [says[task] for task in tasks if task in says]
    if not parts:
        return []
    text = "; ".join(parts)
    return [Limit("What the labels miss", f"{text[0].upper()}{text[1:]}.")]


def _sampling(data: RunData) -> Limit | None:
    balance = data.config("model").get("balance", "none")
    if balance == "none":
        return None
    return Limit(
        "Rare classes were drawn more often in finetuning",
        f"The finetuning drew training rows with balance "
        f"\N{LEFT DOUBLE QUOTATION MARK}{balance}\N{RIGHT DOUBLE QUOTATION MARK}, which the paper's recipe "
        "does not, and corrected the loss for it. The rows that are measured are as they come.",
    )


def _sample_of_rows(data: RunData, split: str) -> Limit | None:
    """Said where a split holds more rows than any model was given: the cohort's numbers are those of all its rows."""
    held = sections.split_statistics(data)
    scored: dict[str, dict[str, int]] = {}
    for row in data.results:
        tasks = scored.setdefault(row["split"], {})
        tasks[row["task"]] = max(tasks.get(row["task"], 0), row.get("n") or 0)
    in_part = {
        name: {task: n for task, n in tasks.items() if n < held.get(task, {}).get(name, {}).get("rows", 0)}
        for name, tasks in scored.items()
    }
    parts = [
        f"{words.task_in_a_sentence(task)} {words.count(n)} of {words.count(held[task][split]['rows'])}"
        for task, n in in_part.pop(split, {}).items()
    ]
    told = [f"{words.split(split)}: {words.join(parts)}"] if parts else []
    told += [f"{words.split(name)}: at most {words.count(max(n.values()))} a task" for name, n in in_part.items() if n]
    if not told:
        return None
    return Limit(
        "Not every row was scored",
        f"Rows were drawn by a hash of the encounter. {'; '.join(told)}. On all of them intervals would be narrower.",
    )


def _few_events(data: RunData, split: str) -> Limit | None:
    rare = []
    for row in data.results:
        counts = sections.event_counts(row.get("events"))
        if row["split"] != split or not counts:
            continue
        for index, number in enumerate(counts):
            if number < sections.FEW_EVENTS and (row["task"], index, number) not in rare:
                rare.append((row["task"], index, number))
    if not rare:
        return None
    listed = "; ".join(
        f"{words.task_in_a_sentence(task)}, {words.option(task, index, sections.question_options(data, task))}: "
        f"{'none' if number == 0 else words.count(number)}"
        for task, index, number in rare
    )
    absent = " A class without any case is left out of the mean over classes." if any(n == 0 for *_, n in rare) else ""
    return Limit(
        "Few cases",
        f"Fewer than {sections.FEW_EVENTS} rows on this split ({listed}). Intervals are wide "
        f"there and a handful of cases can move them.{absent}",
    )


def say_contaminated(seen: list[Seen]) -> str:
    """Which results rest on rows whose own note was met in training; empty when none does."""
    met = [s for s in seen if s.notes_in_pretraining or s.notes_in_finetuning]
    return _met(met) + " Read those values as an upper bound." if met else ""


def _contamination(seen: list[Seen]) -> Limit | None:
    if not seen:
        return None
    met = [s for s in seen if s.notes_in_pretraining or s.notes_in_finetuning]
    method = "Notes are compared by the hash of their text: a copy counts, a near copy does not."
    unknown = figures.order_models(
        {s.model for s in seen if s.notes_in_pretraining is None or s.notes_in_finetuning is None}
    )
    known = [s for s in seen if s.model not in unknown]
    if met:
        title, sentences = "Some notes were seen before", [_met(met)]
    elif unknown:
        title, sentences = "What was seen before is not known of every model", []
    else:
        title = "No note was seen before"
        sentences = ["None of the notes measured stood in the pretraining corpus or among the finetuning rows."]
    if unknown:
        names = words.join([figures.look(model).label for model in unknown])
        sentences.append(f"Nobody can tell what {names} met in training; that is not the same as nothing.")
        if known and not met:
            sentences.append("The other models met none of the notes measured.")
    return Limit(title, " ".join([*sentences, method, *_known_patients(known)]))


def _met(met: list[Seen]) -> str:
    """A sentence a model, with the task where it had met most; the table under the list has every count."""
    sentences = []
    for model in figures.order_models({s.model for s in met}):
        most = max(
            (s for s in met if s.model == model),
            key=lambda s: max(s.notes_in_pretraining or 0, s.notes_in_finetuning or 0) / s.rows,
        )
        sentences.append(
            f"{figures.look(model).label} had met the words of up to {_known(most.notes_in_pretraining)} of "
            f"{words.count(most.rows)} notes in pretraining and {_known(most.notes_in_finetuning)} in "
            f"finetuning ({words.task_in_a_sentence(most.task)})."
        )
    return " ".join(sentences)


def _known(rows: int | None) -> str:
    return "an unknown number" if rows is None else words.count(rows)


def _known_patients(known: list[Seen]) -> list[str]:
    """Patients whose earlier notes were met: as it is in use, but a reader must know."""
    shares = [max(s.patients_in_pretraining or 0, s.patients_in_finetuning or 0) / s.rows for s in known if s.rows]
    if not shares or max(shares) == 0:
        return []
    return [
        f"Other notes of the same patients were met for up to {words.percent(max(shares))} of a task's rows, as they "
        "would be in use."
    ]


def _cut(seen: list[Seen]) -> Limit | None:
    cut: dict[str, tuple[int, int]] = {}
    for s in seen:
        if s.truncated:
            cut[s.task] = max(cut.get(s.task, (0, 0)), (s.truncated, s.rows))
    if not cut:
        return None
    listed = words.join(
        [f"{words.task_in_a_sentence(task)} {words.percent(number / rows, 1)}" for task, (number, rows) in cut.items()]
    )
    return Limit(
        "Long notes were cut",
        f"The models read the head of a note. Cut at its end: {listed} of the rows. TF-IDF reads all of it.",
    )
