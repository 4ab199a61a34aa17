"""`agentbank inspect`: one record as text, token by token, with what is trained on in colour."""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
import json
import pathlib

import jinja2
import ml_collections
import numpy as np
from rich.console import Console
from rich.text import Text

from agentbank_jax.chat import ChatError, Renderer, load_renderer, make_renderer
from agentbank_jax.data import PackedDataset
from agentbank_jax.errors import UserError
from agentbank_jax.files import atomic_path
from agentbank_jax.paths import AnyPath, as_path
from agentbank_jax.tokenizer import Tokenizer, load_tokenizer
from agentbank_jax.trajectory_io import read_trajectories

# Content may hold escape sequences; a terminal would obey them.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}


@dataclasses.dataclass(frozen=True)
class Segment:
  """A conversation, or a window of one, as it is trained on.

  Attributes:
    trajectory_id: where it comes from.
    task: its task.
    ids: int32 [T].
    train: bool [T], loss on that id as a target.
  """

  trajectory_id: str
  task: str
  ids: np.ndarray
  train: np.ndarray


@dataclasses.dataclass(frozen=True)
class Token:
  """What is shown of one token. `text` is "" where a character ends in a later token."""

  id: int
  text: str
  trained: bool
  control: bool

  @property
  def classes(self) -> str:
    return " ".join(name for name, on in [("t", self.trained), ("c", self.control)] if on)


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict:
  """Shows one record in the terminal and writes `workdir/record.html`.

  Args:
    config: see `configs/inspect.py`.
    workdir: where the page goes.

  Returns:
    The page's path and the counts of each segment.

  Raises:
    UserError: no such data or record.
  """
  path = as_path(config.data)  # a packed data set may be in a bucket
  if path.is_dir():
    if config.tokenizer or config.format:
      raise UserError(f"{path} is a packed data set and has its own tokenizer and format: "
                      "leave config.tokenizer and config.format empty")
    title, segments, renderer = _from_packed(path, config.split, config.index, config.id)
  else:
    title, segments, renderer = _from_file(path, config.index, config.id, config.tokenizer, config.format)
  shown = [(segment, tokens_of(segment, renderer)) for segment in segments]
  print_record(title, shown, Console())
  workdir.mkdir(parents=True, exist_ok=True)
  page = workdir / "record.html"
  with atomic_path(page) as temporary:
    temporary.write_text(to_html(title, shown), encoding="utf-8")
  print(f"written: {page}")
  return {"page": str(page), "segments": [
      {"trajectory_id": s.trajectory_id, "task": s.task, "tokens": len(s.ids), "trained": int(s.train.sum())}
      for s in segments]}


def _from_packed(path: AnyPath, split: str, index: int,
                 trajectory_id: str) -> tuple[str, list[Segment], Renderer]:
  dataset = PackedDataset.open(path)
  rows = dataset.source(split)
  if trajectory_id:
    found = (i for i, row in enumerate(rows) if trajectory_id in json.loads(row["trajectory_ids"]))
    index = next(found, None)
    if index is None:
      raise UserError(f"{path}: no row of {split!r} holds the trajectory {trajectory_id!r}; "
                      "see its ledger.json, or look in another split")
  if not 0 <= index < len(rows):
    raise UserError(f"{path}: {split!r} has the rows 0 to {len(rows) - 1}, not {index}")
  segments = unpack(rows[index], dataset.tasks)
  used = sum(len(segment.ids) - 1 for segment in segments)
  title = f"{path} {split} row {index}: {len(segments)} segments, {used} of {dataset.seq_len} positions"
  return title, segments, load_renderer(path / "tokenizer")


def _from_file(path: AnyPath, index: int, trajectory_id: str, tokenizer_path: str,
               format_name: str) -> tuple[str, list[Segment], Renderer]:
  if not tokenizer_path or not format_name:
    raise UserError(f"{path} is not a packed data set: say how to render it by config.tokenizer and "
                    "config.format")
  trajectories = read_trajectories(path)
  if trajectory_id:
    trajectory = next((t for t in trajectories if t.id == trajectory_id), None)
  else:
    trajectory = next(itertools.islice(trajectories, max(index, 0), None), None) if index >= 0 else None
  if trajectory is None:
    raise UserError(f"{path}: no trajectory {trajectory_id or index!r}")
  renderer = make_renderer(load_tokenizer(tokenizer_path), format_name)
  try:
    encoded = renderer.encode(trajectory)
  except ChatError as e:
    raise UserError(f"{path} {trajectory.id}: {format_name} cannot hold it: {e}") from None
  segment = Segment(trajectory.id, trajectory.task, encoded.tokens, encoded.train)
  return f"{path} {trajectory.id} as {format_name}, not packed", [segment], renderer


