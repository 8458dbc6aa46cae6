"""What a declarative configuration may say about services, routes and plugins.

Written in the same schema language as plugin schemas. Fields that Kong has and this gateway has not are
listed apart, so that the refusal can say so.
"""

from typing import Any, Final

_PORT: Final = {"type": "integer", "between": [0, 65535]}
_TIMEOUT: Final = {"type": "integer", "default": 60000, "between": [1, 2147483646]}
_NAME: Final = {"type": "string", "match": "^[%w%.%-_~\x80-\xff]+$", "err": "invalid name"}
_STRINGS: Final = {"type": "array", "elements": {"type": "string"}}
_REFERENCE: Final = {"type": "record", "fields": [{"id": {"type": "string"}}, {"name": {"type": "string"}}]}
_COMMON: Final[list[dict[str, Any]]] = [
    {"id": {"type": "string", "uuid": True}},
    {"created_at": {"type": "integer"}},
    {"updated_at": {"type": "integer"}},
    {"tags": {"type": "set", "elements": {"type": "string"}}},
]

SERVICE: Final[list[dict[str, Any]]] = [
    *_COMMON,
    {"name": _NAME | {"required": True}},
    {"protocol": {"type": "string", "default": "http", "one_of": ["http"]}},
    {"host": {"type": "string", "required": True}},
    {"port": _PORT | {"default": 80}},
    {"path": {"type": "string", "starts_with": "/"}},
    {"retries": {"type": "integer", "default": 5, "between": [0, 32767]}},
    {"connect_timeout": _TIMEOUT},
    {"write_timeout": _TIMEOUT},
    {"read_timeout": _TIMEOUT},
    {"enabled": {"type": "boolean", "default": True, "required": True}},
]
ROUTE: Final[list[dict[str, Any]]] = [
    *_COMMON,
    {"name": _NAME},
    {"service": _REFERENCE},
    {
        "protocols": {
            "type": "set",
            "len_min": 1,
            "elements": {"type": "string", "one_of": ["http", "https"]},
            "default": ["http", "https"],
        }
    },
    {"methods": {"type": "set", "elements": {"type": "string", "match": "^%u+$"}}},
    {"hosts": {"type": "array", "elements": {"type": "string", "match": "^[%w%.%-%*:_]+$"}}},
    {"paths": _STRINGS},
    {"regex_priority": {"type": "integer", "default": 0}},
    {"strip_path": {"type": "boolean", "default": True, "required": True}},
    {"preserve_host": {"type": "boolean", "default": False, "required": True}},
    {"path_handling": {"type": "string", "default": "v0", "one_of": ["v0"]}},
    {
        "https_redirect_status_code": {
            "type": "integer",
            "default": 426,
            "required": True,
            "one_of": [426, 301, 302, 307, 308],
        }
    },
    {"request_buffering": {"type": "boolean", "default": True, "required": True}},
    {"response_buffering": {"type": "boolean", "default": True, "required": True}},
]
PLUGIN: Final[list[dict[str, Any]]] = [
    *_COMMON,
    {"name": {"type": "string", "required": True}},
    {"instance_name": {"type": "string"}},
    {"enabled": {"type": "boolean", "default": True, "required": True}},
    {"route": _REFERENCE},
    {"service": _REFERENCE},
    {
        "protocols": {
            "type": "set",
            "elements": {"type": "string", "one_of": ["grpc", "grpcs", "http", "https"]},
            "default": ["grpc", "grpcs", "http", "https"],
        }
    },
]

UPSTREAM: Final[list[dict[str, Any]]] = [
    *_COMMON,
    {
        "name": {
            "type": "string",
            "required": True,
            "match": "^[%w%.%-_]+$",
            "err": "Invalid name; must be a hostname",
        }
    },
    {"algorithm": {"type": "string", "default": "round-robin", "one_of": ["round-robin"]}},
    {"hash_on": {"type": "string", "default": "none", "one_of": ["none"]}},
    {"hash_fallback": {"type": "string", "default": "none", "one_of": ["none"]}},
    {"slots": {"type": "integer", "default": 10000, "between": [10, 65536]}},
    {"host_header": {"type": "string"}},
]
TARGET: Final[list[dict[str, Any]]] = [
    *_COMMON,
    {"target": {"type": "string", "required": True}},
    {"weight": {"type": "integer", "default": 100, "between": [0, 65535]}},
]

# Kong knows these; this gateway does not do what they ask for
UNSUPPORTED: Final[dict[str, frozenset[str]]] = {
    "service": frozenset({"tls_verify", "tls_verify_depth", "ca_certificates", "client_certificate"}),
    "route": frozenset({"headers", "snis", "sources", "destinations", "expression", "priority"}),
    "plugin": frozenset({"consumer", "consumer_group", "ordering"}),
    "upstream": frozenset(
        {
            "healthchecks",
            "hash_on_header",
            "hash_on_cookie",
            "hash_on_cookie_path",
            "hash_on_query_arg",
            "hash_on_uri_capture",
            "hash_fallback_header",
            "hash_fallback_query_arg",
            "hash_fallback_uri_capture",
            "client_certificate",
            "use_srv_name",
        }
    ),
    "target": frozenset(),
    "configuration": frozenset(
        {
            "consumers",
            "consumer_groups",
            "certificates",
            "ca_certificates",
            "snis",
            "vaults",
            "keys",
            "key_sets",
            "filter_chains",
            "acls",
            "keyauth_credentials",
            "basicauth_credentials",
            "jwt_secrets",
            "hmacauth_credentials",
            "workspaces",
        }
    ),
}
TOP_LEVEL: Final = frozenset(
    {
        "_format_version",
        "_transform",
        "_comment",
        "_info",
        "services",
        "routes",
        "plugins",
        "upstreams",
        "targets",
    }
)
