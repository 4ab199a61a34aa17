"""Has the tested code: runs it, then calls its functions as it is told, one line of standard input a call.

It may be lied to and lie: it knows no expected value, and is not asked for a verdict.
"""

import contextlib
import os
import sys
import types

import wire


def main():
  requests, replies = os.fdopen(os.dup(0), "r"), os.fdopen(os.dup(1), "w")
  os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # the code has no input,
  os.dup2(2, 1)  # and what it prints is no reply
  module = types.ModuleType("tested")
  sys.modules["tested"] = module
  names = module.__dict__
  sys.argv = ["tested.py"]

  for line in requests:
    reply = {}
    try:
      request = wire.loads(line, lambda name: names[name])
      if "code" in request:
        exec(compile(request["code"], "<your code>", "exec"), names)
      else:
        arguments, keywords = request["arguments"]
        reply["value"] = names[request["call"]](*arguments, **keywords)
      line = wire.dumps(reply)
    except BaseException as error:
      place = error.__traceback__
      while place and place.tb_next:
        place = place.tb_next
      line = wire.dumps({"error": type(error).__name__, "message": str(error)[:500],
                         "line": place.tb_lineno if place and place.tb_frame.f_globals is names else 0})
    with contextlib.suppress(Exception):  # the code may have closed or replaced them
      sys.stdout.flush()  # before the reply: after it, the process may be ended
      sys.stderr.flush()
    replies.write(line + "\n")
    replies.flush()


if __name__ == "__main__":
  main()
