"""WebArena without a browser: evaluators, the tree, the actions' form, and which tasks are ready."""

import json

import pytest
import webarena_site

from agentbank_jax.envs.base import Action
from agentbank_jax.envs.webarena import WebArenaEnv
from agentbank_jax.envs.webarena_eval import Context, ScriptError, make_evaluator, must_include, url_matches
from agentbank_jax.envs.webarena_sites import VARIABLES, MagentoShop, fill_in, hosted_sites, placeholders
from agentbank_jax.envs.webarena_tree import Box, boxes_in_window, show_tree
from agentbank_jax.errors import UserError
from agentbank_jax.tasks import get_task
from agentbank_jax.tasks.catalog import webarena


class FakePage:
  """A page for evaluators: its url, its HTML, and values of scripts; a script that is not there raises."""

  def __init__(self, url="http://shop/cart", content="<p>Hello</p>", **scripts):
    self.url, self._content, self._scripts, self.ran = url, content, scripts, []

  def content(self):
    return self._content

  def evaluate(self, script):
    self.ran.append(script)
    if script not in self._scripts:
      raise ScriptError(script)
    return self._scripts[script]

  def open(self, url):
    self.url = url


class FakeShop:
  def latest_order_url(self):
    return "http://shop/order/7/"

  def latest_review(self, sku):
    return ("Ann", "80") if sku == "B1" else None


def holds(evaluation, answer="", page=None, judge=None):
  evaluator = make_evaluator("What?", webarena_site.config(0, "What?", evaluation)["eval"])
  return evaluator.succeeds(answer, Context(page or FakePage(), FakeShop(), judge))


def string(**answers):
  return {"eval_types": ["string_match"], "reference_answers": answers}


@pytest.mark.parametrize("answer, right", [
    ("Quest Band", True), (" 'quest band' ", True), ('"QUEST BAND"', True), ("Quest Band.", False),
    ("The Quest Band", False), ("", False), ("'", False)])
def test_exact_match(answer, right):
  assert holds(string(exact_match="Quest Band"), answer) is right


@pytest.mark.parametrize("wanted, answer, right", [
    (["2"], "There are 2.", True), (["2"], "There are 12.", False), (["2"], "2.5 of them", False),
    (["2"], "at 2:30", False), (["2"], "1,2", False), (["2"], "(2)", True), (["0"], "none", False),
    (["1", "2"], "12", True),  # several references are looked for in the text, as published
    (["Jan", "feb"], "From January to February", True), (["Jan", "March"], "January", False), (["12"], "312", True)])
def test_must_include(wanted, answer, right):
  assert holds(string(must_include=wanted), answer) is right


def test_references_of_more_kinds_must_all_hold():
  both = string(exact_match="N/A", must_include=["n", "a"])
  assert holds(both, "n/a") and not holds(both, "an") and not holds(both, "N/A.")
  assert must_include("'x'", '"axb"')  # quotes around the reference are none of it


def test_fuzzy_match_asks_the_judge_once_for_every_reference():
  asked = []
  judge = lambda *question: asked.append(question) or question[1] != "blue"
  assert holds(string(fuzzy_match=["red", "green"]), "'Crimson'", judge=judge)
  assert asked == [("What?", "red", "crimson", "meaning"), ("What?", "green", "crimson", "meaning")]
  assert not holds(string(fuzzy_match=["red", "blue"]), "Crimson", judge=judge)
  assert not holds(string(fuzzy_match=["red"]), "", judge=lambda *_: True)  # nothing is never right


def test_what_cannot_be_done_is_said_or_explained():
  impossible = string(fuzzy_match="N/A") | {"string_note": "There is no such product"}
  assert holds(impossible, "n/a", judge=lambda *_: pytest.fail("asked"))
  asked = []
  assert holds(impossible, "It is not sold", judge=lambda *question: asked.append(question) or True)
  assert asked == [("What?", "There is no such product", "it is not sold", "reason")]
  assert not holds(impossible, "It costs $5", judge=lambda *_: False)


def test_evaluators_say_whether_they_need_a_judge():
  config = lambda evaluation: webarena_site.config(0, "What?", evaluation)["eval"]
  assert make_evaluator("", config(string(fuzzy_match=["x"]))).needs_judge
  assert not make_evaluator("", config(string(exact_match="x"))).needs_judge
  assert not make_evaluator("", config({"eval_types": ["url_match"], "reference_url": "http://a"})).needs_judge


