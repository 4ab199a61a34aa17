"""Several processes, one program: who they are, and how they start, agree and end together.

Each platform says in its own way how many processes there are and which one this is: the metadata of a TPU VM, the
variables of GKE, SLURM or Open MPI (jax knows these), or a person, by the config or by JAX_COORDINATOR_ADDRESS,
JAX_NUM_PROCESSES, JAX_PROCESS_ID and JAX_LOCAL_DEVICE_IDS. Where nothing says so, a process is alone.
"""

import collections
from collections.abc import Callable, Mapping
import contextlib
import hashlib
import json
import os
import socket
import sys
from typing import Any, NamedTuple, TypeVar

from agentbank_jax import roll_call
from agentbank_jax.errors import EXIT_INTERRUPTED, ProcessesMissing, UserError

T = TypeVar("T")

# By hand: the config's key and the variable that stands in for it.
_VARIABLES = {"coordinator": "JAX_COORDINATOR_ADDRESS", "num_processes": "JAX_NUM_PROCESSES",
              "process_id": "JAX_PROCESS_ID", "local_device_ids": "JAX_LOCAL_DEVICE_IDS"}

# Of the clusters that jax knows, besides TPU VMs, those of which a process bears a trace.
_TRACES = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "JOB_COMPLETION_INDEX", "TPU_WORKER_HOSTNAMES",
           "TPU_PROCESS_ADDRESSES")


class Membership(NamedTuple):
  """This process's place among several.

  Attributes:
    coordinator: "host:port" where process 0 listens.
    num_processes: how many there are.
    process_id: which this is, from 0.
    local_device_ids: the GPUs that are its own, or None for all of the host's.
  """

  coordinator: str
  num_processes: int
  process_id: int
  local_device_ids: tuple[int, ...] | None


def find(settings, environ: Mapping[str, str]) -> Membership | None:
  """Returns this process's place, or None where it is alone.

  Args:
    settings: the config's section `distributed`.
    environ: the environment's variables.

  Raises:
    UserError: settings that contradict each other or say half of what is needed.
    ProcessesMissing: the cluster names a coordinator that has no address.
  """
  if settings.cluster not in ("auto", "none"):
    raise UserError(f"distributed.cluster is {settings.cluster!r}; choose auto or none")
  given = {key: getattr(settings, key) for key in _VARIABLES}
  if settings.cluster == "none":
    if any(value is not None for value in given.values()):
      raise UserError("distributed.cluster is none, so the other settings of distributed must be None")
    return None
  source = {key: f"distributed.{key}" for key in _VARIABLES}
  for key, variable in _VARIABLES.items():
    if given[key] is None and environ.get(variable):
      given[key], source[key] = environ[variable], variable
  for key in ("num_processes", "process_id"):
    given[key] = _number(given[key], source[key])
  ids = given["local_device_ids"]
  if isinstance(ids, str | int):
    ids = str(ids).split(",")
  given["local_device_ids"] = None if ids is None else tuple(_number(i, source["local_device_ids"]) for i in ids)
  if None in (given["coordinator"], given["num_processes"], given["process_id"]):
    given = _ask_cluster(given, settings.start_seconds)
  essential = ("coordinator", "num_processes", "process_id")
  missing = [key for key in essential if given[key] is None]
  if len(missing) == len(essential) or given["num_processes"] == 1:
    if given["local_device_ids"] is not None:
      raise UserError(f"{source['local_device_ids']} is set and this process is alone: it uses CUDA_VISIBLE_DEVICES")
    return None
  if missing:
    known = " and ".join(source[key] for key in essential if key not in missing)
    raise UserError(f"{known} given, distributed.{missing[0]} is not: set it, or {_VARIABLES[missing[0]]}")
  place = Membership(**given)
  if not 0 <= place.process_id < place.num_processes:
    raise UserError(f"{source['process_id']} is {place.process_id}; with {place.num_processes} processes it is 0 to "
                    f"{place.num_processes - 1}")
  if not place.coordinator.rpartition(":")[0] or not place.coordinator.rpartition(":")[2].isdecimal():
    raise UserError(f"{source['coordinator']} is {place.coordinator!r}; expected HOST:PORT")
  return place


