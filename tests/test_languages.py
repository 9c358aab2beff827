"""Languages: nothing is shown without a translation, and every answer is in the language that was asked for."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import string
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlencode, urljoin

import msgspec
import numpy as np
import pytest
from babel.messages import Catalog, Message
from babel.messages.frontend import CommandLineInterface
from babel.messages.pofile import read_po
from babel.support import NullTranslations
from httpx2 import Response
from starlette.testclient import TestClient

from ml.model.card import Card, CrossValidation, Decision, Recipe, Report, Step
from ml.model.evaluators import Prediction
from ml.model.linear import Formula
from ml.model.loaded import LoadedModel
from ml.model.modelfile import ModelFile
from ml.model.sample import InvalidSample, Validator
from ml.model.total import Member, Total
from ml.model.values import Repeated, UnknownWord
from ml.tables.dataset import Dataset, Feature, Shape, Target
from ml.training import fitting, iris, writing
from tests.builders import dataset_of
from tests.conftest import ROOT, Element, for_each, parse_html
from web.app import create_app
from web.metrics import drift
from web.metrics.counts import Counts
from web.metrics.drift import Verdict
from web.page import answers, docs, drift_page, languages, openapi, templates
from web.page.axes import default_axes
from web.page.changes import ChangeView
from web.page.fields import text_of as field_text
from web.page.fragments import Fragments
from web.page.languages import LOCALES, NO_BREAK, Language
from web.page.messages import Message as Told
from web.page.snippet_panel import CodeView, code_view
from web.page.views import ViewOptions, problem_view
from web.page.why import WhyView
from web.problems import Problem
from web.settings import Settings

OTHERS = [code for code in languages.codes() if code != languages.SOURCE]
EXAMPLE = {"sepal_length": "5.6", "sepal_width": "2.7", "petal_length": "4.2", "petal_width": "1.3"}
HTMX = {"HX-Request": "true"}
PAGE = {"Accept": "text/html"}
SPANISH = {"Accept-Language": "es"}


# --- the catalogues


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The messages of templates and code, taken out as `make messages` does."""
    makefile = (ROOT / "Makefile").read_text()
    (command,) = re.findall(r"pybabel -q (extract .*)", makefile)
    path = tmp_path_factory.mktemp("messages") / "messages.pot"
    arguments = command.replace("$(VENV)/messages.pot", str(path)).replace("pyproject.toml", f"{ROOT}/pyproject.toml")
    *options, templates, code = arguments.split()
    run: Callable[[list[str]], None] = CommandLineInterface().run  # which has no types
    run(["pybabel", "-q", *options, str(ROOT / templates), str(ROOT / code)])
    with path.open("rb") as file:
        return read_po(file)


def catalogue_of(code: str) -> Catalog:
    folder = code.replace("-", "_")
    with (LOCALES / folder / languages.CATALOGUE).open("rb") as file:
        return read_po(file, locale=folder)


def messages_of(catalogue: Catalog) -> dict[object, Message]:
    return {message.id: message for message in catalogue if message.id}


def forms_of(text: object) -> Sequence[str]:
    return [text] if isinstance(text, str) else list(text) if isinstance(text, Sequence) else []


def placeholders_of(text: str) -> list[str]:
    """Return what a translation must keep: placeholders of Python and of the script, and tags."""
    return sorted(re.findall(r"%\(\w+\)s|%%|\{\w+\}|<[^>]+>", text))


def test_spanish_is_one_of_the_languages_and_english_the_first() -> None:
    assert languages.codes()[0] == "en"
    assert "es" in languages.codes()


def test_the_messages_are_found(wanted: Catalog) -> None:
    found = messages_of(wanted)

    assert {"Measurements", "%(title)s must be a number", "Copied", "Predicting {name}"} <= found.keys()
    assert len(found) > 100


@pytest.mark.parametrize("code", OTHERS)
def test_a_catalogue_has_every_message_and_no_other(wanted: Catalog, code: str) -> None:
    catalogue = catalogue_of(code)

    assert messages_of(catalogue).keys() == messages_of(wanted).keys()
    assert not catalogue.obsolete


@pytest.mark.parametrize("code", OTHERS)
def test_every_message_is_translated_with_its_plurals_and_placeholders(code: str) -> None:
    catalogue = catalogue_of(code)

    assert not catalogue.fuzzy
    for message in messages_of(catalogue).values():
        assert not message.fuzzy, message.id
        assert not list(message.check(catalogue)), message.id
        sources, translations = forms_of(message.id), forms_of(message.string)
        assert len(translations) == (1 if len(sources) == 1 else catalogue.num_plurals), message.id
        for translation in translations:
            assert translation.strip(), message.id
            # "One more" names no number; where there are plurals, each form is one of the source's.
            assert placeholders_of(translation) in [placeholders_of(source) for source in sources], message.id
            # What ends a sentence, or leads to something, does so in each language.
            assert translation[-1:] in (sources[0][-1:] if sources[0][-1:] in ".:" else string.printable + "áéíóúñ»")


def test_spanish_quotes_are_spanish() -> None:
    texts = [text for message in messages_of(catalogue_of("es")).values() for text in forms_of(message.string)]

    assert [text for text in texts if set("“”‘’\"'") & set(re.sub("<[^>]+>", "", text))] == []
    assert any("«" in text for text in texts)


