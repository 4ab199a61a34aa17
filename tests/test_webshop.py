"""WebShop: reward, pages and catalogue against the published definitions, numbers and trajectories."""

import json
import random
import re

from conformance import TaskConformance, last, play
import pytest

from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.webshop import WebShopEnv
from agentbank_jax.envs.webshop_catalogue import Catalogue, Product, read_products
from agentbank_jax.envs.webshop_goods import make_catalogue
from agentbank_jax.envs.webshop_reward import Goal, reward, title_score, type_reward
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task
from agentbank_jax.tasks import published as published_files
from agentbank_jax.tasks.catalog import webshop


def product(title="Nova Cotton Socks", asin="B000000001", **changes):
  fields = dict(asin=asin, title=title, description="", features=(), price=20.0, price_text="$20.0", options={},
                attributes=("machine wash", "arch support"), query="socks", category="Clothing › Socks › Crew")
  return Product(**fields | changes)


def write_published(folder, goals_each=1):
  """Writes the products of a generated shop in the layout of WebShop's own files."""
  folder.mkdir(parents=True)
  rng = random.Random(0)
  products = list(make_catalogue(1).products.values())
  items, known, human = [], {}, {}
  for p in products:
    items.append({
        "asin": p.asin, "name": p.title, "full_description": p.description, "small_description": list(p.features),
        "pricing": p.price_text, "query": p.query.upper(), "category": "fashion", "product_category": p.category,
        "images": ["x.jpg"],
        "customization_options": {name.title(): [{"value": v.title(), "image": None} for v in values]
                                  for name, values in p.options.items()}})
    known[p.asin] = {"attributes": list(p.attributes)}
    human[p.asin] = [{"asin": p.asin, "instruction": f"I want {p.query} number {n}.",
                      "instruction_attributes": list(p.attributes[:2]),
                      "instruction_options": [rng.choice(values) for values in p.options.values()]}
                     for n in range(goals_each)]
  human[products[0].asin].append({"instruction": "no goal", "instruction_attributes": [], "instruction_options": []})
  items += [{"asin": "nan"}, {"asin": items[0]["asin"]}, {"asin": "B00000000000"}]  # no products, as published
  for name, value in (("items_shuffle_1000", items), ("items_ins_v2_1000", known), ("items_human_ins", human)):
    (folder / f"{name}.json").write_text(json.dumps(value))
  return len(products)


@pytest.fixture
def published(tmp_path, monkeypatch):
  write_published(tmp_path / "webshop")
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  return tmp_path / "webshop"


class TestGenerated(TaskConformance):
  @pytest.fixture
  def task(self):
    return get_task("webshop_generated")


class TestPublished(TaskConformance):
  split = "test"

  @pytest.fixture
  def task(self, published):
    return get_task("webshop")


# ---- the reward: numbers of WebShop's own tests (tests/web-agent-site/engine/test_goal.py), where spaCy finds nouns


_SHOE, _CORD = "adidas Unisex-Adult D.o.n. Issue 2", "Saireed UL Listed 2 Prong Power Cord for JBL Bar 3.1 Bar 2.1"
_OTHER_CORD = ("BRST AC Power Cord Outlet Socket Cable Plug Lead for Panasonic SC-HT830V DVD/VCR Combo Home Theater "
               "System")


@pytest.mark.parametrize("wanted, bought, score", [
    (f"{_SHOE} Basketball Shoe", f"{_SHOE} Indoor Court Shoe", 0.85),
    (f"{_CORD} Channel 4K Ultra HD Soundbar Home Theater System Subwoofer", _OTHER_CORD, 0.31),
    (f"{_CORD} Channel 4K Ultra HD Soundbar", _OTHER_CORD, 0.17),
    ("Rusticware 921ORB Kitchen and Bath Cabinet Knob",
     "Minkissy 2pcs Stainless Steel Eyebrow Tweezers Blackhead Acne Remover Portable Makeup Tweezers (Silver)", 0.0),
])
def test_titles_score_as_published_to_a_few_hundredths(wanted, bought, score):
  assert title_score(bought, wanted) == pytest.approx(score, abs=0.03)


