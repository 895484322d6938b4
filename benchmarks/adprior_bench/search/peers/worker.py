"""The process of one peer: runs a script's ``load``, then answers prompts, in lines of JSON.

``PYTHON -P worker.py SCRIPT``, in any Python that has the peer's package; this file needs nothing
else. The first line of standard input is the job, see `system.PeerProcess`; each further line is a
prompt's token ids. ``load(job)`` returns a function from token ids to the peer's beams:
``[[log-probability, token ids after the prompt], ...]``. Each answer is ``{"beams", "ms"}``, the
first one ``{}``. An exception is answered with ``{"error"}``, in one line, and ends the process.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import time


def main() -> None:
    """Answer until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries print to standard output

    def answer(document: dict[str, object]) -> None:
        print(json.dumps(document), file=answers, flush=True)

    try:
        search = runpy.run_path(sys.argv[1])["load"](json.loads(sys.stdin.readline()))
        answer({})
        for line in sys.stdin:
            prompt = json.loads(line)
            start = time.perf_counter()
            beams = search(prompt)
            answer({"ms": 1e3 * (time.perf_counter() - start), "beams": beams})
    except Exception as error:  # noqa: BLE001  whatever a peer raises is its row
        text = " ".join(str(error).split())
        answer({"error": f"{type(error).__name__}: {text}" if text else type(error).__name__})


if __name__ == "__main__":
    main()
