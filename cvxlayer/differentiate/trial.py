# SPDX-License-Identifier: Apache-2.0
"""A closer look at instances whose derivative is in doubt: is the doubt of any consequence?

A constraint on the verge matters if the parameters move it and the outputs respond when it
changes sides. Both are read off one answer of the linear system: that of a unit disturbance of the
constraint, which is also the cotangent of its slack, or of its multiplier.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from cvxlayer.cones.margin import crossing
from cvxlayer.differentiate.branching import MOST_TOGETHER, is_branching
from cvxlayer.differentiate.examination import Examination
from cvxlayer.differentiate.relevance import NOISE, Relevance, Responses, multiply_A
from cvxlayer.program.batch import ConeProgramBatch
from cvxlayer.program.cone_derivative import LinearizedDerivative
from cvxlayer.program.derivative_report import DerivativeTest
from cvxlayer.program.solution import ConeSolution

# Of the constraints of an instance on the verge, so many of the closest are looked at.
_MOST_CANDIDATES = 32
# Half the distance, relative to the point, between the two sides of a curved cone's kink.
_STEP = 1e-7
_MARGINS_OF_STEP = 10.0
# Gradients of the two sides that differ by less, relative, are the same.
_SAME = 1e-4


@runtime_checkable
class ExaminingDerivative(LinearizedDerivative, Protocol):
    """An engine of derivatives that also tells how regular its points are."""

    def examine(
        self,
        prepared: Any,
        batch: ConeProgramBatch,
        solution: ConeSolution,
        *,
        threads: int | None,
    ) -> Examination:
        """See `examination.examine`."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """Some instances, and what was found against them so far, which its methods add to.

    Attributes:
        primitives, prepared, threads: the engine.
        batch: the instances.
        found: what the examination found of them.
        relevance: what the layer returns, and its parameters.
        distance: the margins; infinite where they turned out not to matter.
        failed: `DerivativeTest` flags.
        involved: the rows of the cone program that make tests fail.
    """

    primitives: ExaminingDerivative
    prepared: Any
    threads: int | None
    batch: ConeProgramBatch
    found: Examination
    relevance: Relevance
    distance: Float[np.ndarray, "instances margins"]
    failed: Int[np.ndarray, " instances"]
    involved: Bool[np.ndarray, "instances m"]

    def try_null_vectors(self) -> None:
        """Fail instances whose outputs depend on what the linear system does not determine.

        A null vector of K is one of x and one of y, each by itself.
        """
        rows = np.flatnonzero(self.found.is_singular)
        if not len(rows):
            return
        null = self._responses(rows, (self.found.null_x[rows], self.found.null_y[rows]))
        of_x, of_y = null.part(of_x=True), null.part(of_x=False)
        A = self.batch.A if len(self.batch.A) == 1 else self.batch.A[rows]
        # The constraints where the set of solutions ends.
        slack = multiply_A(self.relevance.program, A, of_x.lam)
        scale = np.abs(slack * self.found.factors[rows, len(of_x.lam[0]) :])
        is_bounding = scale > NOISE * scale.max(axis=1, initial=0.0)[:, None]
        self._fail(rows, self.relevance.to_outputs(of_x), DerivativeTest.CONSISTENCY, is_bounding)
        self._fail(rows, self.relevance.to_outputs(of_y), DerivativeTest.CONSISTENCY, null.nu != 0)
        moved = self.relevance.to_parameters(of_y)
        self._fail(rows, moved, DerivativeTest.DUAL_UNIQUENESS, null.nu != 0)

    def try_linear(self, is_near: Bool[np.ndarray, "instances num_linear"]) -> None:
        """Fail instances with linear rows on the verge that matter.

        Args:
            is_near: which rows are on the verge, or were dropped because they depend on others.
        """
        if not is_near.any():
            return
        cones = self.batch.structure.cones
        is_near = is_near & self._may_matter(is_near)[:, None]
        instance, row = np.nonzero(self._closest(is_near))
        if not len(instance):
            return
        unit = np.zeros((len(row), self.batch.structure.num_rows))
        unit[np.arange(len(row)), row] = 1.0
        is_active = self.found.point.is_active[instance, row] > 0
        found = self._answer_all(instance, unit * is_active[:, None], unit * ~is_active[:, None])
        # Such a row is a combination of active ones: its multiplier can take their place.
        is_dependent = ~is_active & ~found.lam.any(axis=1)
        responds, moves = self.relevance.to_outputs(found), self.relevance.to_parameters(found)
        is_kink = ~is_dependent & responds & moves
        is_crowded = is_dependent & moves
        is_crowded[is_crowded] = responds[is_crowded] | self._notices_exchange(
            instance[is_crowded], found.nu[is_crowded]
        )
        is_joint = self._are_harmless_together(
            instance, row, is_active, found, is_kink | is_crowded
        )
        is_kink, is_crowded = is_kink & ~is_joint, is_crowded & ~is_joint
        combined, alone = found.nu != 0, unit != 0
        self._fail(instance, is_kink, DerivativeTest.STRICT_COMPLEMENTARITY, alone)
        self._fail(instance, is_crowded, DerivativeTest.DUAL_UNIQUENESS, combined)
        self._fail(instance, is_dependent & responds, DerivativeTest.CONSISTENCY, combined)
        harmless = ~(is_kink | is_crowded) & (row >= cones.zero)
        self.distance[instance[harmless], row[harmless] - cones.zero] = np.inf

    def try_curved(self, is_near: Bool[np.ndarray, "instances cones"]) -> None:
        """Fail instances on a kink of a curved cone, where the gradients of both sides differ."""
        instance, place = np.nonzero(is_near)
        if not len(instance):
            return
        cones = self.batch.structure.cones
        shift = np.zeros((len(instance), self.batch.structure.num_rows))
        for pair, (one, which) in enumerate(zip(instance, place, strict=True)):
            cone = cones.curved[which]
            size = np.abs(self.found.position[one, cone.rows]).max(initial=1e-300)
            margin = self.distance[one, cones.nonnegative + which] / size
            step = max(_STEP, _MARGINS_OF_STEP * margin)
            length = np.abs(self.found.point.v[one, cone.rows]).max(initial=1e-300)
            shift[pair, cone.rows] = step * length * crossing(cone)
        loss = self.relevance.random_loss(self.found.factors[instance], self.found.cost[instance])
        sides = [
            self.relevance.gradients(self._answer(instance, loss[0], loss[1], None, sign * shift))
            for sign in (1.0, -1.0)
        ]
        largest = np.abs(sides).max(axis=(0, 2), initial=0.0)
        is_kink = np.abs(sides[0] - sides[1]).max(axis=1, initial=0.0) > _SAME * largest
        self._fail(instance, is_kink, DerivativeTest.STRICT_COMPLEMENTARITY, shift != 0)
        self.distance[instance[~is_kink], cones.nonnegative + place[~is_kink]] = np.inf

    def _may_matter(self, is_near: np.ndarray) -> Bool[np.ndarray, " instances"]:
        """Tell of which instances some of the given rows may matter; the others have no margin.

        If no parameter notices a mixture of disturbances of all of them, it notices none.
        """
        cones = self.batch.structure.cones
        if any(output.from_y is not None for output in self.relevance.outputs):
            return np.any(is_near, axis=1)
        rows = np.flatnonzero(np.any(is_near, axis=1))
        mixture = np.zeros((len(rows), self.batch.structure.num_rows))
        weights = np.random.default_rng(0).uniform(0.5, 1.0, is_near.shape[1])
        e = self.found.factors[rows, self.batch.structure.num_variables :][:, : cones.num_linear]
        mixture[:, : cones.num_linear] = is_near[rows] * weights * e
        is_active = self.found.point.is_active[rows] > 0
        scale = np.square(self.found.factors[rows, self.batch.structure.num_variables :])
        scale = self.found.cost[rows, None] / scale
        found = self._answer(rows, None, mixture * is_active * scale, mixture * ~is_active)
        matters = np.zeros(len(is_near), bool)
        matters[rows] = self.relevance.to_parameters(found)
        spared = is_near[:, cones.zero :] & ~matters[:, None]
        self.distance[:, : cones.nonnegative][spared] = np.inf
        return matters

    def _closest(self, is_near: np.ndarray) -> np.ndarray:
        """Return the mask without all but the closest rows of each instance."""
        if is_near.sum(axis=1).max(initial=0) <= _MOST_CANDIDATES:
            return is_near
        num_zero = self.batch.structure.cones.zero
        distance = np.zeros(is_near.shape)
        distance[:, num_zero:] = self.distance[:, : is_near.shape[1] - num_zero]
        rank = np.argsort(np.argsort(np.where(is_near, distance, np.inf), axis=1), axis=1)
        return is_near & (rank < _MOST_CANDIDATES)

    def _are_harmless_together(
        self,
        instance: Int[np.ndarray, " candidates"],
        row: Int[np.ndarray, " candidates"],
        is_active: Bool[np.ndarray, " candidates"],
        found: Responses,
        is_failed: Bool[np.ndarray, " candidates"],
    ) -> Bool[np.ndarray, " candidates"]:
        """Tell which candidates failed alone, but do no harm as the others change sides with them.

        Args:
            instance: of each candidate, in ascending order.
            row: which row it is.
            is_active: whether it is active where the derivative was taken.
            found: the answers to a unit disturbance of each.
            is_failed: which failed alone.
        """
        is_harmless = np.zeros(len(row), bool)
        sign = np.where(is_active, -1.0, 1.0)[:, None]
        gradients, outputs = self.relevance.gradients(found), self.relevance.changes(found) * sign
        for one in np.unique(instance[is_failed]).tolist():
            own = np.flatnonzero(instance == one)
            if not 1 < len(own) <= MOST_TOGETHER:
                continue
            rows, A = row[own], self.batch.A[one if len(self.batch.A) > 1 else 0][None]
            moves = multiply_A(self.relevance.program, A, sign[own] * found.lam[own])
            responses = np.where(
                is_active[own], sign[own] * found.nu[own][:, rows], -moves[:, rows]
            )
            # In the units of the equilibrated scaling.
            e = self.found.factors[one, found.lam.shape[1] :][rows]
            unit = np.where(is_active[own], self.found.cost[one] / e, e)[:, None]
            is_harmless[own] = not is_branching(
                unit * responses.T, unit * gradients[own], outputs[own].T
            )
        return is_harmless

    def _notices_exchange(
        self, instance: Int[np.ndarray, " rows"], combination: Float[np.ndarray, "rows m"]
    ) -> Bool[np.ndarray, " rows"]:
        """Tell whether outputs respond when a dependent row takes the place of an active one.

        As its multiplier grows, those of the rows it depends on fall; the one that is zero first
        leaves. Where none does, the constraints contradict each other after a move.
        """
        rows = np.arange(len(instance))
        if not len(rows):
            return np.zeros(0, bool)
        cones = self.batch.structure.cones
        places = slice(cones.zero, cones.num_linear)
        change, y = combination[:, places], self.found.point.y[instance, places]
        falls = (change < 0) & (self.found.point.is_active[instance, places] > 0)
        steps = np.where(falls, y / np.where(falls, -change, 1.0), np.inf)
        leaving = steps.argmin(axis=1) if steps.shape[1] else np.zeros(len(rows), int)
        unit = np.zeros((len(rows), self.batch.structure.num_rows))
        unit[rows, cones.zero + leaving] = 1.0
        responds = self.relevance.to_outputs(self._answer(instance, None, unit, None))
        return responds | ~falls.any(axis=1)

    def _answer(
        self,
        instance: Int[np.ndarray, " rows"],
        gx: np.ndarray | None,
        gy: np.ndarray | None,
        gs: np.ndarray | None,
        shift: np.ndarray | None = None,
    ) -> Responses:
        """Return the answers to one right-hand side for each of the given instances.

        Args:
            instance: which; one may be there several times.
            gx: right-hand sides; see `primitives.apply`.
            gy: likewise.
            gs: likewise.
            shift: added to v.
        """
        point = self.found.point.select(instance)
        if shift is not None:
            point = dataclasses.replace(point, v=point.v + shift)
        sides = [
            None if side is None else side.reshape(len(instance), 1, -1) for side in (gx, gy, gs)
        ]
        lam, nu, _ = self.primitives.apply(
            self.prepared, self.batch.select(instance), point, *sides, threads=self.threads
        )
        return self._responses(instance, (lam[:, 0], nu[:, 0]))

    def _answer_all(
        self, instance: Int[np.ndarray, " sides"], gy: np.ndarray, gs: np.ndarray
    ) -> Responses:
        """Return the same with one factorization for each instance, however often it is there.

        Args:
            instance: of each side, in ascending order.
            gy: right-hand sides.
            gs: likewise.
        """
        rows, first, place = np.unique(instance, return_index=True, return_inverse=True)
        within = np.arange(len(instance)) - first[place]
        shape = (len(rows), int(within.max()) + 1, gy.shape[1])
        sides = np.zeros((2, *shape))
        sides[:, place, within] = gy, gs
        lam, nu, _ = self.primitives.apply(
            self.prepared,
            self.batch.select(rows),
            self.found.point.select(rows),
            None,
            *sides,
            threads=self.threads,
        )
        return self._responses(instance, (lam[place, within], nu[place, within]))

    def _responses(self, rows: np.ndarray, answer: tuple[np.ndarray, np.ndarray]) -> Responses:
        at = self.found.point.x[rows], self.found.point.y[rows]
        return Responses.of(answer, at, self.found.factors[rows], self.found.cost[rows])

    def _fail(
        self, instance: np.ndarray, is_failed: np.ndarray, test: DerivativeTest, rows: np.ndarray
    ) -> None:
        """Note that instances fail a test, and the rows that make them fail."""
        np.bitwise_or.at(self.failed, instance[is_failed], int(test))
        np.logical_or.at(self.involved, instance[is_failed], rows[is_failed])
