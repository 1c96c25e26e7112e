"""The services as processes of this machine, with their keys and files in one folder."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from local.process import Process

SERVICES = ("datagenerator", "modelgenerator", "predictor")


def settings_in(folder: Path, servers: str) -> dict[str, str]:
    """Return settings of services that keep their keys and files in a folder."""
    return {
        "KAFKA_BOOTSTRAP_SERVERS": servers,
        "SIGNING_KEY": str(folder / "keys" / "private" / "modelgenerator.pem"),
        "TRUSTED_KEYS": str(folder / "keys" / "trusted"),
        "PREDICTOR_SECRET": str(folder / "keys" / "predictor" / "secret"),
        "LOG_FILE": str(folder / "predictor.log"),
    }


def start_dashboard(env: Mapping[str, str], log_path: Path | None = None) -> Process:
    """Start the dashboard: at port 8080 or, where that is in use, at any free one."""
    port = env.get("DASHBOARD_PORT") or ("8080" if _is_free(8080) else "0")
    return start("dashboard", {**env, "DASHBOARD_PORT": port}, log_path)


def start(name: str, env: Mapping[str, str], log_path: Path | None = None) -> Process:
    """Start a service, with what it logs in a file or on this process's own output.

    The first service gets ``METRICS_PORT``, each other one the port after that of the one before.
    """
    port = env.get("METRICS_PORT", "")
    if port.isdecimal() and int(port):
        env = {**env, "METRICS_PORT": str(int(port) + (*SERVICES, "dashboard").index(name))}
    return Process(name, [sys.executable, "-m", f"{name}.app"], log_path, env=env)


def _is_free(port: int) -> bool:
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
