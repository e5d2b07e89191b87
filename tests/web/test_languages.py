"""The language of a page: who gets which, the pages in each of them, dates, and translations of one's own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import time_machine
from babel.messages.catalog import Message
from babel.messages.pofile import read_po
from pyramid.interfaces import IBeforeRender
from webtest import TestApp, TestResponse

from authserver.api import VouchedIdentity, join_identity, remove_identity
from authserver.app import build
from authserver.engine.clients.authentication import disable_client
from authserver.engine.clients.editing import ClientEdit, edit
from authserver.engine.records import Client
from authserver.features.device.protocol import GRANT_TYPE
from authserver.settings import Settings, SettingsError
from authserver.testing.live import with_playground
from authserver.testing.logos import SVG_LOGO
from authserver.testing.server import ISSUER, RESOURCE, SETTINGS, Server, basic, form_with
from authserver.testing.stories import register, sign_in_at
from authserver.web import account, languages
from authserver.web.languages import Languages, PageLanguage

PACKAGE = Path(languages.__file__).parents[1]
LOCALE = PACKAGE / "locale"
LANGUAGES = ("de", "es", "fr", "ja")
_TAG = re.compile(r"<[^>]*>")
_SLOT = re.compile(r"%\(\w+\)s|\$\{\w+\}")
AFTERNOON = datetime(2026, 3, 9, 14, 5, 59, tzinfo=UTC)


def offering(*tags: str) -> Languages:
    return Languages(Settings(issuer=ISSUER, database_url=None, secret_keys=(), languages=tags))


@pytest.mark.parametrize(
    ("ui_locales", "accept_language", "tag"),
    [
        ("", "", "en"),
        ("", "de", "de"),
        ("", "DE-at", "de"),
        ("", "de-AT-1996-x-old", "de"),
        ("", "pt, fr;q=0.5", "fr"),
        ("", "fr;q=0.4, de;q=0.5, en;q=0.1", "de"),
        ("", "fr;q=0.5, de;q=0.5", "fr"),
        ("", "pt", "en"),
        ("", "zh-Hant-TW", "zh-Hant"),
        ("", "zh-TW", "en"),
        ("", "*", "en"),
        ("", "*, de;q=0.5", "de"),
        ("", "de;q=0, fr;q=0.2", "fr"),
        ("", "de;q=0, de-AT, fr;q=0.2", "fr"),
        ("", "de;q=0", "en"),
        ("", "de;q=7", "en"),
        ("", "de, ü", "en"),
        ("", "../../etc/passwd", "en"),
        ("", "de," * 333, "de"),
        ("", "de," * 334, "en"),
        ("fr", "de", "fr"),
        ("pt ja de", "de", "ja"),
        ("fr-CA  de", "", "fr"),
        ("pt", "de", "de"),
        ("%n <b> de", "fr", "de"),
        ("*", "fr", "fr"),
        ("fr" * 501, "de", "de"),
    ],
)
def test_the_first_wanted_language_that_is_offered_counts(
    ui_locales: str, accept_language: str, tag: str
) -> None:
    """OIDC-15: `ui_locales`, then `Accept-Language` by quality, each by the lookup of RFC 4647, 3.4; nonsense counts for nothing."""
    offered = offering("en", "de", "es", "fr", "ja", "zh-Hant")
    assert offered.choose(ui_locales, accept_language).tag == tag


def test_the_first_language_of_the_setting_is_for_whoever_asks_for_none() -> None:
    assert offering("ja", "en").choose("", "pt").tag == "ja"
    assert offering("de").choose("en", "en").tag == "de"


@pytest.mark.parametrize(
    ("tag", "asked", "day", "minute"),
    [
        ("en", "", "March 9, 2026", "Mar 9, 2026, 2:05\u202fPM UTC"),
        ("en", "en-GB", "9 March 2026", "9 Mar 2026, 14:05 UTC"),
        ("en", "en-ZZ-x-made-up", "March 9, 2026", "Mar 9, 2026, 2:05\u202fPM UTC"),
        ("de", "", "9. März 2026", "09.03.2026, 14:05 UTC"),
        ("es", "", "9 de marzo de 2026", "9 mar 2026, 14:05 UTC"),
        ("fr", "", "9 mars 2026", "9 mars 2026, 14:05 UTC"),
        ("fr", "fr-CA", "9 mars 2026", "9 mars 2026, 14 h 05 UTC"),
        ("ja", "ja-JP-u-ca-japanese", "2026年3月9日", "2026/03/09 14:05 UTC"),
    ],
)
def test_dates_are_written_as_in_the_language_and_region(tag: str, asked: str, day: str, minute: str) -> None:
    language = PageLanguage(tag, asked)
    assert (language.day(AFTERNOON), language.minute(AFTERNOON)) == (day, minute)


def test_the_direction_is_that_of_the_script() -> None:
    assert [PageLanguage(tag).direction for tag in ("en", "ja", "ar", "he", "fa-AF")] == [
        "ltr",
        "ltr",
        *["rtl"] * 3,
    ]
    # Of the sentences, and not of what was asked for.
    assert PageLanguage("pa", "pa-Arab").direction == "ltr"


@pytest.mark.parametrize("tag", ["en", *LANGUAGES])
def test_no_words_are_no_words_in_any_language(tag: str) -> None:
    """A plugin may add a scope without a sentence; gettext has the head of the file under the empty text."""
    assert offering(tag).localizer(tag, ()).translate("", domain=languages.DOMAIN) == ""


# ---- The pages -------------------------------------------------------------------------------------


def speaking(server: Server, accept_language: str) -> TestApp:
    browser = server.browser()
    # As a browser of today, which gets a page on its way to the application.
    browser.extra_environ |= {"HTTP_ACCEPT_LANGUAGE": accept_language, "HTTP_SEC_FETCH_DEST": "document"}
    return browser


# More than the consent page shows without folding; of the last group one alone.
MANY = (*(f"notes.{number}" for number in range(10)), "calendar.read")
LINKS = {
    "client_uri": "https://client.example/",
    "policy_uri": "https://client.example/privacy",
    "tos_uri": "https://client.example/terms",
}
SITE = {
    "authserver.plugins": SETTINGS["authserver.plugins"]
    + "playground pushed_requests device_grant openid upstream",
    "authserver.scopes": SETTINGS["authserver.scopes"] + "".join(f"{name} = Sentence\n" for name in MANY),
    "authserver.scope_groups": "calendar = Appointments",
    "authserver.resource_names": f"{RESOURCE} = The API of everything",
    "authserver.plugin.registration_open.scopes": "profile " + " ".join(MANY),
    "authserver.help_url": "https://help.example/",
    "authserver.privacy_url": "https://site.example/privacy",
    "authserver.terms_url": "https://site.example/terms",
    "authserver.support_url": "mailto:help@site.example",
    **{
        f"authserver.plugin.upstream.providers.{name}.{setting}": text
        for name in ("staff", "former")
        for setting, text in {
            "issuer": f"https://{name}.example",
            "client_id": "authserver",
            "client_secret": "secret",
            "label": name.capitalize(),
            "enabled": str(name == "staff").lower(),
        }.items()
    },
}


def every_page(server: Server, browser: TestApp) -> Iterator[TestResponse]:
    """Each page there is, and each state of it that has sentences of its own."""
    client, secret = server.add_client(details=LINKS)
    with server.begin() as engine:
        edit(engine, client.client_id, ClientEdit(logo=SVG_LOGO))
    own, own_secret = server.add_client(first_party=True)
    stranger = register(server, client_uri=LINKS["client_uri"], scope=" ".join(MANY))
    url = server.authorization_url(client, scope="profile files.read")
    yield browser.get(server.path("/"))
    yield browser.get(server.path("/nowhere"), status=404)
    yield browser.delete(server.path("/login"), status=405)
    yield browser.post(server.path("/login"), {"x": "y" * 70_000}, status=413)
    yield browser.get(server.authorization_url(client, client_id="nobody"), status=400)
    yield browser.get(server.authorization_url(client, client_id=""), status=400)
    yield browser.get(server.authorization_url(own)).follow()
    yield browser.get(server.authorization_url(stranger, scope=" ".join(MANY))).follow()
    sign_in = browser.get(url).follow()
    yield sign_in
    yield sign_in_at(sign_in, password="wrong password")
    page = sign_in_at(sign_in).follow()
    yield page
    yield server.consent(page, scopes=[])
    yield server.consent(page)
    # What nobody redeemed is remembered.
    yield browser.get(server.path("/account/apps"))
    server.redeem(client, secret, server.code(client, browser))
    yield server.consent(page, "deny")
    yield from _long_consent(server, browser, stranger)
    yield from _device(server, browser)
    yield from _openid(server, browser)
    yield from _upstream(server, browser)
    with time_machine.travel(datetime.now(UTC)) as clock:
        page = browser.get(server.authorization_url(register(server)))
        clock.shift(901)
        expired = server.consent(page)
    yield expired
    yield browser.get(server.authorization_url(register(server), scope="nope"))
    yield browser.get(server.path("/playground"))
    for _ in range(2):
        server.redeem(own, own_secret, server.code(own, browser))
    off, _ = server.add_client()
    server.consent(browser.get(server.authorization_url(off)))
    with server.begin() as engine:
        disable_client(engine, off.client_id)
    for name in ("apps", "sessions", "password", "sign-out-everywhere"):
        yield browser.get(server.path(f"/account/{name}"))
    for notice in account.NOTICES:
        yield browser.get(server.path(f"/account/apps?notice={notice}"))
    yield from _sign_out(server, browser, stranger)


def _long_consent(server: Server, browser: TestApp, client: Client) -> Iterator[TestResponse]:
    """Folded with everything ticked, with nothing ticked, unfolded with something ticked; then agreed to."""
    page = browser.get(server.authorization_url(client, scope=" ".join(MANY)))
    yield page
    yield browser.get(page.html.select_one(".outward a[href*=none]")["href"])
    form = form_with(page, "scope")
    form.fields["scope"][-2].checked = False
    partly = form.submit("answer", value="allow", expect_errors=True)
    assert [fold.has_attr("open") for fold in partly.html.select("details")] == [True, False]
    yield partly
    server.consent(partly)


def _device(server: Server, browser: TestApp) -> Iterator[TestResponse]:
    """A code is typed wrongly and rightly; nothing is ticked, then something; a second device is denied, a third is late."""
    device, _ = server.add_client(grant_types=(GRANT_TYPE,), token_endpoint_auth_method="none")

    def typed(code: str) -> TestResponse:
        form = form_with(browser.get(server.path("/device")), "user_code")
        form["user_code"] = code
        return form.submit(expect_errors=True)

    def asked() -> TestResponse:
        scope = "profile files.read"
        return typed(server.ask("/oauth/device_authorization", device, scope=scope).json["user_code"])

    yield browser.get(server.path("/device"))
    yield typed("BBBB-BBBB")
    page = asked()
    yield page
    yield server.consent(page, scopes=[])
    yield server.consent(page)
    yield server.consent(page)
    page = asked()
    yield server.consent(page, "deny")
    yield server.consent(page, "deny")
    with time_machine.travel(datetime.now(UTC)) as clock:
        page = asked()
        clock.shift(601)
        yield server.consent(page)


def _openid(server: Server, browser: TestApp) -> Iterator[TestResponse]:
    """What applications may see, of none and of one, which gets its response in a form."""
    client, secret = server.add_client(scopes=("openid", "email"))
    yield browser.get(server.path("/account/shared"))
    wanted = {"scope": "openid email", "response_mode": "form_post"}
    page = server.consent(browser.get(server.authorization_url(client, **wanted)))
    yield page
    server.redeem(client, secret, page.forms[0]["code"].value)
    yield browser.get(server.path("/account/shared"))


def _upstream(server: Server, browser: TestApp) -> Iterator[TestResponse]:
    """Nobody comes back rightly from a provider; an account has none, then two, of which one is off."""
    back = server.path("/login/staff/callback?state=x")
    stranger = server.browser()
    stranger.extra_environ |= browser.extra_environ
    yield stranger.get(back, expect_errors=True)
    yield browser.get(back, expect_errors=True)
    own = server.path("/account/identities")
    yield browser.get(own)
    identities = [
        VouchedIdentity(
            provider=name, issuer=f"https://{name}.example", subject="1", label="ann@staff.example"
        )
        for name in ("staff", "former")
    ]
    for vouched in identities:
        with server.begin() as engine:
            user = engine.stores.users.find_by_name("ann")
            join_identity(engine, user, vouched)
        yield browser.get(own)
    for notice in ("identity-joined", "identity-removed", "nothing-changed"):
        yield browser.get(f"{own}?notice={notice}")
    for vouched in identities:
        with server.begin() as engine:
            remove_identity(engine, user, vouched.issuer, vouched.subject)


def _sign_out(server: Server, browser: TestApp, stranger: Client) -> Iterator[TestResponse]:
    """By oneself, and as applications ask: one that is known, one that registered itself, and nobody knows which."""
    back = "https://client.example/bye"
    client, _ = server.add_client(details={"post_logout_redirect_uris": [back]})
    known = {"client_id": client.client_id, "post_logout_redirect_uri": back}
    asking = server.path("/oauth/logout")
    yield browser.get(asking, {"client_id": "nobody"}, status=400)
    for application in (known, {"client_id": stranger.client_id}, {}):
        yield browser.get(asking, application)
    page = browser.get(server.path("/logout"))
    yield page
    yield page.forms[0].submit()
    for application in (known, {}):
        yield browser.get(asking, application)


@pytest.fixture(scope="module")
def whole_server(migrated_sqlite_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With every plugin that has pages for people, and everything that an operator may add to the pages."""
    path = tmp_path_factory.mktemp("languages") / "authserver.db"
    shutil.copy(migrated_sqlite_file, path)
    server = Server(f"sqlite:///{path}", with_playground(SITE))
    server.add_user("ann", attributes={"email": ("ann@example.com",), "email_verified": ("ann@example.com",)})
    yield server
    server.close()


