from __future__ import annotations

import asyncio
import inspect
from typing import Any

import kafka.errors
import pytest
from kafka.errors import (
    CoordinatorNotAvailableError,
    GroupAuthorizationFailedError,
    InvalidTransactionTimeoutError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NotControllerError,
    PolicyViolationError,
    ProducerFencedError,
    RetriableError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
    for_code,
)

from stream import kafka_workarounds
from stream.refusals import (
    PERMANENT,
    TEMPORARY,
    TopicError,
    explained,
    raise_if_refused,
    refusal,
)
from stream.service import Fatal
from stream.settings import StreamSettings

SETTINGS = StreamSettings.model_validate({})


def test_no_error_is_sorted_twice_and_none_that_the_client_retries_is_permanent() -> None:
    assert not PERMANENT.keys() & TEMPORARY.keys()
    assert not [kind for kind in PERMANENT if issubclass(kind, RetriableError)]


@pytest.mark.parametrize("kind", PERMANENT, ids=lambda kind: kind.__name__)
def test_a_permanent_error_says_in_one_line_what_to_look_at(kind: type[KafkaError]) -> None:
    line = refusal(kind("as the broker says\nin two lines"), SETTINGS)
    assert line is not None
    assert line.startswith(f"{SETTINGS.kafka_bootstrap_servers}: {PERMANENT[kind]}")
    assert line.endswith("(as the broker says in two lines)")


@pytest.mark.parametrize("kind", TEMPORARY, ids=lambda kind: kind.__name__)
def test_an_error_that_may_pass_ends_nothing_and_has_an_explanation(kind: type[KafkaError]) -> None:
    assert refusal(kind(), SETTINGS) is None
    assert explained(kind(), SETTINGS, TEMPORARY) == (
        f"{SETTINGS.kafka_bootstrap_servers}: {TEMPORARY[kind]}"
    )


@pytest.mark.parametrize(
    "error",
    [
        KafkaConnectionError("111 ECONNREFUSED"),
        KafkaTimeoutError("no answer"),
        UnknownTopicOrPartitionError(),
        ProducerFencedError(),
        KafkaError("Cannot execute transactional method"),
        OSError("down"),
        TopicError("t", ProducerFencedError(), 3),
    ],
    ids=repr,
)
def test_whatever_is_in_neither_table_may_pass(error: BaseException) -> None:
    assert refusal(error, SETTINGS) is None


def test_what_every_client_retries_by_itself_is_never_refused() -> None:
    errors: list[Any] = [
        kind()
        for _, kind in inspect.getmembers(kafka.errors, inspect.isclass)
        if issubclass(kind, RetriableError)
    ]
    assert len(errors) > 20
    assert [error for error in errors if refusal(error, SETTINGS)] == []


def test_a_record_that_is_too_large_is_named_with_its_topic_size_and_setting() -> None:
    error = TopicError("queueing.model", MessageSizeTooLargeError(), 612_345)
    assert refusal(error, SETTINGS) == (
        "queueing.model: a record of 612,345 bytes:"
        " larger than the topic's max.message.bytes allows; raise it"
    )


def test_an_error_of_a_topic_without_a_record_names_the_topic() -> None:
    line = refusal(TopicError("queueing.data", PolicyViolationError("no")), SETTINGS)
    assert line is not None
    assert line.startswith("queueing.data: a policy of the cluster forbids it")
    assert line.endswith("(no)")


@pytest.mark.parametrize(
    "error",
    [
        KafkaError(InvalidTransactionTimeoutError()),
        KafkaError(KafkaError(InvalidTransactionTimeoutError())),
        KafkaError(
            f"Unexpected error in InitProducerIdResponse: {InvalidTransactionTimeoutError()}"
        ),
    ],
    ids=["wrapped", "wrapped twice", "in the text"],
)
def test_what_the_client_wraps_is_found(error: KafkaError) -> None:
    assert "transaction.max.timeout.ms" in str(refusal(error, SETTINGS))


def test_a_code_in_the_text_of_a_broker_is_no_answer_of_it() -> None:
    assert refusal(CoordinatorNotAvailableError("after [Error 10]"), SETTINGS) is None


def test_the_broker_s_words_are_cut() -> None:
    line = refusal(PolicyViolationError("x" * 10_000), SETTINGS)
    assert line is not None
    assert len(line) < 600


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (TopicAuthorizationFailedError("queueing.data"), "Write the topic queueing.data"),
        (TopicAuthorizationFailedError(["b", "a"]), "Write the topic a, b"),
        (TopicAuthorizationFailedError("a", "Create"), "Create the topic a"),
        (GroupAuthorizationFailedError("readers"), "Read the group readers"),
        (GroupAuthorizationFailedError(), "Read the group .see GROUP_ID."),
        (for_code(53)(), "Write under the transactional id mine-1"),
        (TopicError("a", TopicAuthorizationFailedError("a"), 3), "Write the topic a"),
    ],
    ids=repr,
)
def test_a_missing_right_is_named(error: KafkaError, lacks: str) -> None:
    with pytest.raises(Fatal, match=f"lacks the right to {lacks}; acls.sh"):
        raise_if_refused(error, SETTINGS, "Write", "mine-1")


def test_a_controller_that_moves_meanwhile_is_an_error_that_may_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def moved(*_: object) -> None:
        raise RuntimeError("Failed to find active controller id!")

    monkeypatch.setattr(kafka_workarounds, "unpatched_send_to_controller", moved)
    with pytest.raises(NotControllerError, match="active controller") as raised:
        asyncio.run(kafka_workarounds._send_to_controller(None))
    assert refusal(raised.value, SETTINGS) is None
