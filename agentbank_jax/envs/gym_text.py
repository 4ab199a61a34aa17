"""An environment of gymnasium's registry, where it speaks text."""

from collections.abc import Mapping, Sequence
import enum
from typing import Any

import gymnasium
from gymnasium import spaces

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.errors import UserError


class GymTextEnv:
  """Observations are text, or a dict with text in it; actions are text, or a few that have names.

  `Instance.data`: `seed`, which resets the environment. The reward is the sum of the environment's rewards so
  far. An episode that terminates is solved where that sum is at least `success`, or where `info` says so: `success`
  or `is_success`, as goal environments have it.
  """

  def __init__(self, id: str, success: float, actions: Sequence[str] = ()):
    """Makes the environment.

    Args:
      id: as `gymnasium.make` takes it, a module to import first included: "package:EnvId-v0".
      success: the least sum of rewards of a solved episode.
      actions: names of the discrete actions, for an environment that has none of its own.

    Raises:
      UserError: there is no such environment, or it does not speak text.
    """
    try:
      self._env = gymnasium.make(id, disable_env_checker=True)
    except (gymnasium.error.Error, ImportError, ValueError) as e:
      raise UserError(f"gym:{id}: {' '.join(str(e).split())}") from None
    self._success = success
    self._texts = _text_keys(id, self._env.observation_space)
    self._actions = _action_names(id, self._env, actions)

  def reset(self, instance: Instance) -> str:
    observation, _ = self._env.reset(seed=instance.data["seed"])
    self._return = 0.0
    text = self._read(observation)
    return f"{text}\n\nActions: {', '.join(self._actions)}" if self._actions else text

  def step(self, action: Action) -> Step:
    try:
      chosen = self._choose(action.text)
    except ValueError as e:
      return Step(f"Error: {e}", self._return, False, False, {"invalid": True})
    observation, reward, terminated, truncated, info = self._env.step(chosen)
    self._return += float(reward)
    text = self._read(observation)
    if not terminated:
      return Step(text, self._return, False, bool(truncated), {})
    said = info.get("is_success", info.get("success"))
    solved = self._return >= self._success if said is None else bool(said)
    return Step(text, self._return, True, False, {"solved": solved})

  def close(self) -> None:
    self._env.close()

  def _read(self, observation: Any) -> str:
    """Returns the text of an observation; of a dict, all its texts, under their names where there are several."""
    if self._texts is None:
      return observation
    texts = {key: observation[key] for key in self._texts}
    return "\n".join(texts.values() if len(texts) == 1 else (f"{key}: {text}" for key, text in texts.items()))

  def _choose(self, text: str) -> Any:
    space = self._env.action_space
    if self._actions:
      if text not in self._actions:
        raise ValueError(f"no action {text[:50]!r}; the actions are {', '.join(self._actions)}")
      return self._actions.index(text) + space.start
    if text not in space:
      raise ValueError(f"an action has {space.min_length} to {space.max_length} characters of "
                       f"{''.join(sorted(space.characters))!r}")
    return text


def _text_keys(id: str, space: spaces.Space) -> list[str] | None:
  """Returns the keys of the texts in a dict, or None where the observation is a text."""
  if isinstance(space, spaces.Text):
    return None
  keys = [key for key, part in space.items() if isinstance(part, spaces.Text)] if isinstance(space, Mapping) else []
  if not keys:
    raise UserError(f"gym:{id}: its observations are {type(space).__name__}; only Text, and Dict with Text in it, "
                    "can be read")
  return keys


def _action_names(id: str, env: gymnasium.Env, given: Sequence[str]) -> list[str]:
  """Returns the names of discrete actions in order, or nothing where actions are text.

  An environment says them by `get_action_meanings()`, as Atari's do, or by an enum `actions`, as MiniGrid's do.
  """
  space, inner = env.action_space, env.unwrapped
  if isinstance(space, spaces.Text) and not given:
    return []
  if not isinstance(space, spaces.Discrete):
    raise UserError(f"gym:{id}: its actions are {type(space).__name__}; only Text, and Discrete with names, "
                    "can be written")
  if given:
    names = list(given)
  elif hasattr(inner, "get_action_meanings"):
    names = list(inner.get_action_meanings())
  elif isinstance(actions := getattr(inner, "actions", None), type) and issubclass(actions, enum.Enum):
    names = [action.name for action in actions]
  else:
    raise UserError(f"gym:{id}: its {space.n} actions have no names; give them: gym:{id}?actions=left,right")
  if len(names) != space.n or len(set(names)) != len(names):
    raise UserError(f"gym:{id}: {len(names)} names ({', '.join(names)}) for {space.n} actions")
  return names
