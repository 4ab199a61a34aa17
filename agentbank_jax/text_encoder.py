"""Plain text to ids, fast: private copies of a Rust tokenizer, and a memory of words.

Tokenizing word by word gives the ids of the whole text where no token reaches over the cut: merging never
joins the two sides, so each side falls into tokens on its own. We cut between two ASCII letters with one
space between them ("go| to| the| door"), if no token of the vocabulary holds a letter and then a space.
Agents' conversations use few words, so most are looked up: four times as fast as tokenizing them all.
"""

from collections.abc import Sequence
import itertools
import json
import random
import re
from typing import Any

import tokenizers

_CUT = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])")
_SPANNING = re.compile(r"[A-Za-z][ Ġ▁]")
_REMEMBERED = 200_000  # words, after which the memory starts anew: some 50 MB


class TextEncoder:
  """Encodes text in which special tokens are ordinary characters.

  Text that starts (a text of its own) and text that continues other text are told apart, as
  SentencePiece-like tokenizers put a space in front of the first.
  """

  def __init__(self, starting: dict[str, Any], continuing: dict[str, Any]):
    """Builds the private copies.

    Args:
      starting: the tokenizer.json for text that starts.
      continuing: the same without the space in front.
    """
    inner = _build(continuing)
    outer = inner if starting == continuing else _build(starting)
    self._backends = inner, outer
    words: dict[str, list[int]] = {}
    self._words = words, words if outer is inner else {}
    self._cut = _CUT.split if _may_cut(starting) else lambda text: [text]
    if not self._is_exact():
      self._cut = lambda text: [text]

  def encode(self, text: str, start: bool = True) -> list[int]:
    return self._backends[start].encode(text, add_special_tokens=False).ids

  def encode_batch(self, texts: Sequence[tuple[str, bool]]) -> list[list[int]]:
    """Encodes (text, whether it starts) pairs; unknown words go to the Rust tokenizer in one call."""
    if max(map(len, self._words)) > _REMEMBERED:
      for words in self._words:
        words.clear()
    inner, outer = self._words
    cut = [self._cut(text) for text, _ in texts]
    unknown = {w for words in cut for w in itertools.islice(words, 1, None) if w not in inner}
    firsts = {w for words, (_, start) in zip(cut, texts, strict=True) if start for w in words[:1]}
    unknown |= {w for words, (_, start) in zip(cut, texts, strict=True) if not start for w in words[:1]}
    for which, new in ((0, unknown), (1, firsts)):
      new = [w for w in new if w not in self._words[which]]
      encodings = self._backends[which].encode_batch_fast(new, add_special_tokens=False)
      self._words[which].update(zip(new, [e.ids for e in encodings], strict=True))
    result = []
    for words, (_, start) in zip(cut, texts, strict=True):
      ids = list((outer if start else inner)[words[0]])
      for word in itertools.islice(words, 1, None):
        ids += inner[word]
      result.append(ids)
    return result

  def encode_with_offsets(self, text: str, start: bool) -> tuple[list[int], list[int]]:
    """Returns ids, and for each the character of `text` it starts at."""
    encoding = self._backends[start].encode(text, add_special_tokens=False)
    return encoding.ids, [first for first, _ in encoding.offsets]

  def _is_exact(self) -> bool:
    """Compares words with whole texts on a fixed sample, against rules of a tokenizer nobody thought of."""
    r = random.Random(0)
    parts = ("a", "to", "The", "go", "'s", "é", "12", " ", "  ", "\n", "\t", ".", "_", "-", "中", ":", "")
    texts = [" ".join("".join(r.choices(parts, k=3)) for _ in range(12)) for _ in range(200)]
    pairs = [(text, start) for text in texts for start in (False, True)]
    return self.encode_batch(pairs) == [self.encode(*pair) for pair in pairs]


def _build(config: dict[str, Any]) -> tokenizers.Tokenizer:
  backend = tokenizers.Tokenizer.from_str(json.dumps(config))
  backend.encode_special_tokens = True  # that is: as the plain text they are
  return backend


def _may_cut(config: dict[str, Any]) -> bool:
  model = config["model"]
  return (model["type"] == "BPE" and not model["dropout"]
          and not any(map(_SPANNING.search, model["vocab"]))
          and not any(_SPANNING.search(t["content"]) or t["lstrip"] or t["rstrip"] or t["single_word"]
                      for t in config["added_tokens"] if not t["special"]))
