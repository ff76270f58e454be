"""Findings on copies and near duplicates: within a set, across sets, and copies with different labels."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from training.data_check.checked_set import CheckedSet
from training.data_check.finding import Example, Finding, Severity, first_examples
from training.data_check.joined_images import JoinedImages
from training.data_check.near_images import near_images
from training.data_check.near_texts import near_texts

_Member = tuple[int, int]
"""The number of a set, and the index of an input in it."""
_Group = list[_Member]
"""Inputs that are copies of each other, or two near duplicates."""

_LARGE_SHARE = 0.01
"""Near duplicates within a set are a warning if they are more than this share of it."""


def copy_findings(sets: Sequence[CheckedSet]) -> list[Finding]:
    """Findings on inputs with equal content: within sets, across sets, and with different labels."""
    members: dict[bytes, _Group] = defaultdict(list)
    for number, checked in enumerate(sets):
        for index, content in enumerate(checked.hashes):
            members[content].append((number, index))
    groups = [group for group in members.values() if len(group) > 1]
    findings = []
    for number, checked in enumerate(sets):
        within = _within(groups, number)
        if count := sum(len(group) - 1 for group in within):
            message = f"{count:,} inputs of {checked.name} repeat an earlier one"
            remedy = "`run` has all copies in one split; without them the numbers of examples are right"
            findings.append(_finding("copies", "info", count, message, remedy, sets, within))
    remedy = "`run` leaves them out of training; a recipe refuses outliers that are in-distribution examples"
    findings += _across("copies", "a copy", remedy, sets, groups)
    if conflicts := [group for group in groups if len(_labels(sets, group)) > 1]:
        shown = first_examples(_example(sets, group) for group in conflicts)
        findings.append(conflicting_labels_finding(len(conflicts), shown))
    return findings


def conflicting_labels_finding(count: int, examples: tuple[Example, ...] = ()) -> Finding:
    """The finding on `count` inputs that have copies with different labels."""
    return Finding(
        check="conflicting labels",
        severity="warning",
        count=count,
        message=f"{count:,} inputs have copies with another label",
        remedy="Correct the labels or remove these inputs: at most one of the labels is right",
        examples=examples,
    )


def near_duplicate_findings(
    sets: Sequence[CheckedSet], is_blank: Sequence[NDArray[np.bool_]], progress: Callable[[int, int], None]
) -> list[Finding]:
    """Findings on inputs that nearly equal others: within sets and across sets. Of copies, the first is compared.

    Args:
        sets: Sets of one kind of input.
        is_blank: Of each set, whether its inputs are blank; blank ones are not compared.
        progress: Called with the number of inputs hashed and their total.
    """
    # Copies are findings of their own.
    first = [{content: index for index, content in reversed(list(enumerate(checked.hashes)))} for checked in sets]
    members = [(number, index) for number, indices in enumerate(first) for index in sorted(indices.values())]
    blank = np.asarray([is_blank[number][index] for number, index in members], dtype=bool)
    images = [checked.images for checked in sets if checked.images is not None]
    if images:
        pairs = near_images(JoinedImages.of(images, members), blank, progress)
    else:
        pairs = near_texts([sets[number].rows.texts[index] for number, index in members], progress)
    groups = [
        [members[i], members[j]] for i, j in pairs.tolist() if _content(sets, members[i]) != _content(sets, members[j])
    ]
    findings = []
    for number, checked in enumerate(sets):
        within = _within(groups, number)
        if count := len({member for group in within for member in group}):
            message = f"{count:,} inputs of {checked.name} nearly equal another one"
            remedy = "Keep one of each, or keep them in one split: held-out near duplicates make figures too good"
            severity: Severity = "warning" if count > _LARGE_SHARE * len(checked) else "info"
            findings.append(_finding("near duplicates", severity, count, message, remedy, sets, within))
    remedy = "Remove them from one of the sets: `run` leaves out copies, but not all near duplicates"
    return findings + _across("near duplicates", "a near duplicate", remedy, sets, groups)


def _within(groups: Sequence[_Group], number: int) -> list[_Group]:
    """The members of one set in each group that has several."""
    within = ([member for member in group if member[0] == number] for group in groups)
    return [group for group in within if len(group) > 1]


def _across(check: str, what: str, remedy: str, sets: Sequence[CheckedSet], groups: Sequence[_Group]) -> list[Finding]:
    findings = []
    for one, other in combinations(range(len(sets)), 2):
        both = [group for group in groups if {one, other} <= {number for number, _ in group}]
        if both:
            count = len({member for group in both for member in group if member[0] == other})
            message = f"{count:,} inputs of {sets[other].name} have {what} in {sets[one].name}"
            shown = [[member for member in group if member[0] in (one, other)] for group in both]
            findings.append(_finding(check, "warning", count, message, remedy, sets, shown))
    return findings


def _finding(
    check: str,
    severity: Severity,
    count: int,
    message: str,
    remedy: str,
    sets: Sequence[CheckedSet],
    groups: Sequence[_Group],
) -> Finding:
    examples = (_example(sets, group) for group in groups)
    return Finding(
        check=check,
        severity=severity,
        count=count,
        message=message,
        remedy=remedy,
        examples=first_examples(examples),
    )


_SHOWN = 4
"""The largest number of inputs of an example."""


def _example(sets: Sequence[CheckedSet], group: _Group) -> Example:
    labels = sorted(_labels(sets, group))
    more = f"and {len(group) - _SHOWN:,} more" if len(group) > _SHOWN else ""
    note = "; ".join(part for part in (more, f"labels {', '.join(labels)}" if len(labels) > 1 else "") if part)
    return Example(places=tuple(sets[number].place(index) for number, index in group[:_SHOWN]), note=note)


def _labels(sets: Sequence[CheckedSet], group: _Group) -> set[str]:
    return {label for number, index in group if (label := sets[number].label(index)) is not None}


def _content(sets: Sequence[CheckedSet], member: _Member) -> bytes:
    return sets[member[0]].hashes[member[1]]
