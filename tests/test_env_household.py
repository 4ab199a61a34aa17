"""The household: physics and wording against ALFWorld's, the expert, the splits."""

import hashlib
import json
import random
import re

import pytest

from agentbank_jax.envs import household_world as world
from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.household import HouseholdEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks.catalog import household, household_full
from agentbank_jax.tasks.catalog.household import TASK

KITCHEN = [
    ["cabinet 2", []], ["cabinet 1", ["mug 1"]], ["countertop 1", ["apple 1", "knife 1", "spoon 1"]],
    ["fridge 1", ["egg 1"]], ["microwave 1", []], ["shelf 1", ["book 1", "desklamp 1", "mug 2"]],
    ["sinkbasin 1", []],
]


def start(task_type="pick_and_place_simple", thing="mug", target="countertop",
          goal="put a mug in countertop.", receptacles=KITCHEN) -> tuple[HouseholdEnv, str]:
  env = HouseholdEnv()
  data = {"task_type": task_type, "object": thing, "target": target, "goal": goal, "receptacles": receptacles}
  return env, env.reset(Instance("test-0", "test", data))


def act(env, *commands):
  for command in commands:
    step = env.step(Action("act", command))
  return step


def play(task, instance, env=None):
  """Returns (steps, turns) of the expert's episode."""
  env = env or task.make_env()
  observation = env.reset(instance)
  expert = task.expert(instance, observation)
  steps, turns = [], [next(expert)]
  while True:
    steps.append(env.step(task.grammar.parse(turns[-1])))
    if steps[-1].terminated or len(steps) == task.max_steps:
      return steps, turns
    turns.append(expert.send(steps[-1].observation))


ROOM = ("You are in the middle of a room. Looking quickly around you, you see a cabinet 2, a cabinet 1, "
        "a countertop 1, a fridge 1, a microwave 1, a shelf 1, and a sinkbasin 1.")


def test_first_observation_is_the_room_and_the_task():
  _, observation = start()
  assert observation == (
      f"{ROOM}\nYour task is to: put a mug in countertop.")


TO_MUG = ("go to cabinet 1", "open cabinet 1", "take mug 1 from cabinet 1")
TO_APPLE = ("go to countertop 1", "take apple 1 from countertop 1")
TO_KNIFE = ("go to countertop 1", "take knife 1 from countertop 1")


