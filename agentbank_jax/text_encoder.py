"""Plain text to ids, fast: private copies of a Rust tokenizer, and a memory of words.

Tokenizing word by word gives the ids of the whole text where no token reaches over the cut: merging never
joins the two sides, so each side falls into tokens on its own. We cut at every single space between two
characters that are not white space ("go| to| shelf| 12."), if no token of the vocabulary holds such a
character and then a space. Agents' conversations use few words, so most are looked up, which is faster than
tokenizing them all (benchmarks/packing.py).
"""

from collections.abc import Iterator, Sequence
import json
import random
import re
from typing import Any

import numpy as np
import tokenizers

_CUT = re.compile(r" (?<=[^\s▁] )(?=[^\s▁])")  # ▁ in a text is a space to SentencePiece, whose vocabularies write it so
_WHITE = "\t\n\v\f\r\x1c\x1d\x1e\x1f"  # ASCII's, but for the space
_LOOSE = ("  ", " \n", "\n ", *_WHITE.replace("\n", ""))  # ASCII text without these has only spaces to cut at
_BYTE_LEVEL_WHITE = "ĉĊċČčĜĝĞğ"  # the same white space in byte-level vocabularies
_REMEMBERED = 2_000_000  # characters, after which the memory starts anew: some 60 MB
_TOGETHER = 64  # texts whose words go through the memory at once: few enough to stay in the processor's cache


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
    # int32 ids as bytes, which join faster than lists or arrays. The first words of texts that continue and that start
    # have memories of their own; later words have a space in front, which is not part of the key.
    first: dict[str, bytes] = {}
    self._first = first, first if outer is inner else {}
    self._later: dict[str, bytes] = {}
    self._remembered = 0
    self._cut = _words if _may_cut(starting) else _whole
    if not self._is_exact():
      self._cut = _whole

  def encode(self, text: str, start: bool = True) -> list[int]:
    return self._backends[start].encode(text, add_special_tokens=False).ids

  def encode_batch(self, texts: Sequence[tuple[str, bool]]) -> list[np.ndarray]:
    """Encodes (text, whether it starts) pairs: int32 [n] each."""
    return [ids for i in range(0, len(texts), _TOGETHER) for ids in self._encode_few(texts[i:i + _TOGETHER])]

  def _encode_few(self, texts: Sequence[tuple[str, bool]]) -> Iterator[np.ndarray]:
    if self._remembered > _REMEMBERED:
      self._remembered = 0
      for memory in (*self._first, self._later):
        memory.clear()
    later = [self._cut(text) for text, _ in texts]
    first = [(self._first[start], words.pop(0)) for words, (_, start) in zip(later, texts, strict=True)]
    for memory, backend in zip(self._first, self._backends, strict=True):
      self._learn(memory, {word for of, word in first if of is memory}, "", backend)
    self._learn(self._later, set().union(*later), " ", self._backends[False])
    find = self._later.__getitem__
    for (memory, word), words in zip(first, later, strict=True):
      yield np.frombuffer(b"".join((memory[word], *map(find, words))), np.int32)

  def _learn(self, memory: dict[str, bytes], words: set[str], before: str, backend: tokenizers.Tokenizer) -> None:
    new = list(words.difference(memory))
    encodings = backend.encode_batch_fast([before + word for word in new], add_special_tokens=False)
    memory.update((word, np.array(e.ids, np.int32).tobytes()) for word, e in zip(new, encodings, strict=True))
    self._remembered += sum(map(len, new))

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
    return [ids.tolist() for ids in self.encode_batch(pairs)] == [self.encode(*pair) for pair in pairs]


def _words(text: str) -> list[str]:
  """Cuts a text; the spaces at the cuts are gone."""
  if text.isascii() and not any(map(text.__contains__, _LOOSE)) and text[:1] != " " != text[-1:]:
    return text.split(" ")
  return _CUT.split(text)


def _whole(text: str) -> list[str]:
  return [text]


def _build(config: dict[str, Any]) -> tokenizers.Tokenizer:
  backend = tokenizers.Tokenizer.from_str(json.dumps(config))
  backend.encode_special_tokens = True  # that is: as the plain text they are
  return backend


def _may_cut(config: dict[str, Any]) -> bool:
  model = config["model"]
  if model["type"] != "BPE" or model["dropout"]:
    return False
  space, white = ("Ġ", _BYTE_LEVEL_WHITE) if "Ġ" in model["vocab"] else ("▁", _WHITE)
  spanning = re.compile(f"[^ {space}{white}][ {space}]")
  return (not any(map(spanning.search, model["vocab"]))
          and not any(spanning.search(t["content"]) or t["lstrip"] or t["rstrip"] or t["single_word"]
                      for t in config["added_tokens"] if not t["special"]))
