"""What comes in from others, and what must not go out: the SBOM, the command for advisories, the scan for secrets."""

import json
import re
import shlex
from pathlib import Path

from tests.conftest import ROOT
from tests.infra.house import House

LOCKS = {"serve": "requirements/serve.txt", "train": "modules/fraud_detection/requirements.txt"}
WORD = "Tr0ub4" + "dor-and-3"
PLANTED = {
    "infra/account.py": f'key = "{"AKIA" + "Q3EGRT7YHUJ2K5LM"}"',
    "mlops/hub.py": f'token = "{"ghp_" + "x7Kq" * 9}"',
    "infra/compose.override.yaml": f"    environment: {{LEDGER: 'postgresql://app:{WORD}@db/ledger'}}",
    "tests/key.pem": "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEowIBAAKCAQEA7bq\n-----END RSA " + "PRIVATE KEY-----",
    "terraform/more.tf": f'  password = "{WORD}"',
    "requirements/other.txt": f"--extra-index-url https://me:{WORD}@packages.corp/simple",
    "notebooks/look.ipynb": f'{{"source": ["password = \'{WORD}\'"]}}',
}


def locked(house: House, file: str) -> set[tuple[str, str]]:
    text = (house.folder / file).read_text(encoding="utf-8")
    return set(re.findall(r"^([\w.-]+)==([^ ;\\]+)", text, re.MULTILINE))


def test_the_sbom_lists_every_locked_package_with_its_version_and_is_reproducible(tmp_path: Path) -> None:
    house = House(tmp_path, *LOCKS.values())
    done = house.make("sbom")
    assert done.returncode == 0, done.stdout
    files = {name: house.folder / "dist" / f"sbom-{name}.json" for name in LOCKS}
    first = {name: file.read_bytes() for name, file in files.items()}
    for name, body in first.items():
        listed = json.loads(body)
        assert listed["bomFormat"] == "CycloneDX"
        assert listed["metadata"]["component"]["name"] == "mlops-platform"
        assert {(one["name"], one["version"]) for one in listed["components"]} == locked(house, LOCKS[name])
        assert all(one["purl"].startswith("pkg:pypi/") for one in listed["components"])
    house.make("sbom")
    assert {name: file.read_bytes() for name, file in files.items()} == first


def test_the_command_for_advisories_understands_every_lock_file_and_installs_nothing(tmp_path: Path) -> None:
    house = House(tmp_path, *LOCKS.values(), "requirements/dev.txt")
    command = shlex.split(house.run("make", "--dry-run", "audit").stdout)
    done = house.run(*command, "--dry-run")
    assert done.returncode == 0, done.stdout
    found = re.search(r"would have audited (\d+) packages", done.stdout)
    assert found is not None
    assert int(found[1]) > 100
    assert {"--strict", "--disable-pip", "--require-hashes", *LOCKS.values()} <= set(command)


def test_planted_secrets_are_found_each_and_are_not_printed(tmp_path: Path) -> None:
    house = House(tmp_path)
    for name, text in PLANTED.items():
        house.write(name, f"{text}\n")
    done = house.make("secrets-scan")
    assert done.returncode != 0
    assert {name for name in PLANTED if f"Location:    {name}:" in done.stdout} == set(PLANTED), done.stdout
    assert WORD not in done.stdout


def test_hashes_names_of_secrets_and_the_words_of_tests_are_no_secrets(tmp_path: Path) -> None:
    house = House(tmp_path)
    digest = "7b9f5c0d" * 8
    house.write("requirements/other.txt", f"one==1 \\\n    --hash=sha256:{digest} \\\n    --hash=sha256:{digest}\n")
    house.write("tests/test_it.py", 'URL = "redis://:hunter2@cache:6379/0"\nSECRET = "mlops/redis-url"\n')
    done = house.make("secrets-scan")
    assert done.returncode == 0, done.stdout


def test_no_file_and_no_folder_is_left_out_of_the_scan() -> None:
    known = json.loads((ROOT / ".secrets.baseline").read_text(encoding="utf-8"))
    assert known["results"] == {}
    assert not [one for one in known["filters_used"] if "exclude_file" in one["path"]]