# --- nothing is shown without a translation
#
# A language that puts each message between brackets, and a model whose every text is between others: a letter that is
# outside of both was written into a template or a module without its translation.


class Bracketing(NullTranslations):
    """A translation that marks what passes through it, and remembers it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[object] = set()

    def gettext(self, message: str) -> str:
        self.asked.add(message)
        return f"⟦{message}⟧"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        self.asked.add((msgid1, msgid2))
        return f"⟦{msgid1 if n == 1 else msgid2}⟧"

    # What Jinja calls them.
    ugettext, ungettext = gettext, ngettext


def marked_model(n_features: int, n_labels: int, *, picture: bool = False, limits: bool = True) -> ModelFile:
    """A model all of whose texts are marked as its own."""
    rng = np.random.default_rng(0)
    classes = np.arange(40 * n_labels) % n_labels
    rows = rng.normal(size=(len(classes), n_features)) + classes[:, None] % 7
    bounds = [(-99.0, 99.0), (-99.0, None), (None, 99.0), (None, None)]
    features = tuple(
        Feature(key=f"f{i}", title=f"‹feature {i}›", unit="‹cm›", minimum=bound[0], maximum=bound[1])
        for i, bound in zip(range(n_features), itertools.cycle(bounds if limits else bounds[3:]))
    )
    leaves = (Shape(length="f0", width="f1", angles=(0.0, 90.0)),) if picture else ()
    labels = tuple(f"‹label {index}›" for index in range(n_labels))
    dataset = dataset_of(
        rows, classes, features=features, labels=labels, name="‹model›", source="‹source›", picture=leaves
    )
    model = writing.model_of(fitting.fit(dataset, Recipe(n_estimators=3, max_depth=4)))
    card = msgspec.structs.replace(
        model.card, estimator="‹estimator›", libraries={"‹library›": "1"}, data_digest="0" * 64,
        target=msgspec.structs.replace(model.card.target, title="‹target›" if picture else ""),
    )  # fmt: skip
    return dataclasses.replace(model, card=card)


def mixed_model(*, is_quantity: bool, has_gaps: bool = True) -> ModelFile:
    """A model with words and gaps, all of whose texts are marked as its own."""
    rng = np.random.default_rng(1)
    choices = [tuple(f"‹word {word}›" for word in range(count)) for count in (2, 8, 20, 1)]
    kinds = [*choices, (), ()]
    columns = [rng.integers(0, len(kind), 90).astype(np.float64) if kind else rng.normal(size=90) for kind in kinds]
    rows = np.column_stack(columns)
    outcomes = np.floor(rows[:, 0] + rows[:, 1]) if is_quantity else (rows[:, 0] + rows[:, 4] > 0.5).astype(np.float64)
    if has_gaps:
        rows[:20, :5] = np.nan
    features = tuple(
        Feature(key=f"f{i}", title=f"‹feature {i}›", choices=kind, has_gaps=has_gaps and i < 5, markers=("‹none›",),
                header=f"‹header {i}›")
        for i, kind in enumerate(kinds)
    )  # fmt: skip
    target = Target(
        title="‹target›", unit="‹unit›" if is_quantity else "", labels=() if is_quantity else ("‹no›", "‹yes›")
    )
    dataset = Dataset("‹model›", "‹source›", features, target, rows, outcomes)
    model = writing.model_of(fitting.fit(dataset, Recipe(n_estimators=3)))
    card = msgspec.structs.replace(model.card, estimator="‹estimator›", libraries={}, data_digest=None)
    return dataclasses.replace(model, card=card)


def reported(card: Card, **changes: object) -> Card:
    assert card.report is not None
    return msgspec.structs.replace(card, report=msgspec.structs.replace(card.report, **changes))


def with_card(model: ModelFile, card: Card) -> LoadedModel:
    return LoadedModel(dataclasses.replace(model, card=card), "‹version›")


def states_of(model: LoadedModel, to: Language, *, n_rows: int = 40) -> Iterator[str]:
    """Yield the page and its fragments in each state."""
    fragments = Fragments(model, to)
    validator = model.validator
    axes = default_axes(model)
    texts = {feature.key: field_text(feature, feature.example, to) for feature in model.features}
    good: dict[str, object] = {**texts}

    def page(
        fragment: bytes, messages: Sequence[Told] = (), answered: tuple[Sequence[float], Prediction] | None = None
    ) -> str:
        return fragments.page(
            texts,
            fragment,
            messages,
            ViewOptions(to, "en"),
            address="http://127.0.0.1/",
            answered=answered,
        )

    pinned = [feature.high if not feature.choices else 0.0 for feature in model.features]
    pin = urlencode({f.key: field_text(f, value, to) for f, value in zip(model.features, pinned, strict=True)})
    low, odd = ([UnknownWord("‹odd›") if f.choices else far for f in model.features] for far in (-98.0, 98.0))
    for row in [*model.reference_rows[:n_rows].tolist(), low, odd]:
        messages = fragments.messages_of(validator.notes(row), row)
        for goal in [None] if model.labels else [None, "-99", "99", "4", "x"]:
            fragment = fragments.answer(
                row, model.cuts.ranks_of(row), model.predict(row), messages, axes=axes, goal=goal, pin=pin
            )
            yield fragment.decode()
        yield fragments.explanation(row, pin=pin).decode()
        tried = fragments.at("0.35")
        prediction = tried.labelled(row, model.cuts.ranks_of(row), model.predict(row))
        yield tried.answer(row, model.cuts.ranks_of(row), prediction, messages, axes=axes).decode()
    yield page(fragment, messages, (row, model.predict(row)))
    first, second, third, *_ = [*good, "‹other›", "‹other›"]
    wrong: list[dict[str, object]] = [
        {}, {first: "-"}, {second: "-"}, {first: "", second: ""}, {first: "abc"}, {first: ["list"]}, {first: True},
        {first: "1e99"}, {first: "-100"}, {first: -100.5}, {second: "-100"}, {third: "100"}, {"‹other›": "1"},
        {first: "abc", "‹other›": "1"}, {header_of(model): "1"}, {first: Repeated("1")},
    ]  # fmt: skip
    for changes in wrong:
        try:
            validator.row(good | changes if changes else {})
        except InvalidSample as error:
            view = fragments.invalid_view(error)
            yield fragments.invalid(view).decode()
            yield page(fragments.invalid(view), view.messages)

    number = msgspec.structs.replace(
        next(feature for feature in model.features if not feature.choices), thousands=".", decimal=",", has_gaps=False
    )
    for text in ("1234.5", "12.34"):
        with pytest.raises(InvalidSample) as caught:
            Validator((number,)).row({number.key: text})
        yield fragments.invalid(answers.invalid_view(caught.value, [number], to)).decode()


def drift_of(model: LoadedModel, to: Language) -> str:
    """Return the page of drift with each verdict."""
    counts = Counts(model.version, model.features, half_life_s=86_400.0)
    none = drift.drift_of(model.card, counts)
    counts.add(np.array([[feature.example for feature in model.features]], dtype=np.float32))
    few = drift.drift_of(model.card, counts)
    verdicts: tuple[Verdict, ...] = ("shifted", "moderate", "stable")
    enough = [
        msgspec.structs.replace(
            few,
            by_chance=0.1,
            verdict=verdict,
            features=tuple(
                msgspec.structs.replace(one, verdict=verdict, psi=0.1, missing=0.1, choices=()) for one in few.features
            ),
        )
        for verdict in verdicts
    ]
    unknown = msgspec.structs.replace(none, verdict="no training data", features=())
    sources = [msgspec.structs.replace(none, source="page"), few, *enough, unknown]
    report = drift.report(model.card, model.version, sources, half_life_s=86_400.0)
    return templates.render("drift.html", to, drift=drift_page.view(report, model, to), base="../")


def header_of(model: LoadedModel) -> str:
    """Return the second name of a feature, with which a sample has it twice; or any other name."""
    return model.features[0].header or "‹another›"


def panel_of(model: LoadedModel, sample: Mapping[str, object], to: Language, *, needs_token: bool = False) -> CodeView:
    return code_view(model, sample, address="http://127.0.0.1/", needs_token=needs_token, language=to)


def unmeasured(card: Card) -> Card:
    """Return a card of which no rows are known."""
    features = tuple(msgspec.structs.replace(one, quantiles=(), has_range=False) for one in card.features)
    quantity = card.quantity and msgspec.structs.replace(card.quantity, interval=None)
    return msgspec.structs.replace(card, features=features, quantity=quantity, report=None)


@pytest.fixture(scope="module")
def shown() -> tuple[Bracketing, list[str]]:
    """Everything that can be shown, and the translations that it was asked for."""
    translations = Bracketing()
    to = Language("en", translations)
    small, wide, many = (
        marked_model(3, 3, picture=True), marked_model(70, 3, limits=False), marked_model(2, 31, limits=False),
    )  # fmt: skip
    report = small.card.report
    assert isinstance(report, Report)
    few_right = msgspec.structs.replace(
        reported(small.card, accuracy=report.baseline, cross_validation=None, recall=(0.0,) * 3),
        recipe=Recipe(balanced_class_weight=True, min_samples_leaf=2),
        trees=1,
    )
    untested = reported(small.card, confusion=((0, 0, 0), (1, 1, 1), (1, 1, 1)))
    foreign = msgspec.structs.replace(
        reported(small.card, train_rows=None, cross_validation=None, accuracy=2.0),
        recipe=None,
        data_digest=None,
        source="‹file›: 9 rows, 3 features, 3 classes",
    )
    both = reported(
        small.card,
        confusion=((0, 0, 0), (0, 0, 0), (1, 1, 1)),
        cross_validation=CrossValidation(folds=5, mean=0.5, deviation=0.1),
    )
    words, quantity = mixed_model(is_quantity=False), mixed_model(is_quantity=True)
    stepped = msgspec.structs.replace(
        words.card,
        libraries={"‹library›": "1"},
        steps=(Step(kind="fill_mean", features=("f4", "f5")), Step(kind="‹kind›", features=("f0",))),
        features=tuple(msgspec.structs.replace(one, is_closed=bool(one.choices)) for one in words.card.features),
    )
    table = "‹file›: 9 rows, 1 feature, a quantity"
    useless = {"mean_absolute_error": 2.0, "baseline_error": 1.0, "train_rows": None}
    decided = msgspec.structs.replace(words.card, decision=Decision(positive="‹yes›", threshold=0.25))
    linear = [
        (model, msgspec.structs.replace(model.card, trees=0, formula=formula))
        for model, formula in [
            (quantity, Formula(link="identity", columns=())),
            (words, Formula(link="expit", columns=())),
            (words, Formula(link="calibrated", columns=())),
            (words, Formula(link="posterior", columns=())),
        ]
    ]
    mixed = [
        *linear,
        (words, words.card), (words, decided), (words, stepped), (quantity, quantity.card),
        (mixed_model(is_quantity=True, has_gaps=False), None),
        (quantity, msgspec.structs.replace(reported(quantity.card, **useless), source=table)),
        (quantity, unmeasured(quantity.card)), (many, unmeasured(many.card)), (words, unmeasured(words.card)),
        *((model, msgspec.structs.replace(model.card, total=Total(link="softmax"))) for model in (words, quantity)),
        (words, msgspec.structs.replace(words.card, total=Total(link="vote", members=(Member(n_sums=2),)))),
    ]  # fmt: skip
    found = list(states_of(with_card(small, small.card), to))
    rendered = [small]
    for model, card in [
        (small, few_right), (small, untested), (small, foreign), (small, both), (wide, wide.card), (many, many.card),
        (marked_model(1, 2), None), (marked_model(13, 2), None), *mixed,
    ]:  # fmt: skip
        classifier = with_card(model, card or model.card)
        # What the card of a model changes is said with any row.
        found += states_of(classifier, to, n_rows=3 if model in rendered else 40)
        rendered.append(model)
    classifier = with_card(small, small.card)
    for needs_token, sample in itertools.product((False, True), ({}, {"f0": "1", "f1": "1", "f2": "1"})):
        panel = panel_of(classifier, sample, to, needs_token=needs_token)
        found.append(templates.render("_code.html", to, code=panel))
    for answer in ("‹yes›", ""):
        view_of_logs = WhyView(answer, "1", "2", "", is_log=True, reasons=[])
        found.append(templates.render("_why.html", to, why=view_of_logs))
    found.append(templates.render("_change.html", to, change=ChangeView("label", ""), searched_all=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ml.model.strips.MOST_PIECES", 2)
        found += states_of(with_card(small, small.card), to, n_rows=3)  # of lines without some of their cuts
    for borders in ("", "M0 0"):
        found.append(templates.render("_names.html", to, names=(), borders=borders, exact=False))
    found += [drift_of(classifier, to), drift_of(with_card(words, words.card), to)]
    gaps = tuple(msgspec.structs.replace(one, has_gaps=True) for one in small.card.features)
    with_gaps = with_card(small, msgspec.structs.replace(small.card, features=gaps))
    settings = Settings(api_token="t" * 32, allowed_hosts=("a.example",))
    found += [docs.example_page(one, settings, to) for one in (with_gaps, with_card(words, words.card))]
    found.append(docs.example_page(classifier, Settings(), to))
    for status in statuses():
        for problem in (Problem(status, "told to programs"), Problem(status, "told to programs", retry_after_s=60)):
            view = problem_view(problem.details, to, path="/x", method="PUT")
            found.append(templates.render("problem.html", to, problem=view, base="", start="./", is_form=True))
    return translations, found


def statuses() -> list[int]:
    """Return the status of every problem that there may be a page about."""
    sources = "\n".join(path.read_text() for path in ROOT.glob("web/**/*.py"))
    raised = set(map(int, re.findall(r"Problem\((\d+)", sources)))
    # Starlette's own are 404 and 405. Our own mistakes and heads that are too large are told as JSON, and a conflict in
    # a frame, never on a page.
    return sorted((raised | {404, 405}) - {409, 431, 500})


# Names are the same in every language.
NAMES = {
    "R²",
    "curl",
    "Python",
    "JavaScript",
    "htmx",
    "openapi.json",
    "Open Inference Protocol: curl",
    "Open Inference Protocol: Python",
    *("UTF-8", "UTF-16", "Windows-1250", "Windows-1251", "Windows-1252", "ISO-8859-15", "Shift_JIS", "GB18030"),
}
# Attributes that people see or hear, and those that the script reads; all others of data-* are shown at some time.
SEEN = {"alt", "aria-description", "aria-label", "aria-roledescription", "aria-valuetext", "label", "placeholder",
        "summary", "title"}  # fmt: skip
READ = {"data-decimal", "data-decimal-mark", "data-example", "data-feature", "data-features", "data-gap",
        "data-goal", "data-header", "data-kind", "data-label", "data-option", "data-other",
        "data-plot", "data-set", "data-share", "data-source", "data-start", "data-state", "data-step",
        "data-symbols", "data-thousands", "data-value", "data-verdict", "data-x", "data-x-high", "data-x-low",
        "data-y", "data-y-high", "data-y-low"}  # fmt: skip
LETTER = re.compile(r"[^\W\d_]")
DESCRIPTIONS = {"description", "og:description", "og:title"}


def texts_of(element: Element) -> Iterator[str]:
    """Yield the text of the whole, and each attribute in it that people meet; programs are left out."""
    yield text_of(element)
    for inner in [element, *element.all()]:
        attributes = inner.attributes
        for name, value in attributes.items():
            if name in SEEN or (name.startswith("data-") and name not in READ):
                yield value
        if inner.tag == "meta" and {attributes.get("name"), attributes.get("property")} & DESCRIPTIONS:
            yield attributes["content"]
        if inner.tag == "input" and attributes.get("type") in ("button", "reset", "submit"):
            yield attributes.get("value", "")


def text_of(element: Element) -> str:
    """Return all text inside but names, programs, and what is said to be in some language."""
    if element.tag in ("code", "script", "style") or (element.tag != "html" and "lang" in element.attributes):
        return ""
    text = "".join(child if isinstance(child, str) else text_of(child) for child in element.children)
    return "" if text.strip() in NAMES else text


def unmarked(text: str) -> str:
    """Return what is left of a text without messages and the model's own words."""
    text = re.sub(r"‹[^‹›]*›|SHA-256 0+…|(?<=\d)e[-−+]?\d+", "", text)
    while (shorter := re.sub(r"⟦[^⟦⟧]*⟧", "", text)) != text:
        text = shorter
    return " ".join(text.split())


