"""The web pages in headless Chromium, on a server with a fake card.

    FLEXLLM_BUILD=build/release pytest server/tests/test_web.py
"""
import json
import pathlib
import urllib.request

import pytest

from browser import chromium
from server.tests.conftest import fake_server

MARKDOWN = json.loads((pathlib.Path(__file__).parent / "data" / "markdown.json").read_text())
KEY = "a key that only this test knows"


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def talker():
    with fake_server() as running:
        yield running


@pytest.fixture(scope="module")
def endless():
    with fake_server("--endless") as running:
        yield running


@pytest.fixture(scope="module")
def locked():
    with fake_server(key=KEY) as running:
        yield running


class Page:
    def __init__(self, browser, url):
        self.browser, self.url = browser, url
        self.expected = []  # parts of what the console may say
        self.requests = []  # that the test has looked at

    def open(self, path="/"):
        self.browser.open(self.url + path)
        if path == "/":
            self.browser.until("document.querySelector('#strip').innerText !== ''")

    def set(self, **settings):
        self.browser.click("#open-settings")
        for name, value in settings.items():
            self.browser.type(f"#settings [name={name}]", str(value))
        self.browser.press("Escape")

    def ask(self, text):
        self.browser.type("#prompt", text)
        self.browser.press("Enter")

    def wait(self):
        """Until the answer is there; its text."""
        self.browser.until("document.querySelector('#send').innerText === 'Send' &&"
                           " document.querySelector('.assistant:last-child .tools')")
        return self.answer()

    def answer(self):
        return self.browser.run("return document.querySelector('.assistant:last-child .body')"
                                "?.textContent ?? ''")


@pytest.fixture
def visit(browser):
    """Opens the page of a server as somebody who was never there; at the end of the test checks
    that the browser asked nobody else for anything and had nothing to complain about."""
    pages = []

    def open_page(url, path="/"):
        browser.devtools("Emulation.clearDeviceMetricsOverride")
        browser.devtools("Emulation.setEmulatedMedia", features=[])
        browser.open(url + "/version")
        browser.run("localStorage.clear(); sessionStorage.clear()")
        browser.requests(), browser.log("browser")
        page = Page(browser, url)
        pages.append(page)
        page.open(path)
        return page

    yield open_page
    for page in pages:
        asked = {request["url"] for request in browser.requests() + page.requests}
        asked = {url for url in asked if not url.startswith("data:")}
        assert asked and all(url.startswith(page.url + "/") for url in asked), asked
        said = [entry["message"] for entry in browser.log("browser")]
        assert not [line for line in said if not any(part in line for part in page.expected)], said


def api(url, **body):
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def state(url):
    with urllib.request.urlopen(f"{url}/state") as reply:
        return json.load(reply)


def shown(text):
    """Words of a text; Markdown takes spaces and line feeds for the same."""
    return text.split()


def test_settings_and_system_prompt_reach_the_server(visit, talker):
    page = visit(talker)
    page.set(system="You are brief.", temperature=1.5, top_p=0.9, top_k=40, min_p=0.01,
             max_tokens=17, seed=7, stop="zzz\nyyy")
    page.ask("Tell me about cards.")
    text = page.wait()
    page.requests = page.browser.requests()
    messages = [{"role": "system", "content": "You are brief."},
                {"role": "user", "content": "Tell me about cards."}]
    sampling = {"temperature": 1.5, "top_p": 0.9, "top_k": 40, "min_p": 0.01, "max_tokens": 17,
                "seed": 7, "stop": ["zzz", "yyy"]}
    sent = [json.loads(request["postData"]) for request in page.requests if "postData" in request]
    assert sent == [{"messages": messages, **sampling, "stream": True,
                     "stream_options": {"include_usage": True}}]
    answer = api(talker, messages=messages, **sampling)
    assert shown(text) == shown(answer["choices"][0]["message"]["content"])
    figures = page.browser.text(".figures")
    assert f"{answer['usage']['completion_tokens']} tokens" in figures and "tokens/s" in figures
    assert "first after" in figures
    # They hold for the next visit, the chat until the tab is closed.
    page.open()
    assert shown(page.answer()) == shown(text)
    page.browser.click("#clear")
    page.ask("Tell me about cards.")
    assert shown(page.wait()) == shown(text)