def words_of(message: Message, count: int = 0) -> list[str]:
    """What a sentence shows, or its form for one or for many, in the parts between tags."""
    texts = [message.id, message.string]
    shown, translated = (text if isinstance(text, str) else text[min(count, len(text) - 1)] for text in texts)
    others = {part.strip() for part in _TAG.split(translated)}
    return [part.strip() for part in _TAG.split(shown) if part.strip() not in others]


def english(language: str) -> tuple[frozenset[str], re.Pattern[str]]:
    """The sentences that are other words in this language: those that are the same each time, and the others."""
    with (LOCALE / f"{language}.po").open("rb") as file:
        messages = [message for message in read_po(file) if message.id]
    parts = {part for message in messages for count in (0, 1) for part in words_of(message, count)}
    with_slots = {part for part in parts if _SLOT.search(part)}
    # A slot with a short word, such as "at %(host)s", could be anything.
    telling = [_SLOT.split(part) for part in with_slots if len(_SLOT.sub("", part)) > 4]
    pattern = "|".join(".{1,99}?".join(map(re.escape, texts)) for texts in sorted(telling))
    # A quotation mark that opens in one language closes in another.
    words = frozenset(part for part in parts - with_slots if any(map(str.isalpha, part)))
    return words, re.compile(rf"\b(?:{pattern})")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_page_is_wholly_in_the_language_of_the_person(whole_server: Server, language: str) -> None:
    """Each template is rendered; what it says of itself is right, and no sentence of ours is left in English."""
    rendered: set[str] = set()

    def note(event: Mapping[str, object]) -> None:
        rendered.add(str(event["renderer_name"]))

    whole_server.wsgi.registry.registerHandler(note, (IBeforeRender,))
    fixed, with_slots = english(language)
    for page in every_page(whole_server, speaking(whole_server, f"{language}, en;q=0.5")):
        assert page.html.html["lang"] == page.headers["Content-Language"] == language
        assert page.html.html["dir"] == "ltr"
        assert "Accept-Language" in page.headers["Vary"]
        labels = [tag["aria-label"] for tag in page.html.select("[aria-label]")]
        shown = [*page.html.stripped_strings, *labels]
        assert fixed & set(shown) == set(), page.request.url
        assert not with_slots.search(" ".join([*page.html.get_text().split(), *labels])), page.request.url
        assert "%(" not in page.text
        assert "${" not in page.text
    parts = {
        "base.jinja2",
        "account.jinja2",
        "components.jinja2",
        "icons.jinja2",
        "people.jinja2",
        "scopes.jinja2",
        "support.jinja2",
        "times.jinja2",
    }
    # Those that set a password by a link are in the tests of links.
    by_link = {"password_link.jinja2", "passwords.jinja2", "forgotten_password.jinja2"}
    assert rendered == {
        f"{'.'.join(path.parents[1].relative_to(PACKAGE.parent).parts)}:templates/{path.name}"
        for path in PACKAGE.rglob("*.jinja2")
        # Pages for operators are in English.
        if path.name not in parts | by_link and path.parents[1].name != "console"
    }


