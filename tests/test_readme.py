"""The README: what it tells a newcomer to type is there to be typed, and its configuration works as printed."""

import re
import shlex
from pathlib import Path

import pytest

from modules.fraud_detection import settings
from modules.fraud_detection.__main__ import WORDS
from modules.fraud_detection.job import Job
from modules.fraud_detection.run_pipeline import PHASES
from tests.api import serving, settings_of
from tests.conftest import ROOT

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "modules").rglob("*.md")),
    ROOT / "infra" / "README.md",
    ROOT / "terraform" / "README.md",
]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_configuration_of_the_readme_is_read_as_printed(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert blocks
    for block in blocks:
        (tmp_path / "own.yaml").write_text(block)
        read = settings.read(tmp_path / "own.yaml", "local", {})
        assert read.features.windows


def test_every_word_of_the_readme_is_a_word_of_the_module() -> None:
    words = re.findall(r"python -m modules\.fraud_detection ([\w-]+)", TEXT)
    assert {"pipeline", "train", "features", "benchmark", "lineage", "serve", "verify", "export", "key"} <= set(words)
    assert set(words) <= set(WORDS)
    assert set(re.findall(r"--only (\w+)", TEXT)) <= set(PHASES)


def test_every_curl_line_of_the_readme_works_as_printed(finished: Job, tmp_path: Path) -> None:
    lines = [shlex.split(line) for line in TEXT.splitlines() if line.startswith("curl ")]
    assert len(lines) >= 7
    with serving(settings_of(finished, tmp_path)) as client:
        for words in lines:
            url = next(word for word in words if word.startswith("localhost:8000/"))
            method = words[words.index("-X") + 1] if "-X" in words else "GET"
            body = words[words.index("-d") + 1].encode() if "-d" in words else None
            answer = client.ask(method, url.removeprefix("localhost:8000"), body)
            assert answer.status == 200, (words, answer)


def test_every_word_of_make_in_the_readme_is_in_the_makefile() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, re.MULTILINE)) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8"))
    for link in (link for link in links if "://" not in link):
        name, _, place = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if place:
            assert place in headings(target), link


def headings(page: Path) -> set[str]:
    """The names under which a page's headings can be linked to."""
    lines = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}
