"""A headless Chromium for tests of pages, driven by its DevTools protocol over the one websocket
client that is installed anyway.
"""

import asyncio
import base64
import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium() -> str:
    """The browser of this machine, or a skip with the reason."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs Chromium or Chrome on the PATH (Debian: apt-get install chromium)")
    return found


class Browser:
    """One page of a headless browser, `width` by `height` pixels. Use as a context.

    `console` is what the page and its policies complained about, `requests` every address that it
    asked for.
    """

    def __init__(
        self, profile: Path, width: int = 1280, height: int = 900, dark: bool = False
    ) -> None:
        self._profile, self._size, self._dark = profile, (width, height), dark
        self.console: list[str] = []
        self.requests: list[str] = []
        self._number = 0
        self._whole = 0

    def __enter__(self) -> "Browser":
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(self._process())
        self._loop = asyncio.new_event_loop()
        self._stack.callback(self._loop.close)
        self._loop.run_until_complete(self._connect())
        self._stack.callback(lambda: self._loop.run_until_complete(self._session.close()))
        width, height = self._size
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.command("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if self._dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def _process(self) -> Iterator[None]:
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-extensions",
            "--disable-dev-shm-usage",
        ]
        flags += [
            "--disable-background-networking",
            "--disable-component-update",
            "--remote-debugging-port=0",
        ]
        command = [chromium(), *flags, f"--user-data-dir={self._profile}", "about:blank"]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                assert process.stderr is not None
                said = []
                for line in process.stderr:  # it says where it listens as soon as it does
                    said.append(line)
                    if "DevTools listening on ws://" in line:
                        self._port = int(line.split("://")[1].split("/")[0].rpartition(":")[2])
                        break
                else:
                    pytest.skip(f"Chromium does not start here: {''.join(said)[-300:]}")
                yield
            finally:
                process.terminate()
                process.stderr.read() if process.stderr else None

    async def _connect(self) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://127.0.0.1:{self._port}/json/list") as answer:
            pages = [target for target in await answer.json() if target["type"] == "page"]
        self._socket = await self._session.ws_connect(
            pages[0]["webSocketDebuggerUrl"], max_msg_size=0
        )

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What the browser answers to a command of the protocol."""
        return self._loop.run_until_complete(asyncio.wait_for(self._ask(method, parameters), 60))

    async def _ask(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])
            self._hear(message)

    def _hear(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        if event.get("method") == "Log.entryAdded":
            self.console.append(about["entry"]["text"])
        elif event.get("method") == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(part.get("value")) for part in about["args"]))
        elif event.get("method") == "Runtime.exceptionThrown":
            self.console.append(about["exceptionDetails"]["text"])
        elif event.get("method") == "Browser.downloadProgress":
            self._whole += about["state"] == "completed"
        elif event.get("method") == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])

    def open(self, address: str) -> None:
        """Load a page and wait until it and its images are there."""
        self.command("Page.navigate", url=address)
        loaded = (
            "new Promise(done => document.readyState === 'complete' ? done() : "
            "addEventListener('load', () => done()))"
        )
        self.value(loaded)
        self.value(
            "Promise.all([...document.images].map(image => image.decode().catch(() => null)))"
        )

    def value(self, expression: str) -> Any:
        """Of an expression of JavaScript, awaited. Evaluated by the debugger, so a page's policy
        does not forbid it.
        """
        answer = self.command(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, shift: bool = False) -> None:
        """Press and let go a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.command(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                modifiers=8 if shift else 0,
                **more,
            )

    def type(self, keys: str) -> None:
        """Press the keys of a text one after the other, capitals with Shift."""
        for key in keys:
            self.press(key, ord(key.upper()), shift=key.isupper())

    def downloads_to(self, folder: Path) -> None:
        """Where what a page downloads goes, under the name that it has."""
        self.command(
            "Browser.setDownloadBehavior",
            behavior="allow",
            downloadPath=str(folder),
            eventsEnabled=True,
        )

    def await_download(self) -> None:
        """Wait until the next download that was begun is whole."""
        self._loop.run_until_complete(asyncio.wait_for(self._hear_of_download(), 60))

    async def _hear_of_download(self) -> None:
        while self._whole == 0:
            self._hear(await self._socket.receive_json())
        self._whole -= 1

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG."""
        answer = self.command("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))
