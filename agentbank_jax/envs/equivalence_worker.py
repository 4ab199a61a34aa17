"""The process that reads LaTeX of strangers: one request a line on its input, one reply a line on its output.

- `{"gold": LaTeX, "answer": LaTeX}` -> `{"equal": bool}`, by Math-Verify (huggingface/Math-Verify) on SymPy.
- `{"number": LaTeX}` -> `{"value": float or null}`.

A request may take the seconds of processor time that the one argument says, and `MEMORY_BYTES`: the kernel ends
this process at either, also when nobody waits for the reply any more. Nothing here evaluates text as Python: it is
read by the grammar of latex2sympy2_extended.
"""

import json
import logging
import resource
import sys
from typing import Any

MEMORY_BYTES = 2**31
START_SECONDS = 20  # of processor time, to import SymPy on a slow machine


def _reply(request: dict[str, Any]) -> dict[str, Any]:
  import math_verify

  if "number" in request:
    number = _parse(request["number"])
    if not number or not getattr(number[0], "is_number", False) or not number[0].is_real:
      return {"value": None}
    return {"value": float(number[0].evalf())}
  gold, answer = _parse(request["gold"]), _parse(request["answer"])
  equal = bool(gold and answer) and math_verify.verify(gold, answer, timeout_seconds=None)
  return {"equal": bool(equal)}


def _parse(latex: str) -> list[Any]:
  """Returns the one expression that `latex` is, or []: it is not searched for something that could be meant."""
  import math_verify

  return math_verify.parse(f"${latex}$", [math_verify.LatexExtractionConfig(boxed_match_priority=-1)],
                           fallback_mode="no_fallback", extraction_mode="first_match", parsing_timeout=None)


def _allow(seconds: int) -> None:
  used = resource.getrusage(resource.RUSAGE_SELF)
  _, hard = resource.getrlimit(resource.RLIMIT_CPU)
  resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def main() -> None:
  resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  logging.disable(logging.WARNING)  # that its own time limit is off: ours is on
  _allow(START_SECONDS)
  _reply({"gold": "1", "answer": "1"})  # imports everything, before the first clock runs
  for line in sys.stdin:
    _allow(int(sys.argv[1]))
    try:
      reply = _reply(json.loads(line))
    except Exception as e:  # SymPy raises whatever it likes for text that is no mathematics
      reply = {"error": type(e).__name__}
    print(json.dumps(reply), flush=True)


if __name__ == "__main__":
  main()