@pytest.mark.parametrize("commands, observation", [
    (["look"], ROOM),
    (["inventory"], "You are not carrying anything."),
    (["go to cabinet 1"], "You arrive at cabinet 1. The cabinet 1 is closed."),
    (["go to cabinet 1", "look"], "You are facing the cabinet 1. Next to it, you see nothing."),
    (["go to cabinet 1", "open cabinet 1"],
     "You open the cabinet 1. The cabinet 1 is open. In it, you see a mug 1."),
    (["go to cabinet 2", "open cabinet 2"],
     "You open the cabinet 2. The cabinet 2 is open. In it, you see nothing."),
    (["go to cabinet 1", "open cabinet 1", "close cabinet 1"], "You close the cabinet 1."),
    (["go to cabinet 1", "open cabinet 1", "close cabinet 1", "examine cabinet 1"],
     "The cabinet 1 is closed."),
    (["go to countertop 1"],
     "You arrive at countertop 1. On the countertop 1, you see a apple 1, a knife 1, and a spoon 1."),
    (["go to sinkbasin 1"], "You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing."),
    (["go to countertop 1", "examine countertop 1"],
     "On the countertop 1, you see a apple 1, a knife 1, and a spoon 1."),
    (["go to countertop 1", "examine apple 1"], "There's nothing special about apple 1."),
    (TO_MUG, "You pick up the mug 1 from the cabinet 1."),
    ([*TO_MUG, "inventory"], "You are carrying: a mug 1."),
    ([*TO_MUG, "examine cabinet 1"], "The cabinet 1 is open. In it, you see nothing."),
    ([*TO_MUG, "move mug 1 to cabinet 1"], "You move the mug 1 to the cabinet 1."),
    ([*TO_MUG, "put mug 1 in/on cabinet 1"], "You move the mug 1 to the cabinet 1."),
    ([*TO_MUG, "go to countertop 1", "put mug 1 on countertop 1", "inventory"],
     "You are not carrying anything."),
    ([*TO_MUG, "go to sinkbasin 1", "clean mug 1 with sinkbasin 1"],
     "You clean the mug 1 using the sinkbasin 1."),
    ([*TO_APPLE, "go to microwave 1", "heat apple 1 with microwave 1"],
     "You heat the apple 1 using the microwave 1."),
    ([*TO_APPLE, "go to microwave 1", "heat apple 1 with microwave 1", "examine apple 1"],
     "This is a hot apple 1."),
    ([*TO_APPLE, "go to fridge 1", "cool apple 1 with fridge 1"], "You cool the apple 1 using the fridge 1."),
    ([*TO_APPLE, "go to fridge 1", "cool apple 1 with fridge 1", "examine apple 1"],
     "This is a cold apple 1."),
    ([*TO_APPLE, "go to microwave 1", "heat apple 1 with microwave 1", "go to fridge 1",
      "cool apple 1 with fridge 1", "examine apple 1"], "This is a cold apple 1."),
    ([*TO_APPLE, "go to microwave 1", "heat apple 1 with microwave 1", "go to sinkbasin 1",
      "clean apple 1 with sinkbasin 1", "examine apple 1"], "This is a hot and clean apple 1."),
    ([*TO_APPLE, "go to sinkbasin 1", "clean apple 1 with sinkbasin 1", "examine apple 1"],
     "This is a clean apple 1."),
    ([*TO_KNIFE, "slice apple 1 with knife 1"], "You sliced the apple 1 with the knife 1."),
    ([*TO_KNIFE, "slice apple 1 with knife 1", "examine apple 1"], "This is a sliced apple 1."),
    (["go to shelf 1", "use desklamp 1"], "You turn on the desklamp 1."),
    (["go to shelf 1", "examine desklamp 1"], "This desklamp 1 is off."),
    (["go to shelf 1", "use desklamp 1", "examine desklamp 1"], "This desklamp 1 is on."),
])
def test_a_command_does_what_alfworld_says(commands, observation):
  env, _ = start(world.LOOK, "egg", "desklamp")
  step = act(env, *commands)
  assert step.observation == observation
  assert not step.info["invalid"] and not step.terminated and step.reward == 0


@pytest.mark.parametrize("commands", [
    ["open cabinet 1"],  # not there
    ["go to cabinet 3"],  # no such thing
    ["go to cabinet 1", "go to cabinet 1"],  # there already
    ["go to cabinet 1", "take mug 1 from cabinet 1"],  # shut
    ["go to cabinet 1", "examine mug 1"],  # shut: not to be seen
    ["go to cabinet 1", "open cabinet 1", "open cabinet 1"],  # open already
    ["go to cabinet 1", "close cabinet 1"],  # shut already
    ["go to countertop 1", "open countertop 1"],  # has no door
    ["go to countertop 1", "take mug 1 from countertop 1"],  # not there
    ["take apple 1 from countertop 1"],  # too far
    [*TO_APPLE, "take spoon 1 from countertop 1"],  # hand full
    [*TO_APPLE, "go to shelf 1", "move apple 1 to shelf 1"],  # a shelf holds no apples
    [*TO_APPLE, "go to fridge 1", "move apple 1 to fridge 1"],  # shut
    [*TO_APPLE, "move apple 1 to fridge 1"],  # too far
    ["go to countertop 1", "move apple 1 to countertop 1"],  # hand empty
    ["go to microwave 1", "heat apple 1 with microwave 1"],  # hand empty
    [*TO_APPLE, "go to fridge 1", "heat apple 1 with fridge 1"],  # the wrong tool
    [*TO_APPLE, "heat apple 1 with microwave 1"],  # too far
    [*TO_KNIFE, "go to microwave 1", "heat knife 1 with microwave 1"],  # knives cannot be heated
    [*TO_KNIFE, "slice spoon 1 with knife 1"],  # spoons cannot be sliced
    ["go to countertop 1", "slice apple 1 with knife 1"],  # knife not in hand
    [*TO_KNIFE, "go to cabinet 1", "slice apple 1 with knife 1"],  # apple too far
    ["use desklamp 1"],  # too far
    ["go to shelf 1", "take desklamp 1 from shelf 1"],  # lamps stay
    ["go to shelf 1", "use book 1"],  # not a lamp
    ["examine cabinet 1"],  # too far
])
def test_what_cannot_be_done_changes_nothing(commands):
  env, _ = start()
  if commands[:-1]:
    act(env, *commands[:-1])
  before = env.admissible_commands()
  step = act(env, commands[-1])
  assert step.observation == "Nothing happens." and step.info["invalid"]
  assert (step.reward, step.terminated, step.truncated) == (0, False, False)
  assert env.admissible_commands() == before


