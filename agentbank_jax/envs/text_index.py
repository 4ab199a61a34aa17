"""Ranked full-text search, by tantivy: BM25 (k1 = 1.2, b = 0.75) of English word stems.

Indices are written by one thread, so that the same texts give the same ranks everywhere. A document has a `number`;
equal scores rank in its order.
"""

from collections.abc import Iterable, Mapping
import types
from typing import Any

from agentbank_jax.errors import UserError

TOKENIZER = "en_stem"  # tantivy's, of the fields that are searched: `_stems` does the same
MAX_QUERY_STEMS = 64
_LONGEST_WORD = 40  # characters; longer ones are not indexed
_HEAP_BYTES = 15_000_000  # tantivy's smallest


def tantivy() -> types.ModuleType:
  """Returns the package, which is slow to import and not needed to list tasks.

  Raises:
    UserError: it is not installed.
  """
  try:
    import tantivy
  except ImportError:
    raise UserError("tantivy is not installed, which searches texts: pip install 'agentbank-jax[envs]'") from None
  return tantivy


def encodable(text: str) -> str:
  """Returns `text` as tantivy can hold it: half a surrogate pair is no text."""
  return text.encode(errors="replace").decode()


def search(index: Any, searcher: Any, query: str, boosts: Mapping[str, float], count: int) -> list[Any]:
  """Returns the `count` documents that match any word of `query` best, best first.

  Any text is a query: there is no query language to get wrong.

  Args:
    index, searcher: tantivy's.
    query: of which the first `MAX_QUERY_STEMS` different stems are looked for.
    boosts: the fields that are searched, and how much a match counts in each.
    count: how many documents.
  """
  package = tantivy()
  stems = list(dict.fromkeys(_stems(query)))[:MAX_QUERY_STEMS]
  terms = [package.Query.boost_query(package.Query.term_query(index.schema, field, stem), boost)
           for field, boost in boosts.items() for stem in stems]
  hits = searcher.search(package.Query.boolean_query([(package.Occur.Should, term) for term in terms]), count,
                         count=False).hits
  found = [(-score, searcher.doc(address)) for score, address in hits]
  found.sort(key=lambda pair: (pair[0], pair[1].get_first("number")))
  return [document for _, document in found]


def _stems(text: str) -> list[str]:
  package = tantivy()
  analyzer = package.TextAnalyzerBuilder(package.Tokenizer.simple()).filter(
      package.Filter.remove_long(_LONGEST_WORD)).filter(package.Filter.lowercase()).filter(
      package.Filter.stemmer("english")).build()
  return analyzer.analyze(encodable(text))


class TextIndex:
  """Texts in memory, found by their words."""

  def __init__(self, texts: Iterable[str]):
    package = tantivy()
    schema = (package.SchemaBuilder()
              .add_text_field("text", stored=False, tokenizer_name=TOKENIZER)
              .add_unsigned_field("number", stored=True)
              .build())
    self._index = package.Index(schema)
    writer = self._index.writer(heap_size=_HEAP_BYTES, num_threads=1)
    for number, text in enumerate(texts):
      writer.add_document(package.Document(text=encodable(text), number=number))
    writer.commit()
    writer.wait_merging_threads()
    self._index.reload()
    self._searcher = self._index.searcher()

  def search(self, words: str, count: int) -> list[int]:
    """Returns which of the texts match any of `words` best, best first."""
    return [document.get_first("number")
            for document in search(self._index, self._searcher, words, {"text": 1.0}, count)]
