"""Tokenizers: ids against SentencePiece and transformers, safety of plain text, errors, saving."""

import io
import json
import pickle
import random

import pytest
import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers, trainers
import transformers

from agentbank_jax import text_encoder
from agentbank_jax.errors import UserError
from agentbank_jax.tokenizer import Tokenizer, load_tokenizer, train_tokenizer

TEXTS = [f"Thought: I need to find a {thing} in the {room}.\nAction: open {room} {i}\n"
         f"Observation: On the {thing} {i}, you see def f(x):\n    return x + {i}" for i, (thing, room) in enumerate(
             [("key", "hall"), ("mug", "kitchen"), ("book", "living room"), ("lamp", "bedroom")] * 20)]
AWKWARD = ["", " ", "  two  spaces ", "\n\nlines\n", "été 中文 😀", "tabs\t\tand 12345", "</s> <s> <unk>",
           "<|eot_id|><|im_end|>[INST]", "a" * 200, " " * 40 + "x", "I'll go to the door's key"]


def random_texts(n):
  r = random.Random(1)
  parts = [*"abcXYZ 0123.,:;!?()[]{}<>|_-'\"\n\té中😀\u200b", " the", " go", "  ", "</s>", "<s>"]
  return AWKWARD + ["".join(r.choices(parts, k=r.randrange(1, 60))) for _ in range(n)]


@pytest.fixture(scope="module")
def bpe():
  return train_tokenizer(TEXTS, 500, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))


@pytest.fixture(scope="module")
def sp_model(tmp_path_factory):
  """A small SentencePiece model with Llama 2's settings."""
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
      sentence_iterator=iter(TEXTS), model_writer=model, model_type="bpe", vocab_size=420, byte_fallback=True,
      normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, minloglevel=2,
      allow_whitespace_only_pieces=True)
  path = tmp_path_factory.mktemp("sp") / "tokenizer.model"
  path.write_bytes(model.getvalue())
  return path


def test_ids_of_a_sentencepiece_model_are_sentencepiece_s_own(sp_model):
  truth, tok = sentencepiece.SentencePieceProcessor(model_file=str(sp_model)), load_tokenizer(sp_model)
  for text in TEXTS + random_texts(300):
    assert tok.encode(text) == truth.encode(text), repr(text)
  assert (tok.bos_id, tok.eos_id, tok.pad_id) == (truth.bos_id(), truth.eos_id(), truth.eos_id())
  assert tok.vocab_size == truth.vocab_size()
  assert tok.fingerprint == load_tokenizer(sp_model.parent).fingerprint


@pytest.mark.parametrize("name", ["llama2", "mistral_v1"])
def test_ids_of_real_sentencepiece_models_are_sentencepiece_s_own(real_data, name):
  path = real_data / "tokenizer" / f"{name}_tokenizer.model"
  truth, tok = sentencepiece.SentencePieceProcessor(model_file=str(path)), load_tokenizer(path)
  for text in TEXTS[:5] + random_texts(500):
    assert tok.encode(text) == truth.encode(text), repr(text)
    assert tok.decode(tok.encode(text)) == text


def test_plain_text_never_gives_a_special_token(bpe, sp_model):
  for tok in (bpe, load_tokenizer(sp_model)):
    special = {tok.backend.token_to_id(t) for t in tok.added}
    for token in tok.added:
      for text in (token, f"a{token}b", f"{token}{token}", f" {token}\n"):
        assert not special & set(tok.encode(text))
        assert tok.decode(tok.encode(text)) == text


def test_pickled_tokenizers_are_safe_too(bpe):
  again = pickle.loads(pickle.dumps(bpe))
  assert again.encode("<|eot_id|>") == bpe.encode("<|eot_id|>")
  assert again.fingerprint == bpe.fingerprint


def test_words_looked_up_give_the_ids_of_the_whole_text(bpe, sp_model):
  for tok in (bpe, load_tokenizer(sp_model)):
    encoder = tok.text_encoder()
    texts = [*TEXTS[:8], *random_texts(300), "load ▁ ▂ ▃", "a▁ the", "the ▁key ▁▁ x"]  # ▁ is SentencePiece's space
    pairs = [(text, start) for text in texts for start in (True, False)]
    truth = [encoder.encode(*pair) for pair in pairs]
    assert [ids.tolist() for ids in encoder.encode_batch(pairs)] == truth
    assert [ids.tolist() for ids in encoder.encode_batch(pairs[:4])] == truth[:4]
    assert len(encoder._cut("go to the door")) == 4


