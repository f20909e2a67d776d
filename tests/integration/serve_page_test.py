"""The page of the server, as a person uses it, in Chromium without a screen.

apt-get install chromium
python -m pytest -m slow tests/integration/serve_page_test.py
"""

import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.server_process import running_server
from tests.tabular_models import NAMES as CANCERS
from tests.tabular_models import (
    ROWS,
    columns,
    columns_model,
    export_columns,
    export_matrix,
    matrix_model,
)
from tests.tiny_models import SIDE, probabilities, save_classifier

sync_api = pytest.importorskip("playwright.sync_api")
_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not _CHROMIUM, reason="no chromium: apt-get install chromium"),
]
NAMES = ["cat", "<b>dog</b>", "köttur"]
IMAGES = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 1), dtype=np.uint8)
TOPS = [probabilities(IMAGES, seed, len(NAMES)).argmax(axis=1) for seed in (2, 3)]
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for version in (1, 2, 3):
        save_classifier(folder / "named" / str(version), version, NAMES)
    save_classifier(folder / "one" / "1", num_classes=20)
    save_classifier(folder / "closed" / "1", encoded=False)
    (folder / "none").mkdir()
    export_matrix(folder / "matrix", seeds=(0, 1))
    export_columns(folder / "columns")
    names = ("named", "one", "closed", "none", "matrix", "columns")
    models = {name: folder / name for name in names}
    with running_server(folder / "log", models, "--max_request_mib=1") as server:
        yield server


@pytest.fixture(scope="module")
def chromium():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_CHROMIUM, args=FLAGS.split()
        )
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, server):
    """The page on a phone in the dark; what the console complains of fails the test."""
    page = chromium.new_page(
        viewport={"width": 360, "height": 700}, color_scheme="dark"
    )
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(f"http://{server.http}/")
    page.set_default_timeout(20_000)
    yield page
    # A refusal of the server is on the page, and Chromium tells the console as well.
    assert not [x for x in complaints if not x.startswith("Failed to load resource")]
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 360, "wider than a phone"
    page.close()


def image(number):
    content = tf.io.encode_png(IMAGES[number]).numpy()
    return {"name": f"{number}.png", "mimeType": "image/png", "buffer": content}


