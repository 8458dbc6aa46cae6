"""The fields that an operator may write under `config:` of a plugin, in Kong's schema language.

Kong shows the descriptions (10 to 500 characters each) in its Admin API; the tables in docs/plugins.md are made
from them. `plugin_config` reads what Kong sends.
"""

from typing import Any

from gateway_contract.headers import DEFAULT_KEY_HEADERS, DEFAULT_REPLAY_HEADERS
from gateway_contract.plugins import API_PRODUCT_FIELD

SchemaField = dict[str, dict[str, Any]]

_METHODS = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT"]
_SCOPE = {"type": "string", "match": "^[a-z][a-z0-9_.:-]*$", "len_max": 64}

PRODUCT_FIELDS: list[SchemaField] = [
    {
        API_PRODUCT_FIELD: {
            "description": "Code of the API product: which subscription of the account counts.",
            "type": "string",
            "required": True,
            "match": "^[a-z0-9][a-z0-9_-]*$",
        },
    },
]
KEY_FIELDS: list[SchemaField] = [
    {
        "key_headers": {
            "description": "Headers that may hold the key.",
            "type": "array",
            "elements": {"type": "string", "match": "^[A-Za-z0-9-]+$"},
            "default": list(DEFAULT_KEY_HEADERS),
        },
    },
    {
        "bearer": {
            "description": "Accept `Authorization: Bearer km_...`. Other tokens there are left alone, "
            "unless `imported_keys` is on.",
            "type": "boolean",
            "default": True,
        },
    },
    {
        "key_query": {
            "description": "Query arguments that may hold the key; none by default. "
            "Keys in URLs end up in access logs and browser histories: prefer a header.",
            "type": "array",
            "elements": {"type": "string", "match": "^[A-Za-z0-9_.~-]+$"},
        },
    },
    {
        "imported_keys": {
            "description": "Accept keys of any form (8 to 512 visible ASCII characters), such as those imported "
            "from Kong's key-auth. Without it a key of another form than ours is refused before any look-up.",
            "type": "boolean",
            "default": False,
        },
    },
    {
        "hide_key": {
            "description": "Send `redacted` to the upstream in place of the key, without the query argument that "
            "held it. Keys of our form are hidden wherever else they stand in the request's headers.",
            "type": "boolean",
            "default": True,
        },
    },
    {
        "anonymous": {
            "description": "SHA-256 (64 hex digits) of the key under which calls without any key go on, held to "
            "its plan and counted like any other. A wrong key is refused all the same.",
            "type": "string",
            "match": "^%x+$",
            "len_eq": 64,
        },
    },
    {
        "consumer": {
            "description": "Make the account Kong's consumer, for its log and other plugins. "
            "`false` saves one call to Kong.",
            "type": "boolean",
            "default": True,
        },
    },
    {
        "sandbox_upstream": {
            "description": "Kong upstream to which test keys are sent. Without it, or where Kong knows none "
            "of that name, they are refused.",
            "type": "string",
        },
    },
    {
        "entitlement": {
            "description": "Entitlement that the plan must include for this route.",
            "type": "string",
        },
    },
    {
        "scopes": {
            "description": "Scopes that a key must hold for this route, all of them; `full` holds every scope. "
            "A `read_only` key never gets beyond GET, HEAD and OPTIONS.",
            "type": "array",
            "elements": _SCOPE,
        },
    },
    {
        "method_scopes": {
            "description": "Scopes that a key must hold by HTTP method, in place of `scopes` for that method.",
            "type": "map",
            "keys": {"type": "string", "one_of": _METHODS},
            "values": {"type": "array", "elements": _SCOPE},
        },
    },
]
LIMIT_FIELDS: list[SchemaField] = [
    {
        "dry_run": {
            "description": "Refuse nothing for a limit: say in `X-Km-Would-Refuse` and in a metric what would "
            "have been refused. Who calls, and whether they may, is judged all the same.",
            "type": "boolean",
            "default": False,
        },
    },
]
UNIT_FIELDS: list[SchemaField] = [
    {
        "unit_headers": {
            "description": "Header in which the upstream reports units, by dimension.",
            "type": "map",
            "keys": {"type": "string", "match": "^[a-z][a-z0-9_]*$"},
            "values": {"type": "string", "match": "^[A-Za-z0-9-]+$"},
        },
    },
    {
        "replay_headers": {
            "description": "Headers by which the upstream says that it repeated an earlier answer "
            "(`true`): such a call is not billed again.",
            "type": "array",
            "elements": {"type": "string", "match": "^[A-Za-z0-9-]+$"},
            "default": list(DEFAULT_REPLAY_HEADERS),
        },
    },
    {
        "concurrency": {
            "description": "Take calls that have ended out of the calls in flight. Needed wherever a plan limits "
            "concurrency; needs `KM_REDIS_URL` and `KM_GATEWAY_SECRET`.",
            "type": "boolean",
            "default": False,
        },
    },
]
