"""Pages to search in: read from files as a stream, indexed once on disk, opened in milliseconds.

The index is tantivy's (BM25, memory-mapped). It is a folder in the cache, called after what it was made of: the
checksums of the files and the versions of the form and of tantivy. It appears whole or not at all, and whoever else
needs it at that moment waits for it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import fcntl
import hashlib
import json
import pathlib
import time
from typing import Any, NamedTuple
import unicodedata

from absl import logging

from agentbank_jax import cache
from agentbank_jax.envs import text_index
from agentbank_jax.files import whole_folder

FORM = 1  # of the index: another number for another schema or another way to read pages
HEAP_BYTES = 128_000_000  # of the writer, which flushes when it is full: the memory of a build does not grow
_SIMILAR = 5  # titles that a search without a page names
_BOOSTS = {"title": 3.0, "text": 1.0}
_ABOUT = "about.json"


class Page(NamedTuple):
  """A page, or a part of one: parts of one title are one page, in their order."""

  title: str
  sentences: tuple[str, ...]


class Corpus:
  """An open index. Threads may share it; it only reads."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.about: dict[str, Any] = json.loads((folder / _ABOUT).read_text())
    self._tantivy = text_index.tantivy()
    self._index = self._tantivy.Index.open(str(folder))
    self._searcher = self._index.searcher()

  def page(self, title: str) -> Page | None:
    """Returns the page called `title`, or None.

    The title as it is written is preferred; without it, case, underscores and spaces make no difference.
    """
    query = self._tantivy.Query.term_query(self._index.schema, "key", _key(title))
    found = [self._searcher.doc(address) for _, address in self._searcher.search(query, 1_000, count=False).hits]
    if not found:
      return None
    found.sort(key=lambda doc: doc.get_first("number"))
    titles = [doc.get_first("title") for doc in found]
    chosen = title if title in titles else titles[0]
    parts = [doc.get_first("text") for doc in found if doc.get_first("title") == chosen]
    return Page(chosen, tuple(line for part in parts for line in part.split("\n") if line))

  def similar(self, query: str) -> list[str]:
    """Returns the titles of the pages that match best by BM25, the title counting more; [] where no word is known."""
    found = text_index.search(self._index, self._searcher, query, _BOOSTS, 10 * _SIMILAR)
    return list(dict.fromkeys(document.get_first("title") for document in found))[:_SIMILAR]


def open_corpus(files: Sequence[pathlib.Path], read: Callable[[Sequence[pathlib.Path]], Iterable[Page]],
                reader: str) -> Corpus:
  """Returns the index of the pages of `files`, built where there is none yet.

  Args:
    files: what the pages are read from.
    read: yields them, in an order that depends on the files alone.
    reader: name of the form that `read` reads; part of what names the index.

  Raises:
    UserError: `read` raised it, or tantivy is not installed.
  """
  folder = cache.folder("corpora")
  sums = [(file.name, cache.file_checksum(file)) for file in files]
  named = {"form": FORM, "reader": reader, "tantivy": text_index.tantivy().__version__, "files": sums}
  folder /= hashlib.sha256(json.dumps(named).encode()).hexdigest()[:32]
  if not (folder / _ABOUT).is_file():
    with _locked(folder.with_suffix(".lock")):
      if not (folder / _ABOUT).is_file():  # nobody else has built it meanwhile
        build(folder, read(files), named)
  return Corpus(folder)


def build(folder: pathlib.Path, pages: Iterable[Page], about: dict[str, Any]) -> None:
  """Writes the index of `pages` to `folder`, which appears when it is complete.

  Memory is bounded by the writer's heap and its merges, whatever the number of pages.
  """
  import tqdm

  tantivy = text_index.tantivy()
  start = time.monotonic()
  schema = (tantivy.SchemaBuilder()
            .add_text_field("title", stored=True, tokenizer_name=text_index.TOKENIZER, index_option="freq")
            .add_text_field("text", stored=True, tokenizer_name=text_index.TOKENIZER, index_option="freq")
            .add_text_field("key", tokenizer_name="raw", index_option="basic")
            .add_unsigned_field("number", stored=True)
            .build())
  count = 0
  with whole_folder(folder) as partial:
    index = tantivy.Index(schema, str(partial))
    writer = index.writer(HEAP_BYTES, num_threads=1)
    try:
      for page in tqdm.tqdm(pages, desc="indexing", unit=" pages", unit_scale=True):
        lines = (" ".join(sentence.split()) for sentence in page.sentences)
        writer.add_document(tantivy.Document(title=page.title, text="\n".join(line for line in lines if line),
                                             key=_key(page.title), number=count))
        count += 1
      writer.commit()
    finally:
      writer.wait_merging_threads()  # its threads write to the folder, which may be about to vanish
    (partial / _ABOUT).write_text(json.dumps(about | {"pages": count, "seconds": round(time.monotonic() - start, 1)}))
  logging.info("indexed %d pages in %.0f s: %s", count, time.monotonic() - start, folder)


def _key(title: str) -> str:
  """Returns what titles that are the same page have in common."""
  folded = unicodedata.normalize("NFKC", text_index.encodable(title)).replace("_", " ").casefold()
  return " ".join(folded.split())[:1_000]


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
  """Waits until no other thread or process is in a block for `path`."""
  with path.open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, or the process dies
    yield
