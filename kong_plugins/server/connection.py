"""A connection of Kong's: its calls are answered one after the other, events inline in its greenlet.

How failures are answered is decided here and nowhere else:
an event of a phase that admits requests gets a 503 through `kong.response.exit`; a log event ends normally;
an instance nobody knows, or a configuration a plugin refuses, closes the connection. Kong starts the instance
anew in the first case and answers 500 in the second.
"""

import _socket
import contextlib
import logging
import time
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
from kong_plugins.server.failure import FAILURE, result_of
from kong_plugins.server.frames import FrameSocket
from kong_plugins.server.handler import Handler
from kong_plugins.server.methods import EXIT, Method
from kong_plugins.server.pdk import Kong
from kong_plugins.server.pdk.foreign import kong_in_style
from kong_plugins.server.pdk_style import PdkStyle
from kong_plugins.server.plugin_host import PluginHost

LONGEST_CALL: Final = 16 * 1024 * 1024
DRAIN_SECONDS: Final = 5.0
MOST_DEFERRED: Final = 32  # their answers have to fit into the socket's buffer while nobody reads them
END_OF_EVENT: Final = wire.frame(b"")

exceptions = metrics.counter("km_pluginserver_exceptions_total", help_text="exceptions plugins raised")
timeouts = metrics.counter("km_pluginserver_timeouts_total", help_text="events that ran out of time")
garbage = metrics.counter("km_pluginserver_protocol_errors_total", help_text="connections closed for nonsense")
unknown = metrics.counter("km_pluginserver_unknown_instances_total", help_text="events of instances not known")
refused = metrics.counter("km_pluginserver_refused_instances_total", help_text="instances that could not start")
unanswered = metrics.counter(
    "km_pluginserver_unanswered_calls_total", help_text="calls at an event's end that Kong did not answer any more"
)