@pytest.mark.slow
def test_every_text_that_is_shown_is_a_message_or_the_models_own(shown: tuple[Bracketing, list[str]]) -> None:
    _, found = shown

    for html in found:
        for text in texts_of(parse_html(html)):
            assert LETTER.findall(unmarked(text)) == [], unmarked(text)


@pytest.mark.slow
def test_every_message_was_looked_at(shown: tuple[Bracketing, list[str]], wanted: Catalog) -> None:
    asked, _ = shown

    assert asked.asked == messages_of(wanted).keys()


@pytest.mark.parametrize(
    "html", ["<p>Hello</p>", "<p>⟦a⟧ and ‹b›</p>", '<img alt="Hello">', '<p data-new="Hello"></p>']
)
def test_a_text_without_translation_is_seen(html: str) -> None:
    assert [text for text in texts_of(parse_html(html)) if LETTER.search(unmarked(text))]


SCRIPT = "\n".join(path.read_text() for path in sorted((ROOT / "static").glob("*.js")))


def sentences_of(script: str) -> list[str]:
    """Return the texts of two words and more in a script, but selectors and those of errors that nobody is shown."""
    script = re.sub(r"(^|\s)//.*|new Error\([^)]*\)", "", script)
    script = re.sub(r"\$\{(?:[^{}]|\{[^{}]*\})*\}", "${}", script)
    texts = [match[2] for line in script.splitlines() for match in re.finditer(r"([\"`])((?:(?!\1).)+)\1", line)]
    return [
        text
        for text in texts
        if re.search(r"[^\W\d_]{2,}[,.:;!?]? (\$|[^\W\d_]{2,})", text) and not re.search(r"[#[]|^\(|^\.\w", text)
    ]


