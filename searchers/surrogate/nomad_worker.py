"""One run of Nomad in a process of its own: it writes the points that it wants evaluated and reads their values.

A process, because Nomad's only interface that searches is a blocking call with a callback, because it prints on
standard output, and because NOMAD 4.6 may end a run on an integer lattice by crashing its process. Run as a script;
imports nothing of this package. Lines of JSON:

    in   {"start": [int], "upper": [int], "seed": int, "evaluations": int}      once; lower bounds are zero
    out  "ready"                                                                once Nomad is imported
    out  [int]                                                                  a point
    in   float or null                                                          its value (smaller is better), or failed

It ends when Nomad has converged or has spent its evaluations, and when its input ends.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    """Answer the requests that come on standard input, one JSON line each, until it closes."""
    answers = os.fdopen(os.dup(1), "w")
    # Nomad's own words, on either stream, are for nobody.
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    import PyNomad

    os.dup2(nothing, 2)

    def say(message: object) -> None:
        print(json.dumps(message), file=answers, flush=True)

    def evaluate(point: Any) -> int:
        say([round(point.get_coord(i)) for i in range(point.size())])
        line = sys.stdin.readline()
        if not line:
            # The searcher is gone. Nomad catches exceptions of its callbacks, so nothing less would end it.
            os._exit(0)
        value = json.loads(line)
        if value is None:
            return 0
        point.setBBO(repr(value).encode())
        return 1

    task = json.loads(sys.stdin.readline() or "null")
    if task is None:
        return
    say("ready")
    # MAX_EVAL counts the points that Nomad has seen before too: on a lattice it would circle around the best for ever.
    limits = [f"MAX_EVAL {task['evaluations']}", f"MAX_BB_EVAL {task['evaluations']}"]
    inputs = f"BB_INPUT_TYPE ({' I' * len(task['start'])} )"
    settings = [inputs, "BB_OUTPUT_TYPE OBJ", "DISPLAY_DEGREE 0", f"SEED {task['seed']}", *limits]
    PyNomad.optimize(evaluate, task["start"], [0] * len(task["start"]), task["upper"], settings)


if __name__ == "__main__":
    main()
