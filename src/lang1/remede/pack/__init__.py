"""ReMedE as a task pack of lm-evaluation-harness 0.4.13: `lang1 remede export-pack`."""

from __future__ import annotations

from lang1.remede.pack.export import export_pack

__all__ = ["export_pack"]
