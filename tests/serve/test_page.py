"""The page in a real Chromium: what it is made of, a conversation by a fake microphone, every part once, accessibility.

Needs Chromium (Debian's, or $CHROMIUM) and playwright; axe-playwright-python for the accessibility check.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

PAGE = Path(__file__).parents[2] / "python" / "mimo_audio" / "serve" / "page"
PARTS = ("talk", "speak", "listen", "convert", "codec")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
WAIT = 60_000  # ms


def test_every_file_is_served_and_says_what_it_is_for(server) -> None:
    for path in sorted(path for path in PAGE.rglob("*") if path.is_file()):
        answer = httpx.get(f"{server.url}/{path.relative_to(PAGE)}")
        assert answer.status_code == 200
        assert answer.content == path.read_bytes()
        if path.suffix in (".js", ".css"):
            assert answer.text.startswith(("//", "/*"))


def test_the_page_needs_no_other_host() -> None:
    for path in PAGE.rglob("*.*"):
        hosts = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", path.read_text())) - {"www.w3.org"}
        assert not hosts, f"{path.name} names {hosts}"


def test_every_element_that_a_script_uses_is_there() -> None:
    ids = set(re.findall(r'id="([\w-]+)"', (PAGE / "index.html").read_text()))
    for path in PAGE.rglob("*.js"):
        used = set(re.findall(r'\$\("([\w-]+)"\)', path.read_text()))
        assert used <= ids, f"{path.name} uses {used - ids}"


def test_the_playground_s_endpoints(server, sentence: bytes) -> None:
    model = httpx.get(f"{server.url}/v1/playground/model").json()
    assert model["state"] == "ready"
    assert model["small"]
    assert "million parameters" in model["about"]
    assert httpx.get(f"{server.url}/v1/playground/example").content[:4] == b"RIFF"
    short = sentence[: 44 + 48000]  # a second; the header says more
    said = httpx.post(f"{server.url}/v1/playground/codec", files={"file": sentence}, timeout=60).json()
    assert said["bits_per_second"] > 0
    assert said["before"]["height"] == said["after"]["height"] > 10
    assert abs(said["before"]["width"] - said["after"]["width"]) <= 1
    fewer = httpx.post(f"{server.url}/v1/playground/codec", files={"file": sentence}, data={"codebooks": 1}, timeout=60)
    assert fewer.json()["bits_per_second"] < said["bits_per_second"]
    assert fewer.json()["mel_distance"] > said["mel_distance"]
    for path, files, data, message in (
        ("codec", {"file": b"no sound"}, {}, "file"),
        ("codec", {"file": sentence}, {"codebooks": 99}, "codebooks: expected at most"),
        ("understand", {"file": short}, {"question": " "}, "question: expected 1 to"),
        ("understand", {}, {"question": "What?"}, "file"),
        ("convert", {"query": short, "before": short}, {"text": ["a", "b"]}, "after"),
    ):
        refused = httpx.post(f"{server.url}/v1/playground/{path}", files=files, data=data, timeout=60)
        assert refused.status_code in (400, 413, 422), path
        assert message in refused.json()["error"]["message"], path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, whose microphone hears a sentence, silence, and so on."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium, or set CHROMIUM")
    wave, rate = soundfile.read(PAGE.parents[1] / "assets" / "sentence.wav", dtype="float32")
    heard = tmp_path_factory.mktemp("microphone") / "sentence.wav"
    silence = np.zeros(rate, np.float32)
    soundfile.write(heard, np.concatenate([silence, wave[: 2 * rate], *[silence] * 3]), rate, subtype="PCM_16")
    arguments = [
        "--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={heard}", "--autoplay-policy=no-user-gesture-required",
    ]  # fmt: skip
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, server) -> Iterator[Any]:
    """The page, ready; fails if a script of it failed."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, permissions=["microphone"])
    page, errors = context.new_page(), []
    page.set_default_timeout(WAIT)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.url)
    page.wait_for_selector("#status.ready")
    yield page
    context.close()
    assert not errors


def test_a_person_talks_hears_an_answer_and_interrupts_it(page: Any) -> None:
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT)
    page.click("#talk-start")
    expect(page.locator("#talk-log li.user")).not_to_have_count(0)  # the microphone's sentence was heard
    expect(page.locator("#talk-log li.assistant")).not_to_have_count(0)
    expect(page.locator("#talk-first")).to_contain_text("ms")  # and the answer's sound
    # The sentence comes again while the answer is played or made, or the button is pressed: either interrupts.
    if page.locator("#talk-stop").is_enabled():
        page.click("#talk-stop")
    expect(page.locator("#talk-log li.assistant small", has_text="interrupted after").first).to_be_visible()
    expect(page.locator("#talk-log li.assistant s").first).to_be_attached()  # what was not heard is struck out
    page.click("#talk-start")
    expect(page.locator("#talk-state")).to_have_text("Ready when you are")


def test_every_part_works_once_and_is_accessible(page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT)
    page.press("#tab-talk", "ArrowRight")  # tabs by keyboard
    expect(page.locator("#speak")).to_be_visible()
    page.fill("#speak-text", "Hello")
    page.click("#speak-go")
    page.wait_for_selector("#speak-result:not([hidden]), #notice:not([hidden])")  # a random model may say nothing
    for part, button, result in (
        ("listen", "#listen-transcribe", "#listen-result"),
        ("codec", "#codec-go", "#codec-result"),
    ):
        page.click(f"#tab-{part}")
        page.click(f"#{part}-sound >> text=Example")
        expect(page.locator(f"#{part}-sound canvas")).to_be_visible()
        page.click(button)
        expect(page.locator(result)).to_be_visible()
    expect(page.locator("canvas.mel")).to_have_count(2)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for part in PARTS:
            page.click(f"#tab-{part}")
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, f"{part} is too wide"
            found = axe.Axe().run(page).response["violations"]
            assert not found, [(violation["id"], [n["html"] for n in violation["nodes"]]) for violation in found]