def test_the_script_has_no_sentence_of_its_own() -> None:
    assert sentences_of(SCRIPT) == []
    assert sentences_of('say("All done"); say(`Line ${n}`); find(".a b");') == ["All done", "Line ${}"]


def test_the_script_shows_no_word_of_its_own() -> None:
    shows = re.findall(
        r"(?:(?:textContent|innerText|title|placeholder|ariaLabel|ariaValueText|alt)\s*=|say\(|markStale\(|"
        r"setAttribute\(\"(?:aria-label|title|alt|placeholder)\",|new Text\(|createTextNode\()\s*([\"'`][^\"'`]*)",
        SCRIPT,
    )

    assert set(shows) <= {'"'}, "only the empty text is written out"


# --- the language of an answer


def language_of(response: Response) -> str:
    """Return the language of a page, which its header and its root tell alike."""
    code = parse_html(response.text).one("html").attributes["lang"]
    assert response.headers["content-language"] == code
    assert "Accept-Language" in response.headers["vary"]
    return code


@for_each(
    ("header", "code"),
    [
        ("es", "es"), ("ES", "es"), ("es-AR", "es"), ("Es-ar", "es"), ("es-419", "es"), ("es-Latn-AR-x-any", "es"),
        ("en", "en"), ("EN-us", "en"), ("en-GB,es;q=0.9", "en"), ("en;q=0.1,es;q=0.9", "es"), ("en;q=0.5, es", "es"),
        ("fr, de;q=0.9, es;q=0.1", "es"), ("fr", "en"), ("", "en"), ("*", "en"), ("es;q=0", "en"), ("es;q=0, *", "en"),
        ("*;q=0.1, es;q=0.2", "es"), ("es; q=0.2 , en ;Q=0.1", "es"), ("es;q=0.2;x=1, en;q=0.3", "en"),
        (";;,,=;q", "en"), ("es;q=one", "en"), ("es;q=nan", "en"), ("es;q=", "en"), ("-es", "en"), ("e s", "en"),
        ("../../es", "en"), ("es/../es", "en"), ("\u00ff, es", "es"), ("-" * 3000, "en"), ("a-" * 3000, "en"),
        ("x," * 3000 + "es", "en"), ("es" + ",es" * 3000, "es"),
    ],
)  # fmt: skip
def test_a_browser_gets_the_language_that_it_prefers(client: TestClient, header: str, code: str) -> None:
    response = client.get("/", headers={b"Accept-Language": header.encode("latin-1")})

    assert response.status_code == 200
    assert language_of(response) == code


