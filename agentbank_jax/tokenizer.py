"""Text to ids and back: published tokenizers, SentencePiece models, and small ones trained here.

The truth is `tokenizer.json`, read by the Rust `tokenizers` library as it was published. (transformers 5
rebuilds some classes' tokenizers by its own rules: for a Llama 2 folder it drops the space that
`tokenizer.json` puts after `<s>`. What `save` writes is read the same way by every version.)

Text is data. `Tokenizer.encode` works on a private copy of the tokenizer that does not know the special
tokens, so "</s>" in an observation is five characters and never the end of a turn. This is checked for
every special token when a tokenizer is loaded.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
import hashlib
import json
import os
import pathlib
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from agentbank_jax.errors import UserError
from agentbank_jax.files import atomic_path
from agentbank_jax.paths import as_path, local_copy
from agentbank_jax.text_encoder import TextEncoder

# Llama 3's split of text into words, digits in threes from the left; but a number has the space before it, as a word
# has: so a small model copies a number up to 999 as one token.
_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token")


class Tokenizer:
  """A vocabulary and how text falls into it.

  Attributes:
    backend: the Rust tokenizer with its special tokens; no padding, no truncation.
    special: text of bos_token, eos_token, pad_token, unk_token, where the tokenizer has them.
    added: tokens outside the model's own vocabulary by text, special or not.
    chat_template: the Jinja text that came with it, or None.
    prefix: where a SentencePiece-like tokenizer puts a space in front of text: "always" (at the start and
      after every special token), "first" (at the start only) or "never".
    vocab_size: every id is below this.
    bos_id: or None.
    eos_id: never None.
    pad_id: falls back to eos_id.
    fingerprint: sha256 of the vocabulary, the rules and the special tokens.
  """

  def __init__(self, backend: tokenizers.Tokenizer, special: Mapping[str, str | None],
               chat_template: str | None = None):
    """Takes over `backend`.

    Raises:
      UserError: no eos token, a special token that is not in the vocabulary, or text that could turn
        into a special token.
    """
    backend.no_padding()
    backend.no_truncation()
    self.backend = backend
    self.special = {name: special[name] for name in _NAMES if special.get(name)}
    self.chat_template = chat_template
    for name, token in self.special.items():
      if backend.token_to_id(token) is None:
        raise UserError(f"the tokenizer's {name} {token!r} is not in its vocabulary; correct {name} in "
                        "tokenizer_config.json")
    if "eos_token" not in self.special:
      raise UserError("the tokenizer has no eos token, so no turn could end; "
                      "set eos_token in tokenizer_config.json")
    # As transformers does: the named tokens are special even where tokenizer.json forgets to say so.
    known = {t.content for t in backend.get_added_tokens_decoder().values() if t.special}
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True)
                                for t in self.special.values() if t not in known])
    added = backend.get_added_tokens_decoder()
    self.added: dict[str, AddedToken] = {token.content: token for token in added.values()}
    self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
    self.bos_id = self._id("bos_token")
    self.eos_id = self._id("eos_token")
    self.pad_id = self.eos_id if self._id("pad_token") is None else self._id("pad_token")
    config = json.loads(backend.to_str())
    self.prefix = _prefix_scheme(config)
    self.fingerprint = hashlib.sha256(
        json.dumps([config, self.special], sort_keys=True).encode()).hexdigest()
    self._text: TextEncoder | None = None
    self._text = self.text_encoder()

  def _id(self, name: str) -> int | None:
    return self.backend.token_to_id(self.special[name]) if name in self.special else None

  def __reduce__(self):  # the private copies would lose `encode_special_tokens`
    return Tokenizer, (self.backend, self.special, self.chat_template)

  def encode(self, text: str) -> list[int]:
    """Returns the ids of plain text: no BOS, and special tokens inside it are ordinary characters."""
    return self._text.encode(text)

  def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
    return self.backend.decode(ids, skip_special_tokens=skip_special)

  def text_encoder(self, controls: Collection[str] = ()) -> TextEncoder:
    """Returns an encoder of text that can never give a special token.

    Args:
      controls: added tokens to be kept out as well, though the tokenizer does not call them special.

    Raises:
      UserError: a special token comes out of plain text all the same.
    """
    special = {t.content for t in self.added.values() if t.special}
    guarded = special | set(controls)
    if guarded == special and self._text is not None:
      return self._text
    config = json.loads(self.backend.to_str())
    for token in config["added_tokens"]:
      token["special"] = token["content"] in guarded
    if config["model"]["type"] == "BPE":  # merges could still build the token from its characters
      config["model"]["merges"] = [m for m in config["model"]["merges"] if "".join(m) not in guarded]
    encoder = TextEncoder(config, _without_prefix(config))
    forbidden = {self.backend.token_to_id(t): t for t in guarded if t != self.special.get("unk_token")}
    probes = [(text.format(token), start) for token in forbidden.values()
              for text in ("{}", "x{}y", " {} ") for start in (True, False)]
    for ids in encoder.encode_batch(probes):
      for i in ids.tolist():
        if i in forbidden:
          raise UserError(f"the tokenizer turns plain text into the special token {forbidden[i]!r}: "
                          "observations could end a turn; use a BPE tokenizer")
    return encoder

  def save(self, folder: str | os.PathLike[str], chat_template: str | None = None) -> None:
    """Writes tokenizer.json and tokenizer_config.json for `transformers.AutoTokenizer`.

    Args:
      folder: is made where it does not exist.
      chat_template: replaces the one the tokenizer came with.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The generic class reads tokenizer.json as it is, in every version of transformers.
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **self.special,
                              "clean_up_tokenization_spaces": False}
    if chat_template or self.chat_template:
      config["chat_template"] = chat_template or self.chat_template
    with atomic_path(folder / "tokenizer.json") as path:
      path.write_text(self.backend.to_str(pretty=True), encoding="utf-8")
    with atomic_path(folder / "tokenizer_config.json") as path:
      path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
  """Reads a tokenizer.

  Args:
    path: a Hugging Face folder with tokenizer.json, a SentencePiece BPE model (Llama 2, Mistral v1), or a
      folder that holds one as tokenizer.model.

  Raises:
    UserError: nothing there, a broken file, no eos token, or no fast tokenizer.
  """
  path = as_path(path)
  with local_copy(path) as local:
    backend, special, template = _read(local)
  try:
    return Tokenizer(backend, special, template)
  except UserError as e:
    raise UserError(f"{path}: {e}") from None


