"""Starts counting over: deletes counts, predictions and what was rejected, but no data or model.

The consumer group is deleted, and with it the committed offsets and tallies, then the records of
the prediction topic and of both topics of what was rejected. To delete the group alone is not
enough: a predictor without committed offsets takes its counts from the last output. The next
predictor begins at the first record and the first label that their topics still have, with n = 0,
and renames its old log files. Records that its model was trained on are predicted again but not
counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import CoordinatorNotAvailableError, GroupAuthorizationFailedError

from predictor.settings import PredictorSettings
from stream import clients
from stream.arguments import argument_parser
from stream.command import command
from stream.service import Fatal
from stream.topics import partition_counts

_TO_THE_END = -1

COORDINATOR_SECONDS = 15.0
"""How long a cluster may take to name the coordinator of a group."""


def reset(
    client: KafkaAdminClient, settings: PredictorSettings, confirm: Callable[[str], bool]
) -> str:
    """Delete the consumer group, all predictions and all that was rejected.

    Parameters
    ----------
    confirm : callable
        Given what will be deleted; returns whether to do it.

    Returns
    -------
    str
        What was done, in words.

    Raises
    ------
    Fatal
        When the group has members, before or afterwards, or cannot be deleted.
    KafkaError
    """
    _refuse_members(client, settings.group_id, "nothing was deleted")
    topics = [settings.prediction_topic, settings.rejected_topic, settings.label_rejected_topic]
    outputs = partition_counts(client, topics)
    names = " and ".join(outputs) or "no topic (there are none yet)"
    what = f"the counts of group {settings.group_id} and all records of {names}"
    if not confirm(what):
        return "nothing was deleted"
    # The group first: if deleting the records fails, the counts are taken from the last output, and
    # nothing is lost.
    outcome = client.delete_groups([settings.group_id])[settings.group_id]
    if outcome == GroupAuthorizationFailedError.__name__:
        raise GroupAuthorizationFailedError(settings.group_id, "Delete")
    if outcome not in ("OK", "GroupIdNotFoundError"):
        raise Fatal(f"group {settings.group_id}: {outcome}; nothing was deleted")
    places = [TopicPartition(topic, p) for topic, count in outputs.items() for p in range(count)]
    if places:
        client.delete_records(dict.fromkeys(places, _TO_THE_END), clients.REQUEST_TIMEOUT_MS)
    _refuse_members(client, settings.group_id, "it may have counted meanwhile: repeat this")
    return f"deleted {what}; the next predictor begins at n=0"


def _refuse_members(client: KafkaAdminClient, group: str, consequence: str) -> None:
    members = _members(client, group)
    if members:
        hosts = ", ".join(sorted({member["client_host"].lstrip("/") for member in members}))
        raise Fatal(
            f"group {group} has {len(members)} members ({hosts}): stop every predictor first;"
            f" {consequence}"
        )


def _members(client: KafkaAdminClient, group: str) -> list[dict[str, Any]]:
    end = time.monotonic() + COORDINATOR_SECONDS
    while True:
        try:
            return client.describe_groups([group])[group]["members"]  # type: ignore[no-any-return] # kafka-python carries no types
        except GroupAuthorizationFailedError:  # it does not name the group
            raise GroupAuthorizationFailedError(group, "Describe") from None
        except CoordinatorNotAvailableError:
            # A new cluster creates the topic of the groups at the first such question.
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def ask(what: str) -> bool:
    """Ask on the terminal whether to go on; no answer is a no."""
    try:
        return input(f"Delete {what}? This cannot be undone. [y/N] ").strip().lower() in (
            "y",
            "yes",
        )
    except EOFError:
        print()
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argument_parser("python -m predictor.reset", __doc__, PredictorSettings)
    parser.add_argument("--yes", action="store_true", help="do not ask")
    options = parser.parse_args(arguments)
    return command(PredictorSettings, partial(_reset, options.yes))


def _reset(yes: bool, settings: PredictorSettings) -> int:
    with clients.admin(settings) as client:
        done = reset(client, settings, (lambda _: True) if yes else ask)
    print(done)
    return 0 if done.startswith("deleted") else 1


if __name__ == "__main__":
    sys.exit(main())