@pytest.mark.parametrize("reference, url, right", [
    ("http://shop/cart", "http://shop/cart/", True), ("http://shop/cart/", "http://shop/cart", True),
    ("http://shop/cart", "http://shop/cart/checkout", True), ("http://shop/cart", "http://other/cart", False),
    ("http://shop/cart", "https://shop/cart", True),  # the scheme does not count
    ("http://shop", "http://shop/anything", True),
    ("http://shop/s?q=a", "http://shop/s?page=2&q=a", True), ("http://shop/s?q=a", "http://shop/s?q=b", False),
    ("http://shop/s?q=a", "http://shop/s", False), ("http://shop/s", "http://shop/s?q=a", True),
    ("http://a/f |OR| http://b/g", "http://b/g", True), ("http://a/f |OR| http://b/g", "http://c/g", False),
    ("http://a/f?x=1 |OR| http://a/g?x=2", "http://a/g?x=1", True)])  # queries are pooled, as published
def test_url_match(reference, url, right):
  assert url_matches(reference, url) is right
  assert holds({"eval_types": ["url_match"], "reference_url": reference}, page=FakePage(url)) is right


def on_page(locator, url="last", **contents):
  return {"eval_types": ["program_html"],
          "program_html": [{"url": url, "locator": locator, "required_contents": contents}]}


def test_program_html_looks_at_pages_and_elements():
  page = FakePage(content="<p>Tom &amp; Ann</p>", **{"document.title": "Cart", "document.n": 4, "document.no": None})
  assert holds(on_page("", must_include=["tom & ann"]), page=page)
  assert holds(on_page("", must_include=["x |OR| TOM"]), page=page)
  assert not holds(on_page("", must_include=["tom", "x"]), page=page)
  assert holds(on_page("document.title", exact_match="cart"), page=page)
  assert not holds(on_page("document.title", exact_match="car"), page=page)
  assert holds(on_page("document.n", exact_match="4"), page=page)
  assert holds(on_page("document.no", exact_match="None"), page=page)
  assert not holds(on_page("document.gone", must_include=["x"]), page=page)
  assert holds(on_page("document.gone", exact_match=""), page=page)  # as published: it reads as ""
  assert page.url == "http://shop/cart"
  holds(on_page("", url="http://shop/other", must_include=["x"]), page=page)
  assert page.url == "http://shop/other"


def test_preparations_run_first_and_may_fail():
  page = FakePage(**{"document.title": "Cart", "open()": None})
  evaluation = on_page("document.title", exact_match="cart")
  evaluation["program_html"][0]["prep_actions"] = ["open()", "gone()", "never()"]
  assert holds(evaluation, page=page) and page.ran == ["open()", "gone()", "document.title"]


def test_functions_of_the_published_configs():
  page = FakePage("http://forum/f/books/12/a-title/-/comment/3", "Order 7")
  assert holds(on_page("", url="func:reddit_get_post_url('__last_url__')", must_include=["order"]), page=page)
  assert page.url == "http://forum/f/books/12/"
  assert holds(on_page("", url="func:shopping_get_latest_order_url()", must_include=["7"]), page=page)
  assert page.url == "http://shop/order/7/"
  for sku, author, rating in (("B1", "Ann", "80"), ("B2", "", "")):
    assert holds(on_page(f"func:shopping_get_sku_latest_review_author('{sku}')", exact_match=author))
    assert holds(on_page(f"func:shopping_get_sku_latest_review_rating('{sku}')", exact_match=rating))
  role = on_page("func:gitlab_get_project_memeber_role(__page__, 'ann')", must_include=["Guest"])
  assert not holds(role, page=page) and '"@ann"' in page.ran[-1]


def test_all_parts_must_hold():
  both = {"eval_types": ["string_match", "url_match"], "reference_answers": {"exact_match": "x"},
          "reference_url": "http://shop/cart"}
  assert holds(both, "x") and not holds(both, "y") and not holds(both, "x", FakePage("http://shop/"))


