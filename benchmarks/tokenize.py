"""Tokenising beside sentencepiece and Hugging Face's tokenizers: tokenizing/measure.py, which says what is measured.

It is a file of its own because a script's folder comes first where Python looks for modules: what imports Python's own
`tokenize`, as `inspect` does, finds this file when another benchmark runs, and is given Python's own.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    import runpy

    sys.path.pop(0)
    runpy.run_path(str(Path(__file__).parent / "tokenizing" / "measure.py"), run_name="__main__")
else:
    import importlib.util
    import os

    own = importlib.util.spec_from_file_location(__name__, Path(os.__file__).with_name("tokenize.py"))
    assert own is not None
    assert own.loader is not None
    sys.modules[__name__] = importlib.util.module_from_spec(own)
    own.loader.exec_module(sys.modules[__name__])
