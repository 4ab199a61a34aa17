"""The websites of WebArena, as the user hosts them: addresses from the environment, and what their shop tells."""

from collections.abc import Mapping
import functools
import json
import os
from typing import Any
import urllib.parse
import urllib.request

from agentbank_jax.errors import UserError

# Named as WebArena's own code has them; a config says __SHOPPING__ where it means what SHOPPING holds.
VARIABLES = ("SHOPPING", "SHOPPING_ADMIN", "REDDIT", "GITLAB", "WIKIPEDIA", "MAP", "HOMEPAGE")

_TIMEOUT = 30.0  # seconds, of a request
# The administrator that WebArena's images come with (browser_env/env_config.py of web-arena-x/webarena).
_SHOP_ADMIN = ("admin", "admin1234")


def hosted_sites(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
  """Returns the addresses of the sites that are hosted, by variable, without a slash at the end.

  Raises:
    UserError: one is not an address.
  """
  sites = {}
  for name in VARIABLES:
    if address := environ.get(name, "").rstrip("/"):
      if urllib.parse.urlparse(address).scheme not in ("http", "https"):
        raise UserError(f"{name} is {address!r}, expected an address like http://127.0.0.1:7770")
      sites[name] = address
  return sites


def placeholders(value: Any) -> set[str]:
  """Returns the variables that a config, or a part of one, needs."""
  text = json.dumps(value)
  return {name for name in VARIABLES if f"__{name}__" in text}


def fill_in(value: Any, sites: Mapping[str, str]) -> Any:
  """Returns a part of a config with addresses in place of placeholders."""
  text = json.dumps(value)
  for name, address in sites.items():
    text = text.replace(f"__{name}__", json.dumps(address)[1:-1])
  return json.loads(text)


class MagentoShop:
  """The shop's REST interface, as WebArena's evaluators ask it (evaluation_harness/helper_functions.py)."""

  def __init__(self, address: str):
    self._address = address

  def latest_order_url(self) -> str:
    query = urllib.parse.urlencode({
        "searchCriteria[sortOrders][0][field]": "created_at",
        "searchCriteria[sortOrders][0][direction]": "DESC",
        "searchCriteria[pageSize]": "1",
    })
    order = self._get(f"/rest/V1/orders?{query}")["items"][0]
    return f"{self._address}/sales/order/view/order_id/{int(order['increment_id'])}/"

  def latest_review(self, sku: str) -> tuple[str, str] | None:
    reviews = self._get(f"/rest/V1/products/{urllib.parse.quote(sku)}/reviews")
    if not reviews:
      return None
    return reviews[-1]["nickname"], str(reviews[-1]["ratings"][0]["percent"])

  @functools.cached_property
  def _token(self) -> str:
    username, password = _SHOP_ADMIN
    return self._ask("/rest/default/V1/integration/admin/token",
                     json.dumps({"username": username, "password": password}).encode(), {})

  def _get(self, path: str) -> Any:
    return self._ask(path, None, {"Authorization": f"Bearer {self._token}"})

  def _ask(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> Any:
    request = urllib.request.Request(self._address + path, body, {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
      return json.load(response)
