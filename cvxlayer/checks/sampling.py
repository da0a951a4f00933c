# SPDX-License-Identifier: Apache-2.0
"""Values to check a problem at: drawn inside the declared domains, or read from a file."""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cvxlayer.domains import find_violation
from cvxlayer.errors import ParameterValueError, ProblemFileError, suggest
from cvxlayer.inputs import InputRule, batch_inputs
from cvxlayer.program.parameters import (
    ParameterDomain,
    ParameterSpec,
    from_coordinates,
    to_coordinates,
)

# How far values are drawn from one that the file sets, relative to its size.
_SPREAD = 0.1
# Distance that drawn values keep from the border of a one-sided domain.
_MARGIN = 0.1


@dataclasses.dataclass(frozen=True, eq=False)
class Values:
    """One value per parameter for each instance of a batch.

    Attributes:
        rows: per parameter (batch, size), or (1, size) for a value all instances share.
        sources: per parameter, where the values come from, in words.
        batch: number of instances.
        is_given: whether they were given rather than drawn.
    """

    rows: tuple[Float[np.ndarray, "_ _"], ...]
    sources: tuple[str, ...]
    batch: int
    is_given: bool


def sample_values(
    specs: Sequence[ParameterSpec], centers: Sequence[np.ndarray | None], batch: int, seed: int
) -> Values:
    """Draw values inside the declared domains.

    Args:
        specs: the parameters.
        centers: for each, the value its file sets, to draw near to, or None.
        batch: number of instances.
        seed: of the random generator.

    Raises:
        ParameterValueError: the attributes of a parameter leave no value that this can find.
    """
    rng = np.random.default_rng(seed)
    rows: list[np.ndarray] = []
    sources: list[str] = []
    for spec, center in zip(specs, centers, strict=True):
        value = _draw(spec, center, batch, rng)
        violation = find_violation(spec.domain, value, np.finfo(np.float64).eps)
        if violation is not None:
            raise ParameterValueError(
                f"No value could be drawn for `{spec.name}`: it must be {violation[1]}, which the "
                "combination of its attributes rules out. Give values with --values."
            )
        rows.append(to_coordinates(spec, value))
        sources.append("drawn" if center is None else "near the file's value")
    return Values(tuple(rows), tuple(sources), batch, is_given=False)