@pytest.mark.parametrize("lang", ["es", "ES", "es-AR"])
def test_the_address_wins_over_the_browser(client: TestClient, lang: str) -> None:
    response = client.get("/", params={"lang": lang}, headers={"Accept-Language": "en"})

    page = parse_html(response.text)
    assert language_of(response) == "es"
    assert page.one("input", name="lang").attributes["value"] == "es", "the form goes on with it"
    assert page.one("form", id="file").attributes["action"].startswith("score?lang=es&back=")
    assert all("lang=es" in link.attributes["href"] for link in page.all("a", data_example=""))


@pytest.mark.parametrize("lang", ["xx", "", "es ", "../es", "-", "e" * 5000, "a-" * 2000])
def test_an_unknown_language_leaves_the_choice_to_the_browser(client: TestClient, lang: str) -> None:
    response = client.get("/", params={"lang": lang}, headers=SPANISH)

    assert language_of(response) == "es"
    assert not parse_html(response.text).all("input", name="lang")


def test_every_answer_has_the_language_that_its_address_or_form_asks_for(client: TestClient) -> None:
    form, query = EXAMPLE | {"lang": "es"}, "?" + urlencode(EXAMPLE | {"lang": "es"})

    pages = [
        client.get("/" + query),
        client.get("/index" + query),
        client.get("/predict" + query, headers=PAGE),
        client.post("/predict", data=form, headers=PAGE),
        client.post("/result", data=form),
        client.post("/result?lang=es", data=EXAMPLE),
        client.post("/predict?lang=es", json={"sample": EXAMPLE}, headers=PAGE),
        client.get("/nothing?lang=es", headers=PAGE),
        client.post("/score?lang=es", files={"file": ("a.csv", "a,b\n1,2\n")}, headers=PAGE),
    ]
    fragments = [
        client.get("/predict" + query, headers=HTMX),
        client.post("/predict", data=form, headers=HTMX),
        client.get("/code" + query, headers=HTMX),
    ]

    assert [language_of(page) for page in pages] == ["es"] * len(pages)
    assert [page.status_code for page in pages] == [200] * 7 + [404, 422]
    assert [fragment.headers["content-language"] for fragment in fragments] == ["es"] * 3
    assert all("Accept-Language" in fragment.headers["vary"] for fragment in fragments)
    assert "Pasa a ser" in fragments[0].text
    assert fragments[0].text == fragments[1].text
    assert "Copiar" in fragments[2].text


