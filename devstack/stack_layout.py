"""Where everything of a stack is: ports, directories, secrets, and what each process is told of them."""

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from devstack.kong_files import LIVE_FILE
from devstack.ports import free_port
from devstack.stores.event_store import event_store_dsn

REPOSITORY: Final = Path(__file__).parents[1]
DATABASE: Final = "kong_monetize"
RedisKind = Literal["server", "cluster"]


@dataclass(frozen=True)
class Ports:
    """All on 127.0.0.1."""

    postgres: int = field(default_factory=free_port)
    valkey: int = field(default_factory=free_port)
    upstream: int = field(default_factory=free_port)
    proxy: int = field(default_factory=free_port)
    kong_admin: int = field(default_factory=free_port)
    control: int = field(default_factory=free_port)
    shipper: int = field(default_factory=free_port)
    plugin_server: int = field(default_factory=free_port)
    smtp: int = field(default_factory=free_port)
    mailbox: int = field(default_factory=free_port)
    stripe: int = field(default_factory=free_port)


class StackLayout:
    """Addresses are known before anything runs; secrets are made at the first start and then stay."""

    has_mailbox = False

    def __init__(self, data_dir: Path, *, ports: Ports, settings: Mapping[str, str]) -> None:
        self.data_dir = data_dir.absolute()
        self.ports = ports
        self._settings = dict(settings)
        self._secrets: dict[str, str] = {}

    @property
    def proxy_url(self) -> str:
        """Where callers send requests; the sample API is below `/weather`."""
        return f"http://127.0.0.1:{self.ports.proxy}"

    @property
    def admin_api_url(self) -> str:
        """Kong's Admin API, as the local gateway has it."""
        return f"http://127.0.0.1:{self.ports.kong_admin}"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.control}"

    @property
    def mailbox_url(self) -> str:
        """Where the mails that the product sends are shown, where the stack has a mailbox."""
        return f"http://127.0.0.1:{self.ports.mailbox}"

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self.ports.valkey}/0"

    @property
    def database_url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.ports.postgres}/{DATABASE}"

    @property
    def spool_dir(self) -> Path:
        return self.data_dir / "spool"

    @property
    def upstream_journal(self) -> Path:
        """What reached the sample API, one request a line, where the stack was told to record it."""
        return self.data_dir / "logs" / "upstream-journal.jsonl"

    @property
    def gateway_secret(self) -> str:
        """What receipts are signed with, made at the first start."""
        return self._secrets["gateway_secret"]

    @property
    def admin_token(self) -> str:
        """API token of the owner role, made at the first start."""
        return self._secrets["admin_token"]

    def gateway_environment(self) -> dict[str, str]:
        """What runs beside Kong is told: plugin server and shipper."""
        return {
            "PYTHONPATH": str(REPOSITORY),
            "KM_REDIS_URL": self.redis_url,
            "KM_GATEWAY_SECRET": self._secrets["gateway_secret"],
            "KM_SPOOL_DIR": str(self.spool_dir),
            "KM_PUBLIC_URL": self.control_url,
            **self._settings,
        }

    def control_environment(self) -> dict[str, str]:
        """What the control plane is told."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KM_")}
        return (
            inherited
            | self.gateway_environment()
            | {
                "KM_DATABASE_URL": self.database_url,
                "KM_CLICKHOUSE_DSN": event_store_dsn(self.data_dir / "events"),
                "KM_GATEWAY_NODES": self.admin_api_url,
                "KM_KONG_CONFIG": str(self.data_dir / "kong.yml"),
                "KM_USAGE_SPOOL_PATH": str(self.spool_dir / LIVE_FILE),
                "KM_HOST": "127.0.0.1",
                "KM_PORT": str(self.ports.control),
                **self.mail_environment(),
                **self._settings,
            }
        )

    def mail_environment(self) -> dict[str, str]:
        """Where mails are handed in; nowhere without a mailbox."""
        if not self.has_mailbox:
            return {}
        return {
            "KM_SMTP_HOST": "127.0.0.1",
            "KM_SMTP_PORT": str(self.ports.smtp),
            "KM_SMTP_TLS": "none",
            "KM_MAIL_FROM": "Weather API <billing@weather.example>",
        }

    def read_secrets(self) -> None:
        """Make them where there are none yet."""
        path = self.data_dir / "secrets.json"
        if path.exists():
            self._secrets = json.loads(path.read_text())
            return
        self._secrets = {"gateway_secret": secrets.token_urlsafe(48)}
        write_private(path, json.dumps(self._secrets))

    def keep_admin_token(self, token: str) -> None:
        self._secrets["admin_token"] = token
        write_private(self.data_dir / "secrets.json", json.dumps(self._secrets))

    @property
    def has_admin_token(self) -> bool:
        return "admin_token" in self._secrets


def write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