def heading(page: TestResponse) -> str:
    return str(page.html.h1.get_text(" ", strip=True))


def test_what_the_application_asks_for_holds_from_sign_in_to_the_end(whole_server: Server) -> None:
    """OpenID Connect Core, 3.1.2.1: it travels with the request, and counts before the browser's."""
    server, browser = whole_server, speaking(whole_server, "ja")
    client, _ = server.add_client()
    sign_in = browser.get(server.authorization_url(client, ui_locales="pt-BR fr-CA de")).follow()
    assert heading(sign_in) == "Se connecter"
    assert heading(sign_in_at(sign_in, password="wrong password")) == "Se connecter"
    page = sign_in_at(sign_in).follow()
    assert heading(page) == "Autoriser l’accès à votre compte\u00a0?"
    assert "Rien n’a encore été partagé" in server.consent(page, scopes=[])
    assert heading(server.consent(page)) == "En route vers l’application"
    assert heading(server.consent(page, "deny")) == "Cette demande a déjà reçu une réponse"
    # Beside a request, the browser's counts.
    assert heading(browser.get(server.path("/logout"))) == "サインアウトしますか?"


def test_an_error_of_the_request_is_in_its_language_too(whole_server: Server) -> None:
    browser, client = speaking(whole_server, "ja"), register(whole_server)
    unknown = browser.get(
        whole_server.authorization_url(client, client_id="nobody", ui_locales="es"), status=400
    )
    assert "Aquí no existe esa aplicación." in unknown
    twice = browser.get(
        whole_server.authorization_url(client, client_id=["a", "b"], ui_locales="es"), status=400
    )
    assert "client_id aparece más de una vez" in twice
    whole_server.sign_in(browser)
    leave = browser.get(whole_server.authorization_url(client, scope="nope", ui_locales="es"))
    assert "El scope solicitado no está permitido." in leave


