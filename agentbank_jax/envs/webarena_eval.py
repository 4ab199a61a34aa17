"""WebArena's evaluators (Zhou et al. 2023, arXiv:2307.13854, section 3.2): is the task done?

Semantics are those of evaluation_harness/evaluators.py of web-arena-x/webarena. What a config calls by name
(`func:...`) is read as a call of one of a few known functions; nothing of a config is run as Python.

`fuzzy_match` asks a language model whether an answer means the same as the reference. Which one is the caller's
choice, as a `Judge`; the published scores are GPT-4's (gpt-4-1106-preview).
"""

import ast
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import html
import json
import re
from typing import Any, Literal, Protocol
import urllib.parse

OR = " |OR| "

# (question, reference, answer, kind): "meaning": does the answer say what the reference says? "reason": is what the
# answer reports the reason why the task cannot be done, which the reference gives?
Judge = Callable[[str, str, str, Literal["meaning", "reason"]], bool]


class Page(Protocol):
  """The browser's page, as evaluators look at it."""

  @property
  def url(self) -> str:
    """Where the page is."""

  def content(self) -> str:
    """Returns the page's HTML."""

  def evaluate(self, script: str) -> Any:
    """Returns the value of a JavaScript expression.

    Raises:
      ScriptError: the expression does.
    """

  def open(self, url: str) -> None:
    """Goes to `url`."""


class ScriptError(Exception):
  """JavaScript that raised: the page is not the one that the expression is written for."""


class Shop(Protocol):
  """What the shop's own interface tells about it."""

  def latest_order_url(self) -> str:
    """Returns the page of the order that was made last."""

  def latest_review(self, sku: str) -> tuple[str, str] | None:
    """Returns author and rating, in percent, of a product's last review, or None where it has none."""


@dataclasses.dataclass(frozen=True)
class Context:
  """What evaluators may ask. `judge` and `shop` may be None where no part of the evaluation needs them."""

  page: Page
  shop: Shop | None = None
  judge: Judge | None = None


@dataclasses.dataclass(frozen=True)
class Evaluator:
  """The evaluation of one task.

  Attributes:
    needs_judge: whether a language model has to judge the answer.
    checks: all must hold.
  """

  needs_judge: bool
  checks: tuple[Callable[[str, Context], bool], ...]

  def succeeds(self, answer: str, context: Context) -> bool:
    """Returns whether the task is done, with `answer` as what the agent said last."""
    return all(check(answer, context) for check in self.checks)


def make_evaluator(intent: str, config: Mapping[str, Any]) -> Evaluator:
  """Returns the evaluator of a task.

  Args:
    intent: the task, for the judge.
    config: `eval` of its config, placeholders filled in or not.

  Raises:
    ValueError, KeyError or TypeError: it is not of the published form.
  """
  makers = {"string_match": _string_checks, "url_match": _url_checks, "program_html": _page_checks}
  if unknown := set(config["eval_types"]) - set(makers):
    raise ValueError(f"eval_types {sorted(unknown)}")
  checks = [check for kind in config["eval_types"] for check in makers[kind](intent, config)]
  if not checks:
    raise ValueError("nothing to check")
  return Evaluator("string_match" in config["eval_types"] and "fuzzy_match" in config["reference_answers"],
                   tuple(checks))


# ---- string_match


def clean(text: str) -> str:
  """Returns an answer without the quotes around it, in lower case."""
  text = text.strip()
  if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
    text = text[1:-1]
  return text.lower()


def exact_match(reference: str, answer: str) -> bool:
  return clean(answer) == clean(reference)


def must_include(reference: str, answer: str, as_word: bool = False) -> bool:
  """Whether an answer has the reference in it; `as_word`: a single character must be a word of its own.

  The published code finds words with nltk; here numbers, times and hyphenated words are one word too.
  """
  reference, answer = clean(reference), clean(answer)
  if as_word and len(reference) == 1:
    return reference in re.findall(r"\w+(?:[.,:'/-]\w+)*|[^\w\s]", answer)
  return reference in answer


def _string_checks(intent: str, config: Mapping[str, Any]) -> list[Callable[[str, Context], bool]]:
  checks = []
  for kind, value in config["reference_answers"].items():
    if kind == "exact_match" and isinstance(value, str):
      checks.append(lambda answer, _, value=value: exact_match(value, answer))
    elif kind == "must_include" and isinstance(value, list):
      checks.append(lambda answer, _, value=value: all(must_include(v, answer, len(value) == 1) for v in value))
    elif kind == "fuzzy_match" and value == "N/A":
      note = config["string_note"]
      checks.append(lambda answer, context, note=note: exact_match("N/A", answer) or bool(
          context.judge(intent, note, clean(answer), "reason")))
    elif kind == "fuzzy_match" and isinstance(value, list):
      checks.append(lambda answer, context, value=value: all(
          _means(intent, v, clean(answer), context.judge) for v in value))
    else:
      raise ValueError(f"reference_answers has {kind!r} with a {type(value).__name__}")
  return checks


def _means(intent: str, reference: str, answer: str, judge: Judge) -> bool:
  if not answer:  # as published: judges are misled by nothing
    return not reference
  return bool(judge(intent, reference, answer, "meaning"))


# ---- url_match


