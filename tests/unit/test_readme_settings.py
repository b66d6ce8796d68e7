from pathlib import Path

from recorder.settings import settings_table

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- settings:begin -->\n", "<!-- settings:end -->"


def test_the_readme_has_the_table_of_the_settings_as_they_are():
    """After a change, paste what `settings_table()` returns between the two markers."""
    text = README.read_text(encoding="utf-8")
    assert text.count(BEGIN) == 1
    assert text.count(END) == 1
    table = text.split(BEGIN)[1].split(END)[0]
    assert table.strip() == settings_table().strip()
