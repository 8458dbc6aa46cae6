"""What people see of a running stack: its addresses."""

import signal
import threading

from rich.console import Console

from devstack.ports import preferred_port
from devstack.stack import Stack
from devstack.stack_layout import Ports

PROXY_PORT, KONG_ADMIN_PORT, CONTROL_PORT, STRIPE_PORT, MAILBOX_PORT = 8000, 8001, 8090, 8095, 8025


def well_known_ports() -> Ports:
    """Return ports that people remember, or free ones where those are taken."""
    return Ports(
        proxy=preferred_port(PROXY_PORT),
        kong_admin=preferred_port(KONG_ADMIN_PORT),
        control=preferred_port(CONTROL_PORT),
        stripe=preferred_port(STRIPE_PORT),
        mailbox=preferred_port(MAILBOX_PORT),
    )


def print_overview(console: Console, stack: Stack) -> None:
    """Print the addresses of a running stack, whole, to be copied; the token is of this local stack only."""
    stripe = stack.simulated_stripe
    for name, value in (
        ("sample API, through the gateway", f"{stack.proxy_url}/weather/v1/current/oslo"),
        ("REST API and its documentation", f"{stack.control_url}/docs"),
        ("gateway's Admin API", stack.admin_api_url),
        *((("mailbox", stack.mailbox_url),) if stack.has_mailbox else ()),
        *((("simulated Stripe", stripe.url),) if stripe is not None else ()),
        ("database", stack.database_url),
        ("Redis", stack.redis_url),
        ("logs", str(stack.data_dir / "logs")),
        ("for km", f"export KM_URL={stack.control_url} KM_TOKEN={stack.admin_token}"),
    ):
        console.print(f"  {name:<33}{value}", soft_wrap=True, highlight=False, markup=False)


def until_interrupted() -> threading.Event:
    """Return an event that Ctrl-C or SIGTERM sets, from now on instead of ending the process."""
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    return stopping
