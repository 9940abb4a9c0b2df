"""A broker that does as a test tells it: what a real one does on bad days."""

from __future__ import annotations

import contextlib
import socket
import threading

from pika import frame, spec


class ScriptedBroker:
    """Speaks the AMQP handshake, then hands each connection to the next function of the script."""

    def __init__(self, *script):
        self._server = socket.create_server(("127.0.0.1", 0))
        self._script = script
        self._thread = threading.Thread(target=self._serve)
        self.received = []
        """Per connection, the message ids in the order of their arrival."""
        self.url = f"amqp://u:p@127.0.0.1:{self._server.getsockname()[1]}/"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._server.close()
        self._thread.join(5)
        assert not self._thread.is_alive()

    def _serve(self):
        for act in self._script:
            connection, _ = self._server.accept()
            connection.settimeout(5)
            talk = Talk(connection)
            self.received.append(talk.message_ids)
            with connection, contextlib.suppress(ConnectionError, TimeoutError):
                act(talk)


class Talk:
    """The broker's side of one connection."""

    def __init__(self, connection):
        self._connection = connection
        self._buffer = b""
        self.message_ids = []

    def send(self, method, channel=1):
        self._connection.sendall(frame.Method(channel, method).marshal())

    def frames(self):
        """Yield frames until the peer hangs up."""
        while True:
            size, decoded = frame.decode_frame(self._buffer)
            if decoded is not None:
                self._buffer = self._buffer[size:]
                yield decoded
                continue
            chunk = self._connection.recv(65536)
            if not chunk:
                return
            self._buffer += chunk

    def handshake(self):
        """Open the connection; later channel openings are answered by ``messages``."""
        incoming = self.frames()
        next(incoming)
        able = {"publisher_confirms": True, "basic.nack": True, "connection.blocked": True}
        properties = {"capabilities": able}
        self.send(spec.Connection.Start(0, 9, properties, b"PLAIN", b"en_US"), 0)
        next(incoming)
        self.send(spec.Connection.Tune(2047, 131072, 0), 0)
        next(incoming)
        next(incoming)
        self.send(spec.Connection.OpenOk(), 0)

    def messages(self, *, says_goodbye=True):
        """Answer the housekeeping and yield (delivery tag, body size) of each message published."""
        tag = 0
        for incoming in self.frames():
            method = getattr(incoming, "method", None)
            if isinstance(method, spec.Channel.Open):
                tag = 0
                self.send(spec.Channel.OpenOk(), incoming.channel_number)
                self.channel = incoming.channel_number
            elif isinstance(method, spec.Confirm.Select):
                self.send(spec.Confirm.SelectOk(), self.channel)
            elif isinstance(method, spec.Channel.Close):
                self.send(spec.Channel.CloseOk(), self.channel)
            elif isinstance(method, spec.Connection.Close) and says_goodbye:
                self.send(spec.Connection.CloseOk(), 0)
            elif isinstance(incoming, frame.Header):
                tag += 1
                self.message_ids.append(incoming.properties.message_id)
                yield tag, incoming.body_size

    def ack(self, tag, *, multiple=False):
        self.send(spec.Basic.Ack(tag, multiple), self.channel)

    def give_back(self, message_id, queue, body):
        properties = spec.BasicProperties(message_id=message_id)
        self.send(spec.Basic.Return(312, "NO_ROUTE", "", queue), self.channel)
        self._connection.sendall(frame.Header(self.channel, len(body), properties).marshal())
        self._connection.sendall(frame.Body(self.channel, body).marshal())

    def close_channel(self, code, text):
        self.send(spec.Channel.Close(code, text, 60, 40), self.channel)


def ack_all(talk):
    talk.handshake()
    for tag, _ in talk.messages():
        talk.ack(tag)
