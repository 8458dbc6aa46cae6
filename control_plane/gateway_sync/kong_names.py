"""Whether the services and routes that API products name are in the base kong.yml."""

import asyncio
from collections.abc import Iterable, Iterator

from control_plane.catalog.model import ProductFacts
from control_plane.foundation.errors import Problem
from control_plane.gateway_sync.base_config import BaseConfig, KongConfigError, index_base_config
from control_plane.gateway_sync.config import GatewayConfig
from control_plane.gateway_sync.queries import load_base

SHOWN = 10


async def unknown_kong_names(products: Iterable[ProductFacts], *, config: GatewayConfig) -> list[Problem]:
    """Return what API products name and the base configuration lacks, by path (`api_products.weather.routes[0]`).

    Nothing, where the base cannot be read: other commands tell of that.
    """
    wanted = list(products)

    def find() -> list[Problem]:
        try:
            base = index_base_config(load_base(config))
        except KongConfigError:
            return []
        return [problem for product in wanted for problem in missing_names(product, base)]

    # a large kong.yml takes seconds to read: the loop that counts usage must not stand still for it
    return await asyncio.to_thread(find) if wanted else []


def missing_names(product: ProductFacts, base: BaseConfig) -> Iterator[Problem]:
    """Yield what the product names and the base lacks. Pure."""
    where = f"api_products.{product.code}"
    if product.service not in base.services:
        message = f"kong.yml has no service {product.service}; it has {_listed(base.services)}"
        yield Problem(f"{where}.service", message)
    for index, name in enumerate(product.routes):
        path = f"{where}.routes[{index}]"
        route = base.routes.get(name)
        if route is None:
            yield Problem(path, f"kong.yml has no route {name}; it has {_listed(base.routes)}")
        elif product.service in base.services and (route.service is None or route.service.name != product.service):
            owner = f"service {route.service.name}" if route.service else "no service"
            yield Problem(path, f"in kong.yml route {name} belongs to {owner}, not to {product.service}")


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    return ", ".join(known[:SHOWN]) + (", ..." if len(known) > SHOWN else "") if known else "none"
