"""A resident worker: one JSON request per line of standard input, one reply per line of standard output.

  {"op": "setup", "case": {...}}   builds, compiles and warms the case up -> {"tokens": of one run}
  {"op": "run"}                    runs it once -> {"wall": seconds, "cpu": seconds of all threads}

Started by `rounds.py` as `python worker.py MODULE`; MODULE's `setup(case)` returns (run, tokens).
"""

import importlib
import json
import os
import sys
import time


def main() -> None:
  replies = os.fdopen(os.dup(1), "w", buffering=1)
  os.dup2(2, 1)  # what libraries print is no reply
  cases = importlib.import_module(sys.argv[1])
  run = None
  for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "setup":
      run, tokens = cases.setup(request["case"])
      for _ in range(2):
        run()
      reply = {"tokens": tokens}
    else:
      cpu, wall = time.process_time(), time.perf_counter()
      run()
      reply = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    replies.write(json.dumps(reply) + "\n")


if __name__ == "__main__":
  main()
