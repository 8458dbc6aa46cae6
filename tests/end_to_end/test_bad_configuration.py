"""Malformed kong.yml and plans.yml: a sentence that names entity and field, and all goes on as it was."""

import copy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml

from devstack.demo.scenario import create_customer
from devstack.ports import free_port, is_listening
from devstack.stack_layout import REPOSITORY
from gateway_contract.file_log import EXPRESSION_KEY
from tests.end_to_end.conftest import PLANS
from tests.end_to_end.counting import eventually, get

WIDE = ((5_000, 1_000), (100_000, 60_000))


@pytest.fixture
def stack(shared_stack):
    return shared_stack


@pytest.fixture
async def served(stack, control):
    """Says whether a paying customer's call is served right now."""
    customer = await create_customer(control, name="Steady", plan="starter", windows=WIDE, quota=None)

    async def is_served():
        return (await get(f"{stack.proxy_url}/weather/v1/current/oslo", customer.key))[0] == 200

    assert await eventually(is_served, seconds=20, pause=0.1)
    return is_served


def put(document, path, value):
    """Set, or with ... remove, what stands at a path like `services/0/port`."""
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    for step in steps:
        document = document[step]
    if value is ...:
        del document[last]
    elif isinstance(document, list) and last == len(document):
        document.append(value)
    else:
        document[last] = value


async def configuration_hash(stack):
    """Of what the gateway runs."""
    async with httpx.AsyncClient(base_url=stack.admin_api_url) as admin:
        return (await admin.get("/status")).json()["configuration_hash"]


# where in the configuration, what is put there, what the answer must say
KONG_YML = [
    ("services/0/routes/0/plugins/0/config/colour", "red", "plugin 'km-monetize': field 'config.colour': unknown"),
    (
        "services/0/routes/0/plugins/0/config/api_product",
        ...,
        "plugin 'km-monetize': field 'config.api_product': required field missing",
    ),
    (
        "services/0/routes/0/plugins/0/config/api_product",
        "No Such Code",
        "plugin 'km-monetize': field 'config.api_product': invalid value",
    ),
    (
        "services/0/routes/0/plugins/0/config/key_headers",
        ["apikey", "not a header"],
        "plugin 'km-monetize': field 'config.key_headers[1]': invalid value",
    ),
    ("services/0/routes/0/plugins/0/name", "km-monetise", "field 'name': plugin 'km-monetise' is not supported"),
    ("services/0/routes/0/pahts", ["/x"], "route 'weather': field 'pahts': unknown field"),
    ("services/0/routes/0/paths", "/weather", "route 'weather': field 'paths': expected an array"),
    ("services/0/connect_timeout", "soon", "service 'weather': field 'connect_timeout': expected an integer"),
    ("services/0/host", ..., "service 'weather': field 'host': required field missing"),
    ("services/0/tls_verify", True, "service 'weather': field 'tls_verify' is not supported by the local gateway"),
    ("certificates", [{"cert": "c"}], "configuration: field 'certificates' is not supported by the local gateway"),
    ("upstreams", [{"name": "u", "healthchecks": {}}], "upstream 'u': field 'healthchecks' is not supported"),
    ("_format_version", ..., "configuration: field '_format_version': required field missing"),
    ("plugins/0/config/custom_fields_by_lua", ..., "plugin 'file-log': field 'config.custom_fields_by_lua'"),
    (
        f"plugins/0/config/custom_fields_by_lua/{EXPRESSION_KEY}",
        "return os.getenv('HOME')",
        "plugin 'file-log': field 'config.custom_fields_by_lua': the local gateway runs no Lua",
    ),
    (
        "plugins/0/config/custom_fields_by_lua/response.headers",
        "return nil",
        "plugin 'file-log': field 'config.custom_fields_by_lua': the local gateway runs no Lua",
    ),
    ("plugins/1", {"name": "file-log", "route": "nowhere"}, "there is no route 'nowhere'"),
]
NO_YAML = "services: [\n  - {name: weather"


def spoiled(stack, path, value):
    document = yaml.safe_load((stack.data_dir / "kong.yml").read_text())
    put(document, path, value)
    return yaml.safe_dump(document)


class TestPushedToTheGateway:
    async def test_each_fault_is_named_and_the_old_configuration_stays_in_force(self, stack, control, served):
        async with httpx.AsyncClient(base_url=stack.admin_api_url) as admin:
            before = await configuration_hash(stack)
            for path, value, named in KONG_YML:
                pushed = spoiled(stack, path, value)
                answer = await admin.post("/config?check_hash=1", content=pushed.encode())
                assert answer.status_code == 400, (path, value)
                assert named in answer.json()["message"], (path, answer.json()["message"])
                assert answer.json()["name"] == "invalid declarative configuration"
            for content in (NO_YAML.encode(), b"", b"- a list", b"\xff\xfe\x00", b"just words"):
                answer = await admin.post("/config?check_hash=1", content=content)
                assert answer.status_code == 400, content
                assert answer.json()["message"]
        assert await configuration_hash(stack) == before
        assert await served()

    async def test_all_faults_are_told_at_once_in_the_shape_of_the_document(self, stack, control, served):
        document = yaml.safe_load((stack.data_dir / "kong.yml").read_text())
        put(document, "services/0/port", "http")
        put(document, "services/0/routes/0/plugins/0/config/colour", "red")
        async with httpx.AsyncClient(base_url=stack.admin_api_url) as admin:
            answer = await admin.post("/config", content=yaml.safe_dump(document).encode())
        assert answer.status_code == 400
        service = answer.json()["fields"]["services"][0]
        assert service["port"] == "expected an integer"
        assert service["routes"][0]["plugins"][0]["config"] == {"colour": "unknown field"}
        assert await served()


