"""Python values as lines of JSON, between the process that has the tests and the one that has the tested code.

Nothing but plain data comes across, so no equality, length or truth that the tested code has defined: of an instance
of a subclass (a Counter, a named tuple) comes its base's part, and of any other object (an instance of a class, a
function) comes `Opaque`, which no test can be passed with.
"""

import base64
import json

LONGEST = 100_000  # items of an iterator or a range; beyond, it is opaque


class Opaque:
  """What cannot be carried. Whatever a test does with it, it fails."""

  def __init__(self, kind):
    self._kind = kind

  def _refuse(self, *unused):
    raise TypeError(f"the code returned a value of type {self._kind!r}, which is not plain data")

  __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __hash__ = __bool__ = __len__ = __iter__ = _refuse
  __getitem__ = __contains__ = __call__ = __repr__ = __str__ = __int__ = __float__ = __index__ = _refuse
  __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __mod__ = __neg__ = __abs__ = _refuse


class Name:
  """A global name of the tested code, where a value is meant: both sides have it, one has what it stands for."""

  def __init__(self, name):
    self.name = name


def dumps(message):
  """Returns one line, without its newline. `message` has JSON values; those under "value" and "arguments" any."""
  return json.dumps({key: _encode(value) if key in ("value", "arguments") else value
                     for key, value in message.items()})


def loads(line, resolve=None):
  """Returns the message of a line; `resolve` gives what a `Name` stands for.

  Raises:
    ValueError: it is no message.
  """
  try:
    message = json.loads(line)
    return {key: _decode(value, resolve) if key in ("value", "arguments") else value
            for key, value in message.items()}
  except (AttributeError, IndexError, KeyError, TypeError, RecursionError, MemoryError) as e:
    raise ValueError(f"not a message: {e}") from None


def describe(reply):
  """Returns the error of a reply as people read it: `ValueError: no such thing (line 3)`."""
  if not isinstance(reply, dict):
    return "no reply"
  text = f"{reply.get('error')}: {reply.get('message')}"[:500].removeprefix("Stopped: ").removeprefix("NotRun: ")
  return text + (f" (line {reply['line']})" if isinstance(reply.get("line"), int) and reply["line"] else "")


def _encode(value, depth=0):
  if depth > 50:
    return ["opaque", "nested too deeply"]
  inner = lambda items: [_encode(item, depth + 1) for item in items]
  if value is None or value is True or value is False:
    return value
  if isinstance(value, int):
    return ["int", hex(int(value))]  # as decimal it would be limited to 4300 digits
  if isinstance(value, float):
    return ["float", float.__repr__(value)]
  if isinstance(value, complex):
    return ["complex", repr(value.real), repr(value.imag)]
  if isinstance(value, str):
    return ["str", str.__str__(value)]
  if isinstance(value, (bytes, bytearray)):
    return [type(value).__name__, base64.b64encode(bytes(value)).decode()]
  for kind in (list, tuple, set, frozenset):
    if isinstance(value, kind):
      return [kind.__name__, inner(kind.__iter__(value))]
  if isinstance(value, dict):
    return ["dict", [inner(pair) for pair in dict.items(value)]]
  if isinstance(value, range) and len(value) <= LONGEST:
    return ["range", value.start, value.stop, value.step]
  if isinstance(value, Name):
    return ["name", value.name]
  if hasattr(type(value), "__next__"):
    items = []
    for item in value:
      items.append(item)
      if len(items) > LONGEST:
        return ["opaque", type(value).__name__]
    return ["iterator", inner(items)]
  return ["opaque", type(value).__name__]


def _decode(data, resolve):
  if data is None or data is True or data is False:
    return data
  kind, *content = data
  inner = lambda items: (_decode(item, resolve) for item in items)
  if kind in ("list", "tuple", "set", "frozenset"):
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](inner(content[0]))
  if kind == "dict":
    return {key: value for key, value in (inner(pair) for pair in content[0])}
  if kind == "iterator":
    return iter(list(inner(content[0])))
  if kind == "int":
    return int(content[0], 16)
  if kind == "float":
    return float(content[0])
  if kind == "complex":
    return complex(float(content[0]), float(content[1]))
  if kind == "str" and isinstance(content[0], str):
    return content[0]
  if kind in ("bytes", "bytearray"):
    return {"bytes": bytes, "bytearray": bytearray}[kind](base64.b64decode(content[0]))
  if kind == "range":
    return range(*content)
  if kind == "name" and resolve is not None:
    return resolve(content[0])
  if kind == "opaque":
    return Opaque(str(content[0])[:100])
  raise ValueError(f"unknown kind {str(kind)[:100]!r}")
