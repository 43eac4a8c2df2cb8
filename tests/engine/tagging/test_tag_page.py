"""The page of tags: what its file holds, and what it does in a browser."""
from __future__ import annotations

import io
import json
import re
import shutil
from base64 import b64decode
from pathlib import Path
from typing import Any, Iterator, List

import numpy as np
import pytest
import torch
from PIL import Image

from engine.evaluation.predictor import Tags
from engine.tagging.photo_loader import make_thumbnail
from engine.tagging.tag_page import LARGEST_MAP, html_page, map_bytes
from engine.tagging.tagged_photo import TagRun

CLASSES = ("dog", "red car", "</script><b>odd", "snow", "cat", "tree", "boat")
COUNT = 70


def scores_of(number: int) -> List[float]:
    """Photos 0 to 39 have dog, 30 to 69 red car, every tenth of the rest nothing but low scores."""
    dog, car = (0.9 - number / 100 if number < 40 else 0.1), (number / 100 + 0.25 if number >= 30 else 0.05)
    return [dog, car, 0.2, 0.15, 0.12, 0.06, 0.03] if number != 69 else [0.1, 0.2, 0.0, 0.0, 0.0, 0.0, 0.3]


def write_page(folder: Path, link_thumbnails: bool = False) -> Path:
    run = TagRun("a method", CLASSES, len(CLASSES), threshold=0.5)
    run.unreadable.append((str(folder / "broken.jpg"), "broken.jpg: <damaged>"))
    page = html_page(folder / "my tags.html", run, link_thumbnails)
    entries = []
    for number in range(COUNT):
        maps = torch.zeros(len(CLASSES), 4, 5)
        maps[0, 3, 1] = 1
        image = Image.new("RGB", (300, 200 + number), (number, 80, 160))
        entries.append(page.entry(run.tagged(str(folder / "in & out" / f"{number} <i>.jpg"),
                                             Tags(torch.tensor(scores_of(number)), maps), make_thumbnail(image))))
    page.write(entries)
    return folder / "my tags.html"


# ---- the file ------------------------------------------------------------------------------------------------------

def test_page_holds_every_photo_and_asks_for_nothing_else(tmp_path):
    text = write_page(tmp_path).read_text(encoding="utf-8")
    photos = re.findall(r'<script type="application/json" class="photo" data-thumbnail="([^"]*)">(.*)</script>', text)
    assert len(photos) == COUNT and "http" not in text and "url(" not in text
    thumbnail, record = photos[35][0], json.loads(photos[35][1])
    kind, data = thumbnail.split(",")
    assert kind == "data:image/jpeg;base64"
    assert list(Image.open(io.BytesIO(b64decode(data))).size) == record["size"] == [256, round(256 * 235 / 300)]
    assert record["address"] == "in%20%26%20out/35%20%3Ci%3E.jpg" and record["grid"] == [4, 5]
    shown = [(score["class"], score["score"], score["tag"]) for score in record["scores"]]
    assert shown == [(1, 0.6, True), (0, 0.55, True), (2, 0.2, False), (3, 0.15, False), (4, 0.12, False)]
    similarity = np.frombuffer(b64decode(record["scores"][1]["map"]), dtype=np.uint8).reshape(4, 5)
    assert similarity[3, 1] == 255 and similarity.sum() == 255


def test_maps_are_scaled_and_kept_small():
    maps = torch.stack([torch.linspace(-3, 5, 64 * 10).view(64, 10), torch.ones(64, 10)])
    small = map_bytes(maps)
    assert small.shape == (2, LARGEST_MAP, 10) and small.dtype == torch.uint8
    assert small[0, 0, 0] == 0 and small[0, -1, -1] == 255 and small[1].max() == 0


def test_thumbnails_may_lie_beside_the_page(tmp_path):
    text = write_page(tmp_path, link_thumbnails=True).read_text(encoding="utf-8")
    linked = re.findall(r'data-thumbnail="([^"]*)"', text)
    files = {f"my%20tags_thumbnails/{path.name}" for path in (tmp_path / "my tags_thumbnails").iterdir()}
    assert len(linked) == COUNT and set(linked) == files and "base64," not in text


# ---- in a browser --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    """A headless Chromium, without the network."""
    selenium = pytest.importorskip("selenium", reason="selenium is not installed (tests/requirements.txt)")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no Chromium with its driver (Debian: apt install chromium chromium-driver)")
    from selenium.webdriver.chrome.service import Service
    options = selenium.webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                 "disable-background-networking", "disable-component-update",
                 f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = selenium.webdriver.Chrome(options=options, service=Service(driver))
    yield started
    started.quit()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    return write_page(tmp_path_factory.mktemp("page"))


@pytest.fixture
def page(browser, page_file) -> Any:
    browser.get(page_file.as_uri())
    yield browser
    assert browser.get_log("browser") == [], "nothing is wrong, and nothing is missing"


