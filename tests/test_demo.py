"""The story of `make demo`, cut short after both of its endings, and told twice."""

from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from mlops.journaling.ledger import Ledger
from modules.fraud_detection import demo_result, settings
from modules.fraud_detection.demo import STORY, Demo
from modules.fraud_detection.demo_result import Result
from modules.fraud_detection.settings import NAME, Settings
from tests.lived import DEMO, platform_in, small_story
from tests.lived import STORY as SMALL


@pytest.mark.no_cover
def test_the_story_has_both_endings(tmp_path: Path) -> None:
    """The same world as in the demo, lived through until the bad candidate has been taken back."""
    story, folder = STORY._replace(end=STORY.subtle + 2), tmp_path / "demo"
    told: list[str] = []
    result = Demo(settings.read(DEMO, "local", {}, {"platform": platform_in(folder)}), story, folder, told.append).run()
    days = {what: [event.day for event in result.events if event.what == what] for what in ("drift", "refused")}
    assert story.change < days["drift"][0] <= story.change + 7
    assert story.broken in days["refused"]
    promoted = result.first("promoted", story.change)
    assert promoted is not None
    careless = [event for event in result.events if event.day >= story.subtle]
    assert [event.what for event in careless] == ["registered", "judged", "canary", "rolled back"]
    assert any("it flags more" in line for line in told[-1:])
    after = result.days.filter(pl.col("day") >= promoted)
    gain = after["average_precision"] - after["average_precision_without"]
    assert gain.to_list()[-1] > 0.3
    assert after["cost"].sum() < after["cost_without"].sum()
    assert 0 < result.days["bad"].sum() / result.decisions < 0.01
    demo_result.draw(result, folder / "timeline.png")
    with Image.open(folder / "timeline.png") as picture:
        assert picture.size == (1690, 1170)
    ledger = Ledger(f"sqlite:///{folder}/ledger.db")
    ledger.verify()
    traffic = ledger.traffic(NAME)
    assert traffic is not None
    assert traffic.candidate is None
    ledger.close()


def test_the_same_story_comes_out_the_same(lived_once: tuple[Path, Settings, Result], tmp_path: Path) -> None:
    _, read, first = lived_once
    folder = tmp_path / "again"
    again = Demo(small_story(folder, SMALL, read.simulation.start), SMALL, folder, lambda _: None).run()
    assert again.events == first.events
    assert again.days.equals(first.days)
