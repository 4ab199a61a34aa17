"""Ranked full-text search in memory: BM25 of English word stems, by tantivy."""

from collections.abc import Iterable

_HEAP_BYTES = 15_000_000  # tantivy's smallest
_LONGEST_WORD = 40  # characters; longer ones are not indexed


class TextIndex:
  """Texts, found by their words.

  One thread writes the index, so that the same texts give the same ranks everywhere. BM25 has tantivy's
  constants, k1 = 1.2 and b = 0.75.
  """

  def __init__(self, texts: Iterable[str]):
    import tantivy  # slow to import

    builder = tantivy.SchemaBuilder()
    builder.add_text_field("text", stored=False, tokenizer_name="english")
    builder.add_integer_field("row", stored=True)
    self._schema = builder.build()
    self._analyzer = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()).filter(
        tantivy.Filter.remove_long(_LONGEST_WORD)).filter(tantivy.Filter.lowercase()).filter(
        tantivy.Filter.stemmer("english")).build()
    index = tantivy.Index(self._schema)
    index.register_tokenizer("english", self._analyzer)
    writer = index.writer(heap_size=_HEAP_BYTES, num_threads=1)
    for row, text in enumerate(texts):
      writer.add_document(tantivy.Document(text=text, row=row))
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    self._searcher = index.searcher()

  def search(self, words: str, count: int) -> list[int]:
    """Returns the rows of the `count` texts that match any of `words` best, best first; ties in order of row.

    Any text is a query: there is no query language to get wrong.
    """
    import tantivy

    stems = self._analyzer.analyze(words.encode(errors="replace").decode())
    query = tantivy.Query.boolean_query([
        (tantivy.Occur.Should, tantivy.Query.term_query(self._schema, "text", stem)) for stem in dict.fromkeys(stems)])
    hits = self._searcher.search(query, count).hits
    found = [(-score, self._searcher.doc(address)["row"][0]) for score, address in hits]
    return [row for _, row in sorted(found)]
