"""Interactive question answering (IQUAD V1; Gordon et al. 2018, arXiv:1712.03316) in a text room.

The household's commands for going, opening and looking, in a kitchen; then an answer. What the room keeps of
AI2-THOR: a real kitchen's receptacles. What it does not: images, the way between two places, and where IQUAD's objects
are, which the simulator alone knows.
"""

from agentbank_jax.envs.base import Action, Instance, Step
from agentbank_jax.envs.household import NOTHING, HouseholdEnv

_VERBS = ("go", "open", "close", "look", "examine")
_ANSWERS = {"yes": "yes", "true": "yes", "no": "no", "false": "no",
            "zero": "0", "none": "0", "one": "1", "two": "2", "three": "3"}


class IqaEnv(HouseholdEnv):
  """One question at a time. `Instance.data`: `receptacles` (see `household_world`), `question` and `answer`.

  An answer is yes or no, or a number; any other is refused, and the episode goes on.
  """

  def reset(self, instance: Instance) -> str:
    self._answer = instance.data["answer"]
    self._furnish(instance.data["receptacles"])
    return f"{self._look()}\nQuestion: {instance.data['question']}"

  def step(self, action: Action) -> Step:
    if action.kind == "answer":
      answer = read_answer(action.text)
      if answer is None:
        return Step("Answer yes or no, or with a number.", 0.0, False, False, {"invalid": True})
      solved = answer == self._answer
      return Step("Answered.", float(solved), True, False, {"solved": solved})
    command = action.text.strip()
    effect = self._commands().get(command) if command.partition(" ")[0] in _VERBS else None
    return Step(effect() if effect else NOTHING, 0.0, False, False, {"invalid": effect is None})


def read_answer(text: str) -> str | None:
  """Returns "yes", "no" or the digits of a number, or None."""
  word = text.strip().rstrip(".").lower()
  return _ANSWERS.get(word) or (str(int(word)) if word.isascii() and word.isdigit() else None)
