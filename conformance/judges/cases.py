"""What the judges written in Python share: cases, refusals, and the line that counts them.

A judge registers cases and refusals and then calls `run`. A case is a function that raises when
something is wrong; a refusal is a call that must raise one kind of error with given attributes.
"""

import os
import sys
import traceback

# Where the node answers, with no path, and the name of its model.
ROOT = os.environ["MYZEL_URL"]
MODEL = os.environ["MYZEL_MODEL"]

# A prompt with more tokens than any context of the starter model.
TOO_LONG = "river " * 9000

_cases, _refusals = {}, {}


def case(function):
    """Registers a function that raises when the node does something wrong."""
    _cases[function.__name__.replace("_", " ")] = function
    return function


def refusal(name, kind, call, **wanted):
    """Registers a call that must raise `kind` and nothing narrower, with these attributes; a part suffices."""

    def check():
        try:
            answer = call()
        except kind as error:
            # By its name: some clients raise a class of the same name that also carries their transport's error.
            name = type(error).__name__
            assert name == kind.__name__, f"{error!r} is a {name}, not a {kind.__name__}"
            for attribute, value in wanted.items():
                found = str(getattr(error, attribute))
                assert str(value) in found, f"{attribute} is {found}, not {value}"
        else:
            raise AssertionError(f"{kind.__name__} was expected, and this came: {answer!r}")

    _refusals[name] = check


def run():
    """Runs all cases, or those whose names contain an argument; ends the process."""
    assert _refusals, "a judge that refuses nothing judges nothing"
    words, counts = sys.argv[1:], {True: 0, False: 0}
    for name, check in {**_cases, **_refusals}.items():
        if words and not any(word in name for word in words):
            continue
        try:
            check()
            passed = True
        except Exception:
            passed = False
            # The frames of a client say little: where the case is, and what went wrong.
            traceback.print_exc(limit=2, chain=False, file=sys.stdout)
        counts[passed] += 1
        print("ok    " if passed else "FAILED", name, flush=True)
    print(f"{counts[True]} passed, {counts[False]} failed")
    sys.exit(counts[False] > 0 or counts[True] == 0)
