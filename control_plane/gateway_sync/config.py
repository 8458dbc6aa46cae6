"""Settings of the parts that keep the gateway up to date. Entry points fill these in; nothing here reads them."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProjectorConfig:
    """`public_url` is absolute: it stands in answers to callers. `poll_seconds` bounds how late a change or an
    emptied Redis is noticed when no notification arrives.
    """

    database_url: str
    redis_url: str
    public_url: str
    poll_seconds: float = 0.5
    sweep_seconds: float = 600.0
    redis_timeout_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """`base_path` is the operator's kong.yml; `node_urls` are addresses of Admin APIs.

    `usage_spool_path` is the file that `file-log` writes usage to, as Kong sees it; None where every route has
    `km-usage-meter`. A change of an API product is pushed by itself when `push_changes`, once no other followed
    for `debounce_seconds` (waiting `debounce_max_seconds` at most). A node found with another configuration is
    given ours again when `repush_drifted`: a Kong that restarted with its own file sells nothing until then.
    """

    base_path: Path
    node_urls: tuple[str, ...] = ()
    usage_spool_path: str | None = None
    push_changes: bool = True
    repush_drifted: bool = True
    debounce_seconds: float = 2.0
    debounce_max_seconds: float = 15.0
    check_seconds: float = 30.0
    timeout_seconds: float = 30.0