@pytest.mark.parametrize("evaluation", [
    {"eval_types": ["image_match"]}, {"eval_types": []}, string(almost="x"), string(must_include="x"),
    {"eval_types": ["url_match"], "reference_url": ""},
    {"eval_types": ["url_match"], "reference_url": "http://a", "url_note": "PRED in GOLD"},
    on_page("window.x", exact_match="1"), on_page("document.x", near="1"), on_page("document.x", must_include="1"),
    on_page("func:__import__('os').system('true')", exact_match=""),
    on_page("func:open('/etc/passwd')", exact_match=""),
    on_page("func:shopping_get_sku_latest_review_author('a', 'b')", exact_match=""),
    on_page("", url="func:shopping_get_latest_order_url(", exact_match=""),
    on_page("", url="func:reddit_get_post_url(1 + 1)", exact_match="")])
def test_what_is_not_of_the_published_form_is_no_evaluator(evaluation):
  with pytest.raises((ValueError, TypeError, KeyError)):
    holds(evaluation)


def test_the_shop_is_asked_as_magento_answers():
  with webarena_site.serve() as address:
    import urllib.request
    post = lambda path, body="": urllib.request.urlopen(address + path, body.encode()).read()
    post("/review/3", "nickname=Ann&percent=20")
    post("/review/3", "nickname=Tom&percent=100")
    post("/order")
    shop = MagentoShop(address)
    assert shop.latest_review("3") == ("Tom", "100") and shop.latest_review("1") is None
    assert shop.latest_order_url() == f"{address}/sales/order/view/order_id/1/"


# ---- the tree


def ax(number, role, name="", children=(), backend=None, ignored=False, **properties):
  return {"nodeId": str(number), "role": {"value": role}, "name": {"value": name}, "ignored": ignored,
          "childIds": [str(c) for c in children], "backendDOMNodeId": number if backend is None else backend,
          "properties": [{"name": k, "value": {"value": v}} for k, v in properties.items()]}


def test_the_tree_shows_what_is_in_the_window():
  nodes = [
      ax(1, "RootWebArea", "Shop", [2, 9, 10, 13], focused=True, url="http://shop"),
      ax(2, "generic", "", [3, 4, 5]), ax(3, "link", "It's", [6], focusable=True), ax(4, "img"),
      ax(5, "none", children=[7], ignored=True), ax(6, "StaticText", "It's"), ax(7, "textbox", "Name", required=False),
      ax(9, "link", "Below"), ax(10, "combobox", "Size", [11], expanded=False), ax(11, "MenuListPopup", "", [12]),
      ax(12, "option", "Small", selected=True), ax(13, "list", "", [14, 15]), ax(14, "listitem", "", [16], level=1),
      ax(15, "listitem", "", busy=True), ax(16, "StaticText", "Other"), ax(3, "link", "twice")]
  boxes = {n: Box(0, 0, 10, 10) for n in (1, 2, 3, 4, 6, 7, 10, 13, 14, 15, 16)} | {9: None}
  text, shown = show_tree(nodes, boxes)
  assert text == "\n".join([
      "[1] RootWebArea 'Shop' focused: True", "\t[2] link \"It's\"", "\t[4] textbox 'Name' required: False",
      "\t[5] combobox 'Size' expanded: False", "\t\t[6] option 'Small' selected: True", "\t[7] StaticText 'Other'"])
  assert shown[4].backend_id == 7 and shown[6].box is None and shown[3].role == "StaticText"


def test_boxes_are_cut_at_the_window():
  snapshot = {"documents": [{"nodes": {"backendNodeId": [10, 11, 12, 13]}, "layout": {
      "nodeIndex": [0, 1, 2, 3],
      "bounds": [[0, 0, 1280, 3000], [5, 690, 20, 20], [5, 1500, 20, 20], [5, 800, 0, 20]]}}]}
  assert boxes_in_window(snapshot, (0, 700), (1280, 720)) == {
      10: Box(0, 0, 1280, 720), 11: Box(5, 0, 20, 10), 12: None, 13: None}


# ---- the actions' form