@pytest.mark.parametrize("task_type, thing, target, half, whole", [
    ("pick_and_place_simple", "mug", "countertop", None,
     [*TO_MUG, "go to countertop 1", "move mug 1 to countertop 1"]),
    ("look_at_obj_in_light", "mug", "desklamp", [*TO_MUG], ["go to shelf 1", "use desklamp 1"]),
    ("look_at_obj_in_light", "mug", "desklamp", ["go to shelf 1", "use desklamp 1"],
     ["take mug 2 from shelf 1"]),
    ("pick_clean_then_place_in_recep", "spoon", "countertop",
     ["go to countertop 1", "take spoon 1 from countertop 1", "go to sinkbasin 1",
      "clean spoon 1 with sinkbasin 1"],
     ["go to countertop 1", "move spoon 1 to countertop 1"]),
    ("pick_heat_then_place_in_recep", "apple", "fridge",
     [*TO_APPLE, "go to microwave 1", "heat apple 1 with microwave 1"],
     ["go to fridge 1", "open fridge 1", "move apple 1 to fridge 1"]),
    ("pick_cool_then_place_in_recep", "apple", "countertop", [*TO_APPLE, "move apple 1 to countertop 1"],
     ["take apple 1 from countertop 1", "go to fridge 1", "cool apple 1 with fridge 1", "go to countertop 1",
      "move apple 1 to countertop 1"]),
    ("pick_two_obj_and_place", "mug", "countertop",
     [*TO_MUG, "go to countertop 1", "move mug 1 to countertop 1"],
     ["go to shelf 1", "take mug 2 from shelf 1", "go to countertop 1", "move mug 2 to countertop 1"]),
])
def test_goal_holds_exactly_when_all_its_conditions_do(task_type, thing, target, half, whole):
  receptacles = [[name, [o for o in inside if not (name == "countertop 1" and o == thing)]]
                 for name, inside in KITCHEN]
  env, _ = start(task_type, thing, target, "", receptacles)
  if half:
    step = act(env, *half)
    assert step.info["progress"] == 0.5 and not step.terminated
  for command in whole[:-1]:
    step = act(env, command)
    assert not step.terminated and step.reward == 0 and "solved" not in step.info
  step = act(env, whole[-1])
  assert step.terminated and step.reward == 1 and step.info["solved"] and step.info["progress"] == 1


def test_two_objects_must_be_in_the_same_receptacle():
  env, _ = start("pick_two_obj_and_place", "mug", "cabinet")
  step = act(env, "go to shelf 1", "take mug 2 from shelf 1", "go to cabinet 2", "open cabinet 2",
             "move mug 2 to cabinet 2")
  assert step.info["progress"] == 0.5 and not step.terminated  # mug 1 is in cabinet 1
  step = act(env, "take mug 2 from cabinet 2", "go to cabinet 1", "open cabinet 1", "move mug 2 to cabinet 1")
  assert step.reward == 1


