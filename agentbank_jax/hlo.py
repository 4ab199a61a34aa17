"""What a compiled program sends between devices, read from its text (HLO)."""

import collections
from collections.abc import Iterator
import dataclasses
import math
import re

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
SLICES = " between slices"
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4,
          "s64": 8, "u64": 8, "f64": 8}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_BETWEEN_SLICES = re.compile(r"= \((\S+), .* send\(.*_xla_megascale_transfer_type=\"(\w+)\"")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_FUSED = re.compile(r" fusion\(.*calls=%?([\w.-]+)")
_CALLED = re.compile(r"(?:calls|body|to_apply|branch_computations|called_computations)=\{?((?:%?[\w.-]+(?:, )?)+)\}?")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_NAMED = re.compile(r"%([\w.-]+) = \S+ (constant|add|get-tuple-element)\((.*?)\)(?:, index=(\d+))?")


@dataclasses.dataclass
class Traffic:
  """Collectives of one kind in one run of a program.

  Attributes:
    count: how many, those in loops counted at every turn.
    bytes: of their results, per device.
  """

  count: int = 0
  bytes: int = 0


def collectives(text: str) -> dict[str, Traffic]:
  """Counts a program's collectives by kind; a loop's counts as often as it turns, and once where nobody knows.

  XLA:TPU spreads one collective over several fusions that compute meanwhile; their common channel tells that it is one.
  Between slices of a pod it sends, and the hosts do the rest: kinds of their own, "all-reduce between slices".

  Args:
    text: `jax.stages.Compiled.as_text()`.
  """
  computations = _computations(text)
  total = collections.defaultdict(Traffic)

  def count(kind: str, times: int, size: int):
    total[kind].count += times
    total[kind].bytes += times * size

  def add(name: str, times: int):
    seen = set()
    for line in _with_fusions(name, computations):
      if match := _OPERATION.search(line):
        channel = _CHANNEL.search(line)
        if channel is None or (match[2], channel[1]) not in seen:
          count(match[2], times, _result_bytes(match[1], started=bool(match[3])))
        seen.add((match[2], channel and channel[1]))
      elif match := _BETWEEN_SLICES.search(line):
        kind = match[2].lower().replace("_", "-") + SLICES
        count(kind, times, _result_bytes(match[1], started=False))
      elif not _FUSED.search(line):
        trips = _trips(line, computations) if " while(" in line else 1
        for called in _CALLED.finditer(line):
          for callee in called[1].split(", "):
            add(callee.lstrip("%"), times * trips)

  add("ENTRY", 1)
  return dict(sorted(total.items()))


def _computations(text: str) -> dict[str, list[str]]:
  """Returns the lines of each computation; the program's own is "ENTRY"."""
  found, current = {"ENTRY": []}, []
  for line in text.splitlines():
    if match := _COMPUTATION.match(line):
      current = found.setdefault("ENTRY" if line.startswith("ENTRY") else match[1], [])
    else:
      current.append(line)
  return found


def _with_fusions(name: str, computations: dict[str, list[str]]) -> Iterator[str]:
  """Yields a computation's lines, and those of the fusions in it."""
  for line in computations.get(name, ()):
    yield line
    if match := _FUSED.search(line):
      yield from _with_fusions(match[1], computations)


def _trips(line: str, computations: dict[str, list[str]]) -> int:
  """Returns how often a loop turns: as XLA says, or else from its condition, "less than a constant", counting from 0.

  A loop that XLA:TPU has unrolled counts in steps of more than 1.
  """
  if match := _TRIPS.search(line):
    return int(match[1])
  condition, body = (computations[re.search(rf"{part}=%([\w.-]+)", line)[1]] for part in ("condition", "body"))
  named = {m[1]: m for text in condition + body if (m := _NAMED.search(text))}
  less_than = re.compile(r"ROOT .* compare\(%(\S+), %(\S+)\), direction=LT")
  compared = next((m for text in condition if (m := less_than.search(text))), None)
  if compared is None or not {compared[1], compared[2]} <= named.keys():
    return 1
  counter, bound = named[compared[1]][4], int(named[compared[2]][3])
  results = next(re.findall(r"%([\w.-]+)", text.partition(" tuple(")[2]) for text in body if "ROOT " in text)
  counted = named.get(results[int(counter)])  # %add.3 = add(%counter, %constant)
  steps = [int(m[3]) for name in re.findall(r"%([\w.-]+)", counted[3] if counted else "")
           if (m := named.get(name)) and m[2] == "constant"]
  return -(-bound // steps[0]) if steps else bound


def _result_bytes(shapes: str, started: bool) -> int:
  """Returns the bytes of an operation's result; an asynchronous start's result lists its operand first."""
  sizes = [_BYTES.get(kind, 4) * math.prod(int(n) for n in dims.split(",") if n) for kind, dims in
           _SHAPE.findall(shapes)]
  return max(sizes) if started else sum(sizes)
