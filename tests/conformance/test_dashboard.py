"""The dashboard, in a real browser. SHOTS=FOLDER keeps pictures of what it looked like."""

import json
import os
import pathlib
import threading
import urllib.parse
import urllib.request

import kit
from browser import Browser

EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


class Traffic:
    """Requests to one upstream, some twenty a second, for as long as the `with` lasts."""

    def __init__(self, address):
        self.url, self.is_over = f"http://{address}/users/1", threading.Event()

    def __enter__(self):
        threading.Thread(target=self._run, daemon=True).start()

    def __exit__(self, *_):
        self.is_over.set()

    def _run(self):
        while not self.is_over.wait(0.05):
            try:
                urllib.request.urlopen(self.url, timeout=5).close()
            except OSError:
                pass  # what the dashboard is to show


class Evil(kit.Echo):
    """Fails, with markup in a field of its answer."""

    def do_GET(self):
        """Every method ends here."""
        self.send_response(500)
        self.send_header("X-Evil", EVIL)
        self.send_header("Content-Type", EVIL)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET


def shoot(browser, name):
    """Keeps a picture, if somebody wants one."""
    if folder := os.environ.get("SHOTS"):
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        browser.shoot(pathlib.Path(folder) / f"{name}.png")


def opened(lictor, browser):
    """The dashboard with its first rates."""
    browser.open(f"http://{lictor.address('admin')}/ui")
    browser.until("it is live", "document.querySelector('#pulse')?.innerText.includes('live')")
    return browser


def test_the_numbers_move_and_an_instance_that_dies_is_seen():
    """Rates and plots come; a dead endpoint is ejected on the page too, with a shape and a word; nothing complains."""
    with kit.Web() as web, kit.Web() as other, Browser() as browser:
        users = {"listen": 0, "static": [web.address, other.address], "balance": "round_robin"}
        with kit.Lictor(service="orders", upstreams={"users": users, "idle": {"listen": 0, "static": [web.address]}}) as lictor:
            opened(lictor, browser)
            with Traffic(lictor.address("users")):
                rate = "parseFloat(document.querySelector('[data-up=users] .num').innerText)"
                browser.until("there are requests", f"{rate} > 5")
                browser.until("they are plotted", "document.querySelector('[data-up=users] .l1').getAttribute('d').split('L').length > 3")
                assert browser.text("#self").startswith("orders"), browser.text("#self")
                assert "closed" in browser.text("#detail .facts"), browser.text("#detail .facts")
                other.__exit__()
                browser.until("the dead one is seen", "document.querySelector('[data-up=users]').innerText.includes('■')")
                browser.ask("document.querySelector('[data-up=users]').click()")
                browser.until("it is named", "document.querySelector('#detail').innerText.includes('ejected')")
                shoot(browser, "instance-dead")
            browser.until("no more requests", f"{rate} === 0")
            assert not browser.complaints, browser.complaints
            policy = browser.ask("fetch('/ui').then((it) => it.headers.get('content-security-policy'))")
            assert "unsafe" not in policy and policy.startswith("default-src 'none'"), policy


