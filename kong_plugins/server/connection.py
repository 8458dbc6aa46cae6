"""One connection of Kong's: its calls are answered one after the other, events inline in its greenlet.

How failures are answered is decided here and nowhere else:
an event of a phase that admits requests gets a 503 through `kong.response.exit`; a log event ends normally;
an instance nobody knows, or a configuration a plugin refuses, closes the connection. Kong starts the instance
anew in the first case and answers 500 in the second.
"""

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from typing import Any, Final

from gevent import GreenletExit, getcurrent

from kong_plugins.server import messages, metrics, wire
from kong_plugins.server.errors import (
    ConnectionLostError,
    EventTimeout,
    PdkError,
    PluginLoadError,
    ResponseSent,
    UnknownInstanceError,
    WireError,
)
from kong_plugins.server.event_calls import join_event_call, split_event_call
from kong_plugins.server.frames import FrameSocket
from kong_plugins.server.methods import EXIT, Method
from kong_plugins.server.pdk import Kong
from kong_plugins.server.pdk.response import encode_exit
from kong_plugins.server.plugin_host import Handler, PluginHost

LONGEST_CALL: Final = 16 * 1024 * 1024
DRAIN_SECONDS: Final = 5.0
END_OF_EVENT: Final = wire.frame(b"")

FAILURE_STATUS: Final = 503
FAILURE_BODY: Final = json.dumps(
    {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": FAILURE_STATUS,
        "code": "gateway_plugin_failed",
        "detail": "The gateway could not decide on this request. Try again shortly.",
    }
).encode()
FAILURE_HEADERS: Final[Mapping[str, object]] = {
    "Content-Type": "application/problem+json",
    "Cache-Control": "no-store",
    "Retry-After": "1",
}
_FAILURE: Final = encode_exit(FAILURE_STATUS, FAILURE_BODY, FAILURE_HEADERS)

exceptions = metrics.counter("km_pluginserver_exceptions_total", help_text="exceptions plugins raised")
timeouts = metrics.counter("km_pluginserver_timeouts_total", help_text="events that ran out of time")
garbage = metrics.counter("km_pluginserver_protocol_errors_total", help_text="connections closed for nonsense")
unknown = metrics.counter("km_pluginserver_unknown_instances_total", help_text="events of instances not known")
refused = metrics.counter("km_pluginserver_refused_instances_total", help_text="instances that could not start")
accepted = metrics.counter("km_pluginserver_connections_total", help_text="connections accepted")


