"""`stitchserve serve`: settings, ports and certificates are looked at before torch and the model are loaded."""

import logging
import resource
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version

from server import logs
from server.listening import bound
from server.loading import loaded
from server.settings import Settings

log = logging.getLogger(__name__)

OTHER_FILES = 100  # open files beside the connections: the model's, the log's, ...


class Serve(Settings):
    """Answer images over HTTP. Every option is also an environment variable: --slo-ms is STITCHSERVE_SLO_MS."""

    def cli_cmd(self) -> None:
        """Serve until told to stop; returns when everything in flight is answered."""
        logs.configure(self.log_format)
        log.info("stitchserve %s", version("stitchserve"))
        _allow_open_files(self.max_connections + OTHER_FILES)
        check_certificate(self)
        with bound(self.host, self.port) as sockets, others(self) as besides:
            # By name: it takes seconds to load torch.
            finish_traces = loaded("server.running:run")(self, sockets, besides)
        finish_traces()
        log.info("stopped")


@contextmanager
def others(settings: Settings) -> Iterator[list[Callable[..., object]]]:
    """What answers beside HTTP: gRPC and the agent, where a port is given, taken at once; raises as `bound`."""
    kinds = (
        ("--grpc-port", settings.grpc_port, "server.grpc_v2"),
        ("--agent-port", settings.agent_port, "server.agent"),
    )
    with ExitStack() as holding:
        taken = [
            (module, holding.enter_context(bound(settings.host, port, option)))
            for option, port, module in kinds
            if port is not None
        ]
        yield [partial(loaded(f"{module}:answering"), sockets) for module, sockets in taken]


def check_certificate(settings: Settings) -> None:
    """ValueError, before anything is loaded, for a certificate or a key that cannot be served with."""
    if settings.tls_cert is None:
        return
    try:
        # Without a password, OpenSSL would ask a terminal for that of an encrypted key.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.tls_cert, settings.tls_key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ValueError(
            f"--tls-cert {settings.tls_cert}, --tls-key {settings.tls_key}: {error}; give a PEM certificate chain and "
            "its key, not encrypted"
        ) from error


def _allow_open_files(count: int) -> None:
    """Let this process open so many, as far as it may: many systems give a process 1024 until it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if most < count:
        log.warning("--max-connections: the system allows %d open files (ulimit -Hn); %d may be needed", most, count)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
