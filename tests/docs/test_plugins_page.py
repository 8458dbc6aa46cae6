"""Pages with tables made from the code, and the plugins' page: its examples are configurations that load."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from control_plane.entrypoints.settings import Settings
from devstack.gateway.declarative import load_configuration
from devstack.gateway.entity_fields import UNSUPPORTED
from devstack.gateway.plugin_catalog import PluginCatalog
from devstack.gateway.plugin_servers import PluginInfo, PluginServer
from gateway_contract import plugins

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("plugins.md", "migrating-from-key-auth.md")
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)
SERVER = PluginServer(name="km", socket="/nowhere.sock", start_command=None, query_command="")
LONGEST_DESCRIPTION = 500


def tables():
    spec = importlib.util.spec_from_file_location("docs_tables", DOCS / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def module_of(name: str):
    return importlib.import_module(f"kong_plugins.plugins.{name.replace('-', '_')}")


def catalog() -> PluginCatalog:
    known = []
    for name in plugins.ALL:
        module = module_of(name)
        phases = frozenset(phase for phase in ("access", "log") if hasattr(module.Plugin, phase))
        known.append(PluginInfo(name, module.priority, module.version, phases, module.Schema, SERVER))
    return PluginCatalog(known, enabled=["bundled", *plugins.ALL])


def examples() -> list:
    """Every block that is a whole configuration."""
    found = []
    for page in PAGES:
        for number, text in enumerate(BLOCK.findall((DOCS / page).read_text()), start=1):
            if "_format_version" in text:
                found.append(pytest.param(text, id=f"{page}-{number}"))
    return found


class TestTables:
    @pytest.mark.parametrize("name", ["plugins.md", "settings.md", "subscriptions.md", "stripe.md"])
    def test_are_up_to_date(self, name: str):
        text = (DOCS / name).read_text()
        assert tables().fresh(DOCS / name, text) == text, "run `make docs`"

    def test_say_what_each_setting_means(self):
        for name, field in Settings.model_fields.items():
            assert field.description, name

    def test_name_every_field_with_its_meaning(self):
        for name in plugins.ALL:
            for entry in module_of(name).Schema:
                ((field, rules),) = entry.items()
                assert f"| `{field}` |" in tables().table_of(name)
                # what Kong takes for a description
                assert 10 <= len(rules["description"]) <= LONGEST_DESCRIPTION, field

    def test_a_page_without_marks_is_refused(self):
        with pytest.raises(ValueError, match="km-monetize: 0 pairs of marks"):
            tables().with_tables("# a page")


class TestExamples:
    @pytest.mark.parametrize("text", examples())
    def test_load(self, text: str):
        document = yaml.safe_load(text)
        wanted = {name: value for name, value in document.items() if name not in UNSUPPORTED["configuration"]}
        loaded = load_configuration(yaml.safe_dump(wanted), catalog=catalog(), first_sequence=1)
        attached = {plugin.name for chain in loaded.chains.values() for plugin in chain}
        assert attached & set(plugins.ALL)

    def test_show_each_plugin(self):
        text = "".join(parameter.values[0] for parameter in examples())
        assert all(f"name: {name}" in text for name in plugins.ALL)
