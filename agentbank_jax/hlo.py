"""What a compiled program sends between devices, read from its text (HLO)."""

import collections
import dataclasses
import math
import re

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4,
          "s64": 8, "u64": 8, "f64": 8}
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
_SHAPE = re.compile(r"([a-z]+\d*)\[([\d,]*)\]")
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(r"(?:calls|body|to_apply|branch_computations|called_computations)=\{?((?:%?[\w.-]+(?:, )?)+)\}?")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


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
  """Counts a program's collectives by kind; a loop's counts as often as it turns.

  Args:
    text: `jax.stages.Compiled.as_text()`.
  """
  own: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
  calls: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
  current = entry = ""
  for line in text.splitlines():
    if match := _COMPUTATION.match(line):
      current = match[1]
      entry = current if line.startswith("ENTRY") else entry
      continue
    if match := _OPERATION.search(line):
      own[current].append((match[2], _result_bytes(match[1], started=bool(match[3]))))
    trips = int(found[1]) if " while(" in line and (found := _TRIPS.search(line)) else 1
    for match in _CALLED.finditer(line):
      calls[current] += [(name.lstrip("%"), trips) for name in match[1].split(", ")]
  total = {kind: Traffic() for kind in KINDS}

  def add(computation: str, times: int):
    for kind, size in own[computation]:
      total[kind].count += times
      total[kind].bytes += times * size
    for name, trips in calls[computation]:
      add(name, times * trips)

  add(entry, 1)
  return {kind: traffic for kind, traffic in total.items() if traffic.count}


def _result_bytes(shapes: str, started: bool) -> int:
  """Returns the bytes of an operation's result; an asynchronous start's result lists its operand first."""
  sizes = [_BYTES.get(kind, 4) * math.prod(int(n) for n in dims.split(",") if n) for kind, dims in
           _SHAPE.findall(shapes)]
  return max(sizes) if started else sum(sizes)