def test_chat_goes_on_and_answers_can_be_made_again(visit, talker):
    page = visit(talker)
    page.set(temperature=0, max_tokens=12)
    page.ask("First question")
    first = page.wait()
    page.ask("Second question")
    second = page.wait()
    messages = [{"role": "user", "content": "First question"},
                {"role": "assistant", "content": api(
                    talker, messages=[{"role": "user", "content": "First question"}],
                    temperature=0, max_tokens=12)["choices"][0]["message"]["content"]},
                {"role": "user", "content": "Second question"}]
    answer = api(talker, messages=messages, temperature=0, max_tokens=12)
    assert shown(second) == shown(answer["choices"][0]["message"]["content"])
    again = page.browser.run("return [...document.querySelectorAll('.tools button')]"
                             ".filter(b => b.textContent === 'Again').length")
    assert again == 1  # of the last answer only
    page.browser.click(".assistant:last-child .tools button:nth-child(2)")
    assert shown(page.wait()) == shown(second)
    # Editing the first question replaces all that came after it.
    page.browser.click(".user:first-child .tools button:nth-child(2)")
    assert page.browser.run("return document.querySelector('#prompt').value") == "First question"
    page.browser.press("Escape")
    assert page.browser.run("return document.querySelector('#prompt').value") == ""
    page.browser.click(".user:first-child .tools button:nth-child(2)")
    page.browser.type("#prompt", " again")
    page.browser.press("Enter")
    assert shown(page.wait()) != shown(first)
    assert page.browser.run("return document.querySelectorAll('article').length") == 2
    page.browser.click("#clear")
    assert page.browser.run("return document.querySelectorAll('article').length") == 0


@pytest.mark.parametrize("how", ["key", "button", "new"])
def test_answer_streams_and_stopping_frees_its_slot(visit, endless, how):
    page = visit(endless)
    page.ask("Go on for ever.")
    page.browser.until("document.querySelector('.assistant .body').textContent.length > 2")
    early = page.answer()
    page.browser.until("document.querySelector('.assistant .body').textContent.length > arguments[0]",
                       len(early))
    assert page.browser.text("#send") == "Stop"
    assert state(endless)["requests"]["running"] == 1
    page.browser.until("document.querySelector('#strip').innerText.includes('1 running')")
    if how == "key":
        page.browser.press("Escape")
    else:
        page.browser.click({"button": "#send", "new": "#clear"}[how])
    page.browser.until("document.querySelector('#send').innerText === 'Send'")
    page.browser.until("document.querySelector('#strip').innerText.includes('0 running')")
    assert state(endless)["requests"]["running"] == 0
    if how != "new":
        assert "stopped" in page.browser.text(".figures")
        assert len(page.answer()) > 2


def test_wrong_key_is_told_and_the_right_one_is_kept_in_the_tab_only(visit, locked):
    page = visit(locked)
    page.expected = ["401"]
    browser = page.browser
    browser.until("!document.querySelector('#key-form').hidden")
    assert browser.text("#key-error") == ""
    browser.type("#key", "wrong")
    browser.press("Enter")
    browser.until("document.querySelector('#key-error').innerText !== ''")
    assert browser.text("#key-error") == (
        "A valid API key is required: 'Authorization: Bearer KEY'.")
    browser.type("#key", KEY)
    browser.press("Enter")
    browser.until("document.querySelector('#key-form').hidden")
    page.set(max_tokens=4)
    page.ask("Hello")
    assert page.wait()
    kept = browser.run("return [JSON.stringify(localStorage), document.cookie, location.href,"
                       " document.documentElement.outerHTML].join()")
    assert KEY not in kept
    browser.click("#open-settings")
    browser.click("#forget-key")
    browser.until("!document.querySelector('#key-form').hidden")
    assert KEY not in browser.run("return JSON.stringify(sessionStorage)")


