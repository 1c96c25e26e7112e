"""Keys on a file system that was made read-only."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.services import Services, await_line, eventually
from tests.topics import Topics, await_answered


def test_with_keys_that_can_only_be_read_models_are_signed_and_served(
    settings_env: dict[str, str], start: Services, small_disk: Path
) -> None:
    files = {"SIGNING_KEY": "private/key.pem", "TRUSTED_KEYS": "trusted", "PREDICTOR_SECRET": "s/s"}
    keys = {name: str(small_disk / file) for name, file in files.items()}
    with Topics(settings_env | keys) as topics:
        for _ in range(2):
            topics.write(600)
            services = [start(service, **keys) for service in ("modelgenerator", "predictor")]
            await_line(services[0], " reason=")
            await_line(services[1], ") serves from the next unit")
            await_answered(topics)
            eventually(topics.statuses)  # it is sent after the predictions
            for service in services:
                assert service.stop() == 0
                assert "Read-only" not in service.log()
            subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)  # noqa: S607 - wherever mount is
        assert {status["status"] for status in topics.statuses()} == {"serving"}
        topics.check()