def find(page: Any, selector: str) -> List[Any]:
    return page.find_elements("css selector", selector)


def names(page: Any) -> List[int]:
    """Numbers of the photos that are shown, in order."""
    texts = page.execute_script("return Array.from(document.querySelectorAll('li.photo .name'), e => e.textContent)")
    return [int(text.split()[0]) for text in texts]


def press(page: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains
    ActionChains(page).send_keys(*keys).perform()


def test_photos_are_sorted_by_confidence_and_come_in_portions(page):
    expected = sorted(range(COUNT), key=lambda number: (-max(scores_of(number)), number))
    assert names(page) == expected[:60]
    find(page, "#more")[0].click()
    assert names(page) == expected and not find(page, "#more")[0].is_displayed()
    assert page.switch_to.active_element == find(page, "li.photo:nth-child(61) a")[0]
    find(page, "#order option[value=name]")[0].click()
    assert names(page)[:60] == list(range(60))


def test_tags_filter(page):
    buttons = {button.text.rsplit(None, 1)[0]: button for button in find(page, "#filters button")}
    assert {name: int(button.text.rsplit(None, 1)[1]) for name, button in buttons.items()} == {
        "dog": 40, "red car": 39, "no tag": 1}
    buttons["dog"].click()
    assert names(page) == list(range(40)) and find(page, "#status")[0].text == "40 of 70 photos with dog"
    buttons["red car"].click()
    least = {number: min(scores_of(number)[:2]) for number in range(30, 40)}
    assert names(page) == sorted(least, key=lambda number: -least[number])
    assert [button.get_attribute("aria-pressed") for button in buttons.values()].count("true") == 2
    for name in ("dog", "red car", "no tag"):
        buttons[name].click()
    assert names(page) == [69] and find(page, "li.photo .none")[0].text == "no tag"
    assert find(page, "li.photo img")[0].get_attribute("alt").endswith("69 <i>.jpg, no tag")
    find(page, "#runners")[0].click()
    assert [chip.text for chip in find(page, "li.photo .missed")][:2] == ["boat 0.30", "red car 0.20"]


def test_the_map_of_a_tag_lies_over_the_photo(page):
    from selenium.webdriver import ActionChains, Keys
    find(page, "#filters button")[0].click()
    card = find(page, "li.photo")[0]
    assert names(page)[0] == 0, "which has one tag, dog"
    chip, = card.find_elements("css selector", ".chip")
    box = card.find_element("css selector", "img").rect
    ActionChains(page).move_to_element(chip).perform()
    canvas, = find(page, "canvas")
    assert all(abs(canvas.rect[side] - box[side]) < 1 for side in box), "the map is as large as the photo"
    drawn = page.execute_script("const c = arguments[0]; return Array.from(c.getContext('2d').getImageData(0, 0, "
                                "c.width, c.height).data)", canvas)
    assert int(np.reshape(drawn, (4, 5, 4))[..., :3].sum(axis=-1).argmax()) == 3 * 5 + 1, "bright where it is high"
    ActionChains(page).move_to_element(find(page, "h1")[0]).perform()
    assert not find(page, "canvas")
    page.execute_script("arguments[0].focus()", card.find_element("css selector", "a"))
    press(page, Keys.TAB)
    assert page.switch_to.active_element == chip and find(page, "canvas"), "the keyboard shows it too"
    press(page, Keys.ENTER)
    press(page, Keys.TAB)
    assert chip.get_attribute("aria-pressed") == "true" and len(find(page, "canvas")) == 1, "and keeps it"
    press(page, Keys.ESCAPE)
    assert chip.get_attribute("aria-pressed") == "false" and not find(page, "canvas")


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen_and_can_be_read(page, width, scheme):
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                         {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False})
    page.execute_cdp_cmd("Emulation.setEmulatedMedia",
                         {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    find(page, "#runners")[0].click()
    assert page.execute_script("return document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    columns = {card.rect["x"] for card in find(page, "li.photo")[:8]}
    assert len(columns) == (2 if width == 360 else 4)
    assert contrasts(page, "h1, header p, #filters button, #status, .name, .hit, .missed, footer, label") > 4.5
    dark = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", dark)[:3])) < 200) == (scheme == "dark")


def contrasts(page: Any, selector: str) -> float:
    """The least contrast (WCAG) of the text of elements against what is painted behind them."""
    pairs = page.execute_script("""
        return Array.from(document.querySelectorAll(arguments[0])).filter(e => e.offsetParent).map(element => {
          let behind = element;
          while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
          return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
        });""", selector)
    assert pairs

    def luminance(colour: str) -> float:
        values = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    lights = [sorted(map(luminance, pair)) for pair in pairs]
    return min((high + 0.05) / (low + 0.05) for low, high in lights)
