"""Deliberate faults: each a small change of the code, and the test that has to notice it.

`apply` makes the change in a copy of the tree. The old text of a change stands in the file exactly
once; where the code has moved on, the change has to be written anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PREDICTOR = "tests/integration/test_predictor.py::test_"
UNITS = "tests/faults/test_units.py::test_"
TRANSACTIONS = "tests/faults/test_transactions.py::test_"


class StaleError(Exception):
    """The old text of a change is no longer there; the message names file and text."""


@dataclass(frozen=True)
class Change:
    """A text to be replaced.

    Attributes
    ----------
    file : str
    old, new : str
        `old` stands in the file exactly once.
    """

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutation:
    """A deliberate fault.

    Attributes
    ----------
    name : str
        What the code now does wrong.
    changes : tuple of Change
    test : str
        The test that has to fail, as pytest names it.
    finding : str
        Regular expression of what it has to say.
    """

    name: str
    changes: tuple[Change, ...]
    test: str
    finding: str


def apply(mutation: Mutation, root: Path) -> None:
    """Change the files under `root`.

    Raises
    ------
    StaleError
        When an old text is not there exactly once.
    """
    for change in mutation.changes:
        path = root / change.file
        text = path.read_text()
        if text.count(change.old) != 1:
            raise StaleError(
                f"{mutation.name}: {change.file} holds {change.old!r} {text.count(change.old)}"
                " times; write this change anew"
            )
        path.write_text(text.replace(change.old, change.new))


MUTATIONS = [
    Mutation(
        "offsets are committed outside the transaction",
        (
            Change(
                "predictor/committer.py",
                "producer.send_offsets_to_transaction(",
                "(lambda offsets, _: self._group.consumer.commit(offsets))(",
            ),
        ),
        UNITS + "a_unit_whose_commit_fails_is_read_and_counted_again_from_the_tally_before_it",
        "answers; there are",
    ),
    Mutation(
        "the tally is not reset after an abort",
        (
            Change(
                "predictor/units.py",
                "        try:\n            self._committer.commit(",
                "        self.tallies.update(outcome.tallies)\n"
                "        try:\n            self._committer.commit(",
            ),
            Change(
                "predictor/units.py",
                "        self.tallies = {}\n        self._positions.begin()",
                "        kept = self.tallies\n        self._positions.begin()",
            ),
            Change(
                "predictor/units.py",
                "self.tallies = {partition: position.tally for"
                " partition, position in positions.items()}",
                "self.tallies = {p: kept.get(p, found.tally) for p, found in positions.items()}",
            ),
        ),
        UNITS + "a_unit_whose_commit_fails_is_read_and_counted_again_from_the_tally_before_it",
        "I2 prediction partition 0",
    ),
    Mutation(
        "the log is written before the commit",
        (
            Change(
                "predictor/app.py",
                "            if units.commit(unit, outcome):",
                "            accuracy_log.append(outcome.counted)\n"
                "            if units.commit(unit, outcome):",
            ),
        ),
        UNITS + "killed_right_before_or_after_a_commit_it_goes_on_from_what_is_committed"
        "[commit_transaction]",
        "I4: the log is ahead of the topic|I4: a log ahead of the topic was set aside",
    ),
    Mutation(
        "a commit does not carry the group membership",
        (
            Change(
                "predictor/units.py",
                "return Unit(records, membership)",
                "return Unit(records, ConsumerGroupMetadata(membership.group_id, -1, '', None))",
            ),
        ),
        UNITS + "woken_after_another_took_over_it_commits_nothing_of_the_unit_it_had_read",
        "I[12] prediction partition 0",
    ),
    Mutation(
        "each producer has a transactional id of its own",
        (
            Change(
                "predictor/committer.py",
                "transactional_id=self.transactional_id,\n            transaction_timeout_ms",
                'transactional_id=self.transactional_id + str(__import__("time").time_ns()),\n'
                "            transaction_timeout_ms",
            ),
        ),
        UNITS + "a_unit_whose_commit_fails_is_read_and_counted_again_from_the_tally_before_it",
        "answers; there are",
    ),
    Mutation(
        "offsets are committed automatically",
        (Change("stream/clients.py", '"enable_auto_commit": False', '"enable_auto_commit": True'),),
        UNITS + "with_nothing_to_predict_the_committed_tally_stays_as_it_is",
        "I3 data partition 0 offset 100: no metadata",
    ),
    Mutation(
        "the tally is not taken from the committed metadata",
        (
            Change(
                "predictor/positions.py",
                "Tally.from_metadata(found.metadata)",
                "Tally()",
            ),
        ),
        UNITS + "a_unit_whose_commit_fails_is_read_and_counted_again_from_the_tally_before_it",
        "I2 prediction partition 0",
    ),
    Mutation(
        "it goes on one record before the committed offset",
        (
            Change(
                "predictor/units.py",
                "self._seek(self._offsets)",
                "self._seek({p: max(0, offset - 1) for p, offset in self._offsets.items()})",
            ),
        ),
        UNITS + "a_unit_whose_commit_fails_is_read_and_counted_again_from_the_tally_before_it",
        "I[12] prediction partition 0",
    ),
    Mutation(
        "it goes on one record after the committed offset",
        (
            Change(
                "predictor/units.py",
                "self._seek(self._offsets)",
                "self._seek({p: offset + 1 for p, offset in self._offsets.items()})",
            ),
        ),
        UNITS + "a_unit_whose_commit_fails_is_read_and_counted_again_from_the_tally_before_it",
        "answers; there are",
    ),
    Mutation(
        "a model is swapped in the middle of a unit",
        (
            Change(
                "predictor/model_shelf.py",
                "            self._current = model\n",
                "            if self._current:\n"
                "                vars(self._current).update(vars(model))\n"
                "            else:\n"
                "                self._current = model\n",
            ),
        ),
        UNITS + "a_model_that_comes_while_a_unit_is_predicted_serves_from_the_next_unit_on",
        "assert .*== {2, 3}|I6 prediction partition 0",
    ),
    Mutation(
        "what a model was trained on is counted",
        (
            Change(
                "predictor/predictor.py",
                "seen = model.envelope.trained_on_record(*source)",
                "seen = False",
            ),
        ),
        PREDICTOR
        + "unlabelled_records_are_predicted_and_seen_ones_published_and_neither_is_counted",
        "assert .*True",
    ),
    Mutation(
        "the label is looked at before the record is predicted",
        (
            Change(
                "predictor/predictor.py",
                "        label, probability = answer\n",
                "        label, probability = answer\n"
                "        label = label if record.label is None else record.label\n",
            ),
        ),
        UNITS + "a_model_that_comes_while_a_unit_is_predicted_serves_from_the_next_unit_on",
        "I6 prediction partition 0",
    ),
    Mutation(
        "what a broker left open is not ended",
        (Change("stream/transactions.py", "        if not left and (", "        if True or ("),),
        TRANSACTIONS + "a_predictor_aborts_what_was_left_open_and_repeats_nothing",
        "not within|the broker had left",
    ),
    Mutation(
        "what a broker left open is committed",
        (
            Change(
                "stream/transactions.py",
                "self._commit = state in _COMMITTED",
                "self._commit = True",
            ),
        ),
        TRANSACTIONS + "a_model_that_was_left_open_never_comes_to_light",
        "JSONDecodeError|unexpected character",
    ),
    Mutation(
        "what the broker had decided is taken from each try anew",
        (Change("stream/transactions.py", "if self._commit is None and state", "if state"),),
        TRANSACTIONS + "what_was_to_be_committed_is_committed_though_tries_fail_half_way",
        "not within",
    ),
    Mutation(
        "answers beyond the committed offset do not count",
        (
            Change(
                "predictor/resume.py",
                "if last < committed.offset:",
                "if True:",
            ),
        ),
        UNITS + "half_a_commit_that_kept_the_predictions_alone_is_not_predicted_again[one]",
        "I[12] prediction partition 0|beyond the committed",
    ),
]
