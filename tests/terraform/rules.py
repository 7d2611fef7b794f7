"""Rules of our own for what checkov does not see; each gives the lines that break it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SOURCES = re.compile(r"^ +(cidr_ipv4|cidr_ipv6|prefix_list_id) += (.+)$", re.MULTILINE)
OPERATOR = [("cidr_ipv4", "var.my_ip_cidr")]
STAR = re.compile(r'"[a-z0-9-]+:\*"')
WRITTEN = re.compile(r"^\s*(assume_role_)?policy\s*= (jsonencode|<<)", re.MULTILINE)
NO_POLICY = "aws_ecr_lifecycle_policy"
"""It has an attribute `policy` and gives nobody a right."""


class Block(NamedTuple):
    """A block at the top of a file, such as `resource "aws_instance" "core"`."""

    file: str
    kind: str
    type: str
    name: str
    text: str

    @property
    def place(self) -> str:
        """Its file and address, for a message."""
        return f"{self.file}: {self.type}.{self.name}"


def broken(folder: Path) -> list[str]:
    """Every rule that the files of a folder break."""
    blocks = [block for file in sorted(folder.glob("*.tf")) for block in _blocks(file)]
    return [said for block in blocks for rule in RULES for said in rule(block)]


def open_to_the_world(block: Block) -> Iterator[str]:
    """One rule lets an address in, the operator's alone; others let in a group; and rules stand where the others are.

    Which ports that one rule opens, and that its address is a single one, the tests of the plan see.
    """
    if block.type == "aws_vpc_security_group_ingress_rule":
        found = SOURCES.findall(block.text)
        if found and (block.name, found) != ("operator", OPERATOR):
            yield f"{block.place} lets in {', '.join(value for _, value in found)}"
    if (block.kind, block.type) == ("variable", "my_ip_cidr") and re.search(r"^  default\b", block.text, re.MULTILINE):
        yield f"{block.file}: my_ip_cidr has a default, so somebody's address would be let in unasked"
    if block.type == "aws_security_group_rule" or (
        block.type.endswith("_security_group") and re.search(r"^  (in|e)gress\b", block.text, re.MULTILINE)
    ):
        yield f"{block.place}: a rule is a resource of its own: aws_vpc_security_group_ingress_rule"


def full_access(block: Block) -> Iterator[str]:
    """AWS's policies for everything are named in the one list that a switch guards."""
    names = re.findall(r"\w*FullAccess\w*|AdministratorAccess|PowerUserAccess|SecretsManagerReadWrite", block.text)
    if names and not (block.kind == "locals" and "full_access = [" in block.text):
        yield f"{block.place} gives {', '.join(names)}"
    if "local.full_access" in block.text and "toset(var.full_access ? local.full_access : [])" not in block.text:
        yield f"{block.place} gives full access without being asked"


def unencrypted_root(block: Block) -> Iterator[str]:
    """A root disk says that it is encrypted: what is not said is not."""
    if block.type == "aws_instance":
        root = re.search(r"root_block_device \{(.*?)\n  \}", block.text, re.DOTALL)
        if root is None or not re.search(r"encrypted\s+= true", root[1]):
            yield f"{block.place}: the root disk is not encrypted"


def written_policy(block: Block) -> Iterator[str]:
    """A policy is a document: checkov does not evaluate one that is written as JSON with references."""
    if block.type != NO_POLICY and WRITTEN.search(block.text):
        yield f"{block.place}: write its policy as aws_iam_policy_document"


def whole_service(block: Block) -> Iterator[str]:
    """Nobody may do everything that a service can, unless it is forbidden."""
    if block.type == "aws_iam_policy_document":
        for statement in re.split(r"\n  statement \{", block.text)[1:]:
            if STAR.search(statement) and not re.search(r'effect\s+= "Deny"', statement):
                yield f"{block.place} allows {', '.join(STAR.findall(statement))}"


def secret_value(block: Block) -> Iterator[str]:
    """A value of a secret would stand in the state."""
    if block.type in ("aws_secretsmanager_secret_version", "random_password"):
        yield f"{block.place} holds a secret's value"


def any_workflow(block: Block) -> Iterator[str]:
    """Who trusts GitHub trusts one branch of one repository: its tokens are given to every workflow in the world."""
    if block.type == "aws_iam_policy_document" and "sts:AssumeRoleWithWebIdentity" in block.text:
        subject = re.search(r':sub"\n\s+values\s+= \["([^"]*)"\]', block.text)
        if subject is None or subject[1] != "repo:${var.github_repository}:ref:refs/heads/main":
            yield f"{block.place} trusts more than the workflow on main"


RULES = (open_to_the_world, full_access, unencrypted_root, written_policy, whole_service, secret_value, any_workflow)


def _blocks(file: Path) -> Iterator[Block]:
    pattern = r'^(\w+)(?: "([\w-]+)")?(?: "([\w-]+)")? \{\n(.*?)^\}'
    for found in re.finditer(pattern, file.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        kind, type_, name, text = found.groups(default="")
        yield Block(file.name, kind, type_, name, text)