def test_each_language_has_entity_tags_of_its_own(client: TestClient) -> None:
    for path, headers in [("/", {}), ("/predict?" + urlencode(EXAMPLE), HTMX), ("/code?" + urlencode(EXAMPLE), HTMX)]:
        english = client.get(path, headers=headers | {"Accept-Language": "en"})
        tag = english.headers["etag"]

        again = client.get(path, headers=headers | {"Accept-Language": "en", "If-None-Match": tag})
        spanish = client.get(path, headers=headers | SPANISH | {"If-None-Match": tag})

        assert (again.status_code, again.headers["content-language"]) == (304, "en")
        assert (spanish.status_code, spanish.headers["content-language"]) == (200, "es")
        assert spanish.headers["etag"] != tag


def test_what_programs_get_is_the_same_in_every_language(client: TestClient) -> None:
    for sample in (EXAMPLE, EXAMPLE | {"petal_width": "x"}, EXAMPLE | {"petal_width": "99"}):
        english = client.post("/predict", json={"sample": sample})
        spanish = client.post("/predict", json={"sample": sample}, headers=SPANISH)

        assert english.content == spanish.content
        assert "content-language" not in spanish.headers


def test_a_text_with_the_names_of_many_odd_labels_is_translated_in_no_time(model: LoadedModel) -> None:
    described = openapi.describe(model, Settings())["paths"]["/score"]["post"]["description"]
    names = ", ".join(f"probability_{number}, 100%. On the values, and on %(why)s\nof {{a}}" for number in range(400))
    text = described.replace("probability_setosa", names)
    started = time.process_time()

    translated = openapi.translated(text, languages.language("es"))

    assert translated is not None
    assert translated.startswith("La tabla vuelve como CSV")
    assert names in translated
    assert time.process_time() - started < 1  # some milliseconds; with each sentence compared as a whole, many seconds


def test_an_error_page_is_translated(client: TestClient) -> None:
    response = client.get("/nothing/here?lang=es", headers=PAGE)

    page = parse_html(response.text)
    (detail,) = page.all("p", lang="es")
    assert page.one("h1").text == page.one("title").text == "Página no encontrada"
    assert detail.text == "No hay nada en /nothing/here."
    assert page.one("main").one("a").attributes["href"] == "../?lang=es"


def test_an_unreadable_query_is_answered_in_the_language_of_the_browser(client: TestClient) -> None:
    response = client.get("/predict?" + "&" * 30_000 + "lang=es", headers=PAGE | SPANISH)

    assert response.status_code == 400
    assert language_of(response) == "es"


