"""The pages in a real browser: for keyboards and screen readers, in light and dark, and nothing leaves the gateway."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.host.engine.state import BYTES_DIFFER, STOPPED, EngineState
from appliance.serve.gateway.messages import EngineEvent
from tests.appliance.serve.gateway.site import Site, eventually, opened
from tests.appliance.serve.observation.browser import Browser, browser
from tests.oracles.__main__ import AXE
from tests.oracles.ready import oracle

pytestmark = pytest.mark.ci
HOSTILE = "<img src=http://192.0.2.1/x onerror=alert(1)><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with (
        tempfile.TemporaryDirectory(prefix="gateway-") as folder,
        opened(Path(folder), {"toy": 2, "narrow": 1, "stopped": 1, "embeds": 1}) as made,
    ):
        made.process.send(EngineEvent("stopped", EngineState(STOPPED, BYTES_DIFFER)))
        assert eventually(lambda: b'"stopped"' in made.call("GET", "/readyz", key=None)[2])
        yield made


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture
def page(chromium: Browser, site: Site) -> Iterator[Browser]:
    """The first page, opened; after the test nothing but the gateway was asked, and the console is empty."""
    chromium.requests.clear()
    chromium.said.clear()
    chromium.set_window()
    chromium.open(origin(site))
    chromium.wait_for("document.querySelectorAll('#models tr').length === 4")
    yield chromium
    assert [url for url in chromium.requests if not url.startswith((origin(site), "data:,"))] == []
    # A refusal is shown by the page; that its status is from 400 on, the browser itself notes.
    assert [text for text in chromium.said if "Failed to load resource" not in text] == []


def origin(site: Site) -> str:
    return f"http://127.0.0.1:{site.port}/"


def focus(page: Browser) -> str:
    return page.run("document.activeElement.id || document.activeElement.textContent.trim()")


def give_key(page: Browser, key: str) -> None:
    page.run("document.getElementById('key').focus()")
    page.type(key)


def ask(page: Browser, question: str) -> None:
    page.run("document.getElementById('question').focus()")
    page.type(question)
    page.press("Enter", ctrl=True)


def talk(page: Browser) -> str:
    return page.run("document.getElementById('talk').textContent")


def violations(page: Browser) -> list[str]:
    """What axe-core finds on the page as it is shown now: every rule, best practices too."""
    source = (oracle(AXE) / "node_modules/axe-core/axe.min.js").read_text("utf-8")
    page.run(source + "; null")
    found = page.run("axe.run().then((result) => JSON.stringify(result))")
    result = json.loads(found)
    assert len(result["passes"]) > 10
    # What axe cannot decide by itself is a person's work, but for colors: here every one in sight is decided.
    unsure = [one for one in result["incomplete"] if one["id"] == "color-contrast"]
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in result["violations"] + unsure]


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", ["", "handbook"])
def test_no_barrier_on_a_page(page: Browser, site: Site, path: str, is_dark: bool) -> None:
    page.set_window(is_dark=is_dark)
    if path:
        page.open(origin(site) + path)
    else:
        give_key(page, site.keys["all"])
        ask(page, "abc")
        page.wait_for("document.querySelector('#talk details')")
        ask(page, "fail")
        page.wait_for("document.querySelector('#talk .bad')")
        page.run("document.querySelector('#talk summary').click()")
    assert violations(page) == []
    assert page.run("getComputedStyle(document.documentElement).backgroundColor") == (
        "rgb(21, 23, 26)" if is_dark else "rgb(255, 255, 255)"
    )


@pytest.mark.parametrize("path", ["", "handbook"])
def test_page_fits_a_window_of_320_pixels_which_is_400_percent_zoom(page: Browser, site: Site, path: str) -> None:
    page.set_window(320, 256)
    page.open(origin(site) + path)
    assert page.run("document.documentElement.scrollWidth") == 320
    assert violations(page) == []


def test_state_of_every_model_is_in_words(page: Browser) -> None:
    rows = page.run(
        "[...document.querySelectorAll('#models tr')].map((row) => [...row.cells].map((c) => c.textContent))"
    )
    served = ["serving", "sealed in memory", "none at all"]
    assert rows == [
        ["toy", *served],
        ["narrow", *served],
        ["stopped", f"stopped: {BYTES_DIFFER}", "–", "–"],
        ["embeds", *served],
    ]
    assert page.run("document.getElementById('state').textContent") == "toy 1.0.0 is ready; stopped: 1 of 4"
    assert page.run("[...document.getElementById('model').options].map((one) => one.value)") == [
        "toy",
        "narrow",
        "stopped",
    ]


def test_everything_is_reached_by_keyboard_in_the_order_of_the_page(page: Browser) -> None:
    reached = []
    for _ in range(13):
        page.press("Tab")
        reached.append(focus(page))
        assert page.run("getComputedStyle(document.activeElement).outlineStyle") == "solid", reached
    links = ["Skip to the content", "Models", "Chat", "Your usage", "Handbook", "Dashboard for Grafana"]
    assert reached[:6] == links
    assert reached[6].startswith("What this appliance serves")
    assert reached[7:13] == ["key", "model", "question", "send", "clear", "show-usage"]


def test_chat_by_keyboard_alone(page: Browser, site: Site) -> None:
    for _ in range(8):
        page.press("Tab")
    page.type(site.keys["all"])
    page.press("Tab")
    page.press("Tab")
    page.type("abc")
    page.press("Tab")
    page.press("Enter")
    page.wait_for("document.querySelector('#talk details')")
    assert talk(page).startswith("You asked: abccba")
    assert focus(page) == "question"
    page.type("def")
    page.press("Enter", ctrl=True)
    page.wait_for("document.querySelectorAll('#talk details').length === 2")
    assert site.asked("toy")[-1] == "def"
    assert page.run("document.getElementById('talk').getAttribute('aria-busy')") == "false"
    assert (
        page.run("document.querySelector('#talk dd').textContent")
        == site.call("GET", "/livez", key=None)[1]["appliance-release"]
    )


def test_answer_is_stopped_and_its_slot_comes_free(page: Browser, site: Site) -> None:
    give_key(page, site.keys["all"])
    ask(page, "slow 400")
    page.wait_for("document.getElementById('talk').textContent.includes('3 4 5')")
    assert focus(page) == "stop"
    assert page.run("document.getElementById('talk').getAttribute('aria-busy')") == "true"
    page.press(" ")
    page.wait_for("document.getElementById('talk').textContent.includes('Stopped.')")
    assert focus(page) == "question"
    assert eventually(lambda: "slow 400" in site.left())
    assert eventually(lambda: site.gauge("slots_taken", "toy") == 0)
    page.run("document.getElementById('clear').click()")
    assert talk(page) == ""


@pytest.mark.parametrize(
    ("key", "model", "question", "shown"),
    [
        ("late", "toy", "x", "A valid key is needed"),
        ("narrow", "toy", "x", "may not use the model"),
        ("all", "stopped", "x", "was stopped"),
        ("all", "toy", "fail", "too long"),
        ("all", "toy", "fail late", "Compute error."),
    ],
)
def test_refusal_is_shown_in_its_own_words(
    page: Browser, site: Site, key: str, model: str, question: str, shown: str
) -> None:
    give_key(page, site.keys[key])
    page.run(f"document.getElementById('model').value = '{model}'")
    ask(page, question)
    page.wait_for("document.querySelector('#talk .bad')")
    assert shown in talk(page)


def test_usage_of_the_key_is_shown_and_a_key_that_is_wrong_is_named_so(page: Browser, site: Site) -> None:
    show = "document.getElementById('show-usage').click()"
    page.run(show)
    page.wait_for("document.getElementById('usage-state').textContent.includes('Type your key')")
    assert focus(page) == "key"
    give_key(page, site.keys["all"])
    ask(page, "abc")
    page.wait_for("document.querySelector('#talk details')")
    page.run(show)
    page.wait_for("!document.getElementById('usage-table').hidden")
    own = json.loads(site.call("GET", "/v1/usage")[2])
    counts = [own["day"], *(f"{own[name]:,}" for name in ("requests", "tokens_in", "tokens_out"))]
    assert own["requests"] > 0
    assert page.run("[...document.querySelector('#usage tr').cells].map((cell) => cell.textContent)") == counts
    assert page.run("document.getElementById('usage-state').textContent") == "No limit of tokens for a day."
    assert violations(page) == []
    page.run("document.getElementById('key').value = 'ak-wrong'")
    page.run(show)
    page.wait_for("document.getElementById('usage-state').textContent.includes('A valid key is needed')")
    assert page.run("document.getElementById('usage-table').hidden")


def test_markup_in_an_answer_is_text(page: Browser, site: Site) -> None:
    give_key(page, site.keys["all"])
    ask(page, HOSTILE[::-1])
    page.wait_for("document.querySelector('#talk details')")
    assert HOSTILE in talk(page)
    assert page.run("document.querySelectorAll('#talk img, #talk script').length") == 0
    assert page.run("document.title") == "Appliance"


def test_key_is_stored_nowhere(page: Browser, site: Site) -> None:
    give_key(page, site.keys["all"])
    ask(page, "abc")
    page.wait_for("document.querySelector('#talk details')")
    stored = "JSON.stringify([localStorage.length, sessionStorage.length, document.cookie, location.href])"
    assert json.loads(page.run(stored)) == [0, 0, "", origin(site)]
    page.open(origin(site))
    assert page.run("document.getElementById('key').value") == ""


def test_policy_keeps_what_is_put_into_the_page_from_running_and_loading(page: Browser, site: Site) -> None:
    page.run("window.ran = 0; document.body.insertAdjacentHTML('beforeend', `<img src=x onerror='ran = 1'>`)")
    page.run("{ const s = document.createElement('script'); s.textContent = 'ran = 2'; document.body.append(s); } null")
    page.run("fetch('http://192.0.2.1/').catch(() => null)")
    assert page.run("new Promise((done) => setTimeout(() => done(ran), 200))") == 0
    assert [url for url in page.requests if "192.0.2.1" in url] == []
    assert len([text for text in page.said if "Content Security Policy" in text]) >= 3
    page.said.clear()


def test_pictures_for_a_person_to_look_at(page: Browser, site: Site, tmp_path: Path) -> None:
    give_key(page, site.keys["all"])
    ask(page, "the colours of a rainbow")
    page.wait_for("document.querySelector('#talk details')")
    for is_dark in (False, True):
        page.set_window(is_dark=is_dark)
        page.screenshot(tmp_path / f"page-{'dark' if is_dark else 'light'}.png")
    assert all(path.stat().st_size > 10_000 for path in tmp_path.glob("*.png"))
