"""Every setting is in `docs/settings.md`, as it is now."""

from docs.settings_table import PAGE, environment, page, settings


def test_the_page_is_what_the_settings_say() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python docs/settings_table.py"


def test_every_setting_has_a_row_and_a_meaning() -> None:
    rows = {}
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].startswith("`"):
            rows[cells[0].strip("`")] = cells
    names = [name for name, _ in settings()]
    assert sorted(rows) == sorted(names)
    for name, cells in rows.items():
        assert cells[1] == f"`{environment(name)}`"
        assert all(cells[index] for index in (2, 4)), name
