"""Settings of the dashboard."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import AfterValidator, Field

from stream.settings import StreamSettings


def _host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.:_-]{1,253}", text):
        raise ValueError("allowed is the name or the address of an interface, such as 127.0.0.1")
    return text


class DashboardSettings(StreamSettings):
    """What the dashboard reads from the environment besides what all services read."""

    dashboard_host: Annotated[str, AfterValidator(_host)] = Field(
        "127.0.0.1",
        description="Address at which the page is served; 0.0.0.0 for everybody who reaches the"
        " machine",
    )
    dashboard_port: int = Field(
        8080, ge=0, le=65_535, description="Port of the page; 0 for any free one"
    )

    @property
    def only_here(self) -> bool:
        """Whether only programs of this machine reach the page."""
        try:
            return ipaddress.ip_address(self.dashboard_host).is_loopback
        except ValueError:
            return self.dashboard_host == "localhost"