def test_the_type_reward_has_four_values():
  wanted = product("A B C D E F G H I J K L", query="socks")  # an article is no noun
  other = dict(query="hats", category="Home › Hats")
  assert type_reward(product("B", query="socks", category="x"), wanted) == 0.1  # one noun of eleven
  assert type_reward(product("B C", **other), wanted) == 0.5
  assert type_reward(product("B C D", **other), wanted) == 1.0
  assert type_reward(product("B C", query="socks", category="x"), wanted) == 1.0
  assert type_reward(product("B C", query="hats", category="Socks › Crew"), wanted) == 1.0
  assert type_reward(product("B C", query="hats", category="Socks › Socks"), wanted) == 0.5
  assert type_reward(product("M N", query="socks"), wanted) == 0.0


def goal(**changes):
  fields = dict(product=product(), attributes=("machine wash", "arch support"), options=("grey", "XL"),
                price_upper=40.0)
  return Goal(**fields | changes)


@pytest.mark.parametrize("bought, chosen, value", [
    ({}, ["grey", "xl"], 1),
    ({}, ["xl", "dark grey heather"], 1),  # a shade of grey
    ({}, ["xl", "greyish blue"], 4 / 5),  # "blue" comes first in the list of colours
    ({}, ["grey", "xxl"], 4 / 5),
    ({}, ["black", "xl"], 4 / 5),
    ({}, [], 3 / 5),
    ({"price": 40.0}, ["grey", "xl"], 1),
    ({"price": 40.01}, ["grey", "xl"], 4 / 5),
    ({"attributes": ("machine washable", "support arch")}, ["grey", "xl"], 1),  # alike, in any order
    ({"attributes": ()}, ["grey", "xl"], 3 / 5),
    ({"attributes": (), "features": ("Has Arch Support", "x"), "description": "Machine wash!"}, ["grey", "xl"], 1),
    ({"title": "Steel Garden Spade", "query": "spade", "category": "Garden"}, ["grey", "xl"], 0),
    ({"title": "Nova Spade of the Long Garden Trip to Sea", "query": "spade", "category": "x"}, ["grey", "xl"], 1),
])
def test_equation_1(bought, chosen, value):
  assert reward(product(**bought), chosen, goal()) == pytest.approx(value)


def test_the_published_list_of_colours_is_read_where_it_is_there(published):
  (published / "normalize.py").write_text("import re\nCOLOR_SET = [\n  'dark', 'grey',\n]\n\ndef normalize(): 1 / 0\n")
  colours = webshop._catalogue().colours
  assert colours == ("dark", "grey")
  assert reward(product(), ["xl", "dark grey heather"], goal(), colours) == 4 / 5  # "dark" comes first
  with published_files.files_used() as files:
    list(get_task("webshop").instances("test", 1, 0))
  assert published / "normalize.py" in files
  for text in ("COLORS = []", "COLOR_SET = [f()]", "COLOR_SET = (", "COLOR_SET = 3"):
    (published / "normalize.py").write_text(text)
    webshop._read.cache_clear()
    with pytest.raises(UserError, match="normalize.py: not WebShop's normalize.py"):
      webshop._catalogue()


def test_a_size_in_another_size_counts_as_published():
  """token_set_ratio("x-large", "large") is 100: the published reward cannot tell them apart."""
  assert reward(product(), ["x-large"], goal(options=("large",))) == 1
  assert reward(product(), ["large"], goal(options=("small",))) == 3 / 4


def test_one_option_cannot_be_bought_twice():
  assert reward(product(), ["grey", "grey", "light grey"], goal(options=("grey", "XL"))) == 4 / 5


# ---- pages


def open_shop(*products, mode="text_rich", instruction="buy socks", **wanted):
  env = WebShopEnv(lambda data: Catalogue(products), mode)
  env.reset(Instance("test-0", "test", {"instruction": instruction, "goal": {
      "asin": products[0].asin, "attributes": ["machine wash"], "options": [], "price_upper": 40.0} | wanted}))
  return env


def act(env, text):
  return env.step(Action("act", text))


