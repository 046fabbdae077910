"""Facts: what a loaded model says of itself, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ArgumentFact:
    """One argument of forward; `type_name` as its annotation prints, empty where it has none."""

    name: str
    type_name: str
    required: bool


@dataclass(frozen=True, slots=True)
class NamedSizes:
    name: str
    dtype: str
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LayerFact:
    """One submodule, its class and what it holds itself; `constants` are its whole-number settings."""

    name: str
    class_name: str
    parameters: tuple[NamedSizes, ...]
    constants: tuple[tuple[str, int], ...] = ()
    buffers: tuple[NamedSizes, ...] = ()


@dataclass(frozen=True, slots=True)
class Setting:
    """What a library documents of a model's input, by the name it has there: `image_size`, `num_frames`."""

    name: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a loaded model says of itself. `training` is `train`, `eval` or `mixed`; `size` is in bytes."""

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
        """The floating dtype that its parameters have, float32 where they have none."""
        return next(
            (dtype for dtype in self.dtypes if dtype.startswith(("float", "bfloat"))), "float32"
        )

    @property
    def needed_arguments(self) -> tuple[ArgumentFact, ...]:
        """The arguments that a call cannot do without: the required ones, else the one that the library calls the main
        input, else the first."""
        required = tuple(argument for argument in self.arguments if argument.required)
        if required or not self.arguments:
            return required
        main = tuple(argument for argument in self.arguments if argument.name == self.main_input)
        return main or self.arguments[:1]
