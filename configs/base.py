"""What every training config starts from: each default is here, and nowhere in the code."""

from typing import Any

from ml_collections import ConfigDict, FieldReference


def optional(kind: type, value: Any = None) -> FieldReference:
  """Returns a setting of type `kind` that may also be None; on the command line, --config.key=None."""
  return FieldReference(value, field_type=kind)


def training() -> ConfigDict:
  """Returns a config with all settings of `agentbank train`; a config file sets those that are its own."""
  config = ConfigDict()
  config.seed = 0  # of the weights (random start) and of the data order

  config.model = ConfigDict()
  config.model.preset = optional(str)  # an architecture, started from random weights ...
  config.model.init_from = optional(str)  # ... or a model's folder (a bundle, or Hugging Face's) to start from
  config.model.overrides = architecture()
  # What to do with control tokens of the chat format that `init_from` has never learned, their embedding rows zero or
  # all alike: error | mean (start them from the mean of the other rows) | keep.
  config.model.untrained_tokens = "error"

  # Low-rank adapters on frozen weights, in place of full tuning.
  config.model.lora = ConfigDict()
  config.model.lora.rank = 0  # 0: full tuning
  config.model.lora.alpha = 32.0
  config.model.lora.targets = ("q", "k", "v", "o", "gate", "up", "down")
  config.model.lora.base = "bfloat16"  # float32 | bfloat16 | int8: what the frozen weights are kept in

  config.data = ConfigDict()
  config.data.path = ""  # a packed data set: agentbank pack's workdir/packed
  config.data.seq_len = optional(int)  # positions of a row, checked against the data; None: as it was packed
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
  config.optim.clip_norm = optional(float, 1.0)  # None: no clipping
  config.optim.mu_dtype = "float32"  # float32 | bfloat16: of AdamW's first moment

  config.train = ConfigDict()
  config.train.steps = optional(int)  # give steps ...
  config.train.epochs = optional(int)  # ... or epochs
  config.train.log_every = 10
  config.train.eval_every = 0  # steps between evaluations of the split "eval"; 0: at the end alone
  config.train.eval_batch_size = 64
  config.train.checkpoint_every = 500  # 0: at the end alone
  config.train.keep_last = 2
  config.train.keep_every = optional(int)  # steps whose multiples are kept for good
  # On machines of Google's cloud: save and stop (exit code 75) when the metadata server says that the machine is about
  # to go, as SIGTERM does: auto | off. Elsewhere auto does nothing.
  config.train.maintenance = "auto"
  config.train.tensorboard = False
  config.train.write_model = optional(str, "float32")  # float32 | bfloat16 | None: the model folder at the end
  config.train.write_adapter = True  # under LoRA: the adapter's folder too, in PEFT's format
  config.train.peak_flops = optional(float)  # of one device, for MFU; None: by the table in agentbank_jax/flops.py

  # What `agentbank compile` compiles, and for which TPUs or GPUs; training does not read it.
  config.compile = ConfigDict()
  config.compile.topology = ""  # v5e:4x4, v5p-16, 2xv6e:8x8, h100-8 ...; --topology sets it
  config.compile.segments = 64  # conversations of a row at most; cuDNN's attention keeps memory for so many
  config.compile.step = "train"  # train | decode: the sampling engine's chunk of steps
  config.compile.suggest = True  # where it does not fit: look for the nearest change that does
  config.compile.slots = 64  # decode: conversations at once ...
  config.compile.context = 4096  # ... of so many tokens
  config.compile.chunk = 16  # ... and so many steps in one program

  execution_and_mesh(config)
  several_processes(config)
  config.lock()  # a config file that misspells a key is told so
  return config


def architecture() -> ConfigDict:
  """Returns fields of `LlamaConfig` to change in the preset, or in `init_from`'s config.json; None keeps them.

  The ids of bos, eos and pad are not among them: they come from the packed data's tokenizer.
  """
  return ConfigDict({
      "model_type": optional(str),  # llama | mistral | qwen2: the family it is exported as
      "vocab_size": optional(int),
      "hidden_size": optional(int),
      "intermediate_size": optional(int),
      "num_layers": optional(int),
      "num_heads": optional(int),
      "num_kv_heads": optional(int),
      "head_dim": optional(int),
      "max_positions": optional(int),
      "rope_theta": optional(float),
      "norm_eps": optional(float),
      "rope_scaling": {
          "kind": optional(str),  # llama3 | linear | none: takes it away
          "factor": optional(float),
          "low_freq_factor": optional(float),
          "high_freq_factor": optional(float),
          "original_max_position": optional(int),
      },
      "tie_embeddings": optional(bool),
      "qkv_bias": optional(bool),
      "out_bias": optional(bool),
      "mlp_bias": optional(bool),
      "sliding_window": optional(int),  # 0: takes it away
      "initializer_range": optional(float),
  })


def execution_and_mesh(config: ConfigDict) -> None:
  """Adds how a model is run and cut: the same for training and sampling."""
  config.execution = ConfigDict()
  config.execution.layers = "auto"  # scan | unroll
  config.execution.attention = "auto"  # full | blocked | splash (TPU) | cudnn, triton (GPU)
  config.execution.matmul = "auto"  # native | cpu
  config.execution.remat = "none"  # none | dots | attention | full: what is not kept for the backward pass
  config.execution.compute_dtype = "float32"  # float32 | bfloat16; parameters are float32 in training
  config.execution.loss_chunk = 128  # positions of a row whose logits exist at one time
  config.execution.query_block = 128  # of blocked attention
  config.execution.splash_block = 512  # of splash attention

  # -1: the devices that are left. Over several slices of a pod, `data` is cut over the slices first.
  config.mesh = ConfigDict({"data": 1, "fsdp": -1, "context": 1, "tensor": 1})

  # Logical axis -> mesh axis, several in a tuple, or None. Parameters first, activations (act_*) after.
  rules = {
      "batch": ("data", "fsdp"),
      "length": "context",
      "layers": None,
      "vocab": "tensor",
      "embed": ("fsdp", "context"),
      "heads": "tensor",
      "kv_heads": "tensor",
      "mlp": "tensor",
      "act_embed": None,
      "act_heads": "tensor",
      "act_kv_heads": "tensor",
      "act_mlp": "tensor",
  }
  config.rules = ConfigDict({axis: optional(object, rule) for axis, rule in rules.items()})


def several_processes(config: ConfigDict) -> None:
  """Adds how a process finds the others of its run; see agentbank_jax/distributed.py and launch/README.md."""
  config.distributed = ConfigDict()
  config.distributed.cluster = "auto"  # auto: as the settings below, the environment or the cluster say | none: alone
  config.distributed.coordinator = optional(str)  # "host:port"; None: JAX_COORDINATOR_ADDRESS, or the cluster's
  config.distributed.num_processes = optional(int)  # None: JAX_NUM_PROCESSES, or the cluster's
  config.distributed.process_id = optional(int)  # None: JAX_PROCESS_ID, or the cluster's
  config.distributed.local_device_ids = optional(str)  # its GPUs, "0,1"; None: JAX_LOCAL_DEVICE_IDS, or all
  config.distributed.simulated_devices = optional(int)  # CPU devices of this process, to rehearse a pod
  config.distributed.start_seconds = 60  # who has not come by then is named, and all stop with exit code 69
  config.distributed.heartbeat_seconds = 60  # a process that is silent for so long is lost, and all others stop
