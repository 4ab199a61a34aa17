"""A million passages: memory, disk, time to build, time to search. Prints what it measures:

  python -m pytest -m slow -s tests/test_corpus_million.py
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

PASSAGES = 1_000_000
WORDS = 100  # of a passage, as in DPR's Wikipedia (Karpukhin et al. 2020)
VOCABULARY = 300_000
MAX_BUILD_BYTES = 600e6  # peak resident memory of the process that builds
MAX_DISK_SHARE = 1.2  # of the size of the file
_CHUNK = 10_000

# What the child does: builds (or finds) the index, then searches; each in a process of its own, for its own peak.
_BUILD = """
import json, pathlib, resource, sys, time
from agentbank_jax.envs import corpus, wikipedia
start = time.monotonic()
opened = corpus.open_corpus([pathlib.Path(sys.argv[1])], wikipedia.read_pages, wikipedia.READER)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"seconds": time.monotonic() - start, "cpu_seconds": usage.ru_utime + usage.ru_stime,
                  "pages": opened.about["pages"], "folder": str(opened.folder), "peak_bytes": usage.ru_maxrss * 1024}))
"""
_QUERY = """
import json, pathlib, random, resource, sys, time
from agentbank_jax.envs.corpus import Corpus
words, titles = json.loads(pathlib.Path(sys.argv[2]).read_text())
opened, rng = Corpus(pathlib.Path(sys.argv[1])), random.Random(0)
def measure(ask, questions):
  times = []
  for question in questions:
    start = time.perf_counter()
    answer = ask(question)
    times.append((time.perf_counter() - start) * 1e3)
    assert answer
  times.sort()
  return [round(times[int(len(times) * q)], 3) for q in (0.5, 0.95)]
titles_ms = measure(opened.page, titles)
rare_ms = measure(opened.similar, [" ".join(rng.choices(words[1_000:], k=4)) for _ in range(300)])
common_ms = measure(opened.similar, [" ".join(rng.choices(words[:1_000], k=8)) for _ in range(300)])
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({"title_ms": titles_ms, "four_words_ms": rare_ms, "eight_common_words_ms": common_ms,
                  "pages": opened.about["pages"], "anonymous_bytes": int(status["RssAnon"].split()[0]) * 1024}))
"""


def write_passages(path, count):
  """Writes passages of words that are as frequent as Zipf has it. Returns the words, the frequent first."""
  rng = np.random.default_rng(0)
  letters = np.array(list("etaoinshrdlu"))
  words = ["".join(letters[rng.integers(0, 12, rng.integers(2, 11))]) + np.base_repr(n, 36).lower()
           for n in range(VOCABULARY)]
  share = 1 / np.arange(1, VOCABULARY + 1)
  bounds = np.cumsum(share / share.sum())
  with path.open("w") as file:
    for first in range(0, count, _CHUNK):
      drawn = np.searchsorted(bounds, rng.random((_CHUNK, WORDS))).clip(max=VOCABULARY - 1)
      for n, passage in enumerate(drawn, start=first):
        chosen = [words[i] for i in passage]
        text = ". ".join(" ".join(chosen[i:i + 20]) for i in range(0, WORDS, 20))
        file.write(json.dumps({"title": f"Page {n} of {chosen[0]}", "text": text}) + "\n")
  return words


def child(code, *arguments, cache):
  result = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], text=True, check=True,
                          stdout=subprocess.PIPE, env={**os.environ, "AGENTBANK_CACHE": str(cache)})
  return json.loads(result.stdout)


@pytest.mark.slow
def test_a_million_passages_within_bounds(tmp_path):
  if sys.platform != "linux":
    pytest.skip("reads memory as Linux shows it")
  pages = tmp_path / "pages.jsonl"
  words = write_passages(pages, PASSAGES)
  built = child(_BUILD, pages, cache=tmp_path)
  again = child(_BUILD, pages, cache=tmp_path)
  with pages.open() as lines:
    titles = [json.loads(line)["title"] for _, line in zip(range(300), lines, strict=False)]
  (tmp_path / "queries.json").write_text(json.dumps([words, titles]))
  asked = child(_QUERY, built["folder"], tmp_path / "queries.json", cache=tmp_path)
  text, disk = pages.stat().st_size, sum(f.stat().st_size for f in pathlib.Path(built["folder"]).rglob("*"))
  print(f"\n{built['pages']} passages, {text / 1e6:.0f} MB of text; build {built['seconds']:.0f} s "
        f"({built['cpu_seconds']:.0f} s of processor time), peak "
        f"{built['peak_bytes'] / 1e6:.0f} MB; on disk {disk / 1e6:.0f} MB; opened again in {again['seconds']:.2f} s\n"
        f"{asked}")
  assert built["pages"] == PASSAGES and again["folder"] == built["folder"]
  assert built["peak_bytes"] < MAX_BUILD_BYTES and disk < MAX_DISK_SHARE * text