def join(config, shared: bool) -> None:
  """Joins the other processes, where there are several. Call it before jax is used for anything else.

  Args:
    config: the verb's; its section `distributed` is read, and the rest must be the same in every process.
    shared: whether several processes can do it together.

  Raises:
    UserError: wrong settings, processes that are not alike, or several for what one must do.
    ProcessesMissing: not all came; says which, or that the coordinator cannot be reached.
  """
  settings = config.distributed
  for key in ("start_seconds", "heartbeat_seconds", "simulated_devices"):
    if settings[key] is not None and settings[key] < 1:
      raise UserError(f"distributed.{key} is {settings[key]}; it must be at least 1")
  cpu = os.environ.get("JAX_PLATFORMS") == "cpu"
  if settings.simulated_devices is not None:
    if not cpu:
      raise UserError("distributed.simulated_devices is for rehearsals without accelerators: set JAX_PLATFORMS=cpu")
    import jax
    jax.config.update("jax_num_cpu_devices", settings.simulated_devices)
  place = find(settings, os.environ)
  if place is None:
    return
  if not shared:
    raise UserError(f"there are {place.num_processes} processes and this takes one: start one, or give each its own "
                    "part of the work, another --workdir and --config.distributed.cluster=none")
  import jax
  report = roll_call.Report(place.process_id, socket.gethostname(), _alike(config))
  if place.process_id == 0:
    roll_call.hold(int(place.coordinator.rpartition(":")[2]), place.num_processes, report, settings.start_seconds)
  else:
    roll_call.answer(place.coordinator, report, settings.start_seconds)
  if cpu:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
  jax.distributed.initialize(
      place.coordinator, place.num_processes, place.process_id, place.local_device_ids or None,
      cluster_detection_method="deactivate", initialization_timeout=settings.start_seconds,
      heartbeat_timeout_seconds=settings.heartbeat_seconds, shutdown_timeout_seconds=settings.heartbeat_seconds)


def is_joined() -> bool:
  """Whether this is one of several processes."""
  return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()


def is_lead() -> bool:
  """Whether this process prints and writes what is written once: alone, or process 0."""
  return not is_joined() or sys.modules["jax"].process_index() == 0


def batch_block(sharding) -> tuple[int, int]:
  """Returns (index, count): this process's devices hold block `index` of `count` equal blocks of a batch's rows.

  Processes whose devices hold the same rows, such as those along the tensor axis, have one index.

  Args:
    sharding: of the batch, a NamedSharding over all processes' devices; dimension 0 is the rows.

  Raises:
    UserError: the mesh gives the processes uneven or partly overlapping rows.
  """
  import jax
  size = sharding.num_devices  # a number of rows that any mesh of these devices divides
  spans = collections.defaultdict(set)
  for device, index in sharding.devices_indices_map((size,)).items():
    spans[device.process_index].add(index[0].indices(size)[:2])
  of_process = {process: tuple(sorted(held)) for process, held in spans.items()}
  blocks = sorted(set(of_process.values()))
  if len({len(block) for block in blocks}) > 1 or sum(map(len, blocks)) != len(set().union(*blocks)):
    raise UserError(f"mesh {dict(sharding.mesh.shape)} does not give each process its own equal part of the batch; "
                    "choose axes whose sizes divide, or are multiples of, the devices of a process")
  return blocks.index(of_process[jax.process_index()]), len(blocks)


