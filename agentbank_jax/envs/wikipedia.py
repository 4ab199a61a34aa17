"""A Wikipedia that people bring: JSON lines of `{title, text}`, or what WikiExtractor wrote.

WikiExtractor (attardi/wikiextractor) writes folders `AA`, `AB`, ... of files `wiki_00`, `wiki_01`, ...: JSON lines
with `--json`, and `<doc id="..." url="..." title="...">` blocks without it; with `--compress`, as .bz2. Its text has
entities ("&amp;") for signs that mean something in HTML; its titles may have quotation marks (extract.py).
"""

import bz2
from collections.abc import Iterator, Sequence
import gzip
import html
import json
import pathlib
import re
from typing import TextIO

from agentbank_jax.envs.corpus import Page
from agentbank_jax.errors import UserError

READER = "wikipedia-1"
FORMS = "pages.jsonl of {title, text}, or WikiExtractor's folders AA/wiki_00 ..."

_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.bz2")
_EXTRACTED = "wiki_"  # how WikiExtractor's files are called
_DOC = re.compile(r'<doc id="[^"]*" (?:revid="[^"]*" )?url="[^"]*" title="(?P<title>.*)">\s*')


def page_files(folder: pathlib.Path) -> list[pathlib.Path]:
  """Returns the files of a corpus, in order: `*.jsonl` (or .gz, .bz2) and `*/wiki_*`.

  Raises:
    UserError: there are none.
  """
  files = sorted(path for path in folder.iterdir() if path.name.endswith(_SUFFIXES))
  files += sorted(folder.glob(f"*/{_EXTRACTED}*"))
  if not files:
    raise UserError(f"{folder}: no pages; expected {FORMS}")
  return files


def read_pages(files: Sequence[pathlib.Path]) -> Iterator[Page]:
  """Yields the pages of `files`, one at a time; pages without text are left out, as redirects are.

  Raises:
    UserError: a line that is no page.
  """
  for file in files:
    opener = {".gz": gzip.open, ".bz2": bz2.open}.get(file.suffix, open)
    with opener(file, "rt", encoding="utf-8") as lines:
      try:
        yield from _read_file(lines, file)
      except (OSError, EOFError, UnicodeDecodeError) as e:
        raise UserError(f"{file}: cannot be read ({e}); make it again") from None


def sentences(text: str) -> tuple[str, ...]:
  """Returns the sentences of a text: lines, cut after every ". " (ReAct's rule, wikienv.py)."""
  return tuple(piece.strip() for line in text.split("\n") for piece in re.split(r"(?<=\.) ", line) if piece.strip())


def _read_file(lines: TextIO, file: pathlib.Path) -> Iterator[Page]:
  title: str | None = None  # of the block that is open
  text: list[str] = []
  for number, line in enumerate(lines, start=1):
    if title is not None:
      if line.strip() == "</doc>":
        if text and text[0].strip() == title:
          del text[0]  # WikiExtractor begins the text with it
        page, title = _extracted(Page(title, sentences("".join(text)))), None
      else:
        text.append(line)
        continue
    elif match := _DOC.fullmatch(line):
      title, text = match["title"], []
      continue
    elif line.strip():
      page = _json_page(line, file, number)
      page = _extracted(page) if file.name.startswith(_EXTRACTED) else page
    else:
      continue
    if page.sentences:
      yield page
  if title is not None:
    raise UserError(f"{file}: ends within the page {title!r}; make it again")


def _extracted(page: Page) -> Page:
  return Page(html.unescape(page.title), tuple(map(html.unescape, page.sentences)))


def _json_page(line: str, file: pathlib.Path, number: int) -> Page:
  try:
    row = json.loads(line)
    title, text = row["title"], row["text"]
    if not isinstance(title, str) or not isinstance(text, str):
      raise TypeError("'title' and 'text' must be text")
  except (ValueError, KeyError, TypeError) as e:
    raise UserError(f"{file}, line {number}: not a page ({e}); expected {FORMS}") from None
  return Page(title, sentences(text))
