"""Pushing configuration to nodes. `FakeKong` answers as Kong 3.9.3 without a database does."""

import asyncio
import hashlib
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
import yaml
from aiohttp import web
from sqlalchemy import func, select

from control_plane.catalog.model import ProductFacts
from control_plane.catalog.operations import update_api_product
from control_plane.foundation.audit import AuditRow
from control_plane.foundation.outbox import OutboxRow, Topic, enqueue
from control_plane.gateway_sync.base_config import KongConfigError
from control_plane.gateway_sync.config import GatewayConfig
from control_plane.gateway_sync.config_sync import check_and_repair, push_when_quiet, run_config_sync
from control_plane.gateway_sync.nodes import PushOutcome
from control_plane.gateway_sync.operations import check_nodes, push_config
from control_plane.gateway_sync.queries import gateway_status, preview_config
from control_plane.gateway_sync.tables import GatewayNode
from control_plane.keys.operations import issue_key, revoke_key

BASE = """
_format_version: "3.0"
services:
  - name: weather-api
    url: http://127.0.0.1:9000
    routes:
      - {name: forecast, paths: [/v1/forecast]}
      - {name: history, paths: [/v1/history]}
"""
EMPTY_HASH = "0" * 32


class FakeKong:
    """One Kong node's Admin API on loopback."""

    def __init__(self) -> None:
        self.hash = EMPTY_HASH
        self.document = None
        self.pushes = 0
        self.refusal: tuple[int, dict] | None = None
        self.restarts_after_pushes = 0
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/status", self._status)
        app.router.add_post("/config", self._config)
        return app

    def restart_with(self, text: str) -> None:
        """As a Kong that came back with its own file."""
        self.hash, self.document = hashlib.md5(text.encode()).hexdigest(), yaml.safe_load(text)

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response({"configuration_hash": self.hash})

    async def _config(self, request: web.Request) -> web.Response:
        self.pushes += 1
        assert request.content_type in {"application/yaml", "text/yaml"}
        if self.refusal:
            status, body = self.refusal
            return web.json_response(body, status=status)
        text = await request.text()
        digest = hashlib.md5(text.encode()).hexdigest()
        if request.query.get("check_hash") == "1" and digest == self.hash:
            return web.Response(status=304)
        self.hash, self.document = digest, yaml.safe_load(text)
        if self.restarts_after_pushes:
            self.restarts_after_pushes -= 1
            self.restart_with(BASE)
        return web.json_response({}, status=201)


