#!/usr/bin/env python3
"""Takes a picture of a page in headless Chromium and says on stdout, as JSON, what it saw.

    screenshot.py URL OUT.png [--width 1280] [--height 900] [--dark] [--full]

The width is the viewport's, by device emulation: a window of Chromium may not be narrower than 500 pixels.
Needs chromium and chromedriver (Debian: chromium-driver); of Python the standard library only.
"""

import argparse
import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("out")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=900)
    parser.add_argument("--dark", action="store_true", help="prefers-color-scheme: dark")
    parser.add_argument("--full", action="store_true", help="the whole page, not the first screen")
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait before looking, e.g. for a refresh")
    parser.add_argument("--print", action="store_true", help="as it is printed")
    parser.add_argument("--axe", metavar="FILE", help="axe.min.js: what it finds is added as `violations`")
    parser.add_argument("--script", help="JavaScript whose returned value is added as `script`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pgtend-chromium-") as folder:
        seen = look(arguments, folder)
    print(json.dumps(seen, ensure_ascii=False))


def look(arguments, folder):
    driver, base = start_driver(folder)
    session = None
    try:
        session = start_browser(base, folder)
        emulate(session, arguments)
        call("POST", f"{session}/url", {"url": arguments.url})
        time.sleep(arguments.wait)
        seen = run(session, "const s = document.scrollingElement;"
                   "return {title: document.title, headline: document.querySelector('h1')?.innerText ?? null,"
                   " scrollWidth: s.scrollWidth, innerWidth: window.innerWidth, scrollHeight: s.scrollHeight,"
                   " dark: matchMedia('(prefers-color-scheme: dark)').matches}")
        if arguments.script:
            seen["script"] = run(session, arguments.script)
        if arguments.axe:
            seen["violations"] = violations(session, arguments.axe)
        seen["horizontalScroll"] = seen["scrollWidth"] > seen["innerWidth"]
        picture = devtools(session, "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": arguments.full, **clip(arguments, seen)})
        with open(arguments.out, "wb") as file:
            file.write(base64.b64decode(picture["data"]))
        messages = call("POST", f"{session}/se/log", {"type": "browser"})
        errors = [message["message"] for message in messages if message["level"] == "SEVERE"]
        return {**seen, "consoleErrors": len(errors), "consoleMessages": errors}
    finally:
        if session:
            quietly(lambda: call("DELETE", session))
        stop(driver)


def start_driver(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = shutil.which("chromedriver") or sys.exit("chromedriver is not installed: apt-get install chromium-driver")
    # Chromium writes to HOME and /tmp: both are the folder that goes away. Its own group, so that all of it can be ended.
    environment = {**os.environ, "HOME": folder, "TMPDIR": folder}
    driver = subprocess.Popen([program, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              env=environment, start_new_session=True)
    base = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            if call("GET", f"{base}/status")["ready"]:
                return driver, base
        except OSError:
            time.sleep(0.05)
    stop(driver)
    sys.exit("chromedriver did not start within 20 s")


def start_browser(base, folder):
    """On a busy machine Chromium sometimes exits at its start: nothing of the page has been looked at by then, so it is started again."""
    for attempt in range(1, 4):
        try:
            created = call("POST", f"{base}/session", {"capabilities": {"alwaysMatch": capabilities(f"{folder}/{attempt}")}})
            return f"{base}/session/{created['sessionId']}"
        except SystemExit as error:
            if attempt == 3 or "session not created" not in str(error):
                raise


def capabilities(folder):
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
             f"--user-data-dir={folder}/profile"]
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    options = {"args": flags, **({"binary": binary} if binary else {})}
    return {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}


def emulate(session, arguments):
    phone = arguments.width < 600
    devtools(session, "Emulation.setDeviceMetricsOverride",
             {"width": arguments.width, "height": arguments.height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone})
    scheme = "dark" if arguments.dark else "light"
    media = "print" if arguments.print else ""
    devtools(session, "Emulation.setEmulatedMedia", {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]})


def clip(arguments, seen):
    if not arguments.full:
        return {}
    return {"clip": {"x": 0, "y": 0, "width": arguments.width, "height": min(seen["scrollHeight"], 12000), "scale": 1}}


def violations(session, axe):
    """What keeps people with disabilities from reading the page, by axe-core; the page's own policy allows it no script."""
    with open(axe, encoding="utf-8") as file:
        run(session, file.read())
    script = """const done = arguments[0];
        axe.run(document, {resultTypes: ["violations"]}).then(
            found => done(found.violations.map(one => [one.id, one.impact, one.nodes.slice(0, 5).map(node => node.target.join(" ") + ": " + node.failureSummary)])),
            error => done([["axe", "failed", [String(error)]]]))"""
    return call("POST", f"{session}/execute/async", {"script": script, "args": []})


def devtools(session, command, parameters):
    return call("POST", f"{session}/goog/cdp/execute", {"cmd": command, "params": parameters})


def run(session, script):
    return call("POST", f"{session}/execute/sync", {"script": script, "args": []})


def call(method, url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    # No proxy from the environment: this is a conversation with this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{method} {url}: {error.read().decode(errors='replace')[:2000]}") from None


def stop(driver):
    quietly(lambda: os.killpg(driver.pid, signal.SIGTERM))
    try:
        driver.wait(5)
    except subprocess.TimeoutExpired:
        quietly(lambda: os.killpg(driver.pid, signal.SIGKILL))
        driver.wait()


def quietly(action):
    try:
        action()
    except (OSError, SystemExit):
        pass


if __name__ == "__main__":
    main()
