"""Memory while packing: flat in the size of the input, but for the few bytes per conversation that `encode` states."""

import json
import pathlib
import subprocess
import sys

from packing_samples import save_tokenizer
import pytest

# Packs a file in a process of its own and prints its peak of anonymous memory; mapped files are the kernel's to drop.
_PACK = """
import pathlib, sys, threading, time
import packing_samples
from data_prep import pack
folder, source = pathlib.Path(sys.argv[1]), sys.argv[2]
peak, done = 0, threading.Event()
def watch():
  global peak
  while not done.wait(0.02):
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    peak = max(peak, int(status["RssAnon"].split()[0]) * 1024)
watcher = threading.Thread(target=watch)
watcher.start()
config = packing_samples.make_config(folder / "tokenizer", source, seq_len=8192, block_size=64)
packed = pack.run(config, folder / "out")
done.set()
watcher.join()
print(peak, sum(split["trajectories"] for split in packed["splits"].values()))
"""


def _write(path: pathlib.Path, count: int) -> pathlib.Path:
  """Writes conversations of some 900 tokens over few words, each its own."""
  words = ["go", "to", "the", "door", "take", "mug", "from", "shelf", "and", "open"]
  with path.open("w") as file:
    for i in range(count):
      digits = [int(d) for d in f"{i:06d}"]
      turns = [{"role": "user", "content": " ".join(words[(k * d) % 10] for d in digits for k in range(12))},
               {"role": "assistant", "content": " ".join(words[(k + d) % 10] for d in digits for k in range(12))}]
      file.write(json.dumps({"id": str(i), "task": "rooms", "turns": turns}) + "\n")
  return path


def _peak(folder: pathlib.Path, count: int) -> int:
  """Returns the peak in bytes."""
  folder.mkdir()
  save_tokenizer(folder / "tokenizer")
  source = _write(folder / "source.jsonl", count)
  done = subprocess.run([sys.executable, "-c", _PACK, folder, source], cwd=pathlib.Path(__file__).parent,
                        capture_output=True, text=True, check=True)
  peak, packed = map(int, done.stdout.split()[-2:])
  assert packed == count
  return peak


def test_packing_keeps_no_conversation_in_memory(tmp_path):
  if sys.platform != "linux":
    pytest.skip("reads memory as Linux shows it")
  growth = (_peak(tmp_path / "large", 21_000) - _peak(tmp_path / "small", 1_000)) / 20_000
  assert growth < 500  # bytes per conversation: the 200 that `encode` states; its ids alone are 3,600, its text 900
