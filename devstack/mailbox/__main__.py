"""`python -m devstack.mailbox --smtp-port 2525 --port 8025 --directory DIR`: SMTP and page, until it is ended."""

import argparse
import asyncio
from pathlib import Path

import uvicorn

from devstack.mailbox.pages import mailbox_app
from devstack.mailbox.smtp import serve_smtp
from devstack.mailbox.store import Mailbox


async def serve(*, smtp_port: int, port: int, directory: Path) -> None:
    """Serve on 127.0.0.1 until the process is told to end."""
    mailbox = Mailbox(directory)
    server = await serve_smtp(mailbox, port=smtp_port)
    config = uvicorn.Config(mailbox_app(mailbox), host="127.0.0.1", port=port, log_level="warning", lifespan="off")
    try:
        await uvicorn.Server(config).serve()
    finally:
        server.close()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m devstack.mailbox")
    parser.add_argument("--smtp-port", type=int, default=2525)
    parser.add_argument("--port", type=int, default=8025)
    parser.add_argument("--directory", type=Path, required=True)
    arguments = parser.parse_args()
    asyncio.run(serve(smtp_port=arguments.smtp_port, port=arguments.port, directory=arguments.directory))


if __name__ == "__main__":
    main()
