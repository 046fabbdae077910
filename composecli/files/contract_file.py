"""Contract files: a contract as JSON, written by `inspect --write-contract` or by hand."""

from __future__ import annotations

import json
from pathlib import Path

from composecli.core.contract import Contract
from composecli.core.contract_document import SCHEMA_ID, as_document, parse_document
from composecli.core.documents import InvalidDocument, place_text
from composecli.core.errors import CouldNotAttempt, Problem
from composecli.core.rules import Rule
from composecli.files.json_lines import line_of
from composecli.files.strict_json import parse_json

MAX_CONTRACT_BYTES = 16 * 2**20
_KEYS = (SCHEMA_ID.encode(), b'"inputs"', b'"outputs"')
_SCHEMA_FILE = Path(__file__).with_name("contract_v1.json")


def is_contract(head: bytes, _size: int = 0) -> bool:
    """Return whether a file starts as a contract does."""
    return head.lstrip().startswith(b"{") and any(key in head for key in _KEYS)


def schema_text() -> str:
    """Return the JSON Schema (draft 2020-12) of contract files."""
    return _SCHEMA_FILE.read_text(encoding="utf-8")


def contract_text(contract: Contract) -> str:
    """Return the text of a contract file: keys are sorted, and each dim has a line."""
    document = as_document(contract)
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def read_contract(path: str) -> Contract:
    """Return the contract in a file.

    Raises:
        CouldNotAttempt: if it is not a contract; the problem names the line.
        OSError: if it cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(MAX_CONTRACT_BYTES + 1)
    if len(data) > MAX_CONTRACT_BYTES:
        raise _invalid(path, f"it has more than {MAX_CONTRACT_BYTES:,} bytes")
    try:
        text = data.decode("utf-8")
        document = parse_json(text)
    except json.JSONDecodeError as error:
        message = f"{error.msg}, before column {error.colno}"
        raise _invalid(f"{path}:{error.lineno}", message) from None
    except (ValueError, RecursionError) as error:
        raise _invalid(path, str(error)) from None
    try:
        return parse_document(document, Path(path).name)
    except InvalidDocument as mistake:
        where = f"{path}:{line_of(text, mistake.place)}"
        message = f"{mistake}"
        if mistake.place:
            message = f"{place_text(mistake.place)}: {mistake}"
        raise _invalid(where, message) from None


def _invalid(where: str, message: str) -> CouldNotAttempt:
    """Return the error for a file that is not a contract."""
    title = "the contract file has a mistake"
    help = ("composecli schema contract",)
    return CouldNotAttempt(Problem(Rule.INVALID_CONTRACT_FILE, title, where, (message,), help))