class Connection(FrameSocket):
    """Serves one connection, then maybe another. Also the channel its `kong` object talks through.

    A refused request ends its connection, so new ones are as frequent as refusals: the object, its greenlet and
    its `kong` are made once and used again.
    """

    def __init__(self, *, host: PluginHost, event_timeout_seconds: float) -> None:
        super().__init__()
        self._host = host
        self._timeout = event_timeout_seconds
        self._deferred: list[bytes] = []  # calls of the event at hand that were not sent yet
        self._kong = Kong(self)
        self._foreign: dict[PdkStyle, Any] = {}
        self._greenlet: Any = None

    def open(self, sock: _socket.socket) -> None:
        super().open(sock)
        self._sent_exit = self._lost = self._defers = False
        self._deferred.clear()
        self._outstanding = 0  # calls of the event at hand that Kong has not answered yet
        self._replies_to_skip = 0  # the same of an event that has ended
        self.in_event = self.stopping = False
        self.deadline = 0.0  # when to interrupt, by the monotonic clock; 0 is never
        self.last_used = time.monotonic()

    def serve(self) -> None:
        """Answer calls until the connection ends, either side closes it, or the worker stops."""
        self._greenlet = getcurrent()
        try:
            while not self.stopping or self.is_busy:
                frame = self.read(LONGEST_CALL)
                if frame is None:
                    return
                self.deadline = 0.0
                if self._replies_to_skip:
                    self._replies_to_skip -= 1
                elif not self._answer(frame):
                    return
        except ConnectionLostError:
            return
        except GreenletExit:
            return
        except EventTimeout:
            garbage.inc()
            self._host.limiter.log(logging.ERROR, "half", "connection closed inside a frame that never ended")
        except WireError as error:
            garbage.inc()
            self._host.limiter.log(logging.ERROR, "garbage", "connection closed", error=error)
        finally:
            unanswered.inc(self._replies_to_skip)
            self.close()

    def interrupt_if_overdue(self, now: float) -> None:
        """End the event that has run out of time. Runs in the hub, where no greenlet is in mid-step."""
        if 0.0 < self.deadline < now:
            self.deadline = 0.0
            self._greenlet.throw(EventTimeout())

    def stop_if_idle(self) -> None:
        """Close the connection unless an event runs or has been sent; that one is the last. Runs in the hub."""
        self.stopping = True
        self.end_if_idle()

    def end_if_idle(self) -> None:
        """Close the connection unless an event runs or has been sent. Runs in the hub."""
        if self.is_waiting and not self.is_busy:
            self._greenlet.throw(GreenletExit())

    @property
    def is_busy(self) -> bool:
        """Say whether Kong waits for an answer here."""
        return self.in_event or self._replies_to_skip > 0 or self.has_begun

    @property
    def seems_idle(self) -> bool:
        """Say whether Kong waits for nothing here, without asking the system whether it has sent something."""
        return self.is_waiting and not self.in_event and not self._replies_to_skip

    def _receive_rest(self) -> bytes:
        """Give what began outside an event no longer than an event."""
        if not self.deadline:
            self.deadline = time.monotonic() + self._timeout
        return self._receive()

    # the channel of the `kong` object

    def call(self, method: Method, argument: bytes) -> bytes:
        if self._sent_exit:
            raise ResponseSent
        if not self.in_event or getcurrent() is not self._greenlet:
            raise PdkError(f"{method.name} was called outside its event or from another greenlet")
        method.calls.inc()
        data = method.frame + wire.pack_frame_length(len(argument)) + argument
        if self._defers and method.is_void and len(self._deferred) < MOST_DEFERRED:
            self._deferred.append(data)
            return b""
        # a plugin that went on after its time was over may have left some
        self._read_replies()
        return self._exchange(data)

    def exit(self, argument: bytes) -> None:
        if not self.in_event or getcurrent() is not self._greenlet:
            raise PdkError("kong.response.exit was called outside its event or from another greenlet")
        if not self._sent_exit:
            if self._deferred:
                # Kong has to have answered them before the connection is closed behind the exit
                self._exchange(self._deferred.pop())
            self._sent_exit = True
            EXIT.calls.inc()
            self.write(EXIT.frame + wire.frame(argument))
        raise ResponseSent

    def _exchange(self, call: bytes) -> bytes:
        """Send what was deferred and one call more, in one piece, and return the answer to the last."""
        count = len(self._deferred) + 1
        data = b"".join([*self._deferred, call]) if self._deferred else call
        self._deferred.clear()
        try:
            self.write(data)
        except ConnectionLostError:
            self._lost = True
            raise
        self._outstanding = count
        return self._read_replies()

    def _read_replies(self) -> bytes:
        """Read all answers that are still to come and return the last."""
        reply: bytes | None = b""
        try:
            while self._outstanding:
                reply = self.read()
                if reply is None:
                    raise ConnectionLostError("Kong ended the request")  # noqa: TRY301 - one place notes the loss
                self._outstanding -= 1
        except ConnectionLostError:
            self._lost = True
            raise
        return reply or b""

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
        self._defers = handler.defers
        self.in_event = True
        error: BaseException | None = None
        try:
            handler.run(self._kong if handler.style is PdkStyle.PLAIN else self._kong_in(handler.style))
        except (ResponseSent, ConnectionLostError):
            pass
        except BaseException as raised:  # noqa: BLE001 - whatever a plugin does, sys.exit() too, Kong gets an answer
            error = raised
        finally:
            self.in_event = False
            self.deadline = 0.0
        self.last_used = time.monotonic()
        handler.seconds.observe(self.last_used - started)
        return self._end_event(handler, answer, error)

    def _kong_in(self, style: PdkStyle) -> Any:
        if style not in self._foreign:
            self._foreign[style] = kong_in_style(self._kong, style)
        return self._foreign[style]

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
        # what was deferred, and the last call of a log event that ran out of time: Kong answers them first
        self._replies_to_skip = self._outstanding + len(self._deferred)
        self._outstanding = 0
        self._deferred.append(END_OF_EVENT + wire.frame(answer))
        data = b"".join(self._deferred)
        self._deferred.clear()
        self.write(data)
        (handler.ok if error is None else handler.count_of(result_of(error))).inc()
        return True

    def _refuse(self, handler: Handler, error: BaseException) -> bool:
        """Answer the caller in the plugin's place, and end the connection once Kong has read it."""
        handler.count_of(result_of(error)).inc()
        if self.broken_off:
            return False
        self.write(FAILURE)
        if self._outstanding:
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