@asynccontextmanager
async def serving(kong: FakeKong):
    runner = web.AppRunner(kong.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    kong.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield kong
    finally:
        await runner.cleanup()


@pytest.fixture
async def kongs():
    async with serving(FakeKong()) as first, serving(FakeKong()) as second:
        yield first, second


@pytest.fixture
def config(kongs, tmp_path) -> GatewayConfig:
    base = tmp_path / "kong.yml"
    base.write_text(BASE)
    return GatewayConfig(
        base_path=base,
        node_urls=tuple(kong.url for kong in kongs),
        usage_spool_path="/var/spool/km/live.jsonl",
        debounce_seconds=0.2,
        debounce_max_seconds=5.0,
        check_seconds=0.2,
        timeout_seconds=5.0,
    )


@pytest.fixture(autouse=True)
async def catalog(shop, now):
    await shop.add_catalog(now - timedelta(minutes=1))


def changed(config: GatewayConfig, **values) -> GatewayConfig:
    return GatewayConfig(**{name: getattr(config, name) for name in config.__slots__} | values)


async def push(shop, config, now):
    async with shop.sessions() as session, session.begin():
        return await push_config(session, config=config, actor="ada@example.com", now=now)


async def status(shop, config):
    async with shop.sessions() as session:
        return await gateway_status(session, config=config)


async def statuses(shop, config):
    return [node.status for node in (await status(shop, config)).nodes]


class TestPushConfig:
    async def test_every_node_runs_the_rendered_configuration(self, shop, kongs, config, now):
        report = await push(shop, config, now)
        assert report.succeeded
        assert [node.push.outcome for node in report.nodes] == [PushOutcome.APPLIED, PushOutcome.APPLIED]
        for kong in kongs:
            assert kong.hash == report.hash
            routes = kong.document["services"][0]["routes"]
            assert [[plugin["name"] for plugin in route["plugins"]] for route in routes] == [["km-monetize"]] * 2
            assert kong.document["plugins"][0]["name"] == "file-log"
        found = await status(shop, config)
        assert found.wanted_hash == report.hash
        assert [(node.status, node.current, node.pushed_at) for node in found.nodes] == [
            ("in_sync", True, now)
        ] * 2

    async def test_again_changes_nothing(self, shop, kongs, config, now):
        await push(shop, config, now)
        report = await push(shop, config, now)
        assert report.succeeded
        assert {node.push.outcome for node in report.nodes} == {PushOutcome.UNCHANGED}

    async def test_writes_an_audit_row_for_each_node(self, shop, kongs, config, now):
        report = await push(shop, config, now)
        async with shop.sessions() as session:
            rows = (await session.scalars(select(AuditRow).where(AuditRow.action == "gateway_node.pushed"))).all()
            nodes = {node.admin_url: node.id for node in await session.scalars(select(GatewayNode))}
        assert {row.entity_id for row in rows} == set(nodes.values())
        assert all(row.actor == "ada@example.com" for row in rows)
        assert all(row.before == {"config_hash": EMPTY_HASH} for row in rows)
        assert all(row.after["config_hash"] == report.hash for row in rows)

    async def test_a_password_in_an_address_is_shown_to_nobody(self, shop, kongs, config, now):
        urls = tuple(kong.url.replace("http://", "http://km:hush-hush@") for kong in kongs)
        config = changed(config, node_urls=urls)
        report = await push(shop, config, now)
        assert report.succeeded
        assert [node.admin_url for node in report.nodes] == [kong.url for kong in kongs]
        assert "hush-hush" not in repr(report)
        assert "hush-hush" not in repr(await status(shop, config))
        async with shop.sessions() as session:
            rows = await session.scalars(select(AuditRow).where(AuditRow.action == "gateway_node.pushed"))
            assert not any("hush-hush" in repr(row.after) for row in rows)

    async def test_a_refused_configuration_is_given_to_no_other_node(self, shop, kongs, config, now):
        fields = {
            "services": [None, {"routes": [{"paths": "invalid path"}]}],
            "plugins": {"12": {"name": "unknown"}},
        }
        kongs[0].refusal = (400, {"message": "declarative config is invalid", "fields": fields})
        report = await push(shop, config, now)
        assert not report.succeeded
        assert report.nodes[0].push.outcome is PushOutcome.REFUSED
        assert report.nodes[0].push.detail == (
            "400: services[1].routes[0].paths: invalid path; plugins[11].name: unknown"
        )
        assert report.nodes[1].push is None
        assert kongs[1].pushes == 0
        node = (await status(shop, config)).nodes[0]
        assert (node.status, node.current) == ("drifted", False)
        assert "invalid path" in node.detail

    async def test_a_node_that_is_down_does_not_hold_up_the_others(self, shop, kongs, config, now):
        down = changed(config, node_urls=("http://127.0.0.1:9", kongs[1].url))
        report = await push(shop, down, now)
        assert [node.push.outcome for node in report.nodes] == [PushOutcome.UNREACHABLE, PushOutcome.APPLIED]
        assert await statuses(shop, down) == ["unreachable", "in_sync"]

    async def test_a_busy_node_is_not_taken_for_a_refusal(self, shop, kongs, config, now):
        kongs[0].refusal = (429, {"message": "Currently loading previous configuration"})
        report = await push(shop, config, now)
        assert [node.push.outcome for node in report.nodes] == [PushOutcome.FAILED, PushOutcome.APPLIED]
        assert await statuses(shop, config) == ["unreachable", "in_sync"]

    async def test_what_does_not_run_afterwards_is_not_in_sync(self, shop, kongs, config, now):
        kongs[0].refusal = (201, {})  # says yes and does nothing
        report = await push(shop, config, now)
        assert report.nodes[0].push.outcome is PushOutcome.NOT_VERIFIED
        # it may have restarted just then: a check that finds it so tells of it
        assert await statuses(shop, config) == ["unknown", "in_sync"]
        async with shop.sessions() as session, session.begin():
            assert await check_nodes(session, config=config, now=now) == [kongs[0].url]
        await push(shop, config, now)
        assert await statuses(shop, config) == ["drifted", "in_sync"]
        async with shop.sessions() as session, session.begin():
            assert await check_nodes(session, config=config, now=now) == []

    async def test_an_address_that_is_no_admin_api_is_told(self, shop, kongs, config, now):
        app = web.Application()
        app.router.add_get("/status", _answer_anything)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        wrong = changed(config, node_urls=(f"http://127.0.0.1:{runner.addresses[0][1]}",))
        report = await push(shop, wrong, now)
        await runner.cleanup()
        assert "configuration_hash" in report.nodes[0].push.detail

    async def test_nothing_is_pushed_when_rendering_fails(self, shop, kongs, config, now):
        config.base_path.write_text(BASE.replace("name: history", "name: past"))
        with pytest.raises(KongConfigError, match="'history'"):
            await push(shop, config, now)
        assert [kong.pushes for kong in kongs] == [0, 0]
        assert "'history'" in (await status(shop, config)).error

    async def test_a_base_that_cannot_be_read_is_told(self, shop, config):
        found = await status(shop, changed(config, base_path=config.base_path / "missing"))
        assert found.wanted_hash is None
        assert "cannot be read" in found.error

    async def test_nodes_that_left_the_settings_are_forgotten(self, shop, kongs, config, now):
        await push(shop, config, now)
        await push(shop, changed(config, node_urls=(kongs[1].url,)), now)
        async with shop.sessions() as session:
            assert list(await session.scalars(select(GatewayNode.admin_url))) == [kongs[1].url]


class TestPreview:
    async def test_shows_text_and_difference_and_pushes_nothing(self, shop, kongs, config):
        async with shop.sessions() as session:
            preview = await preview_config(session, config=config)
        assert len(preview.added) == 3
        lines = preview.diff.splitlines()
        assert any(line.startswith("+") and "km-monetize" in line for line in lines)
        assert [line for line in lines if line.startswith("-") and not line.startswith("---")] == []
        assert [kong.pushes for kong in kongs] == [0, 0]


class TestDrift:
    async def check(self, shop, config, now):
        async with shop.sessions() as session, session.begin():
            return await check_nodes(session, config=config, now=now)

    async def test_a_node_that_runs_something_else_has_drifted(self, shop, kongs, config, now):
        await push(shop, config, now)
        assert await self.check(shop, config, now) == []
        kongs[1].restart_with(BASE)
        assert await self.check(shop, config, now) == [kongs[1].url]
        assert await statuses(shop, config) == ["in_sync", "drifted"]
        assert kongs[1].hash in (await status(shop, config)).nodes[1].detail

    async def test_is_told_of_once(self, shop, kongs, config, now):
        await push(shop, config, now)
        kongs[1].restart_with(BASE)
        await self.check(shop, config, now)
        assert await self.check(shop, config, now) == []

    async def test_a_node_nothing_was_pushed_to_is_unknown(self, shop, kongs, config, now):
        await self.check(shop, config, now)
        assert await statuses(shop, config) == ["unknown", "unknown"]

    async def test_a_drifted_node_is_given_ours_again(self, shop, kongs, config, now):
        report = await push(shop, config, now)
        kongs[1].restart_with(BASE)
        await check_and_repair(shop.sessions, config=config, now=now)
        assert kongs[1].hash == report.hash
        assert await statuses(shop, config) == ["in_sync", "in_sync"]

    async def test_or_not_where_the_setting_says_so(self, shop, kongs, config, now):
        await push(shop, config, now)
        kongs[1].restart_with(BASE)
        await check_and_repair(shop.sessions, config=changed(config, repush_drifted=False), now=now)
        assert await statuses(shop, config) == ["in_sync", "drifted"]

    async def test_a_refused_configuration_is_not_pushed_over_and_over(self, shop, kongs, config, now):
        kongs[0].refusal = (400, {"message": "no"})
        await push(shop, config, now)
        for _ in range(3):
            await check_and_repair(shop.sessions, config=config, now=now)
        assert kongs[0].pushes == 1
        assert (await status(shop, config)).nodes[0].detail == "400: no"

    async def test_a_node_that_missed_a_push_gets_it_when_it_is_back(self, shop, kongs, config, now):
        kongs[0].refusal = (503, {"message": "Kong currently exiting"})
        report = await push(shop, config, now)
        kongs[0].refusal = None
        await check_and_repair(shop.sessions, config=config, now=now)
        assert kongs[0].hash == report.hash


class TestPushAfterChanges:
    async def test_waits_until_changes_have_settled(self, shop, kongs, config, now):
        await self.quiet(shop, config, now)  # the catalogue's own changes
        await self.announce(shop, now)
        assert await self.quiet(shop, config, now + timedelta(seconds=0.1)) is None
        report = await self.quiet(shop, config, now + timedelta(seconds=0.3))
        assert report.succeeded
        assert await self.quiet(shop, config, now + timedelta(seconds=9)) is None

    async def test_but_not_for_ever(self, shop, kongs, config, now):
        for tenths in range(60):
            await self.announce(shop, now + timedelta(seconds=tenths / 10))
        assert (await self.quiet(shop, config, now + timedelta(seconds=6))).succeeded

    async def test_many_changes_are_one_push(self, shop, kongs, config, now):
        for _ in range(5):
            await self.announce(shop, now)
        await self.quiet(shop, config, now + timedelta(seconds=1))
        assert [kong.pushes for kong in kongs] == [1, 1]

    async def test_what_cannot_be_rendered_is_pushed_nowhere_and_not_tried_again(self, shop, kongs, config, now):
        config.base_path.write_text("services: 5")
        await self.announce(shop, now)
        assert await self.quiet(shop, config, now + timedelta(seconds=1)) is None
        assert [kong.pushes for kong in kongs] == [0, 0]
        async with shop.sessions() as session:
            waiting = select(func.count(OutboxRow.id)).where(
                OutboxRow.topic == Topic.CONFIG_CHANGED, OutboxRow.done_at.is_(None)
            )
            assert await session.scalar(waiting) == 0

    async def announce(self, shop, now):
        async with shop.sessions() as session, session.begin():
            await enqueue(session, topic=Topic.CONFIG_CHANGED, entity_id="prod_1", now=now)

    async def quiet(self, shop, config, now):
        return await push_when_quiet(shop.sessions, config=config, now=now)


class TestRunConfigSync:
    @asynccontextmanager
    async def running(self, shop, config):
        stop = asyncio.Event()
        url = shop.engine.url.render_as_string(hide_password=False)
        task = asyncio.create_task(run_config_sync(config, database_url=url, stop=stop))
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, 30)

    async def test_a_changed_product_reaches_every_node(self, shop, kongs, config, eventually, now):
        async with self.running(shop, config):
            await eventually(lambda: all(kong.document for kong in kongs))
            product = ProductFacts(code="weather", name="Weather", service="weather-api", routes=("forecast",))
            async with shop.sessions() as session, session.begin():
                await update_api_product(session, product=product, actor="test", now=now)
            await eventually(lambda: all("plugins" not in _route(kong, "history") for kong in kongs))

    async def test_a_restarted_node_is_repaired(self, shop, kongs, config, eventually):
        async with self.running(shop, config):
            await eventually(lambda: kongs[0].document)
            wanted = kongs[0].hash
            kongs[0].restart_with(BASE)
            await eventually(lambda: kongs[0].hash == wanted)

    async def test_a_node_that_restarts_right_after_a_push_is_repaired(self, shop, kongs, config, eventually):
        kongs[0].restarts_after_pushes = 1
        async with self.running(shop, config):
            await eventually(lambda: kongs[1].document and kongs[0].hash == kongs[1].hash)

    async def test_a_node_that_never_shows_what_it_took_is_not_pushed_to_forever(
        self, shop, kongs, config, eventually
    ):
        kongs[0].restarts_after_pushes = 1000
        async with self.running(shop, config):
            await eventually(lambda: kongs[0].pushes == 2)
            # rounds enough for more
            await asyncio.sleep(5 * config.check_seconds)
            assert kongs[0].pushes == 2

    async def test_issuing_and_revoking_keys_pushes_nothing(self, shop, kongs, config, eventually, now):
        async with self.running(shop, config):
            await eventually(lambda: all(kong.document for kong in kongs))
            pushes = [kong.pushes for kong in kongs]
            customer = await shop.add_customer(now)
            for _ in range(5):
                async with shop.sessions() as session, session.begin():
                    issued = await issue_key(
                        session, account_id=customer.account_id, name="k", mode="live", actor="test", now=now
                    )
                async with shop.sessions() as session, session.begin():
                    await revoke_key(session, key_id=issued.key.id, actor="test", now=now)
            await asyncio.sleep(1.5)  # several debounce and check intervals
            assert [kong.pushes for kong in kongs] == pushes


async def _answer_anything(_request: web.Request) -> web.Response:
    return web.json_response({"hello": "world"})


def _route(kong: FakeKong, name: str) -> dict:
    return next(route for route in kong.document["services"][0]["routes"] if route["name"] == name)