def start_together(what: str, start: Callable[[], T], seconds: float) -> T:
  """Calls `start` in every process and returns when all have; where one fails, all fail with its reason.

  Else the others would wait in their first collective for one that has left. `start` must use no collective.

  Args:
    what: a name that is used once in a run.
    start: what can fail in one process alone, such as opening the data.
    seconds: to wait for the slowest.

  Raises:
    UserError: `start` raised it, here or in another process.
    ProcessesMissing: another process says nothing, or left for another reason.
  """
  if not is_joined():
    return start()
  import jax
  client = _client()
  name = lambda number: f"agentbank/{what}/{number}"
  here = {"host": socket.gethostname(), "error": None}
  try:
    result = start()
  except BaseException as e:
    here["error"] = str(e) if isinstance(e, UserError) else f"{type(e).__name__}: {e}"
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the first error is the one to tell
      client.key_value_set(name(jax.process_index()), json.dumps(here))
    raise
  client.key_value_set(name(jax.process_index()), json.dumps(here))
  for number in range(jax.process_count()):
    try:
      there = json.loads(client.blocking_key_value_get(name(number), int(seconds * 1000)))
    except jax.errors.JaxRuntimeError as e:
      raise ProcessesMissing(f"process {number} joined, and did not get through its start ({what}) within "
                             f"{seconds:g} s ({str(e).splitlines()[0]}): see its log") from e
    if there["error"] is not None:
      raise UserError(f"process {number} on {there['host']}: {there['error']}")
  return result


def is_loss(error: Exception) -> bool:
  """Whether an error says that a collective found the other side gone, whatever carries it."""
  carriers = ("Gloo", "NCCL", "CoordinationService", "coordination service")
  return type(error).__name__ == "JaxRuntimeError" and any(name in str(error) for name in carriers)


def leave(code: int) -> None:
  """Ends this process with `code`, without waiting for others that may be waiting for it.

  Returns where it may end as any program does: alone, or when all end together (0 and 75).
  """
  if not is_joined() or code in (0, EXIT_INTERRUPTED):
    return
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(code)  # jax's exit handler would hold us for a barrier that the others do not reach


def _ask_cluster(given: dict[str, Any], seconds: float) -> dict[str, Any]:
  """Fills in what is not `given` from what jax finds out about the cluster, where there is one it knows."""
  if not any(name in os.environ for name in _TRACES) and "tpu" not in os.environ.get("JAX_PLATFORMS", ""):
    return given
  from jax._src.clusters import ClusterEnv  # jax.distributed.initialize finds and joins in one go, too late to check
  # Kubernetes makes itself known in every container; only those of an indexed Job have numbers.
  kinds = [kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method
           and (kind.__name__ != "K8sCluster" or "JOB_COMPLETION_INDEX" in os.environ)]
  cluster = next((kind for kind in kinds if kind.is_env_present()), None)
  if cluster is None:
    return given
  found = dict(given)
  if found["num_processes"] is None:
    found["num_processes"] = cluster.get_process_count()
  if found["num_processes"] == 1:
    return found
  if found["process_id"] is None:
    found["process_id"] = cluster.get_process_id()
  if found["coordinator"] is None:
    try:
      found["coordinator"] = cluster.get_coordinator_address(int(seconds), os.environ.get("JAX_COORDINATOR_PORT"))
    except (RuntimeError, OSError) as e:
      raise ProcessesMissing(f"process {found['process_id']} on {socket.gethostname()}: the coordinator has no address "
                             f"({e}): is process 0's host up?") from e
  local = cluster.get_local_process_id()
  if found["local_device_ids"] is None and local is not None and "cuda" in os.environ.get("JAX_PLATFORMS", ""):
    found["local_device_ids"] = (local,)  # SLURM and Open MPI start one process per GPU
  return found


def _client():
  from jax._src import distributed as jax_distributed  # the key-value store has no public name
  return jax_distributed.global_state.client


def _alike(config) -> dict[str, str]:
  """Returns what must be the same in every process."""
  from agentbank_jax.summary import versions
  found = versions()
  rest = {key: value for key, value in config.to_dict().items() if key != "distributed"}
  digest = hashlib.sha256(json.dumps(rest, sort_keys=True, default=str).encode()).hexdigest()[:12]
  return {name: found[name] for name in ("agentbank-jax", "jax", "python")} | {"config digest": digest}


def _number(value: Any, source: str) -> int | None:
  if value is None or isinstance(value, int):
    return value
  if not str(value).strip().isdecimal():
    raise UserError(f"{source} is {value!r}; expected a number")
  return int(value)
