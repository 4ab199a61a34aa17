"""`agentbank pack`: trajectories -> a packed, loss-masked data set on disk, with its ledger."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
import json
import pathlib
import tempfile

import ml_collections
import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tqdm import tqdm

from agentbank_jax import tasks as task_registry
from agentbank_jax.errors import UserError, did_you_mean
from agentbank_jax.files import whole_folder
from agentbank_jax.trajectory import Trajectory
from agentbank_jax.trajectory_io import read_trajectories
from data_prep import binpack, contamination, encode, mixture, overlong, packed_writer
from data_prep.encode import Corpus
from data_prep.ledger import Ledger, Where

ALSO_IN_EVAL = "also_in_eval"
NOT_SAMPLED = "not_sampled"
CUT = "cut_from_overlong"  # tokens only: the row itself is kept


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> dict:
  """Packs `config.sources` into `workdir/packed`.

  Args:
    config: see `configs/pack.py`.
    workdir: where the data set goes.

  Returns:
    The data set's path, its sizes, and the ledger's totals.

  Raises:
    UserError: a config that cannot be met, bad input, too much dropped, no space left.
  """
  _check(config)
  target = workdir / "packed"
  with whole_folder(target, config.overwrite) as folder, tempfile.TemporaryDirectory(dir=folder) as spill:
    encoder = encode.Encoder(config.tokenizer, config.format, config.seq_len, config.overlong,
                             (*task_registry.held_out_names(), *config.refuse_tasks), config.seed, _screen(config))
    renderer = encoder.make_renderer()
    paths = _paths(config)
    names = [pathlib.Path(path).name for path in paths]
    names = names if len(set(names)) == len(names) else paths
    ledger = Ledger()
    sources = [_counted(path, name, ledger) for path, name in zip(paths, names, strict=True)]
    corpus = encode.encode(encoder, renderer, sources, pathlib.Path(spill), config.workers, config.block_size)
    _check_refused(config.refuse_tasks, corpus.tasks)
    _check_dropped(corpus, names, config.max_dropped_share)
    splits, manifest = _assign(config, corpus, names)
    _fill(ledger, corpus, names)
    _report(ledger, manifest, corpus.notes)
    ledger.check()
    packed = _write(folder, config.seq_len, corpus, splits)
    packed |= {"overlong": config.overlong, "seed": config.seed,
               "joined_turns": int(corpus.rows["joined_turns"][corpus.rows["reason"] == 0].sum())}
    _write_json(folder / "ledger.json", ledger.to_json() | {"unrenderable": corpus.notes})
    _write_json(folder / "mixture.json", manifest)
    if encoder.screen:
      _write_contamination(folder, pathlib.Path(spill, encode.MATCHES), names, encoder.screen, config)
    _write_json(folder / "renderer.json", {
        "format": config.format, "fingerprint": renderer.fingerprint,
        "tokenizer_fingerprint": renderer.tokenizer.fingerprint, "vocab_size": renderer.tokenizer.vocab_size})
    _write_json(folder / "pack.json", packed)
    renderer.save(folder / "tokenizer")
  for split, size in packed["splits"].items():
    print(f"{split}: {size['rows']:,} rows of {config.seq_len}, {size['tokens']:,} tokens, "
          f"{size['trained_tokens']:,} trained, padding {size['padding_share']:.2%}")
  if packed["joined_turns"]:
    print(f"{packed['joined_turns']:,} turns were joined to the turn before them, as {config.format} demands")
  return {"packed": str(target), "splits": packed["splits"], "ledger": ledger.to_json(), "mixture": manifest}


def _check(config: ml_collections.ConfigDict) -> None:
  for key, known in [("overlong", overlong.POLICIES), ("unit", mixture.UNITS)]:
    if config[key] not in known:
      raise UserError(f"config.{key} is {config[key]!r}, expected one of {', '.join(known)}"
                      f"{did_you_mean(config[key], known)}")
  for key, least in [("seq_len", 2), ("workers", 0), ("block_size", 1)]:
    if config[key] < least:
      raise UserError(f"config.{key} is {config[key]}, expected {least} or more")
  for key in ("eval_share", "max_dropped_share"):
    if not 0 <= config[key] <= 1:
      raise UserError(f"config.{key} is {config[key]}, expected a share from 0 to 1")
  if config.eval_share and config.eval_sources:
    raise UserError("config.eval_share and config.eval_sources are two ways to say the same: set one of them")
  if not config.sources:
    raise UserError("config.sources is empty: name a trajectory file")
  for source in config.sources:
    if not isinstance(source, ml_collections.ConfigDict) or set(source) != {"path", "weight"}:
      raise UserError(f"config.sources has {source!r}, expected a path and a weight: --config.sources[0].path=FILE, or "
                      "a config file as configs/pack.py")
  paths = _paths(config)
  if len(set(paths)) < len(paths):
    raise UserError(f"config.sources: {max(paths, key=paths.count)} is named twice")


def _screen(config: ml_collections.ConfigDict) -> contamination.Screen | None:
  """Returns what no trajectory may hold: the problems of `config.contamination.tasks`."""
  wanted = config.contamination
  if not wanted.tasks:
    return None
  return contamination.make_screen(wanted.tasks, split=wanted.split, instances=wanted.instances, ngram=wanted.ngram,
                                   shortest=wanted.shortest, common=wanted.common)


def _write_contamination(folder: pathlib.Path, matches: pathlib.Path, sources: list[str], screen: contamination.Screen,
                         config: ml_collections.ConfigDict) -> None:
  """Writes what was looked for, and every trajectory that was dropped with what it has in common with which problem."""
  found: Counter[str] = Counter()
  with matches.open() as lines, (folder / "contamination.jsonl").open("w") as report:
    for line in lines:
      match = json.loads(line)
      found[match["task"]] += 1
      report.write(json.dumps(match | {"source": sources[match["source"]]}, ensure_ascii=False) + "\n")
  for task, counts in screen.counts.items():
    counts["contaminated_trajectories"] = found[task]
    print(f"contamination: {task}: {counts['instances']:,} problems ({counts['too_short']:,} too short to look for), "
          f"{found[task]:,} trajectories dropped")
  _write_json(folder / "contamination.json", config.contamination.to_dict() | {"tasks": screen.counts})


def _paths(config: ml_collections.ConfigDict) -> list[str]:
  """Returns the input files: those that are mixed, then those of the eval split."""
  return [source.path for source in config.sources] + list(config.eval_sources)


def _counted(path: str, name: str, ledger: Ledger) -> Iterator[Trajectory]:
  """Yields the trajectories of a file and counts them in."""
  for trajectory in tqdm(read_trajectories(path), desc=f"encode {name}", unit=" trajectories"):
    ledger.read(name)
    yield trajectory


def _assign(config: ml_collections.ConfigDict, corpus: Corpus,
            sources: list[str]) -> tuple[dict[str, np.ndarray], dict]:
  """Chooses the trajectories of each split, marks the others as dropped, and describes the mixture."""
  rows = corpus.rows
  orders = []
  for source in range(len(sources)):
    members = np.flatnonzero((rows["source"] == source) & (rows["reason"] == 0))
    orders.append(members[np.argsort(rows["key"][members], kind="stable")])
  train, held_out = orders[:len(config.sources)], orders[len(config.sources):]
  if config.eval_share:
    sizes = [round(config.eval_share * len(order)) for order in train]
    held_out = [order[:size] for order, size in zip(train, sizes, strict=True)]
    train = [order[size:] for order, size in zip(train, sizes, strict=True)]
  held_out = np.sort(np.concatenate([np.empty(0, np.int64), *held_out]))
  if (config.eval_share or config.eval_sources) and not len(held_out):
    raise UserError("the eval split is empty; raise config.eval_share (0: no eval split) or mend "
                    "config.eval_sources")
  for source, order in enumerate(train):
    leaked = np.isin(rows["key"][order], rows["key"][held_out])
    corpus.drop(order[leaked], ALSO_IN_EVAL)
    train[source] = order[~leaked]
  counts = {"rows": np.ones(len(rows), np.int64), "tokens": corpus.tokens,
            "trained_tokens": rows["trained"].astype(np.int64)}
  names = sources[:len(config.sources)]
  selections = mixture.mix(train, counts[config.unit], names, [source.weight for source in config.sources],
                           _total(config.total))
  for order, selection in zip(train, selections, strict=True):
    corpus.drop(np.setdiff1d(order, selection.chosen), NOT_SAMPLED)
  manifest = mixture.manifest(selections, counts, names, rows["task"], corpus.tasks, skill_of, config.unit)
  manifest |= {"requested_total": config.total, "seed": config.seed}
  chosen = np.sort(np.concatenate([selection.chosen for selection in selections]))
  if not len(chosen):
    raise UserError(f"config.total={config.total} {config.unit} is less than one trajectory; raise it")
  return {"train": chosen, "eval": held_out}, manifest


def _total(total: str | float) -> float | None:
  if total == "all":
    return None
  try:
    number = float(total)
  except ValueError:
    number = 0
  if not 0 < number < float("inf"):
    raise UserError(f"config.total is {total!r}, expected 'all' or a number of config.unit above 0")
  return number


def skill_of(task: str) -> str:
  """Returns the skill of a task of the registry; data outside it is "unregistered"."""
  return task_registry.get_task(task).skill if task in task_registry.task_names() else "unregistered"


def _fill(ledger: Ledger, corpus: Corpus, sources: list[str]) -> None:
  """Counts every trajectory and token where it ended."""
  rows = corpus.rows
  for source, name in enumerate(sources):
    of_source = rows["source"] == source
    ledger.read(name, rows=0, tokens=int(rows["ids"][of_source].sum()))
    kept = of_source & (rows["reason"] == 0)
    for task in np.unique(rows["task"][kept]):
      members = rows[kept & (rows["task"] == task)]
      where = Where(name, corpus.tasks[task], "")
      ledger.keep(where, len(members), int(members["trained"].sum()), int(members["masked"].sum()))
    for i in np.flatnonzero(of_source & (rows["reason"] > 0)):
      ledger.drop(corpus.reasons[rows["reason"][i]], _where(corpus, sources, i), tokens=int(rows["ids"][i]))
    for i in np.flatnonzero(kept & (rows["dropped"] > 0)):
      ledger.drop(CUT, _where(corpus, sources, i), rows=0, tokens=int(rows["dropped"][i]))


def _where(corpus: Corpus, sources: list[str], i: int) -> Where:
  row = corpus.rows[i]
  return Where(sources[row["source"]], corpus.tasks[row["task"]], corpus.trajectory_id(i))


def _check_refused(refused: Sequence[str], found: Sequence[str]) -> None:
  """A misspelt name would let what is to be evaluated into the training data."""
  known = {*found, *task_registry.task_names()}
  for name in refused:
    if name not in known:
      raise UserError(f"config.refuse_tasks has {name!r}, which is no task of the sources or of the registry"
                      f"{did_you_mean(name, known)}")


def _check_dropped(corpus: Corpus, sources: list[str], limit: float) -> None:
  """Stops where too much of a source was lost, other than on purpose."""
  rows = corpus.rows
  on_purpose = ("", encode.REFUSED_TASK, encode.CONTAMINATED)
  intended = [i for i, reason in enumerate(corpus.reasons) if reason in on_purpose]
  lost = ~np.isin(rows["reason"], intended)
  for source, name in enumerate(sources):
    members = rows["source"] == source
    reasons = np.bincount(rows["reason"][members & lost], minlength=len(corpus.reasons))
    tokens = np.where(lost, rows["ids"], rows["dropped"] * (rows["reason"] == 0))[members].sum(dtype=np.int64)
    row_share = reasons.sum() / max(1, members.sum())
    token_share = tokens / max(1, rows["ids"][members].sum(dtype=np.int64))
    if max(row_share, token_share) > limit:
      why = [f"{reason} {count:,}" for reason, count in zip(corpus.reasons, reasons, strict=True) if count]
      first = f"; the first that does not fit the format: {corpus.notes[0]}" if corpus.notes else ""
      raise UserError(f"{name}: {row_share:.1%} of {members.sum():,} rows and {token_share:.1%} of the "
                      f"tokens were dropped ({', '.join(why) or CUT}), more than config.max_dropped_share="
                      f"{limit}; mend the data, choose another config.overlong, or raise the limit{first}")


def _write(folder: pathlib.Path, seq_len: int, corpus: Corpus, splits: dict[str, np.ndarray]) -> dict:
  """Packs and writes the splits that have trajectories; returns what `pack.json` holds."""
  used = np.unique(corpus.rows["task"][np.concatenate(list(splits.values()))])
  names = sorted(corpus.tasks[task] for task in used)
  task_index = np.array([names.index(t) if t in names else -1 for t in corpus.tasks], np.int32)
  task_of = task_index[corpus.rows["task"]]
  segments = {split: corpus.segments_of(chosen) for split, chosen in splits.items() if len(chosen)}
  packings = {split: binpack.best_fit_decreasing(corpus.lengths[indices] - 1, seq_len)
              for split, (indices, _) in segments.items()}
  max_segments = max(int(np.bincount(packing.row).max()) for packing in packings.values())
  features = packed_writer.make_features(seq_len, max_segments)
  sizes, infos = {}, []
  for split, packing in packings.items():
    rows = packed_writer.rows(corpus, *segments[split], task_of, packing, seq_len, max_segments)
    written = {"tokens": 0, "trained_tokens": 0}
    rows = _measured(tqdm(rows, desc=f"write {split}", total=packing.num_rows, unit=" rows"), written)
    infos.append(packed_writer.write_split(folder, split, rows, packing.num_rows, features))
    expected = {"tokens": int(corpus.tokens[splits[split]].sum()),
                "trained_tokens": int(corpus.rows["trained"][splits[split]].sum(dtype=np.int64))}
    if written != expected:
      raise AssertionError(f"{split}: {written} written, {expected} expected")
    sizes[split] = {"rows": packing.num_rows, "trajectories": len(splits[split]),
                    "segments": len(packing.row), **written,
                    "padding_share": 1 - written["tokens"] / (packing.num_rows * seq_len)}
  packed_writer.write_metadata(folder, features, infos, "Packed, loss-masked agent trajectories.")
  return {"seq_len": seq_len, "max_segments": max_segments, "tasks": names,
          "skills": [skill_of(name) for name in names], "splits": sizes}


def _measured(rows: Iterable[dict], written: dict[str, int]) -> Iterator[dict]:
  """Passes rows on and counts what is in them, apart from what was meant to be."""
  for row in rows:
    written["tokens"] += int(np.count_nonzero(row["segment_ids"]))
    written["trained_tokens"] += int(np.count_nonzero(row["loss_mask"]))
    yield row


def _report(ledger: Ledger, manifest: dict, notes: list[str]) -> None:
  console = Console(width=max(120, Console().width))  # a log file has no width: no number may be cut
  ledger.print(console)
  for note in notes:
    console.print(f"cannot be rendered: {note}", markup=False, highlight=False)
  table = Table(f"mixture of {manifest['unit']}", "", *mixture.UNITS, "requested", "epochs")
  for kind in ("sources", "tasks", "skills"):
    for name, part in manifest[kind].items():
      cells = [f"{part[unit]['share']:.1%}" for unit in mixture.UNITS]
      if kind == "sources":
        cells += [f"{part['requested_share']:.1%}", f"{part['epochs']:.2f}"]
      table.add_row(kind.removesuffix("s"), escape(name), *cells)
    table.add_section()
  console.print(table)


def _write_json(path: pathlib.Path, value: dict) -> None:
  path.write_text(json.dumps(value, indent=2) + "\n")
