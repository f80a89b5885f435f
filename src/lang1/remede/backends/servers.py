"""The address of a model behind an API: `http://HOST:PORT/v1#MODEL`, or `chat+http://...` for its chat endpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from lang1.errors import ConfigError

_ADDRESS = re.compile(r"(?P<chat>chat\+)?(?P<url>(?i:https?)://[^#\s]+?)/*#(?P<model>[^\s#?][^#?]*)")
FORM = "http://HOST:PORT/v1#MODEL, or chat+http://HOST:PORT/v1#MODEL"


@dataclass(frozen=True)
class Server:
    """Who is asked, for which model, at which endpoint."""

    url: str
    """what stands before /completions and /chat/completions"""
    model: str
    """the name that the server calls the model by"""
    kind: Literal["completions", "chat"]
    tokenizer: Path | None = None
    """folder with the served model's tokenizer; a chat can do without"""

    def __str__(self) -> str:
        """As it is written on the command line."""
        return f"{'chat+' if self.kind == 'chat' else ''}{self.url}#{self.model}"

    @property
    def endpoint(self) -> str:
        """The path that answers."""
        return "/chat/completions" if self.kind == "chat" else "/completions"


def is_server(text: str) -> bool:
    """True for an address, false for a folder."""
    return re.match(r"(chat\+)?https?://", text, re.IGNORECASE) is not None


def parse_server(text: str, tokenizer: Path | None = None) -> Server:
    """The server of an address. Raises ConfigError for one without a model, with a password or its endpoint."""
    if "@" in (text.rpartition("#")[0] or text) or "?" in text:
        raise ConfigError(
            f"--model {_without_secrets(text)}: a user, password or query in the address; keys go into an environment "
            "variable that evaluate.api.api_key_env names"
        )
    found = _ADDRESS.fullmatch(text)
    if found is None or not _has_host(found["url"]):
        raise ConfigError(f"--model {_without_secrets(text)}: not an address of a served model; write {FORM}")
    before = found["url"].removesuffix("/completions")
    if before != found["url"]:
        chat = "chat+" if found["chat"] or before.endswith("/chat") else ""
        meant = f"{chat}{before.removesuffix('/chat')}#{found['model']}"
        raise ConfigError(f"--model {text}: give what stands before the endpoint: {meant}")
    if tokenizer is None and not found["chat"]:
        raise ConfigError(f"--model {text}: give the folder of its tokenizer: --tokenizer FOLDER, or NAME=FOLDER")
    return Server(found["url"], found["model"], "chat" if found["chat"] else "completions", tokenizer)


def _has_host(url: str) -> bool:
    """True for a host, with a number behind it or none: a password cut short may stand in its place."""
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _without_secrets(text: str) -> str:
    """An address that is refused, without what may be a password: all before its last @, all behind a ?, and a port
    that is no number."""
    shown = re.sub(r"//.*@", "//...@", text, flags=re.DOTALL).partition("?")[0]
    return re.sub(r"(//[^/:@\[]*):(?!\d+(?:[/#]|$))[^/]*", r"\1:...", shown)
