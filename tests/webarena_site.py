"""A small shop, served on this machine, and tasks on it in WebArena's layout: what the tests of WebArena play on.

  python tests/webarena_site.py DATA

writes the tasks to DATA/webarena, serves the shop, and says under which address (SHOPPING) until it is stopped.
"""

import contextlib
import html
import http.server
import json
import pathlib
import re
import sys
import threading
import urllib.parse

PRODUCTS = {1: ("Blue kettle", 25), 2: ("Red kettle", 31), 3: ("Oak chair", 80)}

_PAGE = """<!DOCTYPE html><html><head><title>{title}</title></head><body>
<h1>{title}</h1><nav><a href="/">Home</a> <a href="/cart">Cart</a></nav>{body}</body></html>"""


class _Handler(http.server.BaseHTTPRequestHandler):
  """The cart is in a cookie, so that every episode has its own; orders and reviews are the server's."""

  protocol_version = "HTTP/1.1"
  disable_nagle_algorithm = True
  wbufsize = -1

  def log_message(self, *_):
    pass

  def do_GET(self):
    url = urllib.parse.urlparse(self.path)
    query = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
    if url.path.startswith("/rest/"):
      return self._rest(url.path)
    if url.path == "/":
      links = "".join(f'<li><a href="/product/{n}">{name}</a></li>' for n, (name, _) in PRODUCTS.items())
      return self._page("Shop", f"""
          <form action="/search"><input name="q" aria-label="Search"><button>Go</button></form>
          <select aria-label="Sort" onchange="location = '/?sort=' + this.value"><option value="name">By name</option>
          <option value="price">By price</option></select><ul>{links}</ul><a href="/long">A long page</a>
          <a href="http://elsewhere.invalid/">Elsewhere</a><a href="/product/3" target="_blank">In a new tab</a>""")
    if url.path == "/search":
      found = [(n, p) for n, p in PRODUCTS.items() if query.get("q", "").lower() in p[0].lower()]
      links = "".join(f'<li><a href="/product/{n}">{p[0]}</a> ${p[1]}</li>' for n, p in found)
      return self._page("Results", f"<p>{len(found)} found for {html.escape(query.get('q', ''))}</p><ul>{links}</ul>")
    if match := re.fullmatch(r"/product/(\d)", url.path):
      name, price = PRODUCTS[int(match[1])]
      return self._page(name, f"""<p id="price">Price: ${price}</p>
          <form method="post" action="/add/{match[1]}"><button>Add to cart</button></form>
          <form method="post" action="/review/{match[1]}"><input name="nickname" aria-label="Nickname">
          <select name="percent" aria-label="Rating"><option value="20">1 star</option><option value="100">5 stars
          </option></select><button>Send review</button></form>""")
    if url.path == "/cart":
      rows = "".join(f'<li class="row">{PRODUCTS[n][0]}</li>' for n in self._cart())
      return self._page("Cart", f"<ul>{rows}</ul><form method='post' action='/order'><button>Order</button></form>")
    if url.path == "/long":
      return self._page("Long", "".join(f"<p style='height:300px'>Part {n}</p>" for n in range(9)))
    if url.path == "/account":
      user = re.search(r"user=(\w+)", self.headers.get("Cookie", ""))
      return self._page("Account", f"<p>Hello {user[1]}</p><p id='note'></p><script>document.getElementById('note')"
                                   ".textContent = localStorage.getItem('note')</script>" if user else "<p>Log in</p>")
    if match := re.fullmatch(r"/sales/order/view/order_id/(\d+)/", url.path):
      return self._page(f"Order {match[1]}", f"<p>{self.server.orders[int(match[1]) - 1]}</p>")
    return self._page("Not found", "", 404)

  def do_POST(self):
    body = self.rfile.read(int(self.headers["Content-Length"])).decode()
    form = {k: v[0] for k, v in urllib.parse.parse_qs(body).items()}
    action, _, number = self.path[1:].partition("/")
    if action == "rest":
      return self._json("token")
    if action == "add":
      return self._redirect("/cart", f"cart={'.'.join(map(str, [*self._cart(), int(number)]))}")
    if action == "review":
      self.server.reviews.setdefault(number, []).append(form)
      return self._redirect(f"/product/{number}")
    self.server.orders.append(", ".join(PRODUCTS[n][0] for n in self._cart()))
    return self._redirect(f"/sales/order/view/order_id/{len(self.server.orders)}/", "cart=")

  def _rest(self, path):
    if self.headers["Authorization"] != "Bearer token":
      return self._json("who are you", 401)
    if path == "/rest/V1/orders":
      return self._json({"items": [{"increment_id": f"{len(self.server.orders):09d}"}]})
    reviews = self.server.reviews.get(path.split("/")[4], [])
    return self._json([{"nickname": r["nickname"], "ratings": [{"rating_name": "Rating", "percent": int(r["percent"])}]}
                       for r in reviews])

  def _cart(self):
    match = re.search(r"cart=([\d.]+)", self.headers.get("Cookie", ""))
    return [int(n) for n in match[1].split(".")] if match else []

  def _page(self, title, body, status=200):
    self._send(_PAGE.format(title=title, body=body), "text/html; charset=utf-8", status)

  def _json(self, value, status=200):
    self._send(json.dumps(value), "application/json", status)

  def _send(self, text, kind, status):
    data = text.encode()
    self.send_response(status)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(len(data)))
    self.end_headers()
    self.wfile.write(data)

  def _redirect(self, place, cookie=None):
    self.send_response(303)
    self.send_header("Location", place)
    self.send_header("Content-Length", "0")
    if cookie:
      self.send_header("Set-Cookie", cookie + "; Path=/")
    self.end_headers()


