"""The metadata server of a machine of Google's cloud, played by a real HTTP server on this machine."""

import contextlib
import http.server
import threading


class _Server(http.server.ThreadingHTTPServer):
  """Attributes:
    answers: to `instance/KEY`; a key that is not there is 404.
    asked: the keys, in order.
  """

  def __init__(self):
    super().__init__(("127.0.0.1", 0), _Handler)
    self.answers = {"id": "17", "maintenance-event": "NONE", "preempted": "FALSE"}
    self.asked = []

  @property
  def host(self):
    return f"127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
  def do_GET(self):
    prefix, key = "/computeMetadata/v1/instance/", self.path.partition("?")[0].rpartition("/")[2]
    self.server.asked.append(key)
    if self.headers["Metadata-Flavor"] != "Google":  # as the real one does
      self.send_error(403)
    elif not self.path.startswith(prefix) or key not in self.server.answers:
      self.send_error(404)
    else:
      body = self.server.answers[key].encode()
      self.send_response(200)
      self.send_header("Content-Length", str(len(body)))
      self.end_headers()
      self.wfile.write(body)

  def log_message(self, *_):
    pass


@contextlib.contextmanager
def serve():
  """Yields a server that answers from the first moment."""
  with _Server() as server:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
      yield server
    finally:
      server.shutdown()
      thread.join()
