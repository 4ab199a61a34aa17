"""Environments for gymnasium's registry, for the tests of the adapter: `gym:fake_gym:Walk-v0`."""

import enum

import gymnasium
from gymnasium import spaces

LETTERS = frozenset(map(chr, range(32, 127)))
TEXT = spaces.Text(200, charset=LETTERS)


class Walk(gymnasium.Env):
  """Walk along a street of five houses to the one that is asked for. Actions have names by an enum."""

  class Actions(enum.IntEnum):
    left = 0
    right = 1
    ring = 2

  actions = Actions
  observation_space = spaces.Dict({"mission": TEXT, "view": TEXT, "door": spaces.Discrete(5)})
  action_space = spaces.Discrete(3)

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._at, self._goal = 0, int(self.np_random.integers(1, 5))
    return self._observation(), {}

  def step(self, action):
    if action == self.Actions.ring:
      right = self._at == self._goal
      return self._observation(), float(right), True, False, {}
    self._at = min(4, max(0, self._at + (1 if action == self.Actions.right else -1)))
    return self._observation(), 0.0, False, False, {}

  def _observation(self):
    return {"mission": f"Ring at house {self._goal}.", "view": f"You are at house {self._at}.", "door": self._at}


class Echo(gymnasium.Env):
  """Say the word. Actions and observations are texts; a success is said by `info`."""

  observation_space = TEXT
  action_space = spaces.Text(20, charset="abcdefghijklmnopqrstuvwxyz ")

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed)
    self._word = "".join(self.np_random.choice(list("abc"), 5))
    return f"Say {self._word}.", {}

  def step(self, action):
    right = action == self._word
    return "Right." if right else "Wrong.", -1.0, right, False, {"is_success": right}


class Nameless(Walk):
  actions = None


class Numbers(Walk):
  observation_space = spaces.Box(0, 1, (2,))


for env in (Walk, Echo, Nameless, Numbers):
  gymnasium.register(f"{env.__name__}-v0", entry_point=env, max_episode_steps=20)
