"""Modules of plugins beside the INI file: how they are found, and the one sentence for each way in which they are not."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from authserver.ini import Resolved
from authserver.plugins.asking import PluginSet
from authserver.plugins.importing import forget
from authserver.plugins.loading import load
from authserver.settings import SettingsError

RULE = """
from dataclasses import dataclass

from authserver.api import hookimpl, narrow


@dataclass(frozen=True)
class ReadOnly:
    clients: tuple[str, ...] = ()

    @hookimpl
    def scope_decision(self, client):
        return None
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of an INI file; what this test imports from it is forgotten afterwards."""
    yield tmp_path
    forget(tmp_path)


def loaded(
    folder: Path | None, *specifications: str, patience: float = 20.0, **texts: dict[str, str]
) -> PluginSet:
    raw = {
        name: {key: Resolved(text, True) for key, text in values.items()} for name, values in texts.items()
    }
    plugins, _ = load(specifications, raw, production=False, folder=folder, patience=patience)
    plugins.close()
    return plugins


def problems(
    folder: Path | None, *specifications: str, patience: float = 20.0, **texts: dict[str, str]
) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        loaded(folder, *specifications, patience=patience, **texts)
    return list(refused.value.problems)


# ---- found ----------------------------------------------------------------------------------------


def test_a_module_beside_the_ini_file_is_found(folder: Path) -> None:
    """With the modules that it imports from there."""
    (folder / "house_words.py").write_text("WORD = 'read'\n")
    (folder / "house_rule.py").write_text("from house_words import WORD\n" + RULE)
    plugins = loaded(folder, "house_rule:ReadOnly", read_only={"clients": "one two"})
    assert plugins.names == ("read_only",)
    assert vars(plugins.plugin("read_only")) == {"clients": ("one", "two")}


def test_a_package_beside_the_ini_file_is_found(folder: Path) -> None:
    (folder / "house_rules").mkdir()
    (folder / "house_rules/__init__.py").write_text("")
    (folder / "house_rules/scopes.py").write_text(RULE)
    assert loaded(folder, "house_rules.scopes:ReadOnly").names == ("read_only",)


def test_the_folder_is_the_last_place_where_python_looks(folder: Path) -> None:
    """So no file in it takes the place of a module of Python or of a package."""
    (folder / "house_last.py").write_text("import tabnanny, json\nFILE = tabnanny.__file__\n" + RULE)
    for name in ("tabnanny", "sqlalchemy"):
        (folder / f"{name}.py").write_text("raise RuntimeError('never imported')\n")
    sys.modules.pop("tabnanny", None)
    loaded(folder, "house_last:ReadOnly")
    assert sys.path[-1] == str(folder)
    assert not sys.modules["house_last"].FILE.startswith(str(folder))


def test_without_such_a_plugin_nothing_is_searched_there(folder: Path) -> None:
    loaded(folder, "redirect_exact")
    assert str(folder) not in sys.path


# ---- not found, or not sure -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("specification", "sentence"),
    [
        (
            "house_ruel:ReadOnly",
            (
                ": there is no module house_ruel, neither installed nor in {folder}, beside the INI file; "
                "did you mean house_rule:ReadOnly"
            ),
        ),
        (
            "far_away:ReadOnly",
            (
                ": there is no module far_away, neither installed nor in {folder}, beside the INI file; "
                "install it, or put far_away.py there"
            ),
        ),
        ("house_rule:ReadOnyl", ": {folder}/house_rule.py has no ReadOnyl; did you mean house_rule:ReadOnly"),
        ("house_rule:Zzz", ": {folder}/house_rule.py has no Zzz; known: house_rule:ReadOnly"),
        ("house_empty:Rule", ": {folder}/house_empty.py has no Rule; it defines no dataclass"),
        ("house_rule", ": a module beside the INI file is listed with its class: house_rule:CLASS"),
        ("house_rule:", ": expected the name of a plugin, or module:Class"),
        (":ReadOnly", ": expected the name of a plugin, or module:Class"),
        (".house_rule:ReadOnly", ": expected the name of a plugin, or module:Class"),
        ("../house_rule:ReadOnly", ": expected the name of a plugin, or module:Class"),
        ("house_rule:Read-Only", ": expected the name of a plugin, or module:Class"),
        (
            "house_rule:dataclass",
            (
                " is not a frozen dataclass; a plugin is a frozen value, or, if it keeps something that changes, a "
                "dataclass(eq=False)"
            ),
        ),
    ],
)
def test_what_is_not_there_is_one_sentence(folder: Path, specification: str, sentence: str) -> None:
    """Its settings are not a second one."""
    (folder / "house_rule.py").write_text(RULE)
    (folder / "house_empty.py").write_text("")
    settings = {} if specification == "house_rule:dataclass" else {"read_only": {"clients": "demo-service"}}
    found = problems(folder, specification, **settings)
    assert found == [f"authserver.plugins: {specification}{sentence}".replace("{folder}", str(folder))]


def test_two_modules_of_one_name_are_refused(folder: Path) -> None:
    """The sentence says which file Python would take."""
    (folder / "tabnanny.py").write_text(RULE)
    (problem,) = problems(folder, "tabnanny:ReadOnly", read_only={"clients": "one"})
    python = Path(dedent.__code__.co_filename).parent / "tabnanny.py"
    assert problem == (
        f"authserver.plugins: tabnanny:ReadOnly: there are two modules tabnanny: {python}, which Python takes, and "
        f"{folder}/tabnanny.py beside the INI file; rename one"
    )


def test_a_module_that_is_installed_from_this_folder_is_not_two(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "house_here.py").write_text(RULE)
    monkeypatch.syspath_prepend(folder)
    assert loaded(folder, "house_here:ReadOnly").names == ("read_only",)


@pytest.mark.parametrize(
    "opened",
    [".", "house_open.py", "house_help.py", "house_many", "house_many/below", "house_many/below/rule.py"],
)
def test_what_everybody_can_write_to_is_not_imported(folder: Path, opened: str) -> None:
    """Anybody on the machine could add code to the server, also by a module that a plugin imports."""
    (folder / "house_many/below").mkdir(parents=True)
    for name in ("house_open.py", "house_help.py", "house_many/__init__.py", "house_many/below/rule.py"):
        (folder / name).write_text("raise RuntimeError('never imported')\n")
    (folder / opened).chmod(0o777)
    specification = "house_many.below.rule:ReadOnly" if "many" in opened else "house_open:ReadOnly"
    (problem,) = problems(folder, specification)
    assert problem == (
        f"authserver.plugins: {specification}: everybody can write to {(folder / opened)}, so nothing beside "
        "the INI file is imported; chmod o-w it"
    )
    assert str(folder) not in sys.path or opened != "."


# ---- failing at import ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("import ldap_of_ours\n", "it needs the module ldap_of_ours, which is not installed ({file}, line 1)"),
        ("\nclass Rule\n", "{file}, line 2: expected ':'"),
        ("\n\nint('seven')\n", "ValueError: invalid literal for int() with base 10: 'seven' ({file}, line 3)"),
        ("import json\njson.loads('{')\n", ("JSONDecodeError: Expecting property name enclosed in double quotes: "
         "line 1 column 2 (char 1) ({file}, line 2)")),
        ("raise SystemExit('bye')\n", "SystemExit: bye ({file}, line 1)"),
        ("raise KeyboardInterrupt\n", "KeyboardInterrupt ({file}, line 1)"),
        ("from authserver.api import hookimp\n", "ImportError: cannot import name 'hookimp' from 'authserver.api' "),
        ("class Odd(BaseException):\n    def __str__(self): raise self\nraise Odd\n", "Odd ({file}, line 3)"),
        ("raise ValueError('one\\ntwo\\x1b[31m' + 'x' * 10_000)\n", "ValueError: one two [31mxxx"),
    ],
)  # fmt: skip
def test_what_fails_at_import_is_one_sentence_with_its_line(folder: Path, source: str, sentence: str) -> None:
    """Also what would end the process; and the settings of that plugin are not reported as unknown."""
    file = folder / "house_faulty.py"
    file.write_text(source)
    (problem,) = problems(folder, "house_faulty:Rule", rule={"clients": "one"})
    expected = f"authserver.plugins: house_faulty:Rule cannot be imported: {sentence}"
    assert problem.startswith(expected.replace("{file}", str(file)))
    assert problem.isprintable()
    assert len(problem) < 1_000


def test_a_failure_deeper_in_the_package_names_the_deeper_file(folder: Path) -> None:
    package = folder / "house_deep"
    package.mkdir()
    (package / "__init__.py").write_text("from house_deep.rules import Rule\n")
    (package / "rules.py").write_text("\n\n1 / 0\n")
    (problem,) = problems(folder, "house_deep:Rule")
    assert problem.endswith(f"ZeroDivisionError: division by zero ({package}/rules.py, line 3)")


def test_a_module_that_hangs_is_waited_for_so_long(folder: Path) -> None:
    """The others are imported meanwhile, and the sentence says which one hangs."""
    (folder / "house_hang.py").write_text("import threading\nthreading.Event().wait()\n")
    begun = time.monotonic()
    found = problems(folder, "house_hang:Rule", "redirect_exct", patience=0.3)
    assert time.monotonic() - begun < 5
    assert found[0] == (
        "authserver.plugins: house_hang:Rule cannot be imported: house_hang takes longer than 0.3 seconds; a module "
        "must not wait for anything while it is imported, `prepare` may"
    )
    assert len(found) == 2


def test_a_plugin_that_hangs_when_it_is_prepared_is_waited_for_so_long(folder: Path) -> None:
    waits = "    def prepare(self):\n        import threading\n        threading.Event().wait()\n"
    (folder / "house_slow.py").write_text(RULE + waits)
    assert problems(folder, "house_slow:ReadOnly", patience=0.3) == [
        "authserver.plugin.read_only: its `prepare` takes longer than 0.3 seconds"
    ]


MADE = "    def __post_init__(self):\n        "


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"{RULE}{MADE}open('/gone')\n", "it cannot be made: FileNotFoundError: [Errno 2] No such file or directory: '/gone' (house_made.py, line 15)"),
        (f"{RULE}{MADE}raise SystemExit(3)\n", "it cannot be made: SystemExit: 3 (house_made.py, line 15)"),
        (
            f"{RULE}{MADE}import threading; threading.Event().wait()\n",
            "it takes longer than 0.3 seconds to be made; `prepare` may wait",
        ),
        (
            RULE.replace("tuple[str, ...]", "'Names'"),
            "the types of its settings cannot be read: NameError: name 'Names' is not defined",
        ),
    ],
)  # fmt: skip
def test_a_plugin_that_cannot_be_made_is_one_sentence(folder: Path, text: str, sentence: str) -> None:
    """Also while its variants are: nobody waits for each of them."""
    (folder / "house_made.py").write_text(text)
    assert problems(folder, "house_made:ReadOnly", patience=0.3) == [
        f"authserver.plugin.read_only: {sentence}"
    ]


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ("serves: ClassVar = 5", "`serves` is a int"),
        ("immediate = property(lambda self: exit(4))", "what it declares cannot be used: SystemExit: 4"),
        (
            "def __hash__(self): raise RuntimeError('never')",
            "what it declares cannot be used: RuntimeError: never",
        ),
    ],
)
def test_what_a_plugin_declares_wrongly_is_one_sentence(folder: Path, declared: str, told: str) -> None:
    """And names the plugin among others."""
    text = f"from typing import ClassVar\n{RULE}\n    {declared}\n"
    (folder / "house_wrong.py").write_text(text)
    (problem,) = problems(folder, "redirect_exact", "house_wrong:ReadOnly")
    assert problem.startswith(f"plugin read_only: {told}")


def test_variants_of_a_plugin_that_hangs_are_not_waited_for(folder: Path) -> None:
    waits = "    def prepare(self):\n        import threading\n        if self.clients: threading.Event().wait()\n"
    (folder / "house_waits.py").write_text(RULE + waits)
    lines = "\n".join(f"client{number} = x" for number in range(500))
    assert problems(folder, "house_waits:ReadOnly", patience=0.3, read_only={"clients@clients": lines}) == [
        "authserver.plugin.read_only (client client0): its `prepare` takes longer than 0.3 seconds"
    ]


def test_a_shadow_plugin_that_fails_is_named_with_its_own_key(folder: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"^authserver\.shadow_plugins: far_away:Rule: there is no module"
    ):
        load(["far_away:Rule"], {}, production=False, folder=folder, key="authserver.shadow_plugins")


# ---- other settings -------------------------------------------------------------------------------


def test_a_setting_that_was_renamed_is_one_sentence(folder: Path) -> None:
    """The sentence has the old key, and the setting that the plugin has now, though that is required."""
    renamed = RULE.replace("clients: tuple[str, ...] = ()", "client_ids: tuple[str, ...]")
    (folder / "house_renamed.py").write_text(renamed)
    assert problems(folder, "house_renamed:ReadOnly", read_only={"clients": "one"}) == [
        "authserver.plugin.read_only.clients: no such setting; did you mean authserver.plugin.read_only.client_ids"
    ]


def test_a_setting_that_is_gone_is_answered_with_those_that_exist(folder: Path) -> None:
    (folder / "house_gone.py").write_text(RULE + "    days: str = ''\n")
    assert problems(folder, "house_gone:ReadOnly", read_only={"tolerance": "1"}) == [
        (
            "authserver.plugin.read_only.tolerance: no such setting; "
            "known: authserver.plugin.read_only.clients, authserver.plugin.read_only.days"
        )
    ]


def test_a_plugin_that_lost_all_its_settings_says_so(folder: Path) -> None:
    (folder / "house_bare.py").write_text(RULE.replace("    clients: tuple[str, ...] = ()\n", ""))
    assert problems(folder, "house_bare:ReadOnly", read_only={"clients": "one"}) == [
        "authserver.plugin.read_only.clients: no such setting; there are none"
    ]