def test_the_switch_keeps_the_sample_and_names_each_language_in_itself(client: TestClient) -> None:
    typed = EXAMPLE | {"petal_width": "2,2"}
    axes = {"map-x": "sepal_width", "map-y": "sepal_length"}

    page = parse_html(client.get("/", params=typed | axes).text)
    links = page.one("nav", **{"class": "languages"}).all("a")

    assert [(link.text, link.attributes["lang"], link.attributes["hreflang"]) for link in links] == [
        ("English", "en", "en"),
        ("Español", "es", "es"),
    ]
    assert [link.attributes.get("aria-current") for link in links] == ["true", None]
    for link in links:
        other = client.get(urljoin("/", link.attributes["href"]))
        linked = parse_html(other.text)
        shown = {one.attributes["name"]: one.attributes["value"] for one in linked.all("input", type="text")}
        assert {key: text.replace(",", ".") for key, text in shown.items()} == typed | {"petal_width": "2.2"}
        assert axes.items() <= dict(other.url.params).items()
        assert language_of(other) == link.attributes["lang"]
        answer = linked.one(id="prediction").one("div", data_state="answer")
        assert answer.attributes["data-label"] == "virginica"


# --- numbers


@pytest.mark.parametrize("lang", languages.codes())
@pytest.mark.parametrize("mark", [".", ","])
def test_both_marks_are_taken_everywhere_in_every_language(
    client: TestClient, model: LoadedModel, lang: str, mark: str
) -> None:
    sample = {key: text.replace(".", mark) for key, text in EXAMPLE.items()}
    expected = model.predict([float(text) for text in EXAMPLE.values()])
    shares = [repr(share) for share in expected.probabilities]
    written = [share.replace(".", mark) for share in shares]
    headers = {"Accept-Language": lang}
    rows = ";".join(EXAMPLE) + "\n" + ";".join(sample.values())

    shown = [
        client.get("/", params=sample, headers=headers),
        client.get("/predict", params=sample, headers=headers | HTMX),
        client.post("/predict", data=sample, headers=headers | HTMX),
        client.post("/result", data=sample, headers=headers),
    ]
    told = [
        client.get("/predict", params=sample, headers=headers | {"Accept": "application/json"}),
        client.post("/predict", json={"sample": sample}, headers=headers),
        client.post("/predict", json={"sample": list(sample.values())}, headers=headers),
    ]
    scored = client.post("/score", files={"file": ("a.csv", rows)}, headers=headers)

    for response in shown:
        answer = parse_html(response.text).one("div", data_state="answer")
        assert answer.attributes["data-label"] == expected.label
        assert [bar.attributes["value"] for bar in answer.all("meter")] == shares
    for response in told:
        assert response.json()["probabilities"] == dict(zip(model.labels, expected.probabilities, strict=True))
    assert scored.text.splitlines()[1].split(";")[4:8] == [expected.label, *written]
    with client.websocket_connect("/stream", headers=headers) as stream:
        stream.receive_json()
        stream.send_text(json.dumps({"id": 1, "sample": sample}))
        assert stream.receive_json()["label"] == expected.label


MARKS = {"en": ".", "es": ","}


@pytest.mark.parametrize("lang", languages.codes())
def test_no_number_is_shown_with_another_languages_mark(client: TestClient, lang: str) -> None:
    far = EXAMPLE | {"petal_length": "70.5", "petal_width": "2.65"}
    wrong = EXAMPLE | {"petal_length": "-1", "petal_width": "1e99"}
    others = "".join(MARKS.values()).replace(MARKS[lang], "")
    number = re.compile(rf"\d[{others}]\d")
    seen: list[str] = []

    for sample in ({}, far, wrong):
        for path, headers in [("/", {}), ("/predict", HTMX)]:
            response = client.get(path, params=sample, headers=headers | {"Accept-Language": lang})
            document = parse_html(response.text)
            # Versions of libraries have points everywhere, and so do programs.
            for part in document.all("dd"):
                if "numpy" in part.text:
                    part.children.clear()
            values = [field.attributes["value"] for field in document.all("input", type="text") if not sample]
            starts = [field.attributes["data-start"] for field in document.all("input", type="text")]
            buttons = [
                button.attributes["data-value"]
                for button in document.all("button")
                if button.attributes.get("data-set")
            ]
            texts = [*texts_of(document), *values, *starts, *buttons]
            seen += [text for text in texts if re.search(rf"\d[{MARKS[lang]}]\d", text)]
            assert [text for text in texts if number.search(text)] == []

    assert len(seen) > 20


def test_a_spanish_page_shows_spanish_numbers(client: TestClient) -> None:
    page = parse_html(client.get("/", headers=SPANISH).text)

    fields = {field.attributes["name"]: field.attributes for field in page.all("input", type="text")}
    assert {key: field["value"] for key, field in fields.items()} == {
        key: text.replace(".", ",") for key, text in client_example(client).items()
    }
    assert page.one(id="training-range").text == "rango de entrenamiento:"
    assert page.one(id="f4-range").text == "0,1 a 2,5 cm"
    assert page.one("label", **{"for": "f4"}).text == "ancho del pétalo"
    assert "0,5" in [text.text for text in page.one("svg", **{"class": "map"}).all("text")]
    assert page.one("svg", **{"class": "map"}).attributes["aria-label"].startswith("Mapa de decisión: ")
    assert "93,3 %" in page.one(id="card").text
    assert page.one("form", id="measurements").attributes["data-decimal-mark"] == ","


def client_example(client: TestClient) -> dict[str, str]:
    page = parse_html(client.get("/").text)
    return {field.attributes["name"]: field.attributes["value"] for field in page.all("input", type="text")}


