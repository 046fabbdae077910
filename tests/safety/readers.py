"""The readers of files that need no torch, each with a file around its input.

`Reader.attempt` reads an input as the commands would, and says what is wrong with how that ended: a
reader refuses an input in its own way, in a short time, or has an answer.
"""

from __future__ import annotations

import io
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from composecli.files.archive import Archive, NotAnArchive, damaged_records
from composecli.files.checkpoint_archive import checkpoint_skeleton
from composecli.files.checkpoint_weights import state_dicts
from composecli.files.members import open_members
from composecli.files.old_format import is_old_format
from composecli.files.pickle import NotAPickle
from composecli.files.pickle_tree import tree_of
from composecli.files.pickled_module import Unreadable
from composecli.files.private_copy import anonymous_file
from composecli.files.pt2 import foreign_types
from composecli.files.safety.extension_ops import classes_in_code, ops_in_code, ops_in_programs
from composecli.files.skeleton import is_frozen, script_skeleton
from composecli.files.sniff import ModelFile, WeightsFile, sniff
from composecli.files.source_code import classes_in, defines
from composecli.files.torchscript import attributes, check_debug_pickles, classes, pickles
from composecli.files.weight_names import Fit
from tests.safety.fixtures import MODEL_OBJECT, MODULE
from tests.safety.mutations import Mutated, Mutation, mutate, mutate_old_format, mutate_program
from tests.safety.script_mutations import mutate_script

MAX_SECONDS = 3.0

# What a file that was recognized may still be refused with when more of it is read.
_REFUSALS = (NotAnArchive, NotAPickle, Unreadable)
_RECORDS = {f"data/{number}": bytes(64) for number in range(4)}
_CHECKPOINT = {"byteorder": b"little", "version": b"3\n", **_RECORDS}
_SCRIPT = {
    **_CHECKPOINT,
    "constants.pkl": b"\x80\x02).",
    "data.pkl": b"\x80\x02" + MODEL_OBJECT + b".",
    "code/__torch__.py": MODULE.encode(),
}
_EXPORTED = {
    "archive_format": b"pt2",
    "byteorder": b"little",
    ".data/version": b"3\n",
    "data/weights/weight_0": bytes(24),
    "data/weights/weight_1": bytes(8),
}


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader, and how its input becomes the files that it reads.

    `files` are the contents of files with an input, `inputs` the inputs in a file, and `mutations`
    those of files that change an input.
    """

    files: Callable[[bytes], Iterator[bytes]]
    inputs: Callable[[bytes], Iterator[bytes]]
    mutations: tuple[Mutation, ...]

    def attempt(self, data: bytes) -> str:
        """Read an input; return the traceback if that ends in one, or "" if nothing is wrong."""
        start = time.monotonic()
        try:
            for content in self.files(data):
                _read_file(content)
        except Exception:
            return traceback.format_exc()
        seconds = time.monotonic() - start
        if seconds > MAX_SECONDS:
            return f"it took {seconds:.1f} s"
        return ""

    def mutated(self, data: bytes, random: Random) -> bytes | None:
        """Return an input with one of the mutations, None if it did not suit the input."""
        try:
            content = next(self.files(data))
            before = set(self.inputs(content))
            mutated = random.choice(self.mutations)(content, random, "MARK")
            others = [item for item in self.inputs(mutated.data) if item not in before]
        except Exception:
            return None
        if not others:
            return None
        return random.choice(others)


def _read_file(content: bytes) -> None:
    """Read a file as the commands do: what it is, and then whatever else is asked of its kind."""
    with anonymous_file() as file:
        file.write(content)
        file.flush()
        path = f"/dev/fd/{file.fileno()}"
        found = sniff(path)
        if isinstance(found, ModelFile):
            found.refusal()
        try:
            if isinstance(found, ModelFile | WeightsFile):
                damaged_records(path)
                _read_on(Path(path))
        except _REFUSALS:
            pass
        classes_in(path)
        defines(path, "Model")


def _read_on(path: Path) -> None:
    """Read what questions about a recognized file need."""
    with open_members(path) as members:
        if "data.pkl" in members.names:
            parsed = members.pickle("data.pkl")
            tree_of(parsed.value)
            for held in state_dicts(parsed.value, None)[:1]:
                checkpoint_skeleton(members, held.part(_identity_fit(held.weights)))
        if isinstance(members, Archive):
            _read_archive(members)


def _identity_fit(weights: Mapping[str, object]) -> Fit:
    return Fit({name: name for name in weights})


def _read_archive(archive: Archive) -> None:
    """Read what is asked of programs, before they are loaded."""
    archive.directory_bytes()
    for name in archive.names_in_order():
        archive.checksum(name)
    foreign_types(archive)
    ops_in_programs(archive)
    ops_in_code(archive)
    classes_in_code(archive)
    list(check_debug_pickles(archive))
    if "constants.pkl" in archive.names:
        classes(pickles(archive))
        attributes(archive)
        is_frozen(archive)
        script_skeleton(archive)


def _archive(members: Mapping[str, bytes]) -> bytes:
    """Return an archive with these members."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"model/{name}"), content)
    return data.getvalue()


def _unchanged(data: bytes) -> Iterator[bytes]:
    yield data


def _pickle_files(data: bytes) -> Iterator[bytes]:
    """Yield a pickle in each place where a file has one."""
    if is_old_format(data):
        yield data
        return
    yield _archive({**_CHECKPOINT, "data.pkl": data})
    debug = {"code/__torch__.py.debug_pkl": data}
    yield _archive({**_SCRIPT, "data.pkl": data, "traced_inputs.pkl": data, **debug})
    yield _archive({**_SCRIPT, "constants.pkl": data})
    samples = _archive({**_CHECKPOINT, "data.pkl": data})
    yield _archive(
        {**_EXPORTED, "models/model.json": b"{}", "data/sample_inputs/model.pt": samples}
    )


def _json_files(data: bytes) -> Iterator[bytes]:
    """Yield a .pt2 archive with the JSON as its program, or as the index of its weights."""
    program, index = data, b'{"config": {}}'
    if data.startswith(b'{"config"'):
        program, index = b"{}", data
    members = {"models/model.json": program, "data/weights/model_weights_config.json": index}
    yield _archive({**_EXPORTED, **members})


def _source_files(data: bytes) -> Iterator[bytes]:
    """Yield the source as that of a TorchScript archive, and as a file of Python."""
    yield _archive({**_SCRIPT, "code/__torch__.py": data})
    yield data


def _members_with(*endings: str) -> Callable[[bytes], Iterator[bytes]]:
    """Return what yields the members with one of these endings."""

    def members(data: bytes) -> Iterator[bytes]:
        if is_old_format(data):
            return
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                if name.endswith(endings):
                    yield archive.read(name)

    return members


def _pickles(data: bytes) -> Iterator[bytes]:
    """Yield the pickles of an archive, or a file in the old format."""
    if is_old_format(data):
        yield data
    yield from _members_with(".pkl", ".debug_pkl")(data)


def _mutate_pickle(data: bytes, random: Random, mark: str) -> Mutated:
    if is_old_format(data):
        return mutate_old_format(data, random, mark)
    return random.choice((mutate, mutate_script))(data, random, mark)


READERS = {
    "archives": Reader(_unchanged, _unchanged, (mutate,)),
    "pickles": Reader(_pickle_files, _pickles, (_mutate_pickle,)),
    "programs": Reader(_json_files, _members_with(".json"), (mutate, mutate_program)),
    "sources": Reader(_source_files, _members_with(".py"), (mutate, mutate_script)),
}