class Connection(FrameSocket):
    """Also the channel its `kong` object talks through."""

    def __init__(self, sock: Any, *, host: PluginHost, event_timeout_seconds: float) -> None:
        super().__init__(sock)
        self._host = host
        self._timeout = event_timeout_seconds
        self._kong = Kong(self)
        self._greenlet: Any = None
        self._sent_exit = False
        self._lost = False
        self._awaits_reply = False
        self._replies_to_skip = 0
        self.in_event = False
        self.deadline = 0.0  # when to interrupt, by the monotonic clock; 0 is never
        self.stopping = False
        accepted.inc()

    def serve(self) -> None:
        """Answer calls until the connection ends, either side closes it, or the worker stops."""
        self._greenlet = getcurrent()
        try:
            while not self.stopping:
                frame = self.read(LONGEST_CALL)
                if frame is None:
                    return
                if self._replies_to_skip:
                    self._replies_to_skip -= 1
                elif not self._answer(frame):
                    return
        except ConnectionLostError:
            return
        except GreenletExit:
            return
        except WireError as error:
            garbage.inc()
            self._host.limiter.log(logging.ERROR, "garbage", "connection closed", error=error)
        finally:
            self.close()

    def interrupt_if_overdue(self, now: float) -> None:
        """End the event that has run out of time. Runs in the hub, where no greenlet is in mid-step."""
        if 0.0 < self.deadline < now:
            self.deadline = 0.0
            self._greenlet.throw(EventTimeout())

    def stop_if_idle(self) -> None:
        """Close the connection unless an event runs or has been sent; that one is the last. Runs in the hub."""
        self.stopping = True
        if self.is_waiting and not self.is_busy:
            self._greenlet.throw(GreenletExit())

    @property
    def is_busy(self) -> bool:
        """Say whether Kong waits for an answer here."""
        return self.in_event or self.has_begun

    # the channel of the `kong` object

    def call(self, method: Method, argument: bytes) -> bytes:
        if self._sent_exit:
            raise ResponseSent
        if not self.in_event or getcurrent() is not self._greenlet:
            raise PdkError(f"{method.name} was called outside its event or from another greenlet")
        method.calls.inc()
        try:
            if self._awaits_reply:
                self.read()  # a plugin went on after its time was over: this answers the call it was at
            self.write(method.frame + wire.pack_frame_length(len(argument)) + argument)
            self._awaits_reply = True
            reply = self.read()
        except ConnectionLostError:
            self._lost = True
            raise
        if reply is None:
            self._lost = True
            raise ConnectionLostError("Kong ended the request")
        self._awaits_reply = False
        return reply

    def exit(self, argument: bytes) -> None:
        if not self.in_event or getcurrent() is not self._greenlet:
            raise PdkError("kong.response.exit was called outside its event or from another greenlet")
        if not self._sent_exit:
            self._sent_exit = True
            EXIT.calls.inc()
            self.write(EXIT.frame + wire.frame(argument))
        raise ResponseSent

    # calls of Kong's

    def _answer(self, frame: bytes) -> bool:
        """Answer one call; False where the connection has to end with it."""
        event = split_event_call(frame)
        if event is None:
            call = messages.decode("RpcCall", frame)
            if "cmd_handle_event" not in call:
                return self._answer_command(call)
            event = join_event_call(call["cmd_handle_event"], call.get("sequence", 0))
        try:
            handler = self._host.handler(event[0])
        except UnknownInstanceError:
            unknown.inc()
            return False
        return self._run_event(handler, event[1])

    def _run_event(self, handler: Handler, answer: bytes) -> bool:
        started = time.monotonic()
        if started > handler.touch_at:
            self._host.touch(handler, started)
        self.deadline = started + self._timeout
        self.in_event = True
        error: BaseException | None = None
        try:
            handler.run(self._kong)
        except (ResponseSent, ConnectionLostError):
            pass
        except BaseException as raised:  # noqa: BLE001 - whatever a plugin does, sys.exit() too, Kong gets an answer
            error = raised
        finally:
            self.in_event = False
            self.deadline = 0.0
        handler.seconds.observe(time.monotonic() - started)
        return self._end_event(handler, answer, error)

    def _end_event(self, handler: Handler, answer: bytes, error: BaseException | None) -> bool:
        if error is not None:
            self._report(handler, error)
        if self._sent_exit:
            # Kong has dropped its side by now, or will when it has read the answer
            (handler.answered if error is None else handler.count_of("failed")).inc()
            return False
        if self._lost:
            handler.count_of("lost").inc()
            return False
        if error is not None and handler.admits:
            return self._refuse(handler, error)
        if self.broken_off:
            handler.count_of("lost").inc()
            return False
        if self._awaits_reply:
            # a log event that ran out of time: Kong's answer to its last call is still to come
            self._awaits_reply = False
            self._replies_to_skip += 1
        self.write(END_OF_EVENT + wire.frame(answer))
        (handler.ok if error is None else handler.count_of(_result_of(error))).inc()
        return True

    def _refuse(self, handler: Handler, error: BaseException) -> bool:
        """Answer the caller in the plugin's place, and end the connection once Kong has read it."""
        handler.count_of(_result_of(error)).inc()
        if self.broken_off:
            return False
        self.write(EXIT.frame + wire.frame(_FAILURE))
        if self._awaits_reply:
            # Kong is still at the plugin's last call. Closing now would break its write, and it would repeat the
            # whole event; it reads the refusal next.
            self.deadline = time.monotonic() + DRAIN_SECONDS
            with contextlib.suppress(EventTimeout):
                self.discard()
        return False

    def _report(self, handler: Handler, error: BaseException) -> None:
        (timeouts if isinstance(error, EventTimeout) else exceptions).inc()
        message = "event ran out of time" if isinstance(error, EventTimeout) else "plugin raised an exception"
        self._host.limiter.log(
            logging.ERROR,
            (handler.plugin, handler.phase, type(error)),
            message,
            error=error,
            plugin=handler.plugin,
            phase=handler.phase,
            instance=handler.instance_id,
        )

    def _answer_command(self, call: dict[str, Any]) -> bool:
        """Answer what is no event; False where only closing the connection says no."""
        self.deadline = time.monotonic() + self._timeout
        try:
            result = self._host.command(call)
        except (PluginLoadError, UnknownInstanceError, OSError, EventTimeout) as error:
            refused.inc()
            self._host.limiter.log(logging.ERROR, ("command", str(error)), "Kong's call is refused", error=error)
            return False
        finally:
            self.deadline = 0.0
        self.write(wire.frame(messages.encode("RpcReturn", {"sequence": call.get("sequence", 0)} | result)))
        return True


def _result_of(error: BaseException) -> str:
    return "timeout" if isinstance(error, EventTimeout) else "failed"