def test_errors_are_the_servers(visit, talker):
    page = visit(talker)
    page.expected = ["400"]
    page.set(temperature=3)
    page.ask("Hello")
    page.browser.until("document.querySelector('article .problem')")
    problem = page.browser.text("article .problem")
    with pytest.raises(urllib.error.HTTPError) as caught:
        api(talker, messages=[{"role": "user", "content": "Hello"}], temperature=3)
    error = json.load(caught.value)["error"]
    assert error["message"] in problem and "400" in problem and error["type"] in problem
    page.browser.click("#open-settings")
    page.browser.click("#reset-settings")
    page.browser.press("Escape")
    page.browser.click(".assistant:last-child .tools button")
    assert page.wait()
    assert not page.browser.text("article .problem")


def test_keyboard_alone_does_everything(visit, talker):
    page = visit(talker)
    browser = page.browser
    focused = "return document.activeElement.id || document.activeElement.textContent"

    def tab_to(name, backwards=False):
        for _ in range(30):
            if browser.run(focused) == name:
                return
            browser.press("Shift+Tab" if backwards else "Tab")
        raise AssertionError(f"Tab never comes to {name}")

    assert browser.run(focused) == "prompt"
    tab_to("open-settings", backwards=True)
    browser.press("Enter")
    assert browser.run("return document.querySelector('#settings').open")
    for _ in range(20):  # the focus stays in the sheet
        browser.press("Tab")
        assert browser.run("return document.activeElement === document.body ||"
                           " document.querySelector('#settings').contains(document.activeElement)")
    browser.press("Escape")
    assert browser.run(focused) == "open-settings"
    tab_to("prompt")
    browser.press("a", "Shift+Enter", "b")
    assert browser.run("return document.querySelector('#prompt').value") == "a\nb"
    browser.press("Enter")
    page.wait()
    assert browser.text(".user .body") == "a\nb"
    tab_to("Again", backwards=True)
    browser.press("Enter")
    page.wait()
    tab_to("Edit", backwards=True)
    browser.press("Enter")
    assert browser.run(focused) == "prompt"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_every_control_has_a_name(visit, talker, path):
    page = visit(talker, path)
    if path == "/":
        page.ask("Hello")
        page.wait()
        page.browser.click("#open-settings")
    else:
        page.browser.until("document.querySelectorAll('section').length > 5")
    nodes = page.browser.devtools("Accessibility.getFullAXTree")["nodes"]
    controls = [node for node in nodes if node.get("role", {}).get("value") in
                ("button", "link", "textbox", "spinbutton", "dialog", "combobox")]
    assert len(controls) > 8
    assert all(node["name"]["value"] for node in controls)


@pytest.mark.parametrize("width", [360, 320])
def test_phone_does_not_scroll_sideways(visit, talker, width):
    page = visit(talker)
    browser = page.browser
    long = "x" * 300 + "\n\n```\n" + "y" * 300 + "\n```\n\n| a | b |\n|---|---|\n| " + "z" * 200 + " | c |"
    chat = [{"role": "user", "content": "w" * 300},
            {"role": "assistant", "content": long, "error": {"message": "e" * 300, "detail": "d"}}]
    browser.run("sessionStorage.setItem('flexllm-chat', arguments[0])", json.dumps(chat))
    browser.devtools("Emulation.setDeviceMetricsOverride", width=width, height=700,
                     deviceScaleFactor=1, mobile=True)

    def assert_fits():
        wide = browser.run("return [document.documentElement, document.querySelector('main')]"
                           ".map(node => node.scrollWidth)")
        assert max(wide) <= width, wide

    page.open()
    assert browser.run("return document.querySelectorAll('article').length") == 2
    assert_fits()
    browser.click("#open-settings")
    assert browser.run("return document.querySelector('#settings').scrollWidth") <= width
    page.open("/docs")
    browser.until("document.querySelectorAll('section').length > 5")
    assert_fits()


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_dark_and_light(visit, talker, path):
    page = visit(talker, path)
    browser = page.browser

    def is_dark():
        return browser.run("""
            const light = (of) => of.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0);
            const style = getComputedStyle(document.body);
            return light(style.backgroundColor) < light(style.color)""")

    for system in ("dark", "light"):
        browser.devtools("Emulation.setEmulatedMedia",
                         features=[{"name": "prefers-color-scheme", "value": system}])
        browser.until("document.documentElement.dataset.theme === arguments[0]", system)
        assert is_dark() == (system == "dark")
        browser.click("button.theme")
        assert is_dark() == (system != "dark")
        page.open(path)
        assert is_dark() == (system != "dark")
        browser.click("button.theme")  # back to the system's
        assert is_dark() == (system == "dark")


