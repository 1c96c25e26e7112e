"""Deliberate faults: each makes the code do one thing wrong, and the test named has to notice.

A fault replaces functions by broken ones in a process before anything else happens there. What
`environment` returns has to be in the environment of that process.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer
from kafka.admin import TransactionState
from kafka.structs import ConsumerGroupMetadata

from predictor.accuracy_log import AccuracyLog
from predictor.committed import Commit
from predictor.tally import Tally
from stream.records import decode_record

PREDICTOR = "tests/integration/test_predictor.py::test_"
LABELS = "tests/integration/test_labels.py::test_"
UNITS = "tests/faults/test_units.py::test_"
TRANSACTIONS = "tests/faults/test_transactions.py::test_"

Make = Callable[[Any], Callable[..., Any]]
"""Given a function, returns a broken one to take its place."""


class NotFoundError(Exception):
    """There is no such fault, or no longer a function that it breaks; the message says which."""


@dataclass(frozen=True)
class Mutation:
    """A deliberate fault.

    Attributes
    ----------
    name : str
        What the code now does wrong.
    changes : mapping of str to callable
        The functions to break, as ``module:name`` or ``module:Class.name``, and what breaks them.
    test : str
        The test that has to fail, as pytest names it.
    finding : str
        Regular expression of what it has to say.
    """

    name: str
    changes: Mapping[str, Make]
    test: str
    finding: str


def environment(name: str) -> dict[str, str]:
    """Return the variables that make a fault in a process."""
    tests = Path(__file__).resolve().parent
    return {"MUTATION": name, "PYTHONPATH": f"{tests / 'mutated'}:{tests.parent}"}


def make(name: str) -> None:
    """Make a fault in this process.

    Raises
    ------
    NotFoundError
    """
    if name not in MUTATIONS:
        raise NotFoundError(f"there is no deliberate fault {name!r}")
    for target, broken in MUTATIONS[name].changes.items():
        change(target, broken)


def change(target: str, broken: Make) -> None:
    """Put a broken function in the place of the one that a target names."""
    owner, name = find(target)
    original, static = getattr(owner, name), inspect.getattr_static(owner, name)
    put = broken(original)
    setattr(owner, name, put if inspect.isfunction(static) else staticmethod(put))
    for module in list(sys.modules.values()):  # those that have imported it by name
        for alias, value in list(vars(module).items()):
            if value is original:
                setattr(module, alias, put)


def find(target: str) -> tuple[Any, str]:
    """Return the module or class of the function that a target names, and its name there.

    Raises
    ------
    NotFoundError
    """
    module, _, path = target.partition(":")
    *parents, name = path.split(".")
    try:
        owner = import_module(module)
        for parent in parents:
            owner = getattr(owner, parent)
        getattr(owner, name)
    except (ImportError, AttributeError) as error:
        raise NotFoundError(
            f"{target} is gone ({error}); tests/mutations.py has to name what does this now"
        ) from None
    return owner, name


_members: list[KafkaConsumer] = []
_logs: list[AccuracyLog] = []
_kept: dict[int, Tally] = {}
"""What broken functions remember for one another."""


def remembers_the_member(poll: Any) -> Any:
    def broken(consumer: Any, *args: Any, **options: Any) -> Any:
        if consumer.config["group_id"]:
            _members[:] = [consumer]
        return poll(consumer, *args, **options)

    return broken


def commits_offsets_by_the_consumer(send: Any) -> Any:
    def broken(producer: Any, offsets: Any, membership: Any) -> Any:
        return _members[0].commit(offsets) if offsets else send(producer, offsets, membership)

    return broken


def keeps_the_tallies(predict: Any) -> Any:
    def broken(*args: Any, **options: Any) -> Any:
        result = predict(*args, **options)
        _kept.update({p: state.tally for p, state in result.states.items()})
        return result

    return broken


def resumes_with_a_tally_kept(resume: Any) -> Any:
    def broken(*args: Any) -> Any:
        position = resume(*args)
        return position._replace(tally=_kept.get(0, position.tally))  # the test has one partition

    return broken


def remembers_the_log(init: Any) -> Any:
    def broken(log: Any, *args: Any) -> None:
        init(log, *args)
        _logs.append(log)

    return broken


def logs_what_was_predicted(predict: Any) -> Any:
    def broken(*args: Any, **options: Any) -> Any:
        result = predict(*args, **options)
        _logs[0].append(result.counted)
        return result

    return broken


def commits_as_nobody(send: Any) -> Any:
    def broken(producer: Any, offsets: Any, membership: Any) -> Any:
        nobody = ConsumerGroupMetadata(getattr(membership, "group_id", membership), -1, "", None)
        return send(producer, offsets, nobody)

    return broken


def takes_an_id_of_its_own(producer: Any) -> Any:
    def broken(settings: Any, **options: Any) -> Any:
        if name := options.get("transactional_id"):
            options["transactional_id"] = f"{name}-{time.time_ns()}"
        return producer(settings, **options)

    return broken


def commits_by_itself(consumer: Any) -> Any:
    return lambda settings, **options: consumer(settings, **options, enable_auto_commit=True)


def resumes(records: int) -> Make:
    def make_resume(resume: Any) -> Any:
        def broken(*args: Any) -> Any:
            position = resume(*args)
            return position._replace(offset=max(0, position.offset + records))

        return broken

    return make_resume


def resumes_without_outputs(resume: Any) -> Any:
    def broken(bounds: Any, committed: Any, outputs: Any, incarnation: Any) -> Any:
        if isinstance(committed, Commit):
            outputs = []
        return resume(bounds, committed, outputs, incarnation)

    return broken


def swaps_in_place(put: Any) -> Any:
    def broken(shelf: Any, model: Any) -> Any:
        current, _ = shelf.serve()
        if current is None or not shelf.wanted(model.version):
            return put(shelf, model)
        vars(current).update(vars(model))
        return True

    return broken


def looks_at_labels(predict: Any) -> Any:
    class Peeking:
        def __init__(self, model: Any, labels: list[int | None]) -> None:
            self.version, self.envelope, self.layout = model.version, model.envelope, model.layout
            self._model, self._labels = model, labels

        def predict(self, matrix: Any) -> Any:
            predicted, probabilities = self._model.predict(matrix)
            both = zip(self._labels, predicted, strict=True)
            return [own if label is None else label for label, own in both], probabilities

    def broken(records: Any, model: Any, *args: Any, **options: Any) -> Any:
        labels = [model.layout.read(decode_record(c.value)).label for c in records]
        return predict(records, Peeking(model, labels), *args, **options)

    return broken


def counts_again(revise: Any) -> Any:
    def broken(tally: Tally, prediction: int, before: int, label: int, seen: bool) -> None:
        tally.count(prediction, label, seen)

    return broken


def without_what_waits(metadata: Any) -> Any:
    return lambda commit: metadata(commit._replace(early=()))


def says_committed(describe: Any) -> Any:
    def broken(*args: Any) -> Any:
        return {
            name: found._replace(state=TransactionState.COMPLETE_COMMIT)
            for name, found in describe(*args).items()
        }

    return broken


def begins_anew(initialize: Any) -> Any:
    return lambda transactions, *args: initialize(copy(transactions), *args)


def in_the_order_of_the_sender(in_order: Any) -> Any:
    return lambda layout, features: [*features.values()]


COMMIT_FAILS = (
    UNITS + "a_unit_whose_commit_fails_is_read_and_counted_again_from_the_tally_before_it"
)
MODEL_COMES = UNITS + "a_model_that_comes_while_a_unit_is_predicted_serves_from_the_next_unit_on"

_LIST = [
    Mutation(
        "offsets are committed outside the transaction",
        {
            "kafka:KafkaConsumer.poll": remembers_the_member,
            "kafka:KafkaProducer.send_offsets_to_transaction": commits_offsets_by_the_consumer,
        },
        COMMIT_FAILS,
        "answers; there are",
    ),
    Mutation(
        "the tally is not reset after an abort",
        {
            "predictor.predictor:_settle": keeps_the_tallies,
            "predictor.resume:resume": resumes_with_a_tally_kept,
        },
        COMMIT_FAILS,
        "I2 prediction partition 0",
    ),
    Mutation(
        "the log is written before the commit",
        {
            "predictor.accuracy_log:AccuracyLog.__init__": remembers_the_log,
            "predictor.predictor:_settle": logs_what_was_predicted,
        },
        UNITS + "killed_right_before_or_after_a_commit_it_resumes_from_what_is_committed"
        "[commit_transaction]",
        "I4: the log is ahead of the topic|I4: a log ahead of the topic was set aside",
    ),
    Mutation(
        "a commit does not carry the group membership",
        {"kafka:KafkaProducer.send_offsets_to_transaction": commits_as_nobody},
        UNITS + "woken_after_another_took_over_it_commits_nothing_of_the_unit_it_had_read",
        "I[12] prediction partition 0",
    ),
    Mutation(
        "each producer has a transactional id of its own",
        {"stream.clients:producer": takes_an_id_of_its_own},
        COMMIT_FAILS,
        "answers; there are",
    ),
    Mutation(
        "offsets are committed automatically",
        {"stream.clients:consumer": commits_by_itself},
        UNITS + "with_nothing_to_predict_the_committed_tally_stays_as_it_is",
        "I3 data partition 0 offset 100: no metadata",
    ),
    Mutation(
        "the tally is not taken from the committed metadata",
        {"predictor.tally:Tally.from_metadata": lambda _: lambda metadata: Tally()},
        COMMIT_FAILS,
        "I2 prediction partition 0",
    ),
    Mutation(
        "it resumes one record before the committed offset",
        {"predictor.resume:resume": resumes(-1)},
        COMMIT_FAILS,
        "I[12] prediction partition 0",
    ),
    Mutation(
        "it resumes one record after the committed offset",
        {"predictor.resume:resume": resumes(1)},
        COMMIT_FAILS,
        "answers; there are",
    ),
    Mutation(
        "a model is swapped in the middle of a unit",
        {"predictor.model_shelf:ModelShelf.put": swaps_in_place},
        MODEL_COMES,
        "assert .*== {2, 3}|I6 prediction partition 0",
    ),
    Mutation(
        "what a model was trained on is counted",
        {"stream.models:Envelope.trained_on_record": lambda _: lambda envelope, *source: False},
        PREDICTOR
        + "unlabelled_records_are_predicted_and_seen_ones_published_and_neither_is_counted",
        "assert .*True",
    ),
    Mutation(
        "the label is looked at before the record is predicted",
        {"predictor.predictor:_answer": looks_at_labels},
        MODEL_COMES,
        "I6 prediction partition 0",
    ),
    Mutation(
        "named features are taken in the order of the sender",
        {"stream.layout:Layout._in_order": in_the_order_of_the_sender},
        "tests/integration/test_named_features.py"
        "::test_objects_and_lists_are_predicted_the_same_also_when_the_schema_changes_meanwhile",
        "I6 prediction partition 0|assert ",
    ),
    Mutation(
        "a label that comes twice is counted twice",
        {"predictor.known:Known.given": lambda _: lambda known, row: None},
        LABELS + "a_label_that_comes_later_is_counted_once_with_the_prediction_as_it_was_made",
        r"assert \[30, 31",
    ),
    Mutation(
        "a label that corrects one is counted again",
        {"predictor.tally:Tally.revise": counts_again},
        LABELS + "a_label_that_revises_one_moves_correct_and_not_n",
        "assert ",
    ),
    Mutation(
        "predictions that wait for their labels are not read back",
        {"predictor.state:State.restore": lambda _: lambda state, prediction: None},
        LABELS + "predictions_that_wait_are_read_back_after_kill_9_and_each_label_is_counted_once",
        "outcomes; there are",
    ),
    Mutation(
        "labels that wait for their records are not committed",
        {"predictor.committed:Commit.label_metadata": without_what_waits},
        LABELS + "a_label_before_its_record_waits_for_it_also_over_a_restart_and_else_is_an_orphan",
        "not within",
    ),
    Mutation(
        "what a broker left open is not ended",
        {
            "stream.kafka_workarounds:add_to_transaction": lambda _: lambda producer, places: None,
        },
        TRANSACTIONS + "a_predictor_aborts_what_was_left_open_and_repeats_nothing",
        "not within|the broker had left",
    ),
    Mutation(
        "what a broker left open is committed",
        {"kafka:KafkaAdminClient.describe_transactions": says_committed},
        TRANSACTIONS + "a_model_left_in_an_open_transaction_is_never_visible",
        "JSONDecodeError|unexpected character",
    ),
    Mutation(
        "each attempt decides again whether to commit what was left open",
        {"stream.transactions:Transactions.initialize": begins_anew},
        TRANSACTIONS + "what_was_to_be_committed_is_committed_even_if_attempts_fail_half_way",
        "DID NOT RAISE KafkaTimeoutError|not within",
    ),
    Mutation(
        "a signature counts in every stream",
        {"stream.model_topic:ModelTopic._check_stream": lambda _: lambda topic, *of_record: None},
        "tests/integration/test_attacks.py::test_a_model_that_was_signed_for_another_stream"
        "_neither_serves_nor_pins_nor_counts",
        "not within",
    ),
    Mutation(
        "any seal holds",
        {"stream.seal:Seal.holds": lambda _: lambda seal, *of_record: True},
        "tests/integration/test_attacks.py"
        "::test_a_status_without_the_seal_of_predictors_bars_nothing_and_takes_no_version",
        "not within|== 2|NotPublished",
    ),
    Mutation(
        "outputs beyond the committed offset do not count",
        {"predictor.resume:resume": resumes_without_outputs},
        UNITS
        + "records_of_half_a_commit_that_kept_only_the_predictions_are_not_predicted_again[one]",
        "I[12] prediction partition 0|beyond the committed",
    ),
]
MUTATIONS = {mutation.name: mutation for mutation in _LIST}
