"""One request from its route to its log: access phases, upstream or exit, log phases."""

import asyncio
import logging

from devstack.gateway import answers, file_log
from devstack.gateway.entities import Configuration, Plugin
from devstack.gateway.exchange import Exchange, Exit, UpstreamCall, to_json
from devstack.gateway.file_log import FileLog
from devstack.gateway.headers import Headers
from devstack.gateway.http_answer import Answer, CallerGoneError, Request
from devstack.gateway.http_client import UpstreamPool
from devstack.gateway.pdk_call import ExitRequestedError, PdkCall, PdkError
from devstack.gateway.plugin_runner import EventFailedError, PluginRunner
from devstack.gateway.router import Router
from devstack.gateway.upstream_exchange import UpstreamExchange, UpstreamFailedError
from devstack.gateway.upstreams import NoTargetError, find_upstream

CALLER_GONE_STATUS = 499

logger = logging.getLogger("gateway.proxy")


class Proxy:
    """Handles requests under the configuration that was in force when each began."""

    def __init__(self, configuration: Configuration, runner: PluginRunner) -> None:
        self._runner = runner
        self._file_log = FileLog()
        self._pool = UpstreamPool()
        self._background: set[asyncio.Task[None]] = set()
        self.configuration = configuration
        self._router = Router(configuration.routes)

    def apply(self, configuration: Configuration) -> None:
        """Requests from now on use the new configuration; running ones keep theirs."""
        self.configuration = configuration
        self._router = Router(configuration.routes)

    async def handle(self, request: Request, answer: Answer) -> None:
        """Answer one request and log it, whatever happens. Raises CallerGoneError after having logged it."""
        configuration = self.configuration
        exchange = Exchange(request, configuration.upstreams)
        exchange.match = self._router.match(
            method=request.method, raw_path=exchange.raw_path, host=exchange.headers.get("host")
        )
        chain = configuration.global_chain
        if exchange.match is not None:
            chain = configuration.chains[exchange.match.route.id]
        finish = _Finish(self, exchange, chain)
        try:
            await self._answer(exchange, chain, answer, finish)
        except CallerGoneError:
            self._note_caller_gone(exchange, answer)
            raise
        except Exception:
            logger.exception("request %s failed inside the gateway", exchange.id)
            exchange.unexpected = True
            await self._answer_failure(exchange, answer, finish)
        finally:
            finish.run(answer.sent_bytes)

    async def close(self) -> None:
        """Wait for log phases that still run, then let go of everything."""
        if self._background:
            await asyncio.wait(self._background, timeout=5)
        self._runner.close()
        self._pool.close()
        self._file_log.close()

    # --- access

    async def _answer(
        self, exchange: Exchange, chain: tuple[Plugin, ...], answer: Answer, finish: "_Finish"
    ) -> None:
        exchange.exit = self._exit_before_plugins(exchange)
        if exchange.exit is None:
            self._prepare_upstream(exchange)
            # not interrupted when the caller hangs up, as in Kong: a plugin that took from a quota must get
            # to say so in the log
            await self._run_access(exchange, chain)
        if exchange.exit is None:
            self._find_upstream(exchange)
        exchange.kong_latency_ms = exchange.since_start_ms()
        if exchange.exit is not None:
            await self._send_exit(exchange, exchange.exit, answer, finish)
            return
        exchange.proxied = True
        if exchange.request.gone:
            raise CallerGoneError
        await self._send_proxied(exchange, answer, finish)

    def _exit_before_plugins(self, exchange: Exchange) -> Exit | None:
        if exchange.match is None:
            return answers.error_exit(exchange, 404)
        if exchange.request.upgrade and (exchange.headers.get("upgrade") or "").lower() == "websocket":
            return answers.error_exit(exchange, 501, "websockets are not supported by the local gateway")
        route = exchange.match.route
        if "http" in route.protocols:
            return None
        if route.https_redirect_status_code != 426:  # noqa: PLR2004 - Kong's default: say it instead of redirecting
            location = f"https://{exchange.host}{exchange.request.target}"
            return Exit(route.https_redirect_status_code, b"", {"Location": location})
        refusal = answers.error_exit(exchange, 426)
        refusal.headers |= {"Connection": "Upgrade", "Upgrade": "TLS/1.2, HTTP/1.1"}
        return refusal

    def _prepare_upstream(self, exchange: Exchange) -> None:
        assert exchange.match is not None  # noqa: S101 - without a match there is an exit
        route = exchange.match.route
        exchange.upstream = UpstreamCall(
            host=route.service.host,
            port=route.service.port,
            path=exchange.match.upstream_path,
            query=exchange.query,
            method=exchange.request.method,
            host_header=exchange.headers.get("host") if route.preserve_host else None,
        )

    async def _run_access(self, exchange: Exchange, chain: tuple[Plugin, ...]) -> None:
        for plugin in chain:
            if not self._runner.has_phase(plugin, "access"):
                continue
            try:
                await self._runner.run(plugin, "access", PdkCall(exchange, "access", plugin.name))
            except ExitRequestedError as wanted:
                exchange.exit = wanted.answer
            except EventFailedError as error:
                logger.error("[%s] %s", plugin.name, error)  # noqa: TRY400 - the plugin server has the traceback
                exchange.exit = answers.error_exit(exchange, 500)
            except PdkError as error:
                logger.error("[%s] %s", plugin.name, error)  # noqa: TRY400 - a plugin's mistake, not ours
                exchange.exit = answers.error_exit(exchange, 500)
                exchange.unexpected = True
            if exchange.exit is not None:
                return

    def _find_upstream(self, exchange: Exchange) -> None:
        call, match = exchange.upstream, exchange.match
        assert call is not None and match is not None  # noqa: S101, PT018 - without a match there is an exit
        try:
            call.balanced = find_upstream(
                call.host, service_host=match.route.service.host, upstreams=exchange.upstreams
            )
        except NoTargetError as error:
            logger.error("%s: no target for host %r", match.route.service.name, call.host)  # noqa: TRY400 - said all
            exchange.exit = answers.error_exit(exchange, error.status, error.message)
            exchange.unexpected = True

    # --- answering

    async def _send_exit(self, exchange: Exchange, given: Exit, answer: Answer, finish: "_Finish") -> None:
        headers = answers.exit_headers(exchange, given)
        self._start(exchange, answer, given.status, headers, content_length=len(given.body))
        await answer.write(given.body)
        await answer.finish(finish.run)

    async def _answer_failure(self, exchange: Exchange, answer: Answer, finish: "_Finish") -> None:
        if answer.started:
            answer.abort()
        else:
            await self._send_exit(exchange, answers.error_exit(exchange, 500), answer, finish)

    async def _send_proxied(self, exchange: Exchange, answer: Answer, finish: "_Finish") -> None:
        upstream = UpstreamExchange(self._pool, exchange)
        exchange.request.on_gone = upstream.abort
        try:
            await upstream.open()
        except UpstreamFailedError as failed:
            if exchange.request.gone:
                raise CallerGoneError from failed
            logger.error("%s: %s", exchange.match and exchange.match.route.service.name, failed)  # noqa: TRY400
            exchange.unexpected = True
            await self._send_exit(exchange, answers.error_exit(exchange, failed.status), answer, finish)
            return
        headers = answers.proxied_headers(exchange, upstream.headers)
        self._start(exchange, answer, upstream.status, headers, content_length=upstream.content_length)
        try:
            await self._stream(upstream, answer)
        except UpstreamFailedError as failed:
            if exchange.request.gone:
                raise CallerGoneError from failed
            logger.error("the upstream left in the middle of its answer")  # noqa: TRY400
            finish.run(answer.sent_bytes)
            answer.abort()
            return
        finally:
            upstream.close()
        await answer.finish(finish.run)

    async def _stream(self, upstream: UpstreamExchange, answer: Answer) -> None:
        while True:
            if not upstream.has_data:
                # nothing more right now: what we have must not wait for what comes
                await answer.flush()
            piece = await upstream.read()
            if not piece:
                return
            await answer.write(piece)

    def _start(
        self,
        exchange: Exchange,
        answer: Answer,
        status: int,
        headers: Headers,
        *,
        content_length: int | None,
    ) -> None:
        exchange.status = status
        answer.start(status, answers.raw(headers), content_length=content_length)
        exchange.response_headers = Headers(answer.headers)

    def _note_caller_gone(self, exchange: Exchange, answer: Answer) -> None:
        # as nginx: once something was sent, the status stays what the caller saw
        if answer.sent_bytes == 0:
            exchange.status = CALLER_GONE_STATUS

    # --- log

    def run_log(self, exchange: Exchange, chain: tuple[Plugin, ...]) -> None:
        """Log phases in order. External plugins get what the log says now, and run after the answer."""
        for plugin in chain:
            if plugin.name == file_log.NAME:
                self._file_log.log(exchange, plugin.config)
            elif self._runner.has_phase(plugin, "log"):
                call = PdkCall(exchange, "log", plugin.name, serialized=to_json(exchange.serialize()))
                task = asyncio.get_running_loop().create_task(self._run_log_phase(plugin, call))
                self._background.add(task)
                task.add_done_callback(self._background.discard)

    async def _run_log_phase(self, plugin: Plugin, call: PdkCall) -> None:
        try:
            await self._runner.run(plugin, "log", call)
        except (EventFailedError, PdkError, ExitRequestedError) as error:
            logger.error("[%s] log phase: %s", plugin.name, error)  # noqa: TRY400 - nobody waits for it


class _Finish:
    """The log phase of one request, once, with the size of its answer."""

    def __init__(self, proxy: Proxy, exchange: Exchange, chain: tuple[Plugin, ...]) -> None:
        self._proxy = proxy
        self._exchange = exchange
        self._chain = chain
        self._done = False

    def run(self, response_bytes: int) -> None:
        if self._done:
            return
        self._done = True
        if self._exchange.kong_latency_ms is None:
            self._exchange.kong_latency_ms = self._exchange.since_start_ms()
        self._exchange.response_bytes = response_bytes
        self._proxy.run_log(self._exchange, self._chain)