def drop(page, file):
    """A file dragged onto the page with the mouse."""
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name));
            return transfer;
        }""",
        [file["name"], list(file["buffer"])],
    )
    page.dispatch_event("#drop", "drop", {"dataTransfer": transfer})


def bars(page):
    """{class: [percent of each version]} and {class: mark}, as a person reads them."""
    page.wait_for_selector("#result:not([hidden])")
    shares, marks = {}, {}
    for item in page.query_selector_all("#classes li"):
        name, *mark = item.query_selector(".name").inner_text().split("\n")
        values = item.query_selector_all(".bar > span")
        shares[name] = [
            float(x.inner_text().split(":")[-1].strip(" %\n")) for x in values
        ]
        marks |= {name: mark[0]} if mark else {}
    return shares, marks


@pytest.mark.parametrize("changes", [True, False])
def test_a_dropped_image_has_bars_of_the_last_two_versions(page, changes):
    number = np.flatnonzero((TOPS[0] != TOPS[1]) == changes)[0]
    drop(page, image(number))
    shares, marks = bars(page)
    assert list(shares) == NAMES  # text, and not markup
    expected = [probabilities(IMAGES[[number]], seed, 3)[0] for seed in (2, 3)]
    found = np.array(list(shares.values()))
    np.testing.assert_allclose(found, 100 * np.transpose(expected), atol=0.051)
    widths = page.eval_on_selector_all(
        "#classes b", "all => all.map(b => b.firstChild.style.width)"
    )
    drawn = np.reshape([float(width.strip("%")) for width in widths], found.shape)
    np.testing.assert_allclose(drawn, found, atol=0.051)
    before, after = (NAMES[top[number]] for top in TOPS)
    verdict = page.inner_text("#verdict")
    legend = page.inner_text("#legend")
    assert "before: version 2" in legend and "after: version 3" in legend
    if changes:
        assert verdict == f"Changed: “{before}” before, “{after}” after."
        assert marks == {before: "top before", after: "top now"}
    else:
        assert verdict == f"Both versions say “{before}”."
        assert not marks


def test_one_version_has_one_set_of_bars_and_many_classes_unfold(page):
    page.select_option("#model", "one")
    page.set_input_files("#file", image(0))
    shares, marks = bars(page)
    (expected,) = probabilities(IMAGES[:1], 0, 20)
    best = np.argsort(-expected)[:12]
    assert list(shares) == [f"class {k}" for k in best]
    assert all(len(values) == 1 for values in shares.values()) and not marks
    assert page.inner_text("#legend").strip() == "version 1"
    assert page.inner_text("#verdict").startswith(f"This is “class {best[0]}”")
    page.click("#more")
    assert set(bars(page)[0]) == {f"class {k}" for k in range(20)}


def error(page, contains):
    """Waits until the page says what is wrong."""
    page.wait_for_function(
        "text => document.getElementById('error').innerText.includes(text)",
        arg=contains,
    )
    assert page.is_hidden("#result")


def test_what_goes_wrong_is_said_in_words_and_mended(page, server):
    text = {"name": "a.png", "mimeType": "image/png", "buffer": b"no image"}
    page.set_input_files("#file", text)
    error(page, "not an image that the model can read. Use a JPEG or PNG.")
    page.set_input_files("#file", {**text, "buffer": bytes(2**20)})
    error(page, "larger than the server takes")
    page.select_option("#model", "closed")
    error(page, "takes neither image files nor rows: it has no signature “encoded”")
    assert page.is_disabled("#file")
    page.select_option("#model", "none")
    error(page, "No version of “none” is in service yet.")
    page.select_option("#model", "named")
    page.set_input_files("#file", image(0))
    assert list(bars(page)[0]) == NAMES
    assert page.is_hidden("#error")
    opinion = '{"predictions": [[NaN, 1, 0]]}'
    page.route("**/*:predict", lambda route: route.fulfill(body=opinion))
    page.set_input_files("#file", image(1))
    error(page, "it has no opinion of this.")
    page.route("**/models", lambda route: route.abort())
    page.set_input_files("#file", image(2))
    error(page, "The server does not answer. Is it still running?")


def test_a_keyboard_reaches_everything_and_everything_has_a_name(page):
    page.wait_for_selector("#choice:not([hidden])")
    reached = []
    for _ in range(2):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id"))
    assert reached == ["model", "file"]
    assert page.get_by_role("combobox", name="Model").count() == 1
    assert page.get_by_label("Choose an image").count() == 1
    assert page.get_by_role("status").inner_text() == "Nothing to classify yet."


# Models of a table.


def ask_row(page, texts):
    """Fills in the form, {label: text}, and asks."""
    for label, text in texts.items():
        page.get_by_role("textbox", name=label).fill(text)
    page.get_by_role("button", name="Ask").click()


def pasted(row, separator=", "):
    return separator.join(f"{x:.9g}" for x in row)


@pytest.mark.parametrize("separator", [", ", "\t", "\n"])
def test_a_pasted_row_has_bars_of_both_versions(page, separator):
    page.select_option("#model", "matrix")
    page.wait_for_selector("textarea")
    assert page.is_hidden("#drop")
    ask_row(page, {"features": pasted(ROWS[3], separator)})
    shares, _ = bars(page)
    assert list(shares) == CANCERS
    found = np.array(list(shares.values()))
    models = [matrix_model(seed) for seed in (0, 1)]
    expected = [model.predict(ROWS[3:4], verbose=0)[0] for model in models]
    np.testing.assert_allclose(found, 100 * np.transpose(expected), atol=0.051)
    assert "before: version 1" in page.inner_text("#legend")
    ask_row(page, {"features": pasted(ROWS[20])})
    top = CANCERS[models[1].predict(ROWS[20:21], verbose=0)[0].argmax()]
    page.wait_for_function(
        "text => document.getElementById('verdict').innerText.includes(text)", arg=top
    )


def test_each_named_input_has_a_field(page):
    page.select_option("#model", "columns")
    texts = {name: pasted(x[0]) for name, x in columns(slice(1)).items()}
    page.wait_for_selector("#fields input")
    assert page.locator("#fields label > span").all_inner_texts() == sorted(texts)
    ask_row(page, texts)
    shares, _ = bars(page)
    (expected,) = columns_model().predict(columns(slice(1)), verbose=0)
    found = [value for (value,) in shares.values()]
    np.testing.assert_allclose(found, 100 * expected, atol=0.051)
    page.get_by_role("textbox", name="mean_radius").fill("x")
    page.keyboard.press("Enter")
    error(page, "“mean_radius”: received “x”; expected a finite number, such as 0.5.")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "received 0 values; expected 30 numbers, separated by commas. Add what"),
        (pasted(ROWS[0][:29]), "“features”: received 29 values; expected 30 numbers"),
        (pasted(ROWS[0]) + ", 7", "received 31 values; expected 30.* Remove the rest."),
        (pasted(ROWS[0][:29]) + ", x", "place 30: received “x”; expected a finite num"),
        ("NaN, " + pasted(ROWS[0][1:]), "place 1: received “NaN”; expected a finite"),
        ("-Infinity " + pasted(ROWS[0][1:]), "received “-Infinity”; expected a finite"),
        ("1e39 " + pasted(ROWS[0][1:]), "received “1e39”; expected a finite number"),
        ("0x10 " + pasted(ROWS[0][1:]), "received “0x10”; expected a finite number"),
        ("<b>1</b> " + pasted(ROWS[0][1:]), "received “<b>1</b>”; expected a finite"),
    ],
)
def test_a_row_that_does_not_fit_is_said_in_words_and_mended(page, text, words):
    page.select_option("#model", "matrix")
    page.wait_for_selector("textarea")
    ask_row(page, {"features": text})
    for part in words.split(".*"):
        error(page, part)
    ask_row(page, {"features": pasted(ROWS[0])})
    assert list(bars(page)[0]) == CANCERS
    assert page.is_hidden("#error")
    page.select_option("#model", "named")
    page.wait_for_selector("#drop:not([hidden])")
    assert page.is_hidden("#row") and page.is_enabled("#file")


def test_names_of_inputs_are_text(page):
    name = "<img src=x onerror=alert(1)>"

    def renamed(route):
        answer = route.fetch()
        route.fulfill(response=answer, body=answer.text().replace("mean_radius", name))

    page.route("**/metadata", renamed)
    page.select_option("#model", "columns")
    page.wait_for_selector("#fields input")
    assert name in page.locator("#fields label > span").all_inner_texts()
    assert page.locator("#fields img").count() == 0
    ask_row(page, dict.fromkeys([name, "mean_texture", "worst_area"], "1"))
    error(page, f"The server refused: Received the inputs ['{name}'")


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("[0.25]", {"class 0": [75.0], "class 1": [25.0]}),
        ("0.25", {"class 0": [75.0], "class 1": [25.0]}),
        ('{"features": [9, 9], "logits": [0]}', {"class 0": [50.0], "class 1": [50.0]}),
        ("[7.5]", "The model's answer is the number 7.5, which is no probability."),
    ],
)
def test_a_single_number_is_the_probability_of_the_second_class(page, answer, found):
    body = f'{{"predictions": [{answer}]}}'
    page.route("**/*:predict", lambda route: route.fulfill(body=body))
    page.select_option("#model", "one")
    page.set_input_files("#file", image(0))
    if isinstance(found, str):
        error(page, found)
    else:
        assert bars(page)[0] == found
