"""The words of the loop on a platform that has lived: drift, gate, retraining, watch, promotion and its history."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlops import bootstrap
from mlops.bootstrap import Connected
from mlops.releasing.releases import Releases
from mlops.traffic import Traffic
from modules.fraud_detection.settings import NAME
from tests.lived import DEMO, Lived

PROMOTE = "scripts/promote_model.py"


@pytest.fixture
def platform(lived: Lived) -> Iterator[Connected]:
    connected = bootstrap.connect(lived.settings.platform)
    yield connected
    connected.ledger.close()


def promote(lived: Lived, *words: str) -> tuple[int, str, str]:
    return lived.run(PROMOTE, "--module", NAME, "--config", str(DEMO), "--who", "ada", *words)


def test_a_check_finds_the_change_and_leaves_a_report_and_a_page(lived: Lived, platform: Connected) -> None:
    code, out, err = lived.run("-m", "monitoring.drift_check", "--module", NAME, "--config", str(DEMO))
    assert (code, err) == (2, "")
    headline, page = out.splitlines()
    assert headline.startswith("Drift in ")
    assert "version 1, snapshot " in headline
    report = json.loads(Path(page).with_name("report.json").read_text())
    drifted = {column["name"] for column in report["columns"] if column["verdict"] == "drifted"}
    assert "amount" in drifted
    assert report["snapshot"] in headline
    assert report["snapshot"] == platform.registry.find(NAME, "production").tags["snapshot"]
    assert "<html" in Path(page).read_text()


def test_a_check_of_the_days_before_the_change_is_calm(lived: Lived) -> None:
    start = lived.settings.simulation.start
    days = {"--since": 81, "--until": 94}
    period = [word for name, day in days.items() for word in (name, f"{start.fromordinal(start.toordinal() + day)}")]
    code, out, err = lived.run("-m", "monitoring.drift_check", "--module", NAME, "--config", str(DEMO), *period)
    assert (code, err) == (0, "")
    assert out.startswith("Nothing has drifted.")


def test_retraining_is_judged_and_what_passes_watches_first(lived: Lived, platform: Connected) -> None:
    code, out, err = lived.module("retrain", "--force", "--why", "the world changed")
    acts = [done.act for done in platform.ledger.acts(NAME)]
    assert [act.act for act in acts[-3:]] == ["registered", "judged", "shadow"], (out, err)
    assert code == 0
    assert acts[-1].why == "the world changed"
    assert platform.ledger.traffic(NAME) == Traffic(1, None, "shadow", acts[-1].version)
    assert platform.registry.find(NAME, "shadow").number == acts[-1].version
    code, out, _ = lived.module("watch", "--once")
    assert (code, out) == (0, "hold: less than 2d in this stage\n")
    code, _, err = lived.module("retrain")
    assert (code, err.splitlines()[-1]) == (
        4,
        f"not now: version {acts[-1].version} is on trial; end it first, or wait",
    )


def test_a_candidate_that_is_not_better_for_sure_is_refused_and_production_stays(
    lived: Lived, platform: Connected
) -> None:
    """It learns from the days before the change, as production did."""
    text = DEMO.read_text().replace("retraining:\n", "retraining:\n  cool_down: 0s\n  maturity: 18d\n")
    (lived.folder / "calm.yaml").write_text(text)
    code, out, _ = lived.module("retrain", "--config", str(lived.folder / "calm.yaml"))
    act = platform.ledger.acts(NAME)[-1].act
    assert (act.act, act.figures["passed"]) == ("judged", False)
    assert (code, out) == (3, f"version {act.version} refused: {act.why}\n")
    traffic = platform.ledger.traffic(NAME)
    assert traffic is not None
    assert (traffic.production, traffic.candidate) == (1, None)


def test_retraining_from_nothing_is_one_clear_line(lived: Lived) -> None:
    code, out, err = lived.module("retrain", "--force", "--config", str(short_of_rows(lived.folder)))
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("error: no transaction lies within retraining.window 1d before ")


def short_of_rows(folder: Path) -> Path:
    """The demo's configuration with a window that lies before all transactions."""
    text = DEMO.read_text().replace("retraining:\n", "retraining:\n  window: 1d\n  maturity: 3650d\n")
    (folder / "short.yaml").write_text(text)
    return folder / "short.yaml"


def test_people_promote_try_and_take_back_and_history_tells_it(lived: Lived, platform: Connected) -> None:
    assert lived.module("retrain", "--force")[0] == 0
    two = platform.ledger.acts(NAME)[-1].act.version
    code, out, err = promote(lived, "--canary", str(two), "--weight", "0.05", "--why", "try it")
    assert (code, out, err) == (0, f"1 in production, {two} as canary on 5%\n", "")
    code, out, _ = promote(lived, "--back", "--why", "a complaint")
    assert (code, out) == (0, "1 in production\n")
    code, _, err = lived.module("retrain")
    last = "not now: the last candidate was made less than 7d ago; wait, or say --force"
    assert (code, err.splitlines()[-1]) == (4, last)
    code, out, _ = promote(lived, "--version", str(two))
    assert (code, out) == (0, f"{two} in production\n")
    assert platform.registry.find(NAME, "production").number == two
    assert platform.registry.find(NAME, "previous").number == 1
    code, out, _ = promote(lived, "--back")
    assert (code, out) == (0, "1 in production\n")
    code, out, _ = promote(lived, "--history")
    assert code == 0
    assert "each as it was written" in out
    assert out.count("ada") >= 4
    assert "complaint" in out
    acts = platform.ledger.acts(NAME)
    for done, said in zip(
        acts[-4:], (f"{two} as canary on 5%", "1 in production", f"{two} in pro", "1 in pro"), strict=True
    ):
        moment = datetime.fromtimestamp(done.at / 1e6, UTC).isoformat()
        code, out, err = promote(lived, "--at", moment)
        assert (code, err) == (0, "")
        assert said in out
    assert promote(lived, "--at", "1999-01-01")[1] == "nothing\n"


def test_a_worse_version_is_refused_with_reasons_unless_forced_with_a_reason(lived: Lived, platform: Connected) -> None:
    releases = Releases(NAME, platform.ledger, lambda: platform.registry)
    assert lived.module("retrain", "--force")[0] == 0
    two = platform.ledger.acts(NAME)[-1].act.version
    assert two is not None
    releases.promote(two, "ada", "it is better")
    # Against the new version the old one is worse, though it was in production before; the way back is --back.
    code, out, err = promote(lived, "--version", "1")
    assert code == 3
    assert "version 1 refused: average precision" in out + err
    assert promote(lived, "--version", "1")[0] == 3
    code, _, err = promote(lived, "--version", "1", "--force")
    assert (code, err) == (1, "error: --force needs a name and a reason: --who NAME --why TEXT\n")
    code, _, err = lived.run(
        PROMOTE, "--module", NAME, "--config", str(DEMO), "--version", "1", "--force", "--why", "x"
    )
    assert (code, err) == (1, "error: --force needs a name and a reason: --who NAME --why TEXT\n")
    assert promote(lived, "--version", "1", "--force", "--why", "the new one is down")[:2] == (0, "1 in production\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--canary", "9"], "no version of 'fraud_detection' is numbered 9"),
        (["--canary", "1"], "version 1 is in production; a trial needs another one"),
        (["--back"], "there is no way back"),
    ],
)
def test_what_makes_no_sense_is_one_clear_line(lived: Lived, words: list[str], said: str) -> None:
    code, out, err = promote(lived, *words)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