@contextlib.contextmanager
def serve():
  """Yields the address of a fresh shop."""
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
  server.daemon_threads = True
  server.orders, server.reviews = [], {}
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield f"http://127.0.0.1:{server.server_port}"
  finally:
    server.shutdown()
    server.server_close()
    thread.join()


def config(number, intent, evaluation, start="__SHOPPING__", state=None, sites=("shopping",)):
  """Returns a task in WebArena's layout."""
  blank = {"reference_answers": None, "reference_url": "", "program_html": [], "string_note": "",
           "reference_answer_raw_annotation": ""}
  return {"sites": list(sites), "task_id": number, "require_login": state is not None, "storage_state": state,
          "start_url": start, "geolocation": None, "intent_template": intent, "instantiation_dict": {},
          "intent": intent, "require_reset": False, "eval": blank | evaluation, "intent_template_id": number}


def _string(**answers):
  return {"eval_types": ["string_match"], "reference_answers": answers}


def _page(url, locator, **contents):
  return {"eval_types": ["program_html"],
          "program_html": [{"url": url, "locator": locator, "required_contents": contents}]}


def _at(url):
  return {"eval_types": ["url_match"], "reference_url": url, "url_note": "GOLD in PRED"}


# Every task with the actions that do it; {link 'Home'} stands for the id of what the page shows as that.
PLAYS = [
    ("What does the oak chair cost?", _string(must_include=["80"]),
     ["click [{link 'Oak chair'}]", "stop [It costs $80]"]),
    ("How many kettles are there? Say the number.", _string(exact_match="2"),
     ["type [{textbox 'Search'}] [kettle] [1]", "stop [2]"]),
    ("Go to the page of the red kettle", _at("__SHOPPING__/product/2"),
     ["type [{textbox 'Search'}] [red] [0]", "click [{button 'Go'}]", "click [{link 'Red kettle'}]", "stop []"]),
    ("Search for chair", _at("__SHOPPING__/search?q=chair"),
     ["click [{textbox 'Search'}]", "press [c]", "press [Backspace]", "type [{textbox 'Search'}] [chair]", "stop"]),
    ("Put the blue kettle into the cart", _page("last", "", must_include=["Cart", "blue kettle |OR| kettle, blue"]),
     ["hover [{link 'Blue kettle'}]", "click [{link 'Blue kettle'}]", "click [{button 'Add to cart'}]", "stop []"]),
    ("Put both kettles into the cart",
     _page("__SHOPPING__/cart", "document.querySelectorAll('.row').length", exact_match="2"),
     ["goto [SHOP/product/1]", "click [{button 'Add to cart'}]", "go_back", "go_back", "click [{link 'Red kettle'}]",
      "click [{button 'Add to cart'}]", "click [{link 'Home'}]", "stop []"]),
    ("Sort the shop by price", _at("__SHOPPING__/?sort=price"), ["click [{option 'By price'}]", "stop []"]),
    ("Which part of the long page comes third?", _string(must_include=["part 2"]),
     ["click [{link 'A long page'}]", "scroll [down]", "stop [Part 2]"]),
    ("Open the oak chair in a new tab, and leave nothing else open", _at("__SHOPPING__/product/3"),
     ["click [{link 'In a new tab'}]", "close_tab", "stop []"]),
    ("Open the cart beside the shop, and come back to the shop", _at("__SHOPPING__"),
     ["new_tab", "goto [SHOP/cart]", "tab_focus [0]", "stop []"]),
]
CONFIGS = [config(n, intent, evaluation) for n, (intent, evaluation, _) in enumerate(PLAYS)]


def play(intent, observation, address):
  """An expert: yields the actions of a task and is sent what they lead to."""
  actions = next(actions for said, _, actions in PLAYS if said == intent)
  for action in actions:
    action = re.sub(r"\{(.*?)\}", lambda match, seen=observation: ref(seen, match[1]), action)
    observation = yield f"Thought: next.\nAction: {action.replace('SHOP', address)}"


def ref(observation, shown):
  """Returns the id of the first node that is shown as `shown`."""
  return re.search(rf"^\t*\[(\d+)\] {re.escape(shown)}", observation, re.MULTILINE)[1]


if __name__ == "__main__":
  folder = pathlib.Path(sys.argv[1], "webarena")
  folder.mkdir(parents=True, exist_ok=True)
  (folder / "test.raw.json").write_text(json.dumps(CONFIGS))
  with serve() as shop:
    print(f"SHOPPING={shop}", flush=True)
    threading.Event().wait()
