"""Requests made of the service's own description, and such as do not fit it, over a socket.

    python benchmarks/campaigns/described.py [--examples 100] [--seed 0]

A service over a small gallery of drawings answers schemathesis, which makes --examples requests for
each route and phase of its own, and says of each answer that is no success whether the description
allows it.  Ends with its status: 1 where an answer was 500, or another than is described.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import serve_load

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "negative_data_rejection",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = serve_load.drawn(Path(folder))
        command = [sys.executable, serve_load.__file__, "--serve", "--run", str(run)]
        service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert service.stdout is not None
        line = next(line for line in service.stdout if line.startswith("Open "))
        try:
            tried = subprocess.run(
                [
                    *(sys.executable, "-m", "schemathesis.cli"),
                    *("run", f"{line.split()[1]}api/openapi.json"),
                    *("--checks", ",".join(CHECKS), "--seed", str(options.seed)),
                    *("--max-examples", str(options.examples), "--generation-deterministic"),
                ],
                cwd=folder,  # where it keeps what it found
            )
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(60)
    sys.exit(tried.returncode)


if __name__ == "__main__":
    main()