def test_a_pushed_request_and_an_expired_one_keep_their_language(whole_server: Server) -> None:
    client, secret = whole_server.add_client()
    form = dict(parse_qsl(urlsplit(whole_server.authorization_url(client, ui_locales="es")).query))
    pushed = whole_server.post(
        "/oauth/par", urlencode(form), authorization=basic(client.client_id, secret or "")
    )
    browser, url = speaking(whole_server, "ja"), whole_server.path("/oauth/authorize")
    query = urlencode({"client_id": client.client_id, "request_uri": pushed.json["request_uri"]})
    assert heading(browser.get(f"{url}?{query}").follow()) == "Iniciar sesión"
    with time_machine.travel(datetime.now(UTC)) as clock:
        begun = browser.get(whole_server.authorization_url(client, ui_locales="de"))
        clock.shift(901)
        assert heading(begun.follow(status=400)) == "Das hat zu lange gedauert"


@pytest.mark.parametrize("ui_locales", ["xx", "%%%", "de-" * 400, "\u202e", "de de"])
def test_no_value_of_ui_locales_is_an_error(whole_server: Server, ui_locales: str) -> None:
    """OIDC-15."""
    url = whole_server.authorization_url(whole_server.add_client()[0], ui_locales=ui_locales)
    assert heading(whole_server.browser().get(url).follow()) in ("Sign in", "Anmelden")


