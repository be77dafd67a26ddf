import pytest
from hypothesis import given
from hypothesis import strategies as st

from loramux_adapters.errors import NameInvalid
from loramux_adapters.names import check_adapter_name, shown


@pytest.mark.parametrize("name", ["a", "A9", "shop-sql", "team_x.v2", "0", "x" * 128])
def test_plain_names_are_allowed(name: str) -> None:
    check_adapter_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a b",
        "a@b",
        "a/b",
        "../a",
        ".a",
        "-a",
        "_a",
        "ä",
        "a\n",
        "a\0",
        "x" * 129,
        "名前",
        "a\u202eb",
        "a:b",
        "%41",
    ],
)
def test_names_with_odd_characters_are_refused(name: str) -> None:
    with pytest.raises(NameInvalid, match="ASCII letters, digits"):
        check_adapter_name(name)


@given(st.text())
def test_a_name_that_passes_is_safe_as_a_path_and_in_a_message(name: str) -> None:
    try:
        check_adapter_name(name)
    except NameInvalid as error:
        text = error.message
    else:
        text = name
        assert not set(name) & set("/@\\ ")
        assert name not in (".", "..")
    assert text.isascii()
    assert text.isprintable()


def test_shown_is_short_and_printable() -> None:
    assert shown("a\x1b[2Jb") == r"'a\x1b[2Jb'"
    assert len(shown("x" * 10_000)) < 200
