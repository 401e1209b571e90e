#!/usr/bin/env python3
"""Drives the served page with Chromium: send, stream, trace, stop, compare, switch an expert off, keep, theme, phone.

usage: page_test.py URL SCREENSHOT_FOLDER    (playwright, and Debian's chromium)
"""
import json
import pathlib
import sys

from playwright.sync_api import expect, sync_playwright

QUESTION = "How many grams are 3.5 kilograms?"
ON_TOKEN = {"x": 5, "y": 8}  # the middle of its box may be the letter below it, which lets the pointer through


def idle(page):
    expect(page.locator("#stop")).to_be_disabled(timeout=120_000)


def send(page, text):
    page.fill("#input", text)
    page.press("#input", "Enter")
    idle(page)


def go_on(route):
    """A pool's experts may answer in one word; here SmolLM2's special tokens are forbidden, so that all answers are long."""
    biases = {str(token): -100 for token in range(17)}
    route.continue_(post_data=json.dumps({**json.loads(route.request.post_data), "logit_bias": biases}))


def check_fits(page):
    """The message box is in view and nothing lies over it: long answers scroll in their pane."""
    height = page.evaluate("innerHeight")
    box = page.locator("#composer").bounding_box()
    assert box["y"] + box["height"] <= height + 1, "the message box is below the window"
    for turns in page.locator(".turns:visible").all():
        seen = turns.bounding_box()
        assert seen["y"] + seen["height"] <= box["y"] + 1, "an answer lies over the message box"


def set_number(page, name, value):
    page.fill(f"#set-{name}", str(value))
    page.press(f"#set-{name}", "Tab")


def main() -> int:
    url, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1500, "height": 950}, color_scheme="light")
        context.route("**/v1/chat/completions", go_on)
        page = context.new_page()
        problems, foreign = [], []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: foreign.append(request.url) if not request.url.startswith((url, "data:")) else None)

        # First visit: the router is chosen, examples are shown.
        page.goto(url)
        expect(page.locator("#model-0")).to_have_value("skein/phatgoose")
        expect(page.locator(".empty button")).to_have_count(3)
        page.screenshot(path=folder / "first.png")

        # Send, stream, trace.
        page.click("#sampling > summary")
        set_number(page, "temperature", 0)
        set_number(page, "max_tokens", 40)
        send(page, QUESTION)
        answer = page.locator(".answer").first
        assert answer.inner_text().strip(), "no answer"
        tokens = page.locator(".answer .token")
        assert tokens.count() > 3, "no token is tinted"
        tokens.nth(2).hover(position=ON_TOKEN)
        expect(page.locator("#token-title")).to_contain_text("Choices of")
        assert page.locator("#token-table td").count() > 100
        assert page.locator("#maps canvas").count() == 7, "one map for each of a Llama's seven modules"
        first_text = answer.inner_text()
        page.screenshot(path=folder / "light.png")
        page.click("#by-entropy")
        page.locator("#maps canvas").first.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator("#cell")).to_contain_text("Layer")
        page.screenshot(path=folder / "entropy.png")
        page.click("#by-expert")

        # Texts are texts.
        page.evaluate("window.hit = 0")
        send(page, "<img src=x onerror=\"window.hit = 1\"><script>window.hit = 1</script>")
        assert page.evaluate("window.hit") == 0
        assert page.locator(".user img, .answer img").count() == 0

        # An expert off, and the question again.
        page.click("#new-chat")
        send(page, QUESTION)
        name = page.locator("#experts li .name").first.inner_text()
        page.locator("#experts li input").first.uncheck()
        page.click("#resend-without")
        idle(page)
        shares = {item.locator(".name").inner_text(): item.locator("label > span").nth(2).inner_text() for item in page.locator("#experts li").all()}
        assert shares[name] == "0 %", shares
        page.screenshot(path=folder / "without.png")
        page.locator("#experts li.off input").click()

        # Stop in the middle.
        set_number(page, "max_tokens", 400)
        page.fill("#input", "Tell a very long story about the sea.")
        page.click("#send")
        expect(page.locator("#stop")).to_be_enabled()
        page.wait_for_timeout(1500)
        page.keyboard.press("Escape")
        idle(page)
        expect(page.locator(".pane").first.locator(".turn").last.locator(".meta")).to_contain_text("stopped")
        set_number(page, "max_tokens", 40)
        check_fits(page)

        # Two models, one question.
        page.click("#new-chat")
        page.check("#compare")
        page.select_option("#model-1", index=0)
        send(page, QUESTION)
        panes = page.locator(".pane")
        assert panes.nth(0).locator(".answer").inner_text().strip()
        assert panes.nth(1).locator(".answer").inner_text().strip()
        page.select_option("#model-1", "skein/arrow") if page.locator("#model-1 option[value='skein/arrow']").count() else None
        page.click("#resend")
        idle(page)
        page.screenshot(path=folder / "compare.png")
        page.uncheck("#compare")

        # Kept over a reload; the theme too.
        page.click("#theme")
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        page.reload()
        expect(page.locator("html")).to_have_attribute("data-theme", "dark")
        assert page.locator("#chats .open").count() >= 3
        expect(page.locator(".user").first).to_have_text(QUESTION)
        page.click("#new-chat")
        send(page, QUESTION)
        page.screenshot(path=folder / "dark.png")
        assert page.locator(".answer").first.inner_text() == first_text, "greedy, and not the same answer"

        # Keys alone: "/" to write, arrows through the tokens.
        page.locator(".turns").first.focus()
        before = page.locator("#token-title").inner_text()
        page.keyboard.press("ArrowRight")
        assert page.locator("#token-title").inner_text() != before
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "input"

        # Deleting.
        count = page.locator("#chats .open").count()
        page.locator("#chats .delete").first.click()
        expect(page.locator("#chats .open")).to_have_count(count - 1 or 1)

        # A server that does not answer.
        context.set_offline(True)
        expect(page.locator("#banner")).to_be_visible(timeout=15_000)
        page.screenshot(path=folder / "offline.png")
        context.set_offline(False)
        expect(page.locator("#banner")).to_be_hidden(timeout=15_000)

        # A phone.
        phone = browser.new_context(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True, device_scale_factor=2)
        phone.route("**/v1/chat/completions", go_on)
        small = phone.new_page()
        small.on("pageerror", lambda error: problems.append(str(error)))
        small.goto(url)
        small.fill("#input", QUESTION)
        small.tap("#send")
        idle(small)
        small.screenshot(path=folder / "phone.png")
        check_fits(small)
        small.locator(".token").nth(2).tap(position=ON_TOKEN)
        small.tap("#open-panel")
        small.screenshot(path=folder / "phone-panel.png")
        assert small.evaluate("document.documentElement.scrollWidth") <= 360, "the page is wider than the phone"

        assert not foreign, f"requests left the origin: {foreign}"
        problems = [problem for problem in problems if "ERR_INTERNET_DISCONNECTED" not in problem and "Failed to fetch" not in problem]
        assert not problems, problems
        browser.close()
    print("the page works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