def test_state_and_place_must_belong_to_the_same_object():
  env, _ = start("pick_clean_then_place_in_recep", "mug", "shelf")  # mug 2 is on the shelf, not clean
  step = act(env, *TO_MUG, "go to sinkbasin 1", "clean mug 1 with sinkbasin 1")
  assert step.info["progress"] == 0.5 and not step.terminated


def test_lamp_elsewhere_gives_no_light():
  env, _ = start("look_at_obj_in_light", "spoon", "desklamp")
  step = act(env, "go to shelf 1", "use desklamp 1", "go to countertop 1", "take spoon 1 from countertop 1")
  assert step.info["progress"] == 0.5 and not step.terminated
  assert act(env, "go to shelf 1").terminated


@pytest.mark.parametrize("text", [
    "", " ", "go", "go to", "go to cabinet", "go to cabinet 1 and open it", "go to cabinet 1\nopen cabinet 1",
    "GO TO \x00", "go to cab\u0131net 1", "\u202ego to cabinet 1", "put mug 1 in", "move  to ",
    "help me \U0001f600", "{0.__class__}", "%s", "move {} to {}", "go to None", "examine None",
    "x" * 10_000, "put " + "in " * 3_000, "put a in " * 1_500, "go to cabinet 1" * 700, "\n" * 10_000,
], ids=lambda text: repr(text[:20]))
@pytest.mark.parametrize("kind", ["act", "answer"])
def test_nothing_an_agent_can_write_raises(text, kind):
  env, _ = start()
  for place in (None, "go to cabinet 1", "go to shelf 1"):
    if place:
      act(env, place)
    step = env.step(Action(kind, text))
    assert step.observation == "Nothing happens." and step.info["invalid"] and not step.terminated


def test_final_answer_is_no_action_here():
  env, _ = start()
  assert env.step(Action("answer", "go to cabinet 1")).info["invalid"]


@pytest.mark.parametrize("task, count", [(TASK, 600), (household_full.TASK, 200)], ids=["small", "full"])
def test_expert_solves_every_instance_and_never_errs(task, count):
  for instance in task.instances("train", count, 0):
    steps, turns = play(task, instance)
    assert steps[-1].info.get("solved"), (instance, turns)
    assert not any(step.info["invalid"] for step in steps), (instance, turns)
    progress = [step.info["progress"] for step in steps]
    assert progress[-1] == 1 and max(progress[:-1], default=0) < 1


def test_expert_reads_only_the_conversation():
  instance = next(TASK.instances("test", 1, 0))
  observation = TASK.make_env().reset(instance)
  assert next(TASK.expert(None, observation)) == next(TASK.expert(instance, observation))
  assert play(TASK, instance)[1] == play(TASK, instance)[1]


def test_expert_visits_in_listed_order_skips_what_it_has_seen_and_opens_what_is_shut():
  data = {"task_type": world.PICK_TWO, "object": "mug", "target": "sinkbasin",
          "goal": "find two mug and put them in sinkbasin.",
          "receptacles": [["shelf 1", ["mug 1"]], ["sinkbasin 1", ["cup 1"]], ["cabinet 1", ["mug 2"]]]}
  steps, turns = play(TASK, Instance("test-0", "test", data))
  assert turns == [
      "Thought: I need for sinkbasin two mug. First is shelf 1.\nAction: go to shelf 1",
      "Thought: I need for sinkbasin two mug 1, here.\nAction: take mug 1 from shelf 1",
      "Thought: I have mug 1 for sinkbasin 1.\nAction: go to sinkbasin 1",
      "Thought: I have mug 1 at sinkbasin 1.\nAction: move mug 1 to sinkbasin 1",
      "Thought: I need for sinkbasin two mug, not here. After shelf 1 comes s"
      "inkbasin 1, already seen. After sinkbasin 1 comes cabinet 1.\nAction: go to cabinet 1",
      "Thought: I need to open cabinet 1.\nAction: open cabinet 1",
      "Thought: I need for sinkbasin two mug 2, here.\nAction: take mug 2 from cabinet 1",
      "Thought: I have mug 2 for sinkbasin 1.\nAction: go to sinkbasin 1",
      "Thought: I have mug 2 at sinkbasin 1.\nAction: move mug 2 to sinkbasin 1",
  ]
  assert steps[-1].info["solved"]