def test_the_metadata_names_the_languages(make_server: Callable[..., Server]) -> None:
    """A-20."""
    server = make_server({"authserver.languages": "fr en"})
    metadata = server.http.get(server.path("/.well-known/oauth-authorization-server")).json
    assert metadata["ui_locales_supported"] == ["fr", "en"]
    assert heading(speaking(server, "de").get("/login")) == "Se connecter"


# ---- Settings, and translations of one's own -------------------------------------------------------


def problems(**changes: str) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        build(
            {
                **SETTINGS,
                "authserver.database_url": "sqlite://",
                **{f"authserver.{k}": v for k, v in changes.items()},
            }
        )
    return caught.value.problems


def test_a_language_that_does_not_exist_stops_the_start() -> None:
    assert problems(languages="en jp de-AT") == (
        "authserver.languages: jp: no such language; known: de, en, es, fr, ja",
        "authserver.languages: de-AT: no such language; did you mean de",
    )
    assert problems(languages="de de") == ("authserver.languages: a language occurs twice",)
    assert problems(languages="") == ("authserver.languages: Expected `array` of length >= 1",)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("klingonisch.po", "", "its name must be that of a language, such as it.po or pt-BR.po"),
        ("it.po", "", "the language is not among authserver.languages; add it there, or remove the file"),
        (
            "de.po",
            'msgid "Sign in\nmsgstr "x"',
            "line 1: expected msgid or msgstr and a text in quotation marks, or a # and a comment",
        ),
        ("de.po", "Allow = Erlauben", "line 1: expected "),
        ("de.po", "\xff", "cannot be read"),
        (
            "de.po",
            '#, python-format\nmsgid "Leave %(product_name)s?"\nmsgstr "Weg von %(name)s?"',
            "line 2: ",
        ),
        *(
            (
                "de.po",
                f'msgid "Leave %(product_name)s?"\nmsgstr "{text}"',
                "line 1: write each slot as in msgid, such as %(name)s, and a percent sign as %%",
            )
            for text in ("Zu 100 % weg von %(product_name)s?", "Weg von %(product_name)?", "%")
        ),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    (found,) = problems(translations=str(tmp_path))
    assert found.startswith(f"authserver.translations: {tmp_path / name}: {problem}")


