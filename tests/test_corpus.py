"""The index of pages: what it finds, that it is built once and whole, and what pages are read from."""

import bz2
import gzip
import json
import threading

import pytest

from agentbank_jax.cache import VARIABLE
from agentbank_jax.envs import corpus, wikipedia
from agentbank_jax.envs.corpus import Corpus, Page, open_corpus
from agentbank_jax.errors import UserError

PAGES = (
    Page("Ada Lovelace", ("Ada Lovelace wrote a program.", "She knew Babbage.")),
    Page("Charles Babbage", ("Charles Babbage built engines.",)),
    Page("ada lovelace", ("A ship.",)),
    Page("Ada Lovelace", ("She liked flying machines.",)),
    Page("Engine (disambiguation)", ("Engine may be many things: AND, OR, NOT.",)),
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
  return tmp_path / "cache"


@pytest.fixture
def opened(tmp_path):
  corpus.build(tmp_path / "index", PAGES, {})
  return Corpus(tmp_path / "index")


def test_a_title_as_written_is_preferred_and_parts_are_put_together(opened):
  assert opened.page("Ada Lovelace") == Page("Ada Lovelace", (*PAGES[0].sentences, "She liked flying machines."))
  assert opened.page("ada lovelace") == PAGES[2]
  assert opened.page("ADA_lovelace ").title == "Ada Lovelace"  # no title is written so: the first page
  assert opened.page("charles  babbage") == PAGES[1]
  assert opened.page("Ada") is None and opened.page("") is None and opened.page("\ud800") is None


def test_similar_titles(opened):
  assert opened.similar("Lovelace")[0] == "Ada Lovelace"
  assert opened.similar("who built the engines")[0] in ("Charles Babbage", "Engine (disambiguation)")
  assert opened.similar("Ada Lovelace").count("Ada Lovelace") == 1
  assert len(opened.similar("a an the is engine ada charles")) <= 5


@pytest.mark.parametrize("query", [
    "", " ", "?!", "title:ada", "ada AND NOT", '"ada', "ada^9", "(((", "[a TO b]", "text:[* TO *]", "\x00", "\ud800ada",
    "ada " * 5_000, "*", "/.*/", "a:b:c", "IN [ada]", "🤖",
])
def test_no_query_is_syntax(opened, query):
  assert isinstance(opened.similar(query), list)
  assert isinstance(opened.page(query), (Page, type(None)))


def test_equal_scores_are_in_the_order_of_the_pages(tmp_path):
  corpus.build(tmp_path / "index", [Page(f"Page {n}", ("the same words",)) for n in range(40)], {})
  assert Corpus(tmp_path / "index").similar("same words") == [f"Page {n}" for n in range(5)]


def lines(path, rows):
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  return path


def test_an_index_is_built_once_and_again_when_a_file_changes(tmp_path):
  file, built = lines(tmp_path / "pages.jsonl", [{"title": "A", "text": "One. Two."}]), []

  def read(files):
    built.append(len(files))
    yield from wikipedia.read_pages(files)

  first = open_corpus([file], read, "test")
  assert first.about["pages"] == 1 and first.page("A").sentences == ("One.", "Two.")
  assert open_corpus([file], read, "test").folder == first.folder and built == [1]
  moved = file.rename(tmp_path / "sub.jsonl").rename(file)
  assert open_corpus([moved], read, "test").folder == first.folder and built == [1]  # the content counts
  assert open_corpus([file], read, "another form").folder != first.folder
  lines(file, [{"title": "B", "text": "Three."}])
  assert open_corpus([file], read, "test").page("B") and built == [1, 1, 1]


def test_a_build_that_fails_leaves_nothing_and_the_next_one_succeeds(tmp_path, cache):
  file = lines(tmp_path / "pages.jsonl", [{"title": "A", "text": "One."}, {"title": "B"}])
  with pytest.raises(UserError, match=r"pages.jsonl, line 2: not a page \('text'\)"):
    open_corpus([file], wikipedia.read_pages, "test")
  assert not [path for path in (cache / "corpora").iterdir() if path.is_dir()]
  lines(file, [{"title": "A", "text": "One."}])
  assert open_corpus([file], wikipedia.read_pages, "test").page("A")


def test_threads_that_need_one_index_build_it_once(tmp_path):
  file, built, found = lines(tmp_path / "pages.jsonl", [{"title": "A", "text": "One."}]), [], []

  def read(files):
    built.append(1)
    yield from wikipedia.read_pages(files)

  work = lambda: found.append(open_corpus([file], read, "test").page("A"))
  threads = [threading.Thread(target=work) for _ in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert found == [Page("A", ("One.",))] * 8 and built == [1]


def test_wikiextractor_in_both_forms_and_compressed(tmp_path):
  block = ('<doc id="12" url="https://x?curid=12" title="Q &amp; "A"">\nQ &amp; "A"\n\n1 &lt; 2. Second.\n'
           'Third line.\n\n</doc>\n<doc id="13" revid="7" url="" title="Redirect">\nRedirect\n\n\n</doc>\n')
  for folder in ("AA", "AB"):
    (tmp_path / folder).mkdir()
  (tmp_path / "AA" / "wiki_00").write_text(block)
  (tmp_path / "AA" / "wiki_01.bz2").write_bytes(bz2.compress(block.encode()))
  lines(tmp_path / "AB" / "wiki_00", [{"id": "1", "url": "", "title": "J", "text": "J &gt; I.\n\nIt is late."}])
  with gzip.open(tmp_path / "more.jsonl.gz", "wt") as file:
    file.write('{"title": "G", "text": "Plain &amp; packed."}\n\n{"title": "Empty", "text": " "}\n')
  files = wikipedia.page_files(tmp_path)
  assert [f.name for f in files] == ["more.jsonl.gz", "wiki_00", "wiki_01.bz2", "wiki_00"]
  page = Page('Q & "A"', ("1 < 2.", "Second.", "Third line."))
  assert list(wikipedia.read_pages(files)) == [
      Page("G", ("Plain &amp; packed.",)), page, page, Page("J", ("J > I.", "It is late."))]


@pytest.mark.parametrize("content, message", [
    ("no json\n", r"line 1: not a page"),
    ('{"title": "A", "text": 3}\n', r"line 1: not a page \('title' and 'text' must be text\)"),
    ('[1]\n', r"line 1: not a page"),
    ('<doc id="1" url="" title="A">\nA\n', r"ends within the page 'A'"),
])
def test_what_is_no_page_is_said(tmp_path, content, message):
  (tmp_path / "pages.jsonl").write_text(content)
  with pytest.raises(UserError, match=message):
    list(wikipedia.read_pages(wikipedia.page_files(tmp_path)))


def test_bad_files_are_said(tmp_path):
  with pytest.raises(UserError, match="no pages; expected pages.jsonl"):
    wikipedia.page_files(tmp_path)
  (tmp_path / "pages.jsonl.gz").write_bytes(gzip.compress(b'{"title": "A", "text": "B"}\n')[:-9])
  with pytest.raises(UserError, match="pages.jsonl.gz: cannot be read"):
    list(wikipedia.read_pages(wikipedia.page_files(tmp_path)))
