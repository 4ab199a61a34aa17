"""WebArena and MiniWoB++ in a real Chromium. Skipped where there is none."""

import dataclasses
import functools
import glob
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from conformance import TaskConformance, last, play
import pytest
import webarena_site

from agentbank_jax.envs import browser, process_guard
from agentbank_jax.envs.base import Action, Instance
from agentbank_jax.envs.webarena import WebArenaEnv
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task
from agentbank_jax.tasks.miniwob_experts import SCRIPTS

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def programs():
  try:
    browser.find_programs()
  except UserError as e:
    pytest.skip(str(e))
  pytest.importorskip("selenium")


def profiles():
  return set(glob.glob(f"{tempfile.gettempdir()}/agentbank-browser-*"))


# ---- the browser


@pytest.mark.parametrize("hosts", [["127.0.0.1"], []])
def test_a_browser_reaches_the_hosts_it_is_given_and_nothing_else(hosts):
  before = profiles()
  with webarena_site.serve() as address:
    opened = browser.Browser(hosts)
    for name in ("127.0.0.1", "localhost", "x.localhost", "[::1]", "example.com"):
      if name in hosts:
        opened.driver.get(address.replace("127.0.0.1", name))
        assert opened.driver.title == "Shop"
      else:
        with pytest.raises(Exception, match="ERR_NAME_NOT_RESOLVED"):
          opened.driver.get(address.replace("127.0.0.1", name))
    session = opened._session
    assert process_guard.session_members(session) and profiles() > before
    opened.close()
    opened.close()
    assert not process_guard.session_members(session) and profiles() == before


def test_a_killed_process_takes_its_browser_with_it():
  code = ("from agentbank_jax.envs.browser import Browser; import time; b = Browser(); "
          "print(b._session, b._profile, flush=True); time.sleep(600)")
  process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
  session, profile = process.stdout.readline().split()
  assert process_guard.session_members(int(session)) and os.path.isdir(profile)
  process.kill()
  process.communicate()
  deadline = time.monotonic() + 30
  while process_guard.session_members(int(session)) and time.monotonic() < deadline:
    time.sleep(0.1)
  assert not process_guard.session_members(int(session))
  browser.Browser().close()  # removes what was left
  assert not os.path.exists(profile)


def test_what_is_not_installed_is_said(monkeypatch):
  monkeypatch.setattr(browser, "_CHROMIUM", ("no-such-program",))
  with pytest.raises(UserError, match="no Chromium on this machine; apt-get install .*chromium-driver"):
    browser.Browser()


# ---- WebArena


@pytest.fixture(scope="module")
def shop():
  with webarena_site.serve() as address:
    yield address


@pytest.fixture
def hosted(shop, tmp_path, monkeypatch):
  (tmp_path / "webarena").mkdir()
  (tmp_path / "webarena" / "test.raw.json").write_text(json.dumps(webarena_site.CONFIGS))
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  monkeypatch.setenv("SHOPPING", shop)
  return shop


def webarena_expert(instance, observation):
  return webarena_site.play(instance.data["intent"], observation, os.environ["SHOPPING"])


class TestWebArena(TaskConformance):
  split = "test"
  few = 2
  expert_instances = 10

  @pytest.fixture
  def task(self, hosted):
    """The task, without the wait for pages that go on by themselves, and with an expert for the shop."""
    task = get_task("webarena")
    return dataclasses.replace(task, expert=webarena_expert,
                               make_env=functools.partial(task.make_env, settle_seconds=0.0))

  def test_card(self, task):
    super().test_card(get_task("webarena"))


@pytest.fixture
def web(hosted, tmp_path):
  env = WebArenaEnv(lambda: tmp_path, lambda: None, 0.0)
  yield env
  env.close()


def begin(env, evaluation, start="__SHOPPING__", state=None):
  return env.reset(Instance("test-0", "test", {
      "intent": "Do it", "start_url": start, "storage_state": state,
      "eval": webarena_site.config(0, "Do it", evaluation)["eval"]}))


ANSWER = {"eval_types": ["string_match"], "reference_answers": {"exact_match": "x"}}


def act(env, text):
  return env.step(Action("act", text))