RENDER = """
    return import("/web/markdown.js").then(({render}) => {
      const whole = document.createElement("div"), grown = document.createElement("div");
      render(whole, arguments[0]);
      for (let end = 0; end <= arguments[0].length; ++end) render(grown, arguments[0].slice(0, end));
      return [whole.innerHTML, grown.innerHTML];
    })"""


@pytest.mark.parametrize("case", MARKDOWN, ids=lambda case: case["name"])
def test_markdown(visit, talker, case):
    page = visit(talker)
    whole, grown = page.browser.run(RENDER, case["text"])
    plain = whole.replace(' target="_blank" rel="noopener noreferrer"', "")
    assert plain == case["html"]
    assert grown == whole  # piece by piece it comes to the same


def test_what_a_model_writes_is_text(visit, talker):
    page = visit(talker)
    hostile = ("<script>document.title = 'owned'</script><img src=x onerror=alert(1)> "
               "[a](javascript:alert(1)) [b](data:text/html,x) ![c](http://127.0.0.1:9/x.png)\n\n"
               "```html\n<iframe src=//example.com></iframe>\n```\n\n| <b>h</b> |x|\n|-|-|\n|<i>c</i>|y|")
    chat = [{"role": "user", "content": hostile}, {"role": "assistant", "content": hostile}]
    page.browser.run("sessionStorage.setItem('flexllm-chat', arguments[0])", json.dumps(chat))
    page.open()
    body = "document.querySelector('#messages')"
    found = page.browser.run(f"return {body}.querySelectorAll('script,img,iframe,b,i,svg').length")
    assert found == 0
    links = page.browser.run(f"return [...{body}.querySelectorAll('a')].map(a => a.href)")
    assert links == ["http://127.0.0.1:9/x.png"]  # followed only by a click
    assert "<script>" in page.answer()


def test_pages_cannot_run_what_is_injected(visit, talker):
    page = visit(talker)
    page.expected = ["Content Security Policy", "Trusted"]
    assert page.browser.run("""
        window.owned = false;
        const script = document.createElement("script");
        try { script.text = "owned = true"; document.body.append(script); } catch {}
        try { document.body.setAttribute("onclick", "owned = true"); } catch {}
        document.body.click();
        let refused = false;
        try { document.body.innerHTML = "<p>"; } catch { refused = true; }
        return refused && !window.owned""")


def test_docs_tell_every_endpoint_and_try_it(visit, talker):
    page = visit(talker, "/docs")
    browser = page.browser
    with urllib.request.urlopen(f"{talker}/openapi.json") as reply:
        paths = json.load(reply)["paths"]
    browser.until("document.querySelectorAll('section h2').length")
    titles = browser.run("return [...document.querySelectorAll('h2')].map(h => h.innerText)")
    assert [title[title.index("/"):] for title in titles] == list(paths)
    chat = browser.text("#chat")
    for part in ("messages.role", "temperature", "0 to 2", "0 is greedy.", "Required.", "usage",
                 f"curl {talker}/v1/chat/completions"):
        assert part in chat, part
    for name in ("chat", "tokenize", "models", "model", "state", "health", "metrics"):
        browser.click(f"#{name} summary")
        browser.click(f"#{name} form button.primary")
        browser.until(f"document.querySelector('#{name} output pre')")
        assert "200" in browser.text(f"#{name} output"), browser.text(f"#{name} output")


def test_docs_of_a_locked_server_ask_for_its_key(visit, locked):
    page = visit(locked, "/docs")
    page.expected = ["401"]
    browser = page.browser
    browser.until("!document.querySelector('#key-form').hidden")
    browser.click("#models summary")
    browser.click("#models form button.primary")
    browser.until("document.querySelector('#models output').innerText.includes('401')")
    browser.type("#key", KEY)
    browser.click("#models form button.primary")
    browser.until("document.querySelector('#models output').innerText.includes('200')")
    assert "Needs a key." in browser.text("#chat") and "Needs a key." not in browser.text("#health")