class TestAtTheGatewaysStart:
    @pytest.mark.parametrize(
        ("path", "value", "named"),
        [KONG_YML[0], KONG_YML[5], KONG_YML[13], (None, None, "failed parsing")],
        ids=["plugin field", "route field", "Lua", "YAML"],
    )
    def test_it_says_what_is_wrong_and_does_not_start(self, stack, tmp_path, path, value, named):
        bad = tmp_path / "kong.yml"
        bad.write_text(NO_YAML if path is None else spoiled(stack, path, value))
        port = free_port()
        places = ["--proxy-port", str(port), "--admin-port", str(free_port())]
        conf = ["--conf", str(stack.data_dir / "kong.conf"), "--config", str(bad)]
        result = subprocess.run(
            [sys.executable, "-m", "devstack.gateway", *conf, *places],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 1
        assert named in result.stderr
        assert result.stderr.startswith("error: ")
        assert "Traceback" not in result.stderr
        assert not is_listening(port)


class TestTheOperatorsBase:
    async def test_a_base_that_is_no_yaml_is_refused_and_nothing_is_pushed(self, stack, control, served):
        base = stack.data_dir / "kong.yml"
        good = base.read_text()
        before = await configuration_hash(stack)
        try:
            base.write_text(NO_YAML)
            code, said = run_km(stack, "gateway", "push")
            assert code == 1
            assert "line 2" in said
            assert await configuration_hash(stack) == before
        finally:
            base.write_text(good)
        assert run_km(stack, "gateway", "push")[0] == 0
        assert await served()

    async def test_a_fault_that_kong_finds_is_shown_with_its_field(self, stack, control, served):
        base = stack.data_dir / "kong.yml"
        good = base.read_text()
        try:
            base.write_text(spoiled(stack, "services/0/routes/0/plugins/0/config/colour", "red"))
            code, said = run_km(stack, "gateway", "push")
            assert code == 1
            assert "refused" in said
            assert "config.colour" in said
            assert await served()
        finally:
            base.write_text(good)
        assert run_km(stack, "gateway", "push")[0] == 0
        assert await served()


PLAN_FILE = [
    ("plans/2/prices/1/unit_amount", "cheap", "plans[2].prices[1].unit_amount"),
    ("plans/2/prices/1/unit_amount", True, "plans[2].prices[1].unit_amount"),
    ("plans/2/quota/units", -1, "plans[2].quota.units"),
    ("plans/2/quota/on_exceed", "shrug", "plans[2].quota.on_exceed"),
    ("plans/2/limits/0/per", "fortnight", "plans[2].limits[0].per"),
    ("plans/2/colour", "red", "plans[2].colour"),
    ("plans/2/api_product", "maps", "plans[2].api_product"),
    ("plans/2/code", "growth", "plans[2].code"),
    ("api_products/0/endpoints/1", "FETCH /x", "api_products[0].endpoints[1].method"),
    ("api_products/0/routes", [], "api_products[0].routes"),
]


class TestPlanFiles:
    async def test_each_fault_is_named_by_its_path_and_the_catalog_stays(self, stack, control):
        before = await control.get("/plans"), await control.get("/products")
        good = yaml.safe_load(PLANS.read_text())

        def apply(path, value):
            document = copy.deepcopy(good)
            # a good change beside the bad one: neither may be applied
            document["plans"][1]["name"] = "Renamed"
            put(document, path, value)
            return run_km(stack, "plans", "apply", "-", stdin=yaml.safe_dump(document))

        with ThreadPoolExecutor(3) as pool:
            answers = list(pool.map(apply, *zip(*[(path, value) for path, value, _ in PLAN_FILE], strict=True)))
        for (path, _, named), (code, said) in zip(PLAN_FILE, answers, strict=True):
            assert (code, f"km: {named}: " in said) == (1, True), (path, said)
        assert before == (await control.get("/plans"), await control.get("/products"))

    async def test_text_that_is_no_plan_file(self, stack, control, tmp_path):
        before = await control.get("/plans")
        for text, named in ((NO_YAML, "line 2"), ("", "km: "), ("- a list", "km: "), ("plans: 7", "km: plans: ")):
            code, said = run_km(stack, "plans", "apply", "-", stdin=text)
            assert (code, named in said, "Traceback" in said) == (1, True, False), (text, said)
        (tmp_path / "latin.yml").write_bytes("plans: [{name: Größe}]".encode("latin-1"))
        assert run_km(stack, "plans", "apply", str(tmp_path / "latin.yml"))[0] == 1
        assert before == await control.get("/plans")


def run_km(stack, *arguments, stdin=None):
    """Return exit code and everything a `km` command printed."""
    result = subprocess.run(
        [sys.executable, "-m", "control_plane.entrypoints.cli", *arguments],
        env={"KM_URL": stack.control_url, "KM_TOKEN": stack.admin_token, "PATH": "/usr/bin:/bin"},
        cwd=REPOSITORY,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return result.returncode, result.stdout + result.stderr