@pytest.mark.parametrize(("lang", "mark"), MARKS.items())
def test_a_change_of_the_answer_can_be_taken_over_as_it_is_shown(
    client: TestClient, model: LoadedModel, lang: str, mark: str
) -> None:
    found = 0
    for row in model.reference_rows[::10].tolist():
        sample = dict(zip(EXAMPLE, (repr(value).replace(".", mark) for value in row), strict=True))
        fragment = parse_html(client.get("/predict", params=sample | {"lang": lang}, headers=HTMX).text)
        for button in fragment.all("button"):
            key, value = button.attributes["data-set"], button.attributes["data-value"]
            promised = fragment.one("p", **{"class": "change"}).one("strong").text
            changed = client.get("/predict", params=sample | {"lang": lang, key: value}, headers=HTMX)
            assert parse_html(changed.text).one("div", data_state="answer").attributes["data-label"] == promised
            assert value in button.text
            assert button.text in button.attributes["aria-label"], "who speaks to the page says what is seen"
            found += mark in value

    assert found


@pytest.mark.parametrize(
    ("text", "english", "spanish", "hint"),
    [
        ("abc", "petal width: “abc” is not a number", "ancho del pétalo: «abc» no es un número", "no es un número"),
        ("1.2.", "petal width: “1.2.” is not a number", "ancho del pétalo: «1.2.» no es un número", "no es un número"),
        ("-1,5", "petal width must be 0 cm or more, not -1,5",
         "ancho del pétalo debe ser 0 cm o más, no -1,5", "al menos 0 cm"),
        ("1e99", "petal width is too large", "ancho del pétalo es demasiado grande", "demasiado grande"),
        ("70", "petal width is outside the training range of 0.1 to 2.5 cm",
         "ancho del pétalo está fuera del rango de entrenamiento, de 0,1 a 2,5 cm", "por encima del rango"),
        ("\u202e<b>\x07", "petal width: “\ufffd<b>\ufffd” is not a number",
         "ancho del pétalo: «\ufffd<b>\ufffd» no es un número", "no es un número"),
    ],
)  # fmt: skip
def test_errors_and_notes_speak_the_language(
    client: TestClient, text: str, english: str, spanish: str, hint: str
) -> None:
    said = {}
    for lang in ("en", "es"):
        answer = client.get("/predict", params=EXAMPLE | {"petal_width": text, "lang": lang}, headers=HTMX)
        (item,) = parse_html(answer.text).all("li")
        said[lang] = item.text
        spoken = parse_html(answer.text).all("div")[0].attributes["data-spoken"]
        assert " ".join(spoken.split()).endswith(f" {item.text}.")

    assert said == {"en": english, "es": spanish}
    assert item.attributes["data-hint"] == hint.replace("0 cm", f"0{NO_BREAK}cm")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1.5, "ancho del pétalo debe ser 0 cm o más, no −1,5"), (True, "ancho del pétalo: «true» no es un número"),
        ([1], "ancho del pétalo debe ser un número"), ({"a": 1}, "ancho del pétalo debe ser un número"),
        (10**400, "ancho del pétalo es demasiado grande"),
    ],
)  # fmt: skip
def test_a_value_that_a_program_sends_is_told_in_the_language(client: TestClient, value: object, text: str) -> None:
    response = client.post("/predict", json={"sample": EXAMPLE | {"petal_width": value}}, headers=HTMX | SPANISH)

    (item,) = parse_html(response.text).all("li")
    assert item.text == text


@pytest.mark.parametrize("value", ["abc", "-1", "70", "Ä"])
def test_in_english_the_page_says_what_programs_are_told(client: TestClient, value: str) -> None:
    sample = EXAMPLE | {"petal_width": value}

    told = client.post("/predict", json={"sample": sample}).json()
    shown = client.get("/predict", params=sample, headers=HTMX)

    (one,) = told.get("errors") or told["notes"]
    (item,) = parse_html(shown.text).all("li")
    assert item.text == one["message"].replace(f"'{value}'", f"“{value}”")


def test_what_is_waited_for_is_named_in_the_language(client: TestClient) -> None:
    for missing, text in [(1, "largo del sépalo"), (2, "largo del sépalo y ancho del sépalo"),
                          (4, "largo del sépalo, ancho del sépalo y 2 más")]:  # fmt: skip
        sample = EXAMPLE | dict.fromkeys(list(EXAMPLE)[:missing], "")
        answer = client.get("/predict", params=sample, headers=HTMX | SPANISH)

        assert parse_html(answer.text).one("p").text == f"Esperando: {text}"


def test_a_model_without_titles_in_a_language_shows_its_own(model: LoadedModel, tmp_path: Path) -> None:
    dataset = iris.load_dataset()
    plain = tuple(msgspec.structs.replace(feature, titles={}) for feature in dataset.features)
    trained = fitting.fit(dataclasses.replace(dataset, features=plain), Recipe(n_estimators=2))
    writing.write(writing.model_of(trained), tmp_path / "plain.npz", trained=trained)

    with TestClient(create_app(Settings(model_file=tmp_path / "plain.npz"))) as client:
        page = parse_html(client.get("/?petal_width=99", headers=SPANISH).text)

    assert page.one("html").attributes["lang"] == "es"
    assert [label.text for label in page.one("form", id="measurements").all("label")] == [f.title for f in plain]
    assert "petal width está fuera" in page.one(id="prediction").text
