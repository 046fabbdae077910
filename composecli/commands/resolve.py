"""Targets: each MODEL argument with the file behind it, scanned before anything loads it."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.commands.near_misses import with_near_misses
from composecli.commands.references import locate
from composecli.commands.requests import Options
from composecli.commands.trust import Trust
from composecli.core.errors import CouldNotAttempt, Problem, Remedy
from composecli.core.model_ref import (
    FactoryReference,
    ModelKind,
    Reference,
    literal_arguments,
)
from composecli.core.rules import Rule
from composecli.files.checkpoint_entries import Selector
from composecli.files.sniff import ModelFile, WeightsFile, sniff, weights_alone

_DEFAULT = Options()


@dataclass(frozen=True, slots=True)
class Target:
    """A model that may be opened.

    `file` is None for a factory, whose file holds nothing but weights. `trust` is set if the user
    trusts the file.
    """

    reference: Reference
    kind: ModelKind
    file: ModelFile | None
    trust: Trust | None = None

    @property
    def name(self) -> str:
        """The MODEL argument."""
        return self.reference.name

    @property
    def path(self) -> str | None:
        """The file of the model, or of its weights; None for a factory without weights."""
        return self.reference.path


def paths_of(targets: tuple[Target, ...]) -> tuple[str, ...]:
    """Return the files of the targets, in order."""
    return tuple(target.path for target in targets if target.path is not None)


def identify_all(models: tuple[str, ...], options: Options) -> tuple[Target, ...]:
    """Return the target of each MODEL argument of a command.

    Raises:
        CouldNotAttempt: as `identify` does.
    """
    return tuple(identify(model, options) for model in models)


def identify(text: str, options: Options = _DEFAULT) -> Target:
    """Return the target that a MODEL argument names.

    Raises:
        CouldNotAttempt: if there is no model, or it needs trust that the user has not given.
    """
    reference = locate(text)
    if isinstance(reference, FactoryReference):
        return _identify_factory(reference, options)
    selector = Selector(options.key, libraries=options.libraries)
    sniffed = _sniffed(reference, reference.path, selector)
    trust = _trust_in(reference.path, options.trust)
    if isinstance(sniffed, WeightsFile):
        raise CouldNotAttempt(weights_alone(sniffed))
    if trust is None:
        allowed_ops = frozenset(options.allowed_ops)
        _refuse(sniffed.refusal(allowed_ops, imports=bool(options.imports)))
    return Target(reference, sniffed.kind, sniffed, trust)


def _identify_factory(reference: FactoryReference, options: Options) -> Target:
    """Return the target of a factory, whose weights are checked if it has any.

    A pickled module is accepted as weights: its tensors are read, and nothing in it is run.
    """
    _refuse(_problem_of_arguments(reference))
    if reference.path is None:
        return Target(reference, ModelKind.FACTORY_ALONE, None)
    selector = Selector(options.key, weights=True)
    sniffed = _sniffed(reference, reference.path, selector)
    if isinstance(sniffed, ModelFile):
        raise CouldNotAttempt(_not_weights(sniffed))
    trust = _trust_in(reference.path, options.trust)
    return Target(reference, ModelKind.FACTORY, None, trust)


def _problem_of_arguments(reference: FactoryReference) -> Problem | None:
    """Return the problem of a call whose arguments are not literals."""
    try:
        literal_arguments(reference.arguments)
    except ValueError as error:
        title = "the arguments of the factory are not literals"
        help = ("write numbers, 'texts', True, None, lists or dicts: net.py:Net(10, act='relu')",)
        return Problem(Rule.FACTORY_FAILED, title, reference.name, (str(error),), help)
    return None


def _sniffed(reference: Reference, path: str, selector: Selector) -> ModelFile | WeightsFile:
    """Return the content of the file of a reference.

    Raises:
        CouldNotAttempt: if there is no model and no weights in it.
    """
    sniffed = sniff(path, selector)
    if isinstance(sniffed, Problem):
        raise CouldNotAttempt(with_near_misses(sniffed, reference))
    return sniffed


def _trust_in(path: str, trusts: tuple[Trust, ...]) -> Trust | None:
    """Return the first trust that covers a file."""
    return next((trust for trust in trusts if trust.covers(path)), None)


def _not_weights(file: ModelFile) -> Problem:
    """Return the problem of a factory whose weights file is a whole model."""
    title = f"the file contains a whole model ({file.kind}), not weights"
    remedies = (Remedy(model=file.path, effect="loads the model as it was saved"),)
    return Problem(Rule.NOT_A_MODEL, title, file.path, remedies=remedies)


def _refuse(refusal: Problem | None) -> None:
    """Raise the refusal, if there is one."""
    if refusal is not None:
        raise CouldNotAttempt(refusal)
