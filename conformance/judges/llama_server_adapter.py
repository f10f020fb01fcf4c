#!/usr/bin/env python3
"""Stands where llama.cpp's own tests expect the program `llama-server`, and has a node answer.

It translates what is a matter of llama-server's command line and of nothing else:

- the flags that have a counterpart become the node's flags, and a chat template is written into a copy of
  the model's file, for a node takes a model's own template; a flag with neither ends the adapter,
- defaults that llama-server takes from its command line (`--seed`, `--temp`, `--n-predict`, `--reasoning`)
  are put into requests that say nothing of them,
- `model` in requests becomes the node's model, for llama-server answers to every name,
- paths that llama-server also knows without `/v1` get it.

Answers pass through as they are. Whatever model a test asks for, the starter model is what it gets.

With MYZEL_PEER, the path of a real llama-server, that is started in the node's place with the same model.
It tells which tests only fail because the suite's own models cannot be had.
"""

import argparse
import http.client
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

SAMPLED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
CHATS = ("/v1/chat/completions", "/apply-template", "/v1/chat/completions/input_tokens")
ALSO_WITHOUT_V1 = ("/chat/completions", "/responses", "/models", "/chat/completions/input_tokens")
LIMIT = {"/v1/responses": "max_output_tokens"}
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")
READY_S_MAX = 50

# Flags whose subject a node has under another name or does by itself, whatever they say.
WITHOUT_EFFECT = """--offline --jinja --no-jinja --cont-batching --no-slots --embedding --metrics --verbose
--kv-unified --no-mmproj --reranking --slots""".split()
IGNORED_VALUES = """--hf-repo --hf-file --batch-size --ubatch-size --alias -fa --pooling --cache-ram
--reasoning-format --model-url""".split()


def arguments():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flag in WITHOUT_EFFECT:
        parser.add_argument(flag, action="store_true", dest="_")
    for flag in IGNORED_VALUES:
        parser.add_argument(flag, dest="_")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--temp", type=float)
    parser.add_argument("--n-predict", type=int)
    parser.add_argument("--ctx-size", type=int, default=4096)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--threads", type=int)
    parser.add_argument("-ctk", default="f16")
    parser.add_argument("-ctv", default="f16")
    parser.add_argument("--api-key")
    parser.add_argument("--reasoning")
    parser.add_argument("--chat-template")
    parser.add_argument("--chat-template-file")
    asked, unknown = parser.parse_known_args()
    if unknown:
        sys.exit(f"a node has nothing like {' '.join(unknown)}")
    if asked.ctk != asked.ctv:
        sys.exit("a node keeps keys and values in the same type")
    if asked.chat_template and " " not in asked.chat_template:
        sys.exit(f"a node has no templates of its own, so not {asked.chat_template} either")
    return asked


def with_template(model, template, place):
    """A copy of a model's file that brings this chat template."""
    copy = place / "model.gguf"
    script = "import sys; from gguf.scripts.gguf_new_metadata import main; main()"
    done = subprocess.run([sys.executable, "-c", script, "--force", "--chat-template", template, model, copy],
                          capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        sys.exit(f"the model's file cannot be copied: {done.stderr}")
    return copy


def node(asked, place):
    """Starts a node; yields the process, the port it answers at, and its model's name."""
    model = os.environ["MYZEL_MODEL"]
    template = asked.chat_template
    if asked.chat_template_file:
        template = pathlib.Path(asked.chat_template_file).read_text()
    if template:
        model = with_template(os.environ["MYZEL_MODEL_FILE"], template, place)
    each = max(asked.ctx_size // asked.parallel, 1)
    words = [os.environ["MYZEL_BINARY"], "--data-dir", place / "node", "up", "--api", "127.0.0.1:0", "--lan=false", "--dht=false"]
    words += ["--listen", "127.0.0.1:0", "--numerics", "throughput", "--model", model]
    words += ["--context", each, "--sessions", asked.parallel, "--kv", asked.ctk]
    if asked.threads:
        words += ["--threads", asked.threads]
    if asked.api_key:
        keys = place / "keys"
        keys.write_text(asked.api_key + "\n")
        keys.chmod(0o600)
        words += ["--keys", keys]
    process = subprocess.Popen([str(word) for word in words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    ready = re.compile(r"^ready http://127\.0\.0\.1:(\d+)/v1 ")
    for line in process.stdout:
        if found := ready.match(line):
            return process, int(found[1])
    sys.exit("the node ended before it was ready")


def translated(asked, model, path, body):
    """A request as a node wants it."""
    path = "/v1" + path if path in ALSO_WITHOUT_V1 else path
    try:
        said = json.loads(body)
    except ValueError:
        return path, body
    if not isinstance(said, dict):
        return path, body
    if path.startswith("/v1"):
        said["model"] = model
    if path in SAMPLED:
        for name, value in [("seed", asked.seed), ("temperature", asked.temp)]:
            if value is not None and path != "/v1/messages":
                said.setdefault(name, value)
        if asked.n_predict and not any(name in said for name in LIMITS):
            said[LIMIT.get(path, "max_tokens")] = asked.n_predict
    if path in CHATS and asked.reasoning in ("on", "off"):
        said.setdefault("chat_template_kwargs", {}).setdefault("enable_thinking", asked.reasoning == "on")
    return path, json.dumps(said).encode()


class Between(http.server.BaseHTTPRequestHandler):
    """Passes requests on, translated, and answers back, as they come."""

    asked, port, model = None, None, None

    def passed(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path
        if body:
            path, body = translated(self.asked, self.model, path, body)
        elif path in ALSO_WITHOUT_V1:
            path = "/v1" + path
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("content-length", "host")}
        there = http.client.HTTPConnection("127.0.0.1", self.port)
        try:
            there.request(self.command, path, body or None, headers)
            answer = there.getresponse()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            while part := answer.read1(65536):
                self.wfile.write(part)
                self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            # Who asked has gone; the node sees its own connection close.
            pass
        finally:
            there.close()
            self.close_connection = True

    do_GET = do_POST = do_DELETE = do_OPTIONS = do_HEAD = passed

    def log_message(self, *_):
        pass


def peer(binary):
    """Becomes the real llama-server, with the starter model in place of the one that is asked for."""
    words, asked = [], iter(sys.argv[1:])
    for word in asked:
        if word in ("--hf-repo", "--hf-file", "--model-url"):
            next(asked)
        elif word != "--offline":
            words.append(word)
    os.execv(binary, [binary, "--model", os.environ["MYZEL_MODEL_FILE"], *words])


def main():
    if binary := os.environ.get("MYZEL_PEER"):
        peer(binary)
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    place = pathlib.Path(tempfile.mkdtemp(prefix="myzel-adapter-"))
    process = None
    try:
        process, Between.port = node(asked, place)
        Between.asked, Between.model = asked, served(Between.port, asked.api_key)
        server = http.server.ThreadingHTTPServer((asked.host, asked.port), Between)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        process.wait()
        sys.exit("the node ended")
    finally:
        if process:
            process.terminate()
            process.wait()
        shutil.rmtree(place, ignore_errors=True)


def served(port, key):
    """The name of the node's model, as soon as it answers."""
    deadline = time.monotonic() + READY_S_MAX
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    while time.monotonic() < deadline:
        there = http.client.HTTPConnection("127.0.0.1", port)
        try:
            there.request("GET", "/v1/models", headers=headers)
            return json.loads(there.getresponse().read())["data"][0]["id"]
        except (OSError, LookupError, ValueError):
            time.sleep(0.1)
        finally:
            there.close()
    sys.exit(f"the node has no model after {READY_S_MAX} s")


main()