class FakeBrowser:
  """Notes what is asked of it; element 7 and tabs 0 and 1 exist."""

  def __init__(self):
    self.asked = []

  url = "http://shop/"
  has = staticmethod(lambda number: number == 7)
  may_open = staticmethod(lambda url: url.startswith("http://shop"))
  leave_foreign_page = staticmethod(lambda: None)
  settle = staticmethod(lambda: None)
  observe = staticmethod(lambda: "tree")
  close = staticmethod(lambda: None)

  def __getattr__(self, name):
    def note(*args, **kwargs):
      self.asked.append((name, *args, *kwargs.values()))
      return {"focus_tab": args and args[0] in (0, 1), "press": args and args[0] != "Nokey"}.get(name)
    return note


@pytest.fixture
def env():
  env = WebArenaEnv(lambda: None, lambda: None, 0)
  env._browser = FakeBrowser()
  return env


@pytest.mark.parametrize("text, asked", [
    ("click [7]", ("click", 7)), ("click[7]", ("click", 7)), ("hover [7]", ("hover", 7)),
    ("type [7] [a [b] c]", ("type", 7, "a [b] c", True)), ("type [7] [x] [0]", ("type", 7, "x", False)),
    ("type [7] [x] [1]", ("type", 7, "x", True)), ("type [7] [x] [press_enter_after=0]", ("type", 7, "x", False)),
    ("type [7] []", ("type", 7, "", True)), ("press [Control+a]", ("press", "Control+a")),
    ("scroll [down]", ("scroll", True)), ("scroll up", ("scroll", False)),
    ("scroll [direction=down]", ("scroll", True)), ("new_tab", ("new_tab",)), ("tab_focus [1]", ("focus_tab", 1)),
    ("close_tab", ("close_tab",)), ("goto [http://shop/x?y=[1]]", ("open", "http://shop/x?y=[1]")),
    ("go_back", ("go", False)), ("go_forward", ("go", True))])
def test_published_actions(env, text, asked):
  step = env.step(Action("act", text))
  assert env._browser.asked == [asked] and step == ("URL: http://shop/\ntree", 0.0, False, False, {})


@pytest.mark.parametrize("text, why", [
    ("click [8]", "no element [8]"), ("type [8] [x]", "no element [8]"), ("click", "An action is"),
    ("click [x]", "An action is"), ("type [7] x", "An action is"), ("scroll [left]", "An action is"),
    ("press [Nokey]", "no such keys"), ("tab_focus [2]", "no tab 2"), ("jump [7]", "An action is"),
    ("goto [file:///etc/passwd]", "not on this task's websites"), ("goto [http://other/]", "not on this task"),
    ("goto [javascript:alert(1)]", "not on this task's"), ("click [7] now", "An action is"),
    ("new_tab [1]", "An action is"),
    (f"click [{'7' * 5000}]", "An action is")])
def test_what_cannot_be_done_says_why(env, text, why):
  step = env.step(Action("act", text))
  assert step.info == {"invalid": True} and why in step.observation and not step.terminated


@pytest.mark.parametrize("text, answer", [
    ("stop [a [b]]", "a [b]"), ("stop []", ""), ("stop", ""), ("stop [\ud800]", "?")])
def test_stop_is_evaluated(env, text, answer):
  env._evaluator = make_evaluator("", webarena_site.config(0, "", string(exact_match=answer))["eval"])
  env._shop = env._judge = None
  assert env.step(Action("act", text))[1:] == (1.0, True, False, {"solved": True})


# ---- which tasks are ready


