"""What the YAML of this pack calls: rows from Parquet into memory, prompts, metrics. Needs lm-eval and nothing else.

A pack holds no note. It names a folder of `lang1 tasks` (and one of `lang1 comprehension`), read when a task is loaded;
`--metadata '{"tasks": "/elsewhere"}'` names another. Nothing is written, and nothing goes into a cache of datasets.

A note is cut to its first `max_note_tokens` tokens of the evaluated model's own tokenizer (lm-eval passes `pretrained`
or `tokenizer` on), so that the question is never cut off; lm-eval would cut prompts from the left. Where the model's
context is what cuts, `answer_room` of its positions stay free for the answer, as in lang1's own commands, and one more
for each further token of the row's longest option. Without a tokenizer on disk a note keeps four characters a token.
Examples are the rows and lengths that pack.json lists, alike for every model: `--num_fewshot K` takes the first K, all
of them by default.
"""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CHARACTERS_A_TOKEN = 4


def dataset(task: str, split: str, **metadata: Any) -> dict[str, Any]:
    """`custom_dataset`: the rows of a task and split, and its examples, as lm-eval's datasets; see the header."""
    pack = _pack()
    about = pack["tasks"][task]
    folder = Path(metadata.get(about["folder"]) or pack["folders"][about["folder"]])
    shots = _shots(folder / task, about)
    rows = _read(folder / task / f"{split}.parquet", about)
    cut = _cutter(about, shots, metadata)
    docs = [_doc(about, row, cut(row)) for row in rows]
    return {split: _dataset(docs), "shots": _dataset(shots)}


def process_two(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, Any]:
    """A row of a question with two options; `results` holds (log-likelihood, greedy) an option, in their order."""
    return {"auroc": _answered(doc, results), **process_accuracy(doc, results)}


def process_several(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, Any]:
    """A row of a question with more options."""
    names = ("auroc_ovr_macro", "auroc_ovr_weighted", "auroc_ovr_micro")
    return {**{name: _answered(doc, results) for name in names}, **process_accuracy(doc, results)}


def process_accuracy(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, Any]:
    """Whether the likeliest option is the true one."""
    label, p = _answered(doc, results)
    return {"acc": float(label == max(range(len(p)), key=p.__getitem__))}


def _answered(doc: dict[str, Any], results: list[tuple[float, bool]]) -> tuple[int, list[float]]:
    """The label of a row and the softmax over its options."""
    most = max(likelihood for likelihood, _ in results)
    shifted = [math.exp(likelihood - most) for likelihood, _ in results]
    return int(doc["label"]), [value / sum(shifted) for value in shifted]


def auroc(items: list[tuple[int, list[float]]]) -> float:
    """Of option 1 of two; NaN where all rows have one label."""
    return _areas(items)[0][1]


def auroc_ovr_macro(items: list[tuple[int, list[float]]]) -> float:
    """One-versus-rest: the mean over the classes that have rows, and rows beside them."""
    areas, _ = _areas(items)
    found = [area for area in areas if area == area]
    return sum(found) / len(found) if found else float("nan")


def auroc_ovr_weighted(items: list[tuple[int, list[float]]]) -> float:
    """The same, classes weighed by their rows."""
    areas, counts = _areas(items)
    found = [(area, n) for area, n in zip(areas, counts, strict=True) if area == area]
    return sum(area * n for area, n in found) / sum(n for _, n in found) if found else float("nan")


def auroc_ovr_micro(items: list[tuple[int, list[float]]]) -> float:
    """Every (row, class) cell as one binary case."""
    from sklearn.metrics import roc_auc_score

    cells = [(label == k, p_k) for label, p in items for k, p_k in enumerate(p)]
    return float(roc_auc_score([hit for hit, _ in cells], [p for _, p in cells]))


def _areas(items: list[tuple[int, list[float]]]) -> tuple[list[float], list[int]]:
    """AUROC of each class against the rest, NaN for a class without rows, and the rows of each."""
    from sklearn.metrics import roc_auc_score

    areas, counts = [], []
    for k in range(len(items[0][1])):
        hits = [label == k for label, _ in items]
        counts.append(sum(hits))
        known = 0 < sum(hits) < len(hits)
        areas.append(float(roc_auc_score(hits, [p[k] for _, p in items])) if known else float("nan"))
    return areas, counts


@cache
def _pack() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path(__file__).parent / "pack.json").read_text(encoding="utf-8"))
    return found