def test_a_page_reads_as_a_tree(web, hosted):
  assert begin(web, ANSWER) == f"""\
OBJECTIVE: Do it
URL: {hosted}/
Tab 0 (current): Shop

[1] RootWebArea 'Shop'
	[2] heading 'Shop'
	[4] link 'Home'
	[7] link 'Cart'
	[9] form ''
		[10] textbox 'Search' required: False
		[11] button 'Go'
	[13] combobox 'Sort' hasPopup: menu expanded: False
		[14] option 'By name' selected: True
		[15] option 'By price' selected: False
	[16] ListMarker '• '
	[17] link 'Blue kettle'
	[19] ListMarker '• '
	[20] link 'Red kettle'
	[22] ListMarker '• '
	[23] link 'Oak chair'
	[25] link 'A long page'
	[28] link 'Elsewhere'
	[30] link 'In a new tab'"""


def test_only_the_window_is_shown(web):
  first = begin(web, ANSWER, start="__SHOPPING__/long")
  assert "Part 1" in first and "Part 4" not in first
  second = act(web, "scroll [down]").observation
  assert "Part 0" not in second and "Part 4" in second
  assert act(web, "press [Control+End]").observation.endswith("Part 8'")
  assert "Part 0" in act(web, "press [Home]").observation


def test_tabs(web, hosted):
  observation = begin(web, ANSWER, start="__SHOPPING__/cart |AND| __SHOPPING__/product/2")
  assert "Tab 0 (current): Cart | Tab 1: Red kettle\n" in observation
  assert "Tab 0: Cart | Tab 1 (current): Red kettle\n" in act(web, "tab_focus [1]").observation
  step = act(web, "close_tab")
  assert f"URL: {hosted}/cart\nTab 0 (current): Cart\n" in step.observation
  assert act(web, "close_tab").observation.startswith("URL: about:blank\nTab 0 (current): ")
  assert "Tab 0 (current): Red kettle" in act(web, f"goto [{hosted}/product/2]").observation


def test_the_browser_stays_on_the_sites(web, hosted):
  observation = begin(web, ANSWER)
  step = act(web, f"click [{webarena_site.ref(observation, 'link ' + repr('Elsewhere'))}]")
  assert step.info["invalid"] and "elsewhere.invalid" in step.observation
  assert f"URL: {hosted}/\n" in act(web, "scroll [up]").observation
  with webarena_site.serve() as neighbour:  # another port of the same host
    assert act(web, f"goto [{neighbour}]").info["invalid"]
    web._browser.evaluate(f"void (location = '{neighbour}/cart')")
    time.sleep(1)
    assert "is not on this task's websites" in act(web, "scroll [up]").observation


def test_an_episode_starts_with_the_login_it_is_given_and_forgets_it(web, hosted, tmp_path):
  host = hosted.split("//")[1].split(":")[0]
  (tmp_path / "shop_state.json").write_text(json.dumps({
      "cookies": [{"name": "user", "value": "emma", "domain": host, "path": "/", "expires": -1, "httpOnly": False,
                   "secure": False, "sameSite": "Lax"}],
      "origins": [{"origin": hosted, "localStorage": [{"name": "note", "value": "kept"}]}]}))
  observation = begin(web, ANSWER, "__SHOPPING__/account", "./.auth/shop_state.json")
  assert "Hello emma" in observation and "kept" in observation
  observation = begin(web, ANSWER, "__SHOPPING__/account")
  assert "Log in" in observation and "kept" not in observation
  assert act(web, "go_back").observation.startswith("URL: about:blank")  # nor the pages of before


def test_orders_and_reviews_are_found_through_the_shop(web, hosted):
  order = {"eval_types": ["program_html"], "program_html": [
      {"url": "func:shopping_get_latest_order_url()", "locator": "document.querySelector('p').outerText",
       "required_contents": {"exact_match": "Oak chair"}}]}
  for product, solved in (("3", True), ("1", False)):
    observation = begin(web, order, f"__SHOPPING__/product/{product}")
    for button in ("Add to cart", "Order"):
      observation = act(web, f"click [{webarena_site.ref(observation, f'button {button!r}')}]").observation
    assert act(web, "stop []").info["solved"] is solved
  review = {"eval_types": ["program_html"], "program_html": [
      {"url": "last", "locator": f"func:shopping_get_sku_latest_review_{part}('2')",
       "required_contents": {"exact_match": value}} for part, value in (("author", "Ann"), ("rating", "100"))]}
  observation = begin(web, review, "__SHOPPING__/product/2")
  observation = act(web, f"type [{webarena_site.ref(observation, 'textbox')}] [Ann] [0]").observation
  observation = act(web, f"click [{webarena_site.ref(observation, 'option ' + repr('5 stars'))}]").observation
  act(web, f"click [{webarena_site.ref(observation, 'button ' + repr('Send review'))}]")
  assert act(web, "stop []").info["solved"]


