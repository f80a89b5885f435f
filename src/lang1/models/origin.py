"""What a model folder says of its pretraining: the tokens folder, by the identity in that folder's manifest.

`pretrain` writes it into lang1.json beside the weights and `finetune` passes it on, so that a folder which was copied
away from its run still says it. A folder that does not say it is unknown, never clean.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lang1 import runs

CARD = "lang1.json"


@dataclass(frozen=True)
class Pretraining:
    """Where a model's weights learned language."""

    tokens: str | None
    """identity of the tokens folder's manifest; null: random weights where `sources` is empty, else unknown"""
    sources: tuple[str, ...] = ()
    """sources of the tokens that the mix drew from: clinical, web"""
    unknown: str | None = None
    """why nobody can tell; null where it is known"""

    def as_facts(self) -> dict[str, Any]:
        """As lang1.json holds it."""
        return asdict(self) | {"sources": list(self.sources)}


NO_PRETRAINING = Pretraining(None)


def pretrained_on(tokens: Path, sources: tuple[str, ...]) -> Pretraining:
    """What `pretrain` writes down. Raises InputError when the tokens folder is not complete."""
    return Pretraining(str(runs.read_manifest(tokens)["identity"]), tuple(sorted(sources)))


def continued_on(model: Path, tokens: Path, sources: tuple[str, ...]) -> Pretraining:
    """The same where `pretrain` went on from the weights in `model`: known where those had met no other text.

    What `model` learned from other tokens, or from a public corpus, cannot be looked up in this tokens folder.
    """
    before, now = read_pretraining(model), pretrained_on(tokens, sources)
    if before == NO_PRETRAINING:
        return now
    if before.tokens == now.tokens:
        return Pretraining(now.tokens, tuple(sorted({*before.sources, *now.sources})))
    why = before.unknown or "it was pretrained on another tokens folder"
    return Pretraining(None, now.sources, f"it continues {model.resolve().name}: {why}")


def read_pretraining(model: Path) -> Pretraining:
    """What a Hugging Face folder says of its pretraining."""
    if (model / CARD).exists():
        return pretraining_of(runs.read_json(model / CARD))
    parent = model.parent
    if runs.is_complete(parent) and (manifest := runs.read_manifest(parent)).get("stage") == "pretrain":
        named = manifest.get("inputs", {}).get("tokens")
        if named is not None:
            mix = manifest.get("config", {}).get("mix", {})
            return Pretraining(str(named), tuple(sorted(name for name, weight in mix.items() if weight > 0)))
    return Pretraining(None, unknown="its folder does not say what it was pretrained on")


def pretraining_of(facts: dict[str, Any]) -> Pretraining:
    """What the facts of a model card, or of a checkpoint, say of it."""
    said = facts.get("pretraining")
    if isinstance(said, dict):
        return Pretraining(said.get("tokens"), tuple(said.get("sources") or ()), said.get("unknown"))
    if facts.get("init") == "random":
        return NO_PRETRAINING
    return Pretraining(None, unknown=f"its {CARD} does not name the tokens folder")