def test_expert_remembers_the_lamp_it_has_passed():
  data = {"task_type": world.LOOK, "object": "book", "target": "desklamp",
          "goal": "look at book under the desklamp.",
          "receptacles": [["desk 1", ["desklamp 1"]], ["bed 1", ["book 1"]], ["shelf 1", []]]}
  _, turns = play(TASK, Instance("test-0", "test", data))
  assert turns[-2:] == [
      "Thought: I have book 1 for desklamp 1, seen at desk 1.\nAction: go to desk 1",
      "Thought: I have book 1 for desklamp 1, here.\nAction: use desklamp 1",
  ]


def test_expert_gives_up_where_the_house_has_no_such_object():
  instance = next(TASK.instances("test", 1, 0))
  receptacles = [[name, []] for name, _ in instance.data["receptacles"]]
  env = TASK.make_env()
  observation = env.reset(Instance("test-0", "test", instance.data | {"receptacles": receptacles}))
  expert = TASK.expert(instance, observation)
  turn, steps = next(expert), 0
  with pytest.raises(StopIteration):
    while True:
      turn = expert.send(env.step(TASK.grammar.parse(turn)).observation)
      steps += 1
  assert steps < TASK.max_steps


@pytest.mark.parametrize("task", [TASK, household_full.TASK], ids=["small", "full"])
def test_random_commands_rarely_solve_it(task):
  rng = random.Random(0)
  solved = 0
  for instance in task.instances("test", 100, 0):
    env = task.make_env()
    env.reset(instance)
    for _ in range(task.max_steps):
      step = act(env, rng.choice(env.admissible_commands()))
      assert not step.info["invalid"] and step.observation != "Nothing happens."
      if step.terminated:
        solved += 1
        break
  assert solved <= 10


def test_instances_are_the_same_every_time_and_the_first_of_more():
  first = list(TASK.instances("train", 30, 7))
  assert first == list(TASK.instances("train", 30, 7))
  assert first == list(TASK.instances("train", 60, 7))[:30]
  assert first != list(TASK.instances("train", 30, 8))
  assert [i.data["task_type"] for i in first] == list(world.TASK_TYPES) * 5
  assert json.loads(json.dumps(first[0].data)) == first[0].data


def test_instances_are_the_same_on_every_machine():
  """Update the digests when the generator changes on purpose: every published split changes with them."""
  digests = {task.name: hashlib.sha256(json.dumps([i.data for i in task.instances("test", 30, 0)]).encode())
             .hexdigest()[:12] for task in (TASK, household_full.TASK)}
  assert digests == {"household": "a88b51e10e27", "household_full": "49e09090b5cb"}


@pytest.mark.parametrize("task", [TASK, household_full.TASK], ids=["small", "full"])
def test_splits_share_no_problem(task):
  train = {world.content(i.data) for seed in (0, 1) for i in task.instances("train", 1500, seed)}
  test = list(task.instances("test", 1000, 0))
  assert len({json.dumps(i.data) for i in test}) == len({i.id for i in test}) == 1000
  assert not train & {world.content(i.data) for i in test}


def test_a_reordered_renumbered_or_reworded_world_is_the_same_problem():
  receptacles = [["shelf 1", ["mug 1", "pan 1"]], ["cabinet 1", ["mug 2"]]]
  data = {"task_type": world.PICK_TWO, "object": "mug", "target": "sinkbasin",
          "goal": "put two mug in sinkbasin.", "receptacles": receptacles}
  other = data | {"goal": "find two mug and put them in sinkbasin.",
                  "receptacles": [["cabinet 1", ["mug 1"]], ["shelf 1", ["pan 1", "mug 2"]]]}
  assert world.content(other) == world.content(data)
  assert world.content(data | {"target": "countertop"}) != world.content(data)