def test_a_browser_that_died_is_an_error_of_the_environment(web):
  begin(web, ANSWER)
  process_guard.kill_session(web._browser._browser._session)
  with pytest.raises(Exception):  # noqa: B017  whatever selenium makes of it
    act(web, "scroll [down]")


# ---- MiniWoB++


def scripted(split, count, seed):
  """Yields instances of the pages that have a script."""
  pages = [i for i in get_task("miniwob").instances(split, 125 * (count // len(SCRIPTS) + 1), seed)
           if i.data["page"] in SCRIPTS]
  yield from pages[:count]


class TestMiniWob(TaskConformance):
  split = "test"
  few = 2
  expert_instances = len(SCRIPTS)
  lucky = 0.35  # a random agent solves one page in seven; twenty clicks are often enough for the small ones

  @pytest.fixture
  def task(self):
    pytest.importorskip("miniwob")
    return dataclasses.replace(get_task("miniwob"), instances=scripted)

  def test_card(self, task):
    super().test_card(get_task("miniwob"))

  def test_instances_are_the_same_in_another_process(self, task):
    super().test_instances_are_the_same_in_another_process(get_task("miniwob"))

  def test_random_turns_are_in_form_and_solve_little(self, task):
    super().test_random_turns_are_in_form_and_solve_little(get_task("miniwob"))  # over all pages


def test_every_script_solves_its_page_five_times():
  pytest.importorskip("miniwob")
  task = get_task("miniwob")
  env = task.make_env()
  try:
    for page in SCRIPTS:
      for n in range(5):
        _, step = last(play(task, env, Instance("test-0", "test", {"page": page, "seed": f"script-{n}"})))
        assert step.terminated and step.reward == 1.0, (page, n)
  finally:
    env.close()
  assert len(SCRIPTS) >= 20


def test_every_page_opens_and_takes_actions():
  """All 125 pages: a first page, clicks, keys and coordinates that never raise."""
  pytest.importorskip("miniwob")
  task = get_task("miniwob")
  env = task.make_env()
  try:
    instances = list(task.instances("test", 125, 3))
    assert len({i.data["page"] for i in instances}) == 125
    for instance in instances:
      observation = env.reset(instance)
      assert observation.startswith("Instruction: ") and "\nPage:\n[1] body" in observation, instance.id
      for text in ("TYPE [4] é\ud800 7", "PRESS <Tab>", "SCROLL [1] down", "CLICK_AT 80 120", "DRAG 60 100 90 130"):
        if act(env, text).terminated:
          break
  finally:
    env.close()


def test_thinking_costs_nothing():
  """The package's clock would have ended the episode and cut the reward."""
  pytest.importorskip("miniwob")
  env = get_task("miniwob").make_env()
  try:
    env.reset(Instance("test-0", "test", {"page": "click-test", "seed": "a"}))
    left = env._page.driver.execute_script("return core.EPISODE_MAX_TIME - (new Date().getTime() - core.ept0)")
    assert left > 3_500_000
    # As if eleven seconds had passed: the page's own reward is cut, the raw one is not.
    env._page.driver.execute_script("core.ept0 -= 11000; core.EPISODE_MAX_TIME = 12000;")
    step = act(env, "CLICK [4]")
    assert env._page.get_metadata()["env_reward"] < 0.2 and step.reward == 1.0
  finally:
    env.close()


def test_a_dead_browser_is_replaced_at_the_next_episode():
  pytest.importorskip("miniwob")
  env = get_task("miniwob").make_env()
  instance = Instance("test-0", "test", {"page": "click-test", "seed": "a"})
  try:
    first = env.reset(instance)
    process_guard.kill_session(env._browser._session)
    assert env.reset(instance) == first
  finally:
    env.close()


def test_nothing_of_the_browsers_is_left():
  assert not {p for p in profiles() if f"-{os.getpid()}-" in pathlib.Path(p).name}