def _read(path: Path, about: dict[str, Any], ids: list[str] | None = None) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: not there; this pack reads the task folder that pack.json names, or the one that "
            f'--metadata \'{{"{about["folder"]}": "/folder"}}\' names'
        )
    columns = ["row_id", "label", "text", *([] if about["question"] else ["question", "options"])]
    table = pq.read_table(path, columns=columns, filters=None if ids is None else [("row_id", "in", ids)])
    rows: list[dict[str, Any]] = table.sort_by("row_id").to_pylist()
    return rows


def _shots(folder: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    wanted = about["shots"]
    if not wanted["row_ids"]:
        return []
    rows = {row["row_id"]: row for row in _read(folder / "train.parquet", about, wanted["row_ids"])}
    lost = [row_id for row_id in wanted["row_ids"] if row_id not in rows]
    if lost:
        raise ValueError(f"{folder}/train.parquet: lacks {len(lost)} rows that are this pack's examples")
    return [
        _doc(about, rows[row_id], rows[row_id]["text"][:length])
        for row_id, length in zip(wanted["row_ids"], wanted["kept_characters"], strict=True)
    ]


def _doc(about: dict[str, Any], row: dict[str, Any], text: str) -> dict[str, Any]:
    return {
        "row_id": row["row_id"],
        "prompt": text + _question(about, row),
        "choices": _choices(about, row),
        "label": int(row["label"]),
    }


def _question(about: dict[str, Any], row: dict[str, Any]) -> str:
    return str(about["question"] or f"\nQuestion: {row['question']}\nAnswer:")


def _choices(about: dict[str, Any], row: dict[str, Any]) -> list[str]:
    return list(LETTERS[: len(about["options"])]) if about["question"] else list(row["options"])


def _dataset(docs: list[dict[str, Any]]) -> Any:
    """In memory: `load_dataset` would leave a copy of every note in a cache."""
    datasets: Any = import_module("datasets")

    text = datasets.Value("string")
    choices = datasets.List(text)
    features = datasets.Features(row_id=text, prompt=text, choices=choices, label=datasets.Value("int64"))
    return datasets.Dataset.from_dict({name: [doc[name] for doc in docs] for name in features}, features=features)


def _cutter(about: dict[str, Any], shots: list[dict[str, Any]], metadata: dict[str, Any]) -> Any:
    """The function row -> head of its note that fits."""
    most = about["max_note_tokens"]
    where = metadata.get("tokenizer") or metadata.get("pretrained")
    if where is None or not Path(str(where)).exists():
        return lambda row: row["text"][: most * CHARACTERS_A_TOKEN]
    from transformers import AutoConfig, AutoTokenizer

    given = {"gguf_file": metadata["gguf_file"]} if metadata.get("gguf_file") else {}
    tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=True, trust_remote_code=False, **given)
    context = metadata.get("max_length")
    if context is None and metadata.get("pretrained") is not None and Path(str(metadata["pretrained"])).exists():
        config = AutoConfig.from_pretrained(
            metadata["pretrained"], local_files_only=True, trust_remote_code=False, **given
        )
        context = getattr(config, "max_position_embeddings", None)
    before = "".join(f"{shot['prompt']} {shot['choices'][shot['label']]}\n\n" for shot in shots)
    size = len(_ids(tokenizer, before)["input_ids"]) if before else 0
    bos = len(tokenizer("x")["input_ids"]) - len(_ids(tokenizer, "x")["input_ids"])

    @cache
    def size_of(text: str) -> int:
        return len(_ids(tokenizer, text)["input_ids"])

    def beside(row: dict[str, Any]) -> int:
        """Positions for question and answer: of the options the longest."""
        question = f"x{_question(about, row)}"
        longest = max(size_of(f"{question} {choice}") for choice in _choices(about, row)) - size_of(question)
        return size_of(question) - size_of("x") + longest - 1 + int(about["answer_room"])

    def cut(row: dict[str, Any]) -> str:
        text = str(row["text"])
        room = most if context is None else min(most, int(context) - bos - size - beside(row))
        if room < 1:
            raise ValueError(f"a context of {context} tokens leaves no room for a note beside examples and question")
        ends = [end for _, end in _ids(tokenizer, before + text, offsets=True)["offset_mapping"]]
        kept = ends[: size + room]
        return text if len(kept) == len(ends) else text[: kept[-1] - len(before)]

    return cut


def _ids(tokenizer: Any, text: str, offsets: bool = False) -> Any:
    return tokenizer(
        text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=offsets, verbose=False
    )