def test_a_folder_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    assert problems(translations=f"{tmp_path}/none") == (
        f"authserver.translations: there is no folder {tmp_path}/none",
    )


def test_translations_of_ones_own_count_before_and_beside_those_that_come_with_the_server(
    make_server: Callable[..., Server], tmp_path: Path
) -> None:
    """Scopes, another wording, another language; what is not in a file of one's own stays as it was."""
    (tmp_path / "de.po").write_text(
        'msgid "See your name"\nmsgstr "Ihren <Namen> sehen, 100 % davon"\n\nmsgid "Allow"\nmsgstr "Einverstanden"\n'
    )
    (tmp_path / "en.po").write_text('msgid "Allow"\nmsgstr "Agree"\n')
    (tmp_path / "pt-BR.po").write_text('msgid "Sign in"\nmsgstr "Entrar"\n', encoding="utf-8")
    server = make_server({"authserver.translations": str(tmp_path), "authserver.languages": "en de pt-BR"})
    server.add_user("ann")
    client, secret = server.add_client()
    browser = speaking(server, "de")
    page = sign_in_at(browser.get(server.authorization_url(client)).follow()).follow()
    assert "Ihren <Namen> sehen, 100 % davon" in page.html.get_text()
    assert [button.get_text(strip=True) for button in page.html.select("#answers button")] == [
        "Ablehnen",
        "Einverstanden",
    ]
    onward = urlsplit(server.consent(page).html.main.a["href"])
    server.redeem(client, secret, dict(parse_qsl(onward.query))["code"])
    assert "Ihren <Namen> sehen, 100 % davon" in browser.get(server.path("/account/apps")).html.get_text()
    page = browser.get(server.authorization_url(client, ui_locales="en", scope="files.read"))
    assert page.html.select("#answers button")[1].get_text(strip=True) == "Agree"
    page = speaking(server, "pt-br").get(server.path("/login"))
    assert (heading(page), page.html.html["lang"]) == ("Entrar", "pt-BR")
    assert "Username" in page
