"""What the tasks on WebShop share: how they are read, what they score, the expert and the random agent."""

from collections.abc import Callable, Generator, Iterator
import random
import re

from agentbank_jax.envs.base import Env, Instance
from agentbank_jax.tasks.task import Grammar, MetricCard, Source, Task

_INSTRUCTIONS = """\
Buy what the instruction asks for in a web shop. Each turn, think, then act:
Thought: ...
Action: search[words], or click[button]
A button is what stands between [button] and [button_]: a product's code, an option, Next >, Buy Now. Choose the \
options that the instruction names before you click Buy Now; it ends the task."""

_RESULT = re.compile(r"\[(?:clicked )?button\] (B\w{9}) \[")
_OPTION = re.compile(r"^  \[(?:clicked )?button\] (.*) \[(?:clicked )?button_\]$", re.MULTILINE)
_BUTTON = re.compile(r"\[(?:clicked )?button\] (.*) \[(?:clicked )?button_\]")
_PAGES = 3  # of one search that the expert looks at


def expert(instance: Instance, observation: str) -> Generator[str, str, None]:
  """Knows the product, and finds it: `data["searches"]` are words to try, in turn."""
  data, asin = instance.data, instance.data["goal"]["asin"]
  found = False
  for words in data["searches"]:
    observation = yield f"Thought: I search for {words}.\nAction: search[{words}]"
    for _ in range(_PAGES - 1):
      found = asin in _RESULT.findall(observation)
      if found or "[button] Next > [button_]" not in observation:
        break
      observation = yield "Thought: None of these is what I need. I look at the next page.\nAction: click[next >]"
    if found or asin in _RESULT.findall(observation):
      break
  observation = yield f"Thought: {asin} is what I need.\nAction: click[{asin.lower()}]"
  for wanted in data["goal"]["options"]:
    value = _closest(wanted, _OPTION.findall(observation))
    observation = yield f"Thought: The option is {wanted}.\nAction: click[{value}]"
  yield "Thought: This is the product, with its options. I buy it.\nAction: click[buy now]"


def _closest(wanted: str, values: list[str]) -> str:
  """Returns the value that is `wanted`, or the one most like it; `wanted` itself where there are none."""
  from agentbank_jax.envs.webshop_reward import alike, same_option
  return max(values, key=lambda v: (v == wanted.lower(), same_option(v, wanted), alike(v, wanted)), default=wanted)


def random_turn(rng: random.Random, observation: str) -> str:
  """Searches for some words of the instruction, and clicks whatever there is."""
  buttons = _BUTTON.findall(observation)
  if buttons == ["Search"] or not buttons:
    lines = observation.splitlines()
    words = lines[lines.index("Instruction:") + 1].split() if "Instruction:" in lines else ["shop"]
    return f"Thought: hm.\nAction: search[{' '.join(rng.sample(words, min(3, len(words))))}]"
  return f"Thought: hm.\nAction: click[{rng.choice(buttons)}]"


def make_task(name: str, make_env: Callable[[], Env], instances: Callable[[str, int, int], Iterator[Instance]],
              source: Source, note: str) -> Task:
  """Returns a task on WebShop's environment; `note` says what sets its score apart from the published one."""
  return Task(
      name=name,
      skill="web",
      held_in=True,
      instructions=_INSTRUCTIONS,
      grammar=Grammar(has_answer=False),
      max_steps=10,  # as ETO (Song et al. 2024, arXiv:2403.02502) evaluates
      metric=MetricCard(
          reward_range=(0.0, 1.0),
          success="what was bought has the kind, all attributes and options, and the price (reward 1)",
          definition=f"WebShop's reward (Yao et al. 2022, arXiv:2207.01206, equation 1); {note}"),
      make_env=make_env,
      instances=instances,
      expert=expert,
      source=source,
      random_turn=random_turn,
      runs="a shop's pages, its search and WebShop's reward",
      packages=("tantivy", "thefuzz"),
      stands_in_for="" if name == "webshop" else "webshop",
      problem="instruction",
      progress="the reward that buying now would give: type times the share of attributes, options and price met",
  )
