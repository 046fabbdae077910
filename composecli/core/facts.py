"""Facts: the properties of a loaded model, as plain data."""

from __future__ import annotations

from dataclasses import dataclass

from composecli.core.dtypes import is_floating


@dataclass(frozen=True, slots=True)
class ArgumentFact:
    """One argument of forward. `type_name` is its annotation as printed, empty if it has none.

    `keyword_only`: it can be passed by name alone.
    """

    name: str
    type_name: str
    required: bool
    keyword_only: bool = False

    @property
    def call_name(self) -> str | None:
        """The name with which it is passed; None if it is passed by position."""
        if self.required and not self.keyword_only:
            return None
        return self.name


@dataclass(frozen=True, slots=True)
class NamedSizes:
    """A parameter or buffer without its values."""

    name: str
    dtype: str
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerFact:
    """One submodule: its class and the tensors of its own; `constants` are its integer settings."""

    name: str
    class_name: str
    parameters: tuple[NamedSizes, ...]
    constants: tuple[tuple[str, int], ...] = ()
    buffers: tuple[NamedSizes, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """A documented property of the input, named as in its library: `image_size`, `num_frames`."""

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The properties of a loaded model.

    `training` is `train`, `eval` or `mixed`. `parameters` and `trainable` count elements, and
    `size` is in bytes. Each item of `shared` lists the names of one tensor.
    """

    class_name: str
    arguments: tuple[ArgumentFact, ...]
    training: str
    layers: tuple[LayerFact, ...]
    parameters: int
    trainable: int
    size: int
    dtypes: tuple[str, ...]
    devices: tuple[str, ...]
    shared: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    settings: tuple[Setting, ...] = ()
    main_input: str | None = None

    @property
    def float_dtype(self) -> str:
        """The first floating dtype of the parameters; float32 if they have none."""
        for dtype in self.dtypes:
            if is_floating(dtype):
                return dtype
        return "float32"

    @property
    def needed_arguments(self) -> tuple[ArgumentFact, ...]:
        """The arguments that every call needs.

        These are the required ones. If there are none, it is the argument that the library calls
        the main input, or else the first one.
        """
        required = tuple(argument for argument in self.arguments if argument.required)
        if required:
            return required
        for argument in self.arguments:
            if argument.name == self.main_input:
                return (argument,)
        return self.arguments[:1]
