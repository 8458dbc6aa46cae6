"""What Kong asks before it starts: each plugin under a name of its own, in the words of its schema language.

The rules stand here as Kong 3.9.3 has them (kong/db/schema/metaschema.lua, kong/runloop/plugin_servers,
kong/db/dao/plugins.lua), since no Kong can be had for tests.
"""

import json
import re
import subprocess
from pathlib import Path

import pytest

from devstack.gateway.lua_patterns import compile_lua_pattern
from devstack.gateway.settings import parse_conf, settings_from_conf
from devstack.kong_files import render_gateway_conf
from gateway_contract import plugins

REPOSITORY = Path(__file__).parents[2]
PHASES = {"certificate", "rewrite", "access", "response", "preread", "log"}
TYPES = {"string", "number", "integer", "boolean", "array", "set", "map", "record"}
REQUIRED_BY_TYPE = {
    "array": {"elements"},
    "set": {"elements"},
    "map": {"keys", "values"},
    "record": {"fields"},
}
# attributes that Kong's language has, with the types that may carry them; None: every type
ATTRIBUTES = {
    "type": None,
    "required": None,
    "default": None,
    "description": None,
    "err": None,
    "encrypted": None,
    "referenceable": None,
    "elements": {"array", "set"},
    "keys": {"map"},
    "values": {"map"},
    "fields": {"record"},
    "match": {"string"},
    "one_of": {"string", "number", "integer"},
    "between": {"number", "integer"},
    "gt": {"number", "integer"},
    "len_min": {"string", "array", "set", "map"},
    "len_max": {"string", "array", "set", "map"},
    "len_eq": {"string", "array", "set", "map"},
}
JSON_KINDS = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "array": list,
    "set": list,
    "map": dict,
}


@pytest.fixture(scope="module")
def settings():
    """The settings the stack writes for its gateway, in the form of a kong.conf."""
    text = render_gateway_conf(
        socket=Path("/tmp/km-query/km.sock"),
        configuration=Path("/tmp/km-query/kong.yml"),
        proxy_port=1,
        admin_port=2,
        metrics_port=3,
        workers=1,
        environment={"PYTHONPATH": str(REPOSITORY)},
    )
    return settings_from_conf(parse_conf(text))


@pytest.fixture(scope="module")
def dumps(settings):
    """Run each query command as Kong does (a shell's command line, nothing of our environment)."""

    def query(server):
        shell = ["/bin/sh", "-c", server.query_command]
        return json.loads(subprocess.run(shell, capture_output=True, check=True, timeout=60, env={}).stdout)

    return {server.name: query(server) for server in settings.servers}


def wrong_fields(fields, *, path):
    """Every breach of Kong's schema language in a list of fields, as sentences."""
    found = []
    for entry in fields:
        if len(entry) != 1:
            found.append(f"{path}: each entry has one field, not {sorted(entry)}")
        for name, rules in entry.items():
            found += wrong_rules(rules, path=f"{path}.{name}")
    return found


def wrong_rules(rules, *, path):
    kind = rules.get("type")
    if kind not in TYPES:
        return [f"{path}: type {kind!r}"]
    found = [f"{path}: {kind} needs {name}" for name in REQUIRED_BY_TYPE.get(kind, set()) - rules.keys()]
    for name in rules:
        carriers = ATTRIBUTES.get(name, set())
        if carriers is not None and kind not in carriers:
            found.append(f"{path}: {kind} cannot have {name}")
    if "default" in rules and not isinstance(rules["default"], JSON_KINDS[kind]):
        found.append(f"{path}: the default is no {kind}")
    if "match" in rules:
        compile_lua_pattern(rules["match"])
    if not 10 <= len(rules.get("description", "long enough")) <= 500:
        found.append(f"{path}: descriptions have 10 to 500 characters")
    for inner in ("elements", "keys", "values"):
        if inner in rules:
            found += wrong_rules(rules[inner], path=f"{path}.{inner}")
    return found + wrong_fields(rules.get("fields", []), path=path)


class TestQueryCommands:
    def test_each_plugin_has_a_name_and_a_query_and_all_share_one_server(self, settings, dumps):
        assert settings.plugins == ("bundled", *plugins.ALL)
        assert len(dumps) == len(settings.servers) == len(plugins.ALL)
        assert len({server.socket for server in settings.servers}) == 1
        assert [bool(server.start_command) for server in settings.servers] == [True, False, False, False]
        # Kong reads the first plugin of a dump, and no other
        assert [dump["Plugins"][0]["Name"] for dump in dumps.values()] == list(plugins.ALL)
        assert [len(dump["Plugins"]) for dump in dumps.values()] == [1, 1, 1, 1]

    def test_the_protocol_that_fails_closed_is_asked_for(self, dumps):
        assert {dump["Protocol"] for dump in dumps.values()} == {"ProtoBuf:1"}

    def test_the_documented_settings_name_them_all_on_one_socket(self):
        page = (REPOSITORY / "docs" / "kong.md").read_text()
        (block,) = re.findall(r"^```\n(plugins = .*?)^```$", page, re.DOTALL | re.MULTILINE)
        documented = settings_from_conf(parse_conf(block))
        assert documented.plugins == ("bundled", *plugins.ALL)
        assert [server.query_command.rpartition(" --dump ")[2] for server in documented.servers] == list(
            plugins.ALL
        )
        assert len({server.socket for server in documented.servers}) == 1
        assert [bool(server.start_command) for server in documented.servers] == [True, False, False, False]

    @pytest.mark.parametrize("name", plugins.ALL)
    def test_kong_can_load_it(self, dumps, name):
        (info,) = (dump["Plugins"][0] for dump in dumps.values() if dump["Plugins"][0]["Name"] == name)
        assert set(info) == {"Name", "Phases", "Priority", "Version", "Schema"}
        assert set(info["Phases"]) <= PHASES
        assert type(info["Priority"]) is int
        assert info["Priority"] == plugins.PRIORITIES[name]
        assert re.fullmatch(r"\d+\.\d+\.\d+", info["Version"])
        # a plugin that declares the log phase pays for it at every request
        assert info["Phases"] == (["log"] if name == plugins.USAGE_METER else ["access"])

    @pytest.mark.parametrize("name", plugins.ALL)
    def test_its_schema_is_in_kongs_language(self, dumps, name):
        (info,) = (dump["Plugins"][0] for dump in dumps.values() if dump["Plugins"][0]["Name"] == name)
        schema = info["Schema"]
        assert schema["name"] == name
        (config,) = schema["fields"]
        assert config["config"]["type"] == "record"
        assert wrong_fields(schema["fields"], path=name) == []