def test_unknown_split_is_an_error_for_people():
  with pytest.raises(UserError, match="unknown split 'valid'"):
    next(TASK.instances("valid", 1, 0))


@pytest.mark.parametrize("size", [world.SMALL, world.FULL], ids=["small", "full"])
def test_worlds_are_possible_and_of_their_size(size):
  for i in range(300):
    data = world.generate(random.Random(i), world.TASK_TYPES[i % 6], size)
    names = [name for name, _ in data["receptacles"]]
    things = [o for _, inside in data["receptacles"] for o in inside]
    assert size.receptacles[0] <= len(names) == len(set(names)) <= size.receptacles[1]
    assert len(things) == len(set(things))
    for name, inside in data["receptacles"]:
      assert all(world.can_hold(world.kind(name), world.kind(o)) for o in inside)
      assert world.kind(name) != data["target"] or data["object"] not in map(world.kind, inside)


def test_two_environments_do_not_touch_each_other():
  a, b = TASK.instances("train", 2, 3)
  alone = [[s.observation for s in play(TASK, i)[0]] for i in (a, b)]
  envs = [TASK.make_env() for _ in range(2)]
  experts = [TASK.expert(i, env.reset(i)) for i, env in zip((a, b), envs, strict=True)]
  turns, together = [next(e) for e in experts], [[], []]
  live = {0, 1}
  while live:
    for k in sorted(live):
      step = envs[k].step(TASK.grammar.parse(turns[k]))
      together[k].append(step.observation)
      if step.terminated:
        live.remove(k)
      else:
        turns[k] = experts[k].send(step.observation)
  assert together == alone


def test_an_environment_starts_afresh_and_closes_twice():
  instance = next(TASK.instances("train", 1, 3))
  env = TASK.make_env()
  first = [s.observation for s in play(TASK, instance, env)[0]]
  assert first == [s.observation for s in play(TASK, instance, env)[0]]
  env.close()
  env.close()


def _shape(observation: str) -> str:
  """Returns an observation with names and lists left out."""
  observation = re.sub(r"\b[a-z]+ \d+\b", "N", observation)
  return re.sub(r"a N(, a N)*,? ?(and a N)?", "LIST", observation)


def test_wording_is_that_of_real_transcripts(real_data):
  rows = [json.loads(line) for line in (real_data / "alfworld/knowagent_success_218.jsonl").open()]
  real = set()
  for row in rows:
    opening, *lines = row["traj"].split("\n> ")
    real.add(_shape(opening.split("\nYour task")[0]))
    for line in lines:
      command, _, observation = line.partition("\n")
      # Recorded before 0.4: "put" for "move", and without the words of arrival.
      observation = re.sub(r"You put the (.+) in/on the", r"You move the \1 to the", observation.strip())
      real.add(_shape(f"You arrive at N. {observation}" if command.startswith("go to") else observation))
  for task in (TASK, household_full.TASK):
    for instance in task.instances("train", 60, 0):
      ours = [task.make_env().reset(instance).split("\nYour task")[0]]
      ours += [step.observation for step in play(task, instance)[0]]
      assert {_shape(o) for o in ours} <= real


def test_goal_sentences_are_those_of_real_transcripts(real_data):
  rows = (json.loads(line) for line in (real_data / "alfworld/knowagent_success_218.jsonl").open())
  for row in rows:
    goal = row["traj"].split("Your task is to: ")[1].partition("\n")[0]
    task_type, thing, _, target = row["name"].partition("/")[0].rsplit("-", 1)[0].split("-")
    assert household._read_goal(goal) == (task_type, thing.lower(), target.lower())