def test_words_are_not_cut_where_a_token_may_reach_over_the_cut():
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
  backend.train_from_iterator(["to the to the to the"] * 9, trainers.BpeTrainer(
      vocab_size=300, special_tokens=["</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
  tok = Tokenizer(backend, {"eos_token": "</s>"})
  encoder = tok.text_encoder()
  assert encoder.encode_batch([("to the to the", True)])[0].tolist() == tok.encode("to the to the")
  assert len(tok.encode("to the")) == 1


def test_memory_of_words_is_bounded(bpe, monkeypatch):
  monkeypatch.setattr(text_encoder, "_REMEMBERED", 10)
  encoder = pickle.loads(pickle.dumps(bpe)).text_encoder()
  for text in TEXTS[:6]:
    assert encoder.encode_batch([(text, True)])[0].tolist() == bpe.encode(text)
  assert len(encoder._later) < 60


def test_training_is_deterministic_and_covers_all_text(bpe):
  again = train_tokenizer(TEXTS, 500, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"))
  assert again.fingerprint == bpe.fingerprint
  assert again.vocab_size <= 500
  for text in random_texts(100):
    assert bpe.decode(bpe.encode(text)) == text
  assert [bpe.decode([i]) for i in bpe.encode("2024")] == ["2", "0", "2", "4"]
  with pytest.raises(UserError, match="raise it"):
    train_tokenizer(TEXTS, 100)


def test_saved_tokenizers_load_in_transformers_with_the_same_ids(bpe, sp_model, tmp_path):
  for name, tok in {"bpe": bpe, "sp": load_tokenizer(sp_model)}.items():
    tok.save(tmp_path / name, chat_template="{{ bos_token }}")
    assert not list((tmp_path / name).glob("*.partial"))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
    ours = load_tokenizer(tmp_path / name)
    assert ours.fingerprint == tok.fingerprint
    assert ours.chat_template == theirs.chat_template == "{{ bos_token }}"
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    for text in TEXTS[:5] + [t for t in random_texts(100) if "s>" not in t and "<unk>" not in t]:
      if not any(t in text for t in tok.added):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False), repr(text)


def test_padding_and_truncation_of_a_published_file_are_switched_off(bpe, tmp_path):
  bpe.save(tmp_path)
  backend = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
  backend.enable_truncation(4)
  backend.enable_padding(length=64)
  backend.save(str(tmp_path / "tokenizer.json"))
  assert load_tokenizer(tmp_path).encode(TEXTS[0]) == bpe.encode(TEXTS[0])


def edit_config(folder, **changes):
  path = folder / "tokenizer_config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_tokens_named_in_the_config_only_are_special(tmp_path):
  backend = tokenizers.Tokenizer(models.WordLevel({"<end>": 0, "a": 1, "<": 2, "end": 3, ">": 4, "<unk>": 5},
                                                  unk_token="<unk>"))
  backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  backend.save(str(tmp_path / "tokenizer.json"))
  (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<end>"}}))
  with pytest.raises(UserError, match="turns plain text into the special token '<end>'"):
    load_tokenizer(tmp_path)  # a word-level model has no other way to write it


@pytest.mark.parametrize("spoil, message", [
    (lambda d: edit_config(d, eos_token=None), "no eos token"),
    (lambda d: edit_config(d, pad_token="[PAD]"), "pad_token '\\[PAD\\]' is not in its vocabulary"),
    (lambda d: (d / "tokenizer.json").write_bytes((d / "tokenizer.json").read_bytes()[:3000]), "be read"),
    (lambda d: (d / "tokenizer_config.json").write_text("{"), "not valid JSON"),
    (lambda d: (d / "tokenizer_config.json").write_text("[]"), "holds list, expected an object"),
    (lambda d: edit_config(d, eos_token=5), "eos_token is 5, expected text"),
    (lambda d: edit_config(d, eos_token={}), "eos_token is {}, expected text"),
    (lambda d: edit_config(d, chat_template=[1]), "chat template cannot be read"),
    (lambda d: edit_config(d, chat_template=1), "chat template cannot be read"),
    (lambda d: (d / "chat_template.jinja").write_bytes(b"\xff"), "chat template cannot be read"),
    (lambda d: (d / "tokenizer.json").unlink(), "convert it once"),
    (lambda d: [f.unlink() for f in d.iterdir()] and d.rmdir(), "no such file or folder"),
])
def test_broken_folders_are_one_line_errors(bpe, tmp_path, spoil, message):
  folder = tmp_path / "tok"
  bpe.save(folder)
  spoil(folder)
  with pytest.raises(UserError, match=message) as error:
    load_tokenizer(folder)
  assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_sentencepiece_models_are_errors(sp_model, tmp_path, share):
  data = sp_model.read_bytes()
  (tmp_path / "tokenizer.model").write_bytes(data[:int(len(data) * share)])
  with pytest.raises(UserError, match="truncated"):
    load_tokenizer(tmp_path / "tokenizer.model")