def test_the_keyboard_is_enough():
    """Filter, move, open a story, close it, pause: without a mouse, with a focus that is seen."""
    with kit.Web() as web, kit.closed_port() as nobody, Browser() as browser:
        upstreams = {"ua": {"listen": 0, "static": [web.address]}, "ub": {"listen": 0, "static": [nobody]}, "uc": {"listen": 0, "static": [web.address]}}
        with kit.Lictor(service="orders", upstreams=upstreams) as lictor:
            kit.curl("-o", "/dev/null", "-X", "POST", f"http://{lictor.address('ub')}/lost")
            opened(lictor, browser)
            browser.until("the failure is listed", "document.querySelectorAll('.fail').length === 1")
            browser.press("ArrowDown")
            assert browser.ask("document.activeElement.dataset.up") == "ua"
            assert browser.ask("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            browser.press("ArrowDown")
            browser.until("the next one is shown", "document.querySelector('#detail-name').innerText === 'ub'")
            frame = browser.ask("frame.at")
            browser.until("another second", f"frame.at !== '{frame}'")
            assert browser.ask("document.activeElement.dataset.up") == "ub", "a new frame leaves the focus where it is"
            browser.press("/", *"uc")
            browser.until("one is left", "document.querySelectorAll('.up').length === 1 && document.querySelectorAll('.fail').length === 0")
            browser.press("Escape")
            browser.until("all are back", "document.querySelectorAll('.up').length === 3")
            browser.ask("document.querySelector('.fail').focus()")
            browser.press("Enter")
            browser.until("the story is told", "document.querySelector('dialog').open && document.querySelector('dialog pre')?.innerText.includes('lictor says connect_refused')")
            shoot(browser, "story")
            browser.press("Escape")
            browser.until("it is closed", "!document.querySelector('dialog').open")
            assert browser.ask("document.activeElement.className") == "fail", "the focus is back"
            browser.press("p")
            browser.until("it stands still", "document.querySelector('#pulse').innerText.includes('paused')")
            browser.press("p", "?")
            browser.until("the keys are told", "document.querySelector('dialog').open")
            assert not browser.complaints, browser.complaints


def test_a_gateways_routes_are_seen_with_refusals_and_limits():
    """Rates, what lictor has answered itself, and how full a limit is; the filter finds them; a sidecar has no such part."""
    with kit.Web() as web, Browser() as browser:
        routes = [
            {"path": "/users/*", "to": "users"},
            {"path": "/few", "respond": {"body": "few"}, "limit": {"rate": "4/1h", "by": []}},
            {"path": "/who", "respond": {"body": "who"}, "auth": "required"},
        ]
        auth = {"jwt": {"secret": "a-secret-of-thirty-two-bytes-or-more"}, "mode": "none"}
        gateway = {"listen": "127.0.0.1:0", "auth": auth, "routes": routes}
        with kit.Lictor(service="edge", upstreams={"users": {"static": [web.address]}}, gateway=gateway) as lictor:
            at = lictor.address("gateway")
            for path in ["few"] * 6 + ["who", "none"]:
                kit.curl("-o", "/dev/null", f"http://{at}/{path}")
            opened(lictor, browser)
            row = "document.querySelector('[data-route=\"%s\"]')"
            browser.until("the routes are there", "document.querySelectorAll('#routes tbody tr').length === 4")
            with Traffic(at):
                browser.until("requests are seen", f"parseFloat({row % '/users/*'}.querySelector('.num').innerText) > 5")
                browser.until("their times too", f"{row % '/users/*'}.innerText.includes('ms')")
            few = browser.ask(f"{row % '/few'}.innerText")
            assert "rate limited" in few and "4 in 1 h" in few and "100 % taken" in few and "2 over it" in few, few
            assert "unauthenticated" in browser.ask(f"{row % '/who'}.innerText")
            assert "no route" in browser.text("#routes")
            shoot(browser, "routes")
            browser.press("/", *"few")
            browser.until("one is left", "document.querySelectorAll('#routes tbody tr').length === 1")
            browser.press("Escape")
            for width in (360, 768, 1280):
                browser.resize(width, 780)
                browser.until(f"{width} is wide enough", f"innerWidth === {width} && document.documentElement.scrollWidth <= {width}")
            browser.ask(f"""pause(), paused = false, take({{...frame, gateway: {{...frame.gateway,
                rows: [{{...frame.gateway.rows[0], route: {json.dumps(EVIL)}, to: {json.dumps(EVIL)}, reasons: [{{reason: {json.dumps(EVIL)}, total: 1, rate: 1}}]}}]}}}}), paused = true""")
            assert browser.text("#routes").count("<script>") == 3, browser.text("#routes")
            assert browser.ask("document.querySelectorAll('main img').length") == 0
            assert "owned" not in browser.ask("document.title")
            assert not browser.complaints, browser.complaints
        with kit.Lictor(service="orders", upstreams={"users": {"listen": 0, "static": [web.address]}}) as lictor:
            opened(lictor, browser)
            assert browser.ask("getComputedStyle(document.querySelector('#routes')).display") == "none"


def test_markup_from_outside_stays_text():
    """A path and an upstream's fields with markup in them are shown as they are, and run nowhere."""
    with kit.Web(Evil) as web, Browser() as browser:
        users = {"listen": 0, "static": [web.address], "retry": "off"}
        with kit.Lictor(service="orders", upstreams={"users": users}) as lictor:
            kit.curl("-o", "/dev/null", f"http://{lictor.address('users')}/{urllib.parse.quote(EVIL)}")
            opened(lictor, browser)
            browser.until("the failure is listed", "document.querySelectorAll('.fail').length === 1")
            browser.ask("document.querySelector('.fail').click()")
            browser.until("the story is told", "document.querySelector('dialog pre')?.innerText.includes('500')")
            # lictor lets no `<` through in a path (RFC 3986, section 2); the page must not rely on that.
            browser.ask(f"""pause(), paused = false, take({{...frame,
                failures: {{kept: 1, latest: [{{...frame.failures.latest[0], path: {json.dumps(EVIL)}, reason: {json.dumps(EVIL)}}}]}},
                upstreams: frame.upstreams.map((up) => ({{...up, service: {json.dumps(EVIL)}, endpoints: up.endpoints.map((it) => ({{...it, id: {json.dumps(EVIL)}}}))}}))}}), paused = true""")
            for part in ("#failures", "#detail"):
                assert "<script>" in browser.text(part), browser.text(part)
            browser.ask(f"open_dialog({json.dumps(EVIL)}, {json.dumps(EVIL)})")
            assert browser.text("dialog").count("<script>") == 2, browser.text("dialog")
            assert browser.ask("document.querySelectorAll('script').length") == 1
            assert browser.ask("document.querySelectorAll('main img, dialog img').length") == 0
            assert "owned" not in browser.ask("document.title")
            browser.ask("document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))")
            assert browser.ask("document.title") != "1", "even a script that got in does not run"


def test_dark_light_and_a_phone():
    """The system's colours, or the person's; 360 pixels without scrolling sideways."""
    with kit.Web() as web, kit.closed_port() as nobody, Browser(width=360, height=780) as browser:
        upstreams = {"a-service-with-a-rather-long-name": {"listen": 0, "static": [web.address, nobody]}, "bb": {"listen": 0, "static": [nobody]}}
        with kit.Lictor(service="orders", upstreams=upstreams) as lictor:
            kit.curl("-o", "/dev/null", f"http://{lictor.address('bb')}/a/very/long/path/{'x' * 300}")
            opened(lictor, browser)
            browser.until("the failure is listed", "document.querySelectorAll('.fail').length === 1")
            browser.until("the configuration is there", "document.querySelectorAll('#config tbody tr').length > 2")
            for width in (360, 768, 1280):
                browser.resize(width, 780)
                browser.until(f"{width} is wide enough", f"innerWidth === {width} && document.documentElement.scrollWidth <= {width}")
            colour = "getComputedStyle(document.body).backgroundColor"
            light = browser.ask(colour)
            browser.prefer(dark=True)
            browser.until("it is dark", f"{colour} !== '{light}'")
            browser.press("t")
            browser.until("light, as the person says", f"{colour} === '{light}'")
            browser.open(f"http://{lictor.address('admin')}/ui")
            browser.until("and still after a reload", f"document.readyState === 'complete' && {colour} === '{light}'")
            assert not browser.complaints, browser.complaints


def test_a_sidecar_that_ends_is_said_to_be_gone():
    """What is shown is then old, and says so."""
    with kit.Web() as web, Browser() as browser:
        with kit.Lictor(service="orders", upstreams={"users": {"listen": 0, "static": [web.address]}}) as lictor:
            opened(lictor, browser)
        browser.until("it is told", "document.querySelector('#lost').innerText.includes('No word from lictor')")
        assert browser.ask("getComputedStyle(document.querySelector('#lost')).display") == "block"
