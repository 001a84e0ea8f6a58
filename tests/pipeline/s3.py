"""A real S3 server in this process, that can be overloaded or away for as many requests as a test
wants.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import BaseWSGIServer, make_server

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class S3Server:
    """`refuse` answers the next so many requests with 503, `away` says of each whether it is;
    `requests` are those answered.

    `delay` says for how many seconds a request of some method waits for its answer, and `hold` is
    called with method and path of each before it has an effect. `trickles` says of a path whether
    it is given byte by byte, for ever slowly. `conditional` is whether `If-None-Match` is kept, and
    `names_condition` whether the refusal says which condition it was, as S3's own does.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server: BaseWSGIServer | None = None
        self.port = 0
        self.refuse = 0
        self.delay: Callable[[str], float] = lambda method: 0.0
        self.away: Callable[[], bool] = lambda: False
        self.hold: Callable[[str, str], None] = lambda method, path: None
        self.trickles: Callable[[str], bool] = lambda path: False
        self.conditional = self.names_condition = True
        self.stopped = threading.Event()
        self._puts = threading.Lock()
        self.refused = 0
        self.requests: list[str] = []
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What a client needs to find the server, in the usual variables."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": self.url}

    def start(self) -> None:
        self._server = make_server("127.0.0.1", self.port, self._answer, threaded=True)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.stopped.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        with self._lock:
            said = None
            if self.refuse:
                self.refuse -= 1
                said = "SlowDown", "Please reduce your request rate."
            elif self.away():
                said = "ServiceUnavailable", "Service is unable to handle request."
            if said:
                self.refused += 1
                about = f"<Code>{said[0]}</Code><Message>{said[1]}</Message>"
                body = f"<?xml version='1.0'?><Error>{about}</Error>".encode()
                start_response(
                    f"503 {said[0]}",
                    [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))],
                )
                return [body]
            self.requests.append(
                f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}"
            )
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        time.sleep(self.delay(method))
        self.hold(method, path)
        if method == "GET" and self.trickles(path):
            return self._bytes(self._app(environ, start_response))
        if method != "PUT":
            return self._app(environ, start_response)
        if not self.conditional:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with (
            self._puts
        ):  # moto looks whether there is an object, and then puts one: two could at once
            answer = b"".join(self._app(environ, start_response))
        condition = b"<Condition>If-None-Match</Condition>"
        return [
            answer if self.names_condition else answer.replace(condition, b" " * len(condition))
        ]

    def _bytes(self, answer: Iterable[bytes]) -> Iterator[bytes]:
        for byte in b"".join(answer):
            yield bytes([byte])
            self.stopped.wait(0.1)

    def make_bucket(self, name: str) -> None:
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
        boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **keys).create_bucket(
            Bucket=name
        )


@contextlib.contextmanager
def serving() -> Iterator[S3Server]:
    server = S3Server()
    server.start()
    # fsspec keeps clients, which know the address of the server before this one.
    S3FileSystem.clear_instance_cache()
    try:
        yield server
    finally:
        server.stop()
        S3FileSystem.clear_instance_cache()
