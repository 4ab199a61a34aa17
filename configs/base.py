"""What every training config starts from: each default is here, and nowhere in the code."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def training() -> ConfigDict:
  """Returns a config with all settings of `agentbank train`; a config file sets those that are its own."""
  config = ConfigDict()
  config.seed = 0  # of the weights (random start) and of the data order

  config.model = ConfigDict()
  config.model.preset = None  # an architecture, started from random weights ...
  config.model.init_from = None  # ... or a model's folder (a bundle, or Hugging Face's) to start from
  config.model.overrides = ConfigDict()  # fields of LlamaConfig to change

  config.data = ConfigDict()
  config.data.path = ""  # a packed data set: agentbank pack's workdir/packed
  config.data.batch_size = 64  # rows of the global batch
  config.data.micro_batches = 1  # gradient accumulation: pieces of a batch, run one after the other

  # ETO's recipe, by AgentBank's first author; the paper's own is not known.
  config.optim = ConfigDict()
  config.optim.learning_rate = 2e-5
  config.optim.schedule = "cosine"  # cosine | linear | constant
  config.optim.warmup_share = 0.03  # of all steps
  config.optim.final_share = 0.0  # of the peak rate, reached at the last step
  config.optim.b1 = 0.9
  config.optim.b2 = 0.999
  config.optim.eps = 1e-8
  config.optim.weight_decay = 0.0
  config.optim.decay = "kernels"  # kernels (matrices and embeddings) | all
  config.optim.clip_norm = 1.0  # None: no clipping
  config.optim.mu_dtype = "float32"  # float32 | bfloat16: of AdamW's first moment

  config.train = ConfigDict()
  config.train.steps = None  # give steps ...
  config.train.epochs = None  # ... or epochs
  config.train.log_every = 10
  config.train.eval_every = 0  # steps between evaluations of the split "eval"; 0: at the end alone
  config.train.eval_batch_size = 64
  config.train.checkpoint_every = 500  # 0: at the end alone
  config.train.keep_last = 2
  config.train.keep_every = None  # steps whose multiples are kept for good
  config.train.tensorboard = False
  config.train.write_model = "float32"  # float32 | bfloat16 | None: the model folder written at the end
  config.train.peak_flops = None  # of one device, for MFU; None: by the table in agentbank_jax/flops.py

  execution_and_mesh(config)
  several_processes(config)
  config.lock()  # a config file that misspells a key is told so
  config.model.overrides.unlock()
  return config


def execution_and_mesh(config: ConfigDict) -> None:
  """Adds how a model is run and cut: the same for training and sampling."""
  config.execution = ConfigDict()
  config.execution.layers = "auto"  # scan | unroll
  config.execution.attention = "auto"  # full | blocked
  config.execution.matmul = "auto"  # native | cpu
  config.execution.remat = "none"  # none | dots | full: what the backward pass recomputes
  config.execution.compute_dtype = "float32"  # float32 | bfloat16; parameters are float32 in training
  config.execution.loss_chunk = 128  # positions of a row whose logits exist at one time
  config.execution.query_block = 128  # of blocked attention

  config.mesh = ConfigDict({"data": 1, "fsdp": -1, "tensor": 1})  # -1: the devices that are left

  # Logical axis -> mesh axes. Parameters first, activations (act_*) after.
  config.rules = ConfigDict({
      "batch": ("data", "fsdp"),
      "length": None,
      "layers": None,
      "vocab": "tensor",
      "embed": "fsdp",
      "heads": "tensor",
      "kv_heads": "tensor",
      "mlp": "tensor",
      "act_embed": None,
      "act_heads": "tensor",
      "act_kv_heads": "tensor",
      "act_mlp": "tensor",
  })


def several_processes(config: ConfigDict) -> None:
  """Adds how a process finds the others of its run; see agentbank_jax/distributed.py and launch/README.md."""
  config.distributed = ConfigDict()
  config.distributed.cluster = "auto"  # auto: as the settings below, the environment or the cluster say | none: alone
  config.distributed.coordinator = placeholder(str)  # "host:port"; None: JAX_COORDINATOR_ADDRESS, or the cluster's
  config.distributed.num_processes = placeholder(int)  # None: JAX_NUM_PROCESSES, or the cluster's
  config.distributed.process_id = placeholder(int)  # None: JAX_PROCESS_ID, or the cluster's
  config.distributed.local_device_ids = placeholder(str)  # its GPUs, "0,1"; None: JAX_LOCAL_DEVICE_IDS, or all
  config.distributed.simulated_devices = placeholder(int)  # CPU devices of this process, to rehearse a pod
  config.distributed.start_seconds = 60  # who has not come by then is named, and all stop with exit code 69
  config.distributed.heartbeat_seconds = 60  # a process that is silent for so long is lost, and all others stop