def url_matches(reference: str, url: str) -> bool:
  """Whether `url` holds one of the references, joined by `OR`, and has the query's values that they ask for."""
  references = [urllib.parse.urlparse(part.rstrip("/")) for part in reference.split(OR)]
  wanted: dict[str, set[str]] = {}
  for parsed in references:
    for key, values in urllib.parse.parse_qs(parsed.query).items():
      wanted.setdefault(key, set()).update(values)
  is_at = urllib.parse.urlparse(url.rstrip("/"))
  place = (is_at.netloc + is_at.path).rstrip("/")
  query = urllib.parse.parse_qs(is_at.query)
  return any((r.netloc + r.path).rstrip("/") in place for r in references) and all(
      values & set(query.get(key, ())) for key, values in wanted.items())


def _url_checks(intent: str, config: Mapping[str, Any]) -> list[Callable[[str, Context], bool]]:
  del intent
  if config.get("url_note", "GOLD in PRED") != "GOLD in PRED":
    raise ValueError(f"url_note {config['url_note']!r}")
  reference = config["reference_url"]
  if not reference:
    raise ValueError("no reference_url")
  return [lambda _, context: url_matches(reference, context.page.url)]


# ---- program_html


def _page_checks(intent: str, config: Mapping[str, Any]) -> list[Callable[[str, Context], bool]]:
  del intent
  checks = []
  for target in config["program_html"]:
    locate, find, holds = _location(target["url"]), _locator(target), _requirement(target["required_contents"])

    def check(_: str, context: Context, locate=locate, find=find, holds=holds) -> bool:
      if (url := locate(context)) is not None:
        context.page.open(url)
      return holds(html.unescape(find(context)))

    checks.append(check)
  return checks


def _location(url: str) -> Callable[[Context], str | None]:
  """Returns what gives the page to look at, or None for the one that the agent left."""
  if url == "last":
    return lambda context: None
  if not url.startswith("func:"):
    return lambda context: url
  name, arguments = _read_call(url, {"shopping_get_latest_order_url": 0, "reddit_get_post_url": 1})
  if name == "shopping_get_latest_order_url":
    return lambda context: context.shop.latest_order_url()
  return lambda context: reddit_post_url(arguments[0].replace("__last_url__", context.page.url))


def reddit_post_url(url: str) -> str:
  """Returns the post's page for a page in it (/f/FORUM/NUMBER/...); any other page stays as it is."""
  parsed = urllib.parse.urlparse(url)
  parts = parsed.path.split("/")
  if len(parts) < 4 or parts[1] != "f":
    return url
  return f"{parsed.scheme}://{parsed.netloc}/f/{parts[2]}/{parts[3]}/"


# The role in the row of the table of members that has the account.
_MEMBER_ROLE = """
(() => {
  const names = Array.from(document.querySelectorAll("td[data-label='Account'] span.gl-avatar-labeled-sublabel"));
  const row = names.findIndex(name => name.outerText === NAME);
  return document.querySelectorAll("td.col-max-role span")[row].outerText;
})()"""


def _locator(target: Mapping[str, Any]) -> Callable[[Context], str]:
  """Returns what gives the text to look at."""
  locator = target["locator"].strip()
  if not locator:
    return lambda context: context.page.content()
  if locator.startswith(("document.", "[...document.")):
    before = target.get("prep_actions", [])
    return lambda context: _evaluate(context.page, locator, before)
  if not locator.startswith("func:"):
    raise ValueError(f"locator {locator!r}")
  name, arguments = _read_call(locator, {
      "gitlab_get_project_memeber_role": 2, "shopping_get_sku_latest_review_author": 1,
      "shopping_get_sku_latest_review_rating": 1})
  if name == "gitlab_get_project_memeber_role":
    script = _MEMBER_ROLE.replace("NAME", json.dumps(f"@{arguments[1]}"))
    return lambda context: _evaluate(context.page, script, ())
  part = 0 if name.endswith("author") else 1
  return lambda context: (context.shop.latest_review(arguments[0]) or ("", ""))[part]


def _evaluate(page: Page, script: str, before: Sequence[str]) -> str:
  """Returns a value as the published code prints it; "" where the page is not the one the script is for."""
  try:
    for preparation in before:
      page.evaluate(preparation)
  except ScriptError:
    pass  # as published: what follows then finds nothing
  try:
    return str(page.evaluate(script))
  except ScriptError:
    return ""


def _requirement(required: Mapping[str, Any]) -> Callable[[str], bool]:
  if "exact_match" in required:
    return lambda text: exact_match(required["exact_match"], text)
  if isinstance(required.get("must_include"), list):
    return lambda text: all(any(must_include(choice, text) for choice in content.split(OR))
                            for content in required["must_include"])
  raise ValueError(f"required_contents {sorted(required)}")


def _read_call(text: str, known: Mapping[str, int]) -> tuple[str, list[str]]:
  """Returns name and arguments of "func:name('argument', __page__)"."""
  expression = text.removeprefix("func:")
  try:
    call = ast.parse(expression, mode="eval").body
  except SyntaxError:
    raise ValueError(f"call {expression!r}") from None
  if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.keywords:
    raise ValueError(f"call {expression!r}")
  arguments = [a.value if isinstance(a, ast.Constant) else a.id if isinstance(a, ast.Name) else None
               for a in call.args]
  if known.get(call.func.id) != len(arguments) or not all(isinstance(a, str) for a in arguments):
    raise ValueError(f"call {expression!r}")
  return call.func.id, arguments