def unpack(row: dict, tasks: Sequence[str]) -> list[Segment]:
  """Returns the segments of a packed row: the shift undone.

  Raises:
    UserError: the row's targets are not its tokens, shifted.
  """
  names = json.loads(row["trajectory_ids"])
  segments = []
  for number, name in enumerate(names, start=1):
    where = np.flatnonzero(row["segment_ids"] == number)
    tokens, targets = row["tokens"][where], row["targets"][where]
    if not len(where) or (tokens[1:] != targets[:-1]).any():
      raise UserError(f"segment {number} ({name}) is damaged: its targets are not its tokens shifted by one")
    segments.append(Segment(name, tasks[row["segment_tasks"][number - 1]], np.append(tokens, targets[-1:]),
                            np.append(False, row["loss_mask"][where])))
  return segments


def tokens_of(segment: Segment, renderer: Renderer) -> list[Token]:
  """Returns a segment's tokens with the text that each adds."""
  control = np.isin(segment.ids, list(renderer.control_ids.values())).tolist()
  texts = _texts(segment.ids.tolist(), control, renderer.tokenizer)
  return [Token(int(i), text.translate(_VISIBLE), bool(trained), is_control)
          for i, text, trained, is_control in zip(segment.ids, texts, segment.train, control, strict=True)]


def _texts(ids: list[int], control: list[bool], tokenizer: Tokenizer) -> Iterator[str]:
  """Yields the text that each id adds to what stands before it.

  Decoding one id at a time would lose the space before a SentencePiece word and break characters that
  span several tokens, so ids are decoded behind the last few, and a character is shown at its last id.
  """
  begin = done = 0  # ids[begin:done] are shown, and are the context of the next
  for i, is_control in enumerate(control):
    if is_control:
      yield tokenizer.decode(ids[i:i + 1])
      begin = done = i + 1
      continue
    before, after = tokenizer.decode(ids[begin:done]), tokenizer.decode(ids[begin:i + 1])
    complete = not after.endswith("\N{REPLACEMENT CHARACTER}") or i + 1 == len(ids) or control[i + 1]
    yield after[len(before):] if complete else ""
    if complete:
      begin, done = done, i + 1


def print_record(title: str, shown: Sequence[tuple[Segment, list[Token]]], console: Console) -> None:
  """Prints segments: trained tokens green, control tokens in reverse, all else dim."""
  console.print(title, style="bold", markup=False, highlight=False)
  for number, (segment, tokens) in enumerate(shown, start=1):
    console.rule(Text(f"{number}  {_caption(segment)}"), align="left")
    text = Text()
    for token in tokens:
      style = "bold green" if token.trained else "dim"
      text.append(token.text, f"{style} reverse" if token.control else style)
    console.print(text, soft_wrap=True)


def _caption(segment: Segment) -> str:
  return (f"{segment.trajectory_id}  task {segment.task}  {len(segment.ids)} tokens, "
          f"{int(segment.train.sum())} trained")


_PAGE = jinja2.Environment(autoescape=True, trim_blocks=True).from_string("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>{{ title }}</title>
<style>
  body { font: 14px/1.5 monospace; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #777; }
  h1, h2 { font: bold 1rem sans-serif; color: #222; overflow-wrap: anywhere; }
  h2 { border-top: 1px solid #ccc; padding-top: .5rem; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; }
  span:hover { outline: 1px solid #06c; }
  .t { background: #d8f5d8; color: #060; }
  .c { border: 1px solid #999; border-radius: 3px; }
</style>
<h1>{{ title }}</h1>
<p><span class="t">trained</span> <span>context</span> <span class="c">control token</span>; hover for ids</p>
{% for caption, tokens in segments %}
<h2>{{ loop.index }}. {{ caption }}</h2>
<pre>{% for token in tokens %}
<span class="{{ token.classes }}" title="{{ token.id }}">{{ token.text }}</span>
{%- endfor %}
</pre>
{% endfor %}
</html>
""")


def to_html(title: str, shown: Sequence[tuple[Segment, list[Token]]]) -> str:
  """Returns a page that needs no other file; whatever the content, it is shown as text."""
  return _PAGE.render(title=title, segments=[(_caption(segment), tokens) for segment, tokens in shown])
