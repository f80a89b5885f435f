"""A language model behind an HTTP address: the completions endpoint that harnesses and clients ask (docs/serve.md)."""

from __future__ import annotations

from lang1.serving.settings import ServeSettings

__all__ = ["ServeSettings", "serve"]


def serve(settings: ServeSettings) -> None:
    """Serve a Hugging Face folder until a signal ends it. Raises InputError for a folder, port or key that is none."""
    from lang1.serving.running import serve as run

    run(settings)
