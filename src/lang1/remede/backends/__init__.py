"""Models behind an API: how they are named, asked, tried before use, and scored (5.5, Appendix J)."""

from lang1.remede.backends.servers import Server, is_server, parse_server

__all__ = ["Server", "is_server", "parse_server"]