def _draw(
    spec: ParameterSpec, center: np.ndarray | None, batch: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw a stack of values, then move each into its domain."""
    noise = from_coordinates(spec, rng.standard_normal((batch, spec.size)), (batch,))
    domain = spec.domain
    if center is None:
        return _constrain(domain, noise, rng)
    size = float(np.sqrt(np.mean(np.abs(center) ** 2))) if center.size else 0.0
    # A semidefinite difference keeps a semidefinite value semidefinite.
    step = _constrain(domain, noise, rng) if domain.is_psd or domain.is_nsd else noise
    near = center + _SPREAD * (size or 1.0) * step
    return restrict_shape(domain, _clip(domain, near, center))


def _constrain(domain: ParameterDomain, noise: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn standard normal numbers into values well inside the domain."""
    value = noise
    if domain.is_psd or domain.is_nsd:
        dimension = noise.shape[-1]
        value = noise @ noise.swapaxes(-1, -2).conj() / dimension + _MARGIN * np.eye(dimension)
        value = value if domain.is_psd else -value
    if domain.is_nonneg or domain.is_pos:
        value = _MARGIN + np.abs(value)
    if domain.is_nonpos or domain.is_neg:
        value = -_MARGIN - np.abs(value)
    if domain.is_integer:
        value = np.round(3 * value)
    if domain.is_boolean:
        value = (value > 0).astype(np.float64)
    value = _within_bounds(domain, value, rng)
    return restrict_shape(domain, value)


def _within_bounds(
    domain: ParameterDomain, value: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return uniform values between two bounds, shifted ones beyond a single bound."""
    if domain.lower is None and domain.upper is None:
        return value
    shape = value.shape[1:]
    lower = np.broadcast_to(-np.inf if domain.lower is None else domain.lower, shape)
    upper = np.broadcast_to(np.inf if domain.upper is None else domain.upper, shape)
    has_lower, has_upper = np.isfinite(lower), np.isfinite(upper)
    low, high = np.where(has_lower, lower, 0.0), np.where(has_upper, upper, 0.0)
    between = low + (high - low) * rng.uniform(_MARGIN, 1 - _MARGIN, value.shape)
    value = np.where(has_lower & ~has_upper, low + _MARGIN + np.abs(value), value)
    value = np.where(~has_lower & has_upper, high - _MARGIN - np.abs(value), value)
    value = np.where(has_lower & has_upper, between, value)
    if domain.is_integer or domain.is_boolean:
        value = np.clip(np.round(value), np.ceil(lower), np.floor(upper))
    return value


def _clip(domain: ParameterDomain, value: np.ndarray, center: np.ndarray) -> np.ndarray:
    """Return values near the center on the side of zero and within the bounds it respects."""
    if domain.is_nonneg or domain.is_pos:
        # Halfway at most: a positive weight stays positive.
        value = np.maximum(value, 0.5 * center)
    if domain.is_nonpos or domain.is_neg:
        value = np.minimum(value, 0.5 * center)
    if domain.is_integer or domain.is_boolean:
        value = np.broadcast_to(center, value.shape).copy()
    if domain.lower is not None or domain.upper is not None:
        value = np.clip(value, domain.lower, domain.upper)
    return value


def restrict_shape(domain: ParameterDomain, value: np.ndarray) -> np.ndarray:
    """Return the symmetric, diagonal, sparse or imaginary part of each value, as declared."""
    if domain.is_symmetric:
        value = 0.5 * (value + value.swapaxes(-1, -2))
    if domain.is_hermitian:
        value = 0.5 * (value + value.swapaxes(-1, -2).conj())
    if domain.is_imag:
        value = 1j * np.imag(value)
    if domain.is_diag:
        value = value * np.eye(value.shape[-1])
    if domain.sparsity is not None:
        value = np.where(domain.sparsity, value, 0.0)
    return value


def read_values(
    path: Path, rules: tuple[InputRule, ...], centers: Sequence[np.ndarray | None]
) -> Values:
    """Read values from an `.npz` file: one array per parameter, under its name.

    Args:
        path: the file; each array ends in the shape of its parameter, and may have batch
            dimensions before it.
        rules: what the values must satisfy.
        centers: for each parameter, the value its file sets, used where the archive has none.

    Raises:
        ProblemFileError: the file is missing or not an archive of arrays.
        ParameterValueError: a parameter has no value, a name is unknown, or a value is not
            finite or outside its declared domain.
        ShapeError: a value has the wrong shape.
    """
    archive = _load_archive(path)
    names = [rule.spec.name for rule in rules]
    for name in names:
        if names.count(name) > 1:
            raise ParameterValueError(
                f"{names.count(name)} parameters of the problem are named `{name}`, so `{path}` "
                "cannot say which value is whose. Give them different names."
            )
    for name in archive:
        if name not in names:
            raise ParameterValueError(
                f"`{path}` holds `{name}`, which is not a parameter of the problem. "
                f"{suggest(name, names)}"
            )
    arrays: list[np.ndarray] = []
    for name, center in zip(names, centers, strict=True):
        value = archive.get(name, center)
        if value is None:
            raise ParameterValueError(
                f"`{path}` has no value for the parameter `{name}`. It must hold one array for "
                "each parameter of the problem whose value the file does not set."
            )
        arrays.append(value)
    epsilon = float(np.finfo(np.float64).eps)
    inputs = batch_inputs(rules, arrays, [epsilon] * len(arrays))
    source = f"from {path.name}"
    sources = tuple(source if name in archive else "the file's value" for name in names)
    return Values(inputs.values, sources, inputs.size, is_given=True)


def _load_archive(path: Path) -> dict[str, np.ndarray]:
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        with archive:
            return {name: _as_wide(path, name, archive[name]) for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if isinstance(error, ParameterValueError):
            raise
        raise ProblemFileError(
            f"The values file `{path}` cannot be read: {error}. It must be an archive of arrays "
            "by parameter name, as `numpy.savez(path, name=array)` writes."
        ) from error


def _as_wide(path: Path, name: str, array: Any) -> np.ndarray:
    if array.dtype.kind not in "fiubc":
        raise ParameterValueError(
            f"`{name}` in `{path}` has the dtype {array.dtype}; it must be numbers. "
            "Convert it with `.astype(float)`."
        )
    return array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)
