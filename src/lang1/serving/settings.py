"""What `lang1 serve` is told."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lang1.config.keys import NO_KEY, is_key
from lang1.errors import ConfigError


@dataclass(frozen=True)
class ServeSettings:
    """A model, an address, and the bounds of a forward."""

    model: Path
    """Hugging Face folder"""
    host: str = "127.0.0.1"
    port: int = 8000
    """0: any that is free, which is printed"""
    name: str | None = None
    """name that requests call the model by; null: the folder's"""
    api_key_env: str | None = None
    """environment variable that holds the key which requests must bring; null: none is asked for"""
    batch_tokens: int = 8192
    """prompt tokens a forward, padding included"""
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    threads: int = 0
    """CPU threads of torch; 0: one a core"""

    def api_key(self) -> str | None:
        """The key that requests must bring.

        Raises ConfigError for a variable that is not set or holds no key, and for an address that others reach without.
        """
        if self.api_key_env is None:
            if not _is_loopback(self.host):
                raise ConfigError(
                    f"--host {self.host}: reached from other machines, so a key is needed; give --api-key-env NAME, "
                    "or serve on 127.0.0.1"
                )
            return None
        key = os.environ.get(self.api_key_env)
        if not key:
            raise ConfigError(f"--api-key-env {self.api_key_env}: this environment variable is not set")
        if not is_key(key):
            raise ConfigError(f"--api-key-env {self.api_key_env}: it holds {NO_KEY}; set it to the key alone")
        return key

    def hosts(self) -> tuple[str, ...]:
        """Names by which requests may call the server: any where they bring a key, this machine's own where not."""
        if self.api_key_env is not None:
            return ("*",)
        return ("localhost", "127.0.0.1", "[::1]", f"[{self.host}]" if ":" in self.host else self.host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