def train_tokenizer(texts: Iterable[str], vocab_size: int, control_tokens: Sequence[str] = ()) -> Tokenizer:
  """Trains a byte-level BPE: any text can be encoded. The same texts give the same ids.

  Args:
    texts: what to learn from.
    vocab_size: upper bound, special tokens included; at least 256 plus their number.
    control_tokens: of the chat format (`chat.FORMATS[name].control_tokens`).
  """
  special = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>", "pad_token": "<|pad|>"}
  controls = list(dict.fromkeys([*special.values(), *control_tokens]))
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  if vocab_size < len(alphabet) + len(controls):
    raise UserError(f"vocab_size is {vocab_size}, but the bytes and special tokens alone are "
                    f"{len(alphabet) + len(controls)}; raise it")
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizers.Sequence([
      pre_tokenizers.Split(tokenizers.Regex(_WORDS), "isolated"),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
  backend.decoder = decoders.ByteLevel()
  backend.train_from_iterator(texts, trainers.BpeTrainer(
      vocab_size=vocab_size, special_tokens=controls, initial_alphabet=alphabet, show_progress=False))
  return Tokenizer(backend, special)


def _read(path: pathlib.Path) -> tuple[tokenizers.Tokenizer, dict[str, str | None], str | None]:
  """Returns the Rust tokenizer, the special tokens and the chat template that `path` holds."""
  if path.is_file():
    return *_read_sentencepiece(path), None
  if not path.is_dir():
    raise UserError(f"{path}: no such file or folder; give a folder with tokenizer.json, "
                    "or a SentencePiece tokenizer.model")
  config = _read_json(path / "special_tokens_map.json") | _read_json(path / "tokenizer_config.json")
  template = _chat_template(path, config)
  special = {name: _content(path, name, config.get(name)) for name in _NAMES}
  if (path / "tokenizer.json").is_file():
    try:
      backend = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    except Exception as e:  # the Rust library raises nothing more precise
      raise UserError(f"{path / 'tokenizer.json'}: cannot be read ({_line(e)}); copy it again") from None
    return backend, special, template
  if (path / "tokenizer.model").is_file():
    backend, found = _read_sentencepiece(path / "tokenizer.model")
    return backend, found | {name: token for name, token in special.items() if token}, template
  raise UserError(f"{path}: no tokenizer.json; convert it once with transformers: "
                  "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)")


def _text_steps(config: dict[str, Any]) -> list[dict[str, Any]]:
  """Returns the steps of a tokenizer.json's normalizer and pre-tokenizer, sequences opened."""
  steps = []
  for key, inner in (("normalizer", "normalizers"), ("pre_tokenizer", "pretokenizers")):
    step = config[key] or {"type": None}
    steps += step[inner] if step["type"] == "Sequence" else [step]
  return steps


def _prefix_scheme(config: dict[str, Any]) -> str:
  for step in _text_steps(config):
    if step["type"] == "Prepend" or step.get("add_prefix_space"):
      return "always"
    if step.get("prepend_scheme", "never") != "never":
      return step["prepend_scheme"]
  return "never"


def _without_prefix(config: dict[str, Any]) -> dict[str, Any]:
  config = json.loads(json.dumps(config))
  for step in _text_steps(config):
    if step["type"] == "Prepend":
      step["prepend"] = ""
    if "add_prefix_space" in step:
      step["add_prefix_space"] = False
    if "prepend_scheme" in step:
      step["prepend_scheme"] = "never"
  return config


def _read_sentencepiece(path: pathlib.Path) -> tuple[tokenizers.Tokenizer, dict[str, str | None]]:
  """Converts a SentencePiece BPE model.

  Merges are ranked by the pieces' scores, as SentencePiece does. (transformers 5.23 ranks them by id,
  which gives other tokens for runs of spaces.)
  """
  from google.protobuf.message import DecodeError
  from sentencepiece import sentencepiece_model_pb2

  proto = sentencepiece_model_pb2.ModelProto()
  try:
    proto.ParseFromString(path.read_bytes())
  except DecodeError:
    proto.Clear()
  if not proto.HasField("trainer_spec"):  # it stands behind the pieces
    raise UserError(f"{path}: not a SentencePiece model, or a truncated one (Llama 3's own tokenizer.model "
                    "is in another format: use a folder with tokenizer.json)")
  trainer, rules = proto.trainer_spec, proto.normalizer_spec
  bpe = trainer.ModelType.Value("BPE")
  if trainer.model_type != bpe or rules.precompiled_charsmap or rules.remove_extra_whitespaces:
    raise UserError(f"{path}: only SentencePiece BPE models that keep text as it is can be read; "
                    "use a folder with tokenizer.json")
  vocab = {p.piece: i for i, p in enumerate(proto.pieces)}
  merges = []
  for piece in proto.pieces:
    if piece.type == piece.NORMAL:
      pairs = [(piece.piece[:k], piece.piece[k:]) for k in range(1, len(piece.piece))]
      merges += [(-piece.score, -len(l), -len(r), l, r) for l, r in pairs if l in vocab and r in vocab]
  backend = tokenizers.Tokenizer(models.BPE(
      vocab=vocab, merges=[(l, r) for *_, l, r in sorted(merges)], unk_token=trainer.unk_piece,
      fuse_unk=True, byte_fallback=trainer.byte_fallback))
  space = [normalizers.Prepend("▁")] if rules.add_dummy_prefix else []
  backend.normalizer = normalizers.Sequence([*space, normalizers.Replace(" ", "▁")])
  strip = [decoders.Strip(" ", 1, 0)] if rules.add_dummy_prefix else []
  backend.decoder = decoders.Sequence(
      [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
  for piece in proto.pieces:
    if piece.type in (piece.CONTROL, piece.UNKNOWN, piece.USER_DEFINED):
      backend.add_tokens([AddedToken(piece.piece, normalized=False,
                                     special=piece.type != piece.USER_DEFINED)])
  ids = {"bos_token": trainer.bos_id, "eos_token": trainer.eos_id, "pad_token": trainer.pad_id,
         "unk_token": trainer.unk_id}
  return backend, {name: proto.pieces[i].piece if i >= 0 else None for name, i in ids.items()}


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  if not path.is_file():
    return {}
  try:
    value = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as e:
    raise UserError(f"{path}: not valid JSON ({_line(e)}); copy it again") from None
  if not isinstance(value, dict):
    raise UserError(f"{path}: holds {type(value).__name__}, expected an object; copy it again")
  return value


def _chat_template(folder: pathlib.Path, config: Mapping[str, Any]) -> str | None:
  try:
    if (folder / "chat_template.jinja").is_file():
      return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
      template = {t["name"]: t["template"] for t in template}.get("default")
    if not isinstance(template, str | None):
      raise TypeError(f"{type(template).__name__}, expected text")
  except (TypeError, KeyError, UnicodeDecodeError) as e:
    raise UserError(f"{folder}: its chat template cannot be read ({type(e).__name__}: {e}); copy it again") from None
  return template


def _content(folder: pathlib.Path, name: str, token: Any) -> str | None:
  text = token.get("content", token) if isinstance(token, Mapping) else token
  if not isinstance(text, str | None):
    raise UserError(f"{folder}: {name} is {token!r}, expected text; correct it in tokenizer_config.json")
  return text


def _line(error: Exception) -> str:
  return str(error).split("\n")[0]