def test_a_shopping_trip_in_rich_text():
  socks = product(options={"color": ("grey", "black"), "size": ("small", "large")}, description="Warm.",
                  features=("Long", "Thick"))
  env = open_shop(socks, *(product(f"Nova Hat {n}", f"B00000001{n}", query="hat") for n in range(12)),
                  options=["black"], attributes=["machine wash"])
  assert act(env, "search[nova]").observation.startswith("Instruction:\nbuy socks\n[button] Back to Search [button_]\n"
                                                         "Page 1 (Total results: 13)\n[button] Next > [button_]\n")
  second = act(env, "click[next >]").observation
  assert "Page 2 (Total results: 13)\n[button] < Prev [button_]\n\n[button] B" in second and "Next >" not in second
  assert second.count("\n[button] B0") == 3
  assert act(env, "search[SOCKS]").observation.endswith("\n\n[button] B000000001 [button_]\nNova Cotton Socks\n$20.0")
  step = act(env, "click[b000000001]")
  assert step.observation == """\
Instruction:
buy socks
[button] Back to Search [button_]
[button] < Prev [button_]
color
  [button] grey [button_]
  [button] black [button_]
size
  [button] small [button_]
  [button] large [button_]
Nova Cotton Socks
Price: $20.0
Rating: N.A.
[button] Description [button_]
[button] Features [button_]
[button] Reviews [button_]
[button] Buy Now [button_]"""
  assert step.info == {"progress": 2 / 3} and step.reward == 0
  step = act(env, "click[Black]")
  assert step.observation.startswith("You have clicked black.\nInstruction:") and step.info == {"progress": 1.0}
  assert "  [clicked button] black [clicked button_]" in step.observation
  assert act(env, "click[features]").observation.endswith("[button] < Prev [button_]\nLong\nThick")
  assert "[clicked button] black" in act(env, "click[< prev]").observation
  assert "[clicked button] black" not in act(env, "click[grey]").observation
  act(env, "click[black]")
  assert "\n[clicked button] B000000001 [clicked button_]" in act(env, "click[< Prev]").observation
  assert "[clicked button] black" not in act(env, "click[B000000001]").observation  # a new visit
  act(env, "click[black]")
  step = act(env, "click[Buy Now]")
  assert step.terminated and step.reward == 1.0 and step.info == {"solved": True, "progress": 1.0}


def test_what_cannot_be_done_says_what_can():
  env = open_shop(product())
  for text in ("click[buy now]", "click[search]", "click[]", "buy", "click[B999999999]", "search[]"):
    step = act(env, text)
    assert step.info["invalid"] and "search[words], nothing to click" in step.observation, text
  assert "Total results: 0" in act(env, "search[' OR text:* AND (]").observation
  act(env, "search[socks]")
  assert "click[back to search], click[b000000001]." in act(env, "click[x]").observation
  assert act(env, "click[back to search]").observation.endswith("[button] Search [button_]")


def test_partial_rewards_end_the_episode_unsolved():
  env = open_shop(product(), options=["black"])
  act(env, "search[socks]")
  act(env, "click[b000000001]")
  step = act(env, "click[buy now]")
  assert step.terminated and step.info["solved"] is False and step.reward == pytest.approx(2 / 3)


def test_equal_scores_rank_in_the_order_of_the_catalogue():
  shop = Catalogue([product("Same", f"B00000001{n}") for n in range(9)])
  assert shop.search("same") == [f"B00000001{n}" for n in range(9)] == shop.search("SAME sames")


def real_pages(real_data):
  """Yields instruction and pages of published trajectories (AgentInstruct's)."""
  for row in json.loads((real_data / "webshop" / "agenttuning_webshop_sample_raw.json").read_text()):
    pages = [turn["content"] for turn in row["conversations"] if "[SEP]" in turn["content"]]
    yield pages[0].split(" [SEP] ")[2], pages


def test_pages_read_as_in_published_trajectories(real_data):
  """Pages of results and of products, rebuilt from what they say and shown again, are the same text."""
  results = items = 0
  for instruction, pages in real_pages(real_data):
    assert open_shop(product(), mode="text", instruction=instruction)._show() == pages[0]
    for page in pages[1:]:
      parts = page.split(" [SEP] ")
      if len(parts) > 3 and re.fullmatch(r"Page 1 \(Total results: 50\)", parts[3]):
        listed = [Product(asin, title, "findme", (), 1.0, price, {}, (), "", "") for asin, title, price in
                  zip(parts[5::3], parts[6::3], parts[7::3], strict=True)]
        env = open_shop(*listed, *(product("findme", f"B{n:09d}") for n in range(40)), mode="text",
                        instruction=instruction)
        env._session.page, env._session.results = "results", tuple(env._catalogue.products)
        assert env._show() == page
        results += 1
      elif parts[-1] == "Buy Now":
        options = {}
        for part in parts[4:-7]:
          if part in ("color", "size", "style", "flavor name", "scent", "fit type"):
            name = part
            options[name] = ()
          else:
            options[name] += (part,)
        env = open_shop(product(parts[-7], price_text=parts[-6].removeprefix("Price: "), options=options), mode="text",
                        instruction=instruction)
        env._session.page, env._session.product = "item", env._catalogue.products["B000000001"]
        assert env._show() == page
        items += 1
  assert results >= 5 and items >= 5


