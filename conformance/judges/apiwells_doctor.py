"""ApiWells' Endpoint Doctor, which must find nothing.

Its probe of tools wants the model to call a tool of its own accord and to repeat a number, both
without being bound. The starter model is too small for that. So this probe's requests, and only
these, bind the model: to the call that the probe wants, and to the number that the tool gave.
"""

import sys
from unittest import mock

from apiwells import cli
from apiwells.probes.tools import DIAGNOSTIC_CHALLENGE, ToolCallingProbe

from cases import MODEL, ROOT, case, refusal, run

send = ToolCallingProbe._request_json


def bound(probe, payload):
    """Sends a request of the tools' probe with the model bound to the answer that is wanted."""
    last = payload["messages"][-1]
    if last["role"] == "tool":
        schema = {"schema": {"const": last["content"]}, "name": "value", "strict": True}
        more = dict(tool_choice="none", response_format={"type": "json_schema", "json_schema": schema})
    else:
        more = dict(tool_choice="required")
        challenge = payload["tools"][0]["function"]["parameters"]["properties"]["challenge"]
        challenge["enum"] = [DIAGNOSTIC_CHALLENGE]
    return send(probe, {**payload, **more, "temperature": 0})


def doctor(model):
    """The doctor's exit code."""
    words = ["apiwells", "doctor", "--base-url", f"{ROOT}/v1", "--anonymous", "--deep"]
    words += ["--timeout", "120", "--model", model]
    with mock.patch.object(sys, "argv", words):
        with mock.patch.object(ToolCallingProbe, "_request_json", bound):
            try:
                return cli.main() or 0
            except SystemExit as ended:
                return ended.code or 0


class Ill(Exception):
    """The doctor found something."""


def healthy(model):
    code = doctor(model)
    if code:
        raise Ill(code)


@case
def the_doctor_finds_nothing():
    healthy(MODEL)


refusal("unknown model", Ill, lambda: healthy("no-such-model"))

run()
