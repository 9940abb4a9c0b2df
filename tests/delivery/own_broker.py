"""A RabbitMQ node of the tests' own, to be stopped, killed and started again without harm to anybody else's."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing

_START_WITHIN_S, _STOP_WITHIN_S = 60.0, 20.0
# Debian's script of that name on the PATH changes the user; the one beside the broker does not.
_PLACES = os.pathsep.join(["/usr/lib/rabbitmq/bin", os.environ.get("PATH", "")])


class OwnBroker:
    """One node that keeps its durable queues over `stop` and `kill`, as a server that is restarted does.

    It takes some seconds to start (about five on an idle computer). `url` stays the same. It dies with the
    process of the tests, however that ends.
    """

    def __init__(self, folder: Path, server: str) -> None:
        self._folder, self._server = folder, server
        self._control = str(Path(server).with_name("rabbitmqctl"))
        self._port, self._distribution_port, self._names_port = _free_ports(3)
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/"
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self._port}\n")
        self._names = self._run("epmd", "-port", str(self._names_port), "-address", "127.0.0.1")
        self._node: subprocess.Popen[bytes] | None = None

    @property
    def is_running(self) -> bool:
        return self._node is not None and self._node.poll() is None

    def start(self) -> None:
        """Start the node and wait until it takes connections; nothing when it runs already."""
        if not self.is_running:
            self._node = self._run(self._server, "-noinput")
        until = time.monotonic() + _START_WITHIN_S
        while not _answers(self._port):
            if not self.is_running or time.monotonic() > until:
                raise AssertionError(f"no RabbitMQ node came up:\n{self._log()[-4000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """Ask the node to end: it closes every connection with a word, and writes down what it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node without a word, as a power cut does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def control(self, *command: str) -> None:
        """Run ``rabbitmqctl`` with these words on the node; takes some seconds."""
        subprocess.run(
            [self._control, *command],
            env=self._environment(),
            capture_output=True,
            timeout=_START_WITHIN_S,
            check=True,
        )

    def close(self) -> None:
        """End all that was started."""
        self.kill()
        self._names.kill()
        self._names.wait()

    def _end(self, number: signal.Signals) -> None:
        node = self._node
        if node is None:
            return
        with contextlib.suppress(ProcessLookupError):
            node.send_signal(number)
        try:
            node.wait(_STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(node.pid, signal.SIGKILL)  # what the node started for itself

    def _run(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a program that the kernel kills when we die, in a session of its own."""
        child = ["-m", "batcher.child", str(os.getpid()), str(int(signal.SIGKILL))]
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *child, *command],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        """Return what keeps the node to its folder, its ports and 127.0.0.1, and its shell out of the way."""
        folder = str(self._folder)
        return {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "HOME": folder,  # its cookie
            "ERL_EPMD_PORT": str(self._names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_FLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_ALLOW_INPUT": "1",  # the script becomes the node: one process to signal
            "RABBITMQ_NODENAME": "batcher_tests@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": "/dev/null",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
        }

    @property
    def _log_path(self) -> Path:
        return self._folder / "node.log"

    def _log(self) -> str:
        return self._log_path.read_text(errors="replace")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        probes = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def _answers(port: int) -> bool:
    """Tell whether AMQP is spoken there: a port that is only open is not enough."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as probe:
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return bool(probe.recv(1))
    except OSError:
        return False


@pytest.fixture(scope="session")
def _own_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnBroker]:
    if not os.environ.get("RABBITMQ_URL"):
        missing("RABBITMQ_URL is not set: brokers that end are tried where there are services")
    server = shutil.which("rabbitmq-server", path=_PLACES)
    if server is None or shutil.which("epmd") is None:
        missing("there is no rabbitmq-server on this computer to start a node of")
    node = OwnBroker(tmp_path_factory.mktemp("own-broker"), server)
    try:
        yield node
    finally:
        node.close()


@pytest.fixture
def own_broker(_own_node: OwnBroker) -> OwnBroker:
    """Return a RabbitMQ node that runs and that a test may stop: the next test finds it started again.

    One for the session, so give queues names of your own. Without ``rabbitmq-server`` the test is skipped, or
    fails where services must be there.
    """
    _own_node.start()
    return _own_node