@pytest.fixture
def configs(tmp_path, monkeypatch):
  """Ten tasks on the shop, one each that needs a login, a judge, and two more sites."""
  rows = [*webarena_site.CONFIGS,
          webarena_site.config(90, "Log in", string(exact_match="x"), state="./.auth/shopping_state.json"),
          webarena_site.config(91, "Judge", string(fuzzy_match=["x"])),
          webarena_site.config(92, "Both", string(exact_match="x"), start="__REDDIT__ |AND| __SHOPPING__/cart",
                               sites=("reddit", "map"))]
  (tmp_path / "webarena").mkdir()
  (tmp_path / "webarena" / "test.raw.json").write_text(json.dumps(rows))
  monkeypatch.setenv("AGENTBANK_DATA", str(tmp_path))
  for name in ("SHOPPING_ADMIN", "REDDIT", "GITLAB", "WIKIPEDIA", "MAP", "HOMEPAGE", "WEBARENA_JUDGE"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("SHOPPING", "http://127.0.0.1:7770/")
  return tmp_path / "webarena"


def ids(count):
  return {i.id for i in get_task("webarena").instances("test", count, 0)}


def test_tasks_whose_sites_are_hosted_are_ready(configs, monkeypatch):
  assert ids(10) == {f"test-{n:04d}" for n in range(10)}
  with pytest.raises(UserError, match=r"only 10 of 13 are ready: .*1 need the login file webarena/.auth/shopping_state"
                                      r".*1 need a judge of free answers \(WEBARENA_JUDGE=MODULE:FUNCTION\)"):
    ids(11)
  with pytest.raises(UserError, match="1 need MAP=http://...; 1 need REDDIT=http://..."):
    ids(11)
  monkeypatch.setenv("REDDIT", "http://127.0.0.1:9999")
  monkeypatch.setenv("MAP", "http://127.0.0.1:3000")
  assert "test-0092" in ids(11)
  (configs / ".auth").mkdir()
  (configs / ".auth" / "shopping_state.json").write_text("{}")
  assert "test-0090" in ids(12)
  monkeypatch.setenv("WEBARENA_JUDGE", "operator:eq")
  assert "test-0091" in ids(13)
  monkeypatch.delenv("SHOPPING")
  with pytest.raises(UserError, match="only 0 of 13 are ready: 13 need SHOPPING=http"):
    ids(1)


def test_what_the_user_set_wrongly_is_said(configs, monkeypatch):
  monkeypatch.setenv("WEBARENA_JUDGE", "nowhere:judge")
  with pytest.raises(UserError, match="WEBARENA_JUDGE='nowhere:judge' is no function"):
    ids(1)
  monkeypatch.setenv("SHOPPING", "127.0.0.1:7770")
  with pytest.raises(UserError, match="SHOPPING is '127.0.0.1:7770', expected an address"):
    ids(1)
  with pytest.raises(UserError, match="no train instances"):
    list(get_task("webarena").instances("train", 1, 0))
  (configs / "test.raw.json").write_text(json.dumps([webarena_site.CONFIGS[0] | {"eval": {"eval_types": ["x"]}}]))
  with pytest.raises(UserError, match=r"test.raw.json, row 0: not a task of WebArena \(ValueError: eval_types"):
    ids(1)


def test_placeholders_are_filled_in_where_they_stand():
  value = {"a": ["__SHOPPING_ADMIN__/x", "__SHOPPING__"], "b": None}
  assert placeholders(value) == {"SHOPPING_ADMIN", "SHOPPING"}
  sites = hosted_sites({"SHOPPING": "http://a:1/", "SHOPPING_ADMIN": "http://a:2/admin"})
  assert fill_in(value, sites) == {"a": ["http://a:2/admin/x", "http://a:1"], "b": None}


def test_every_published_task_can_be_evaluated(real_data, monkeypatch):
  monkeypatch.setenv("AGENTBANK_DATA", str(real_data))
  rows = webarena._rows()
  published = json.loads((real_data / "webarena" / "test.raw.json").read_text())
  assert len(rows) == len(published) >= 200
  sites = {name: f"http://{name.lower().replace('_', '-')}.test" for name in VARIABLES}
  for (key, data), row in zip(rows, published, strict=True):
    assert int(key) == row["task_id"]
    filled = fill_in(data, sites)
    assert not placeholders(filled)
    evaluator = make_evaluator(data["intent"], filled["eval"])
    assert evaluator.needs_judge == ("fuzzy_match" in (row["eval"]["reference_answers"] or {}))
    if row["eval"]["eval_types"] == ["string_match"] and not evaluator.needs_judge:  # what it asks for does it
      reference = row["eval"]["reference_answers"]
      answer = reference.get("exact_match") or " ".join(reference["must_include"])
      assert evaluator.succeeds(answer, Context(FakePage()))
      assert not evaluator.succeeds("I do not know.", Context(FakePage())), key
    if row["eval"]["eval_types"] == ["url_match"]:
      url = filled["eval"]["reference_url"].split(" |OR| ")[0]
      assert evaluator.succeeds("", Context(FakePage(url)))
      assert not evaluator.succeeds("", Context(FakePage("http://elsewhere.test/")))