def test_real_goals_are_met_by_the_products_they_were_written_for(real_data):
  rows = json.loads((real_data / "webshop" / "items_ins_v2_1000.json").read_text())
  met = 0
  for row in rows.values():
    if row.get("instruction_attributes"):
      bought = product(attributes=tuple(row["attributes"]))
      assert reward(bought, [], Goal(bought, tuple(row["instruction_attributes"]), (), 40.0)) == 1
      met += 1
  assert met > 100


# ---- catalogue and goals


def test_published_rows_become_products(published):
  products = {p.asin: p for p in read_products(published / "items_shuffle_1000.json",
                                               published / "items_ins_v2_1000.json")}
  assert products == make_catalogue(1).products


@pytest.mark.parametrize("pricing, price, text", [
    ("$7.80", 7.8, "$7.8"), ("$1,234.50", 1234.5, "$1234.5"), (None, 100.0, "$100.0"), ("", 100.0, "$100.0")])
def test_prices(published, pricing, price, text):
  path = published / "items_shuffle_1000.json"
  row = json.loads(path.read_text())[0]
  path.write_text(json.dumps([row | {"pricing": pricing}]))
  only = read_products(path, published / "items_ins_v2_1000.json")[0]
  assert (only.price, only.price_text) == (price, text)


def test_a_range_of_prices_is_shown_and_one_of_it_charged(published):
  path = published / "items_shuffle_1000.json"
  row = json.loads(path.read_text())[0]
  path.write_text(json.dumps([row | {"pricing": "$5.99$10.99"}]))
  first, second = (read_products(path, published / "items_ins_v2_1000.json")[0] for _ in range(2))
  assert first == second and 5.99 <= first.price <= 10.99 and first.price_text == "$5.99 to $10.99"


def test_the_published_split(tmp_path, monkeypatch):
  """Test is 0 to 500 of the order that random.seed(233); random.shuffle gives, train from 1,500 on."""
  products = write_published(tmp_path / "webshop", goals_each=16)
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  goals = products * 16
  asins = [p["asin"] for p in json.loads((tmp_path / "webshop" / "items_shuffle_1000.json").read_text())[:products]]
  order = [f"{asin}-{n}" for asin in asins for n in range(16)]
  random.Random(233).shuffle(order)
  task = get_task("webshop")
  test = {i.id for i in task.instances("test", 500, 0)}
  train = {i.id for i in task.instances("train", goals - 1_500, 0)}
  assert test == {f"test-{key}" for key in order[:500]} and train == {f"train-{key}" for key in order[1_500:]}
  with pytest.raises(UserError, match="only 500"):
    list(task.instances("test", 501, 0))


def test_goals_ask_for_a_price_they_can_have(published):
  for instance in get_task("webshop").instances("test", 40, 0):
    said = re.search(r", and price lower than (\d+)\.00 dollars$", instance.data["instruction"])
    price = make_catalogue(1).products[instance.data["goal"]["asin"]].price
    assert price < float(said[1]) == instance.data["goal"]["price_upper"] <= price + 50


def test_gold_never_reaches_the_agent():
  """An attribute that no page names is not in what the agent reads."""
  task = get_task("webshop_generated")
  env = task.make_env()
  for instance in task.instances("train", 5, 0):
    turns, _ = last(play(task, env, instance))
    read = " ".join(t.content for t in turns if t.role == "user").lower()
    hidden = set(env._goal.product.attributes) - set(instance.data["goal"]["attributes"])
    assert not any(f"{a}: " in read for a in hidden)  # of the features, which the expert did not open


@pytest.mark.parametrize("name, text, message", [
    ("items_shuffle_1000", "{", "not JSON"), ("items_shuffle_1000", "{}", "holds a dict, expected a list"),
    ("items_shuffle_1000", '[{"asin": "B1"}]', r"row 0: not a product of WebShop \(KeyError: 'pricing'\)"),
    ("items_human_ins", "[]", "holds a list, expected a dict")])
def test_broken_files(published, name, text, message):
  (published / f"{name}.json").write_text(text)
  with pytest.raises(UserError, match=message):
    list(get_task("webshop").instances("test", 1, 0))


def test_absent_files(published):
  (published / "items_human_ins.json").unlink()
  with pytest.raises(UserError, match=r"webshop: no .*items_human_ins.json; get it from princeton-nlp/WebShop"):
    list(get_task("webshop").instances("test", 1, 0))
