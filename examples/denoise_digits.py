# SPDX-License-Identifier: Apache-2.0
"""Learn how to denoise digits: a network chooses the weights of a convex problem.

Total-variation denoising asks for the image x nearest to a noisy y whose neighbouring
pixels differ little:

    minimize ½ ‖x − y‖² + Σ w_ij |x_i − x_j|   subject to   0 ≤ x ≤ 1

With one weight for every pair of neighbours it blurs the strokes. Here a small convolutional
network looks at y and chooses all 112 weights; it learns through the solution of the problem.
The baseline is the best single weight, found by search.

    python examples/denoise_digits.py [--steps 200] [--output output/denoise_digits.png]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import cvxpy as cp
import matplotlib as mpl
import numpy as np
import torch
from sklearn.datasets import load_digits

from cvxlayer.torch import Layer

mpl.use("Agg")
import matplotlib.pyplot as plt

SIZE, NOISE, BATCH, HELD_OUT = 8, 0.25, 32, 297


def build_layer() -> Layer:
    """The denoiser: (noisy image, weights across, weights down) ↦ clean image."""
    image, noisy = cp.Variable((SIZE, SIZE)), cp.Parameter((SIZE, SIZE), name="noisy")
    across = cp.Parameter((SIZE, SIZE - 1), nonneg=True, name="across")
    down = cp.Parameter((SIZE - 1, SIZE), nonneg=True, name="down")
    variation = cp.sum(cp.multiply(across, cp.abs(cp.diff(image, axis=1))))
    variation += cp.sum(cp.multiply(down, cp.abs(cp.diff(image, axis=0))))
    objective = cp.Minimize(0.5 * cp.sum_squares(image - noisy) + variation)
    problem = cp.Problem(objective, [image >= 0, image <= 1])
    return Layer(problem, parameters=[noisy, across, down], variables=[image])


class Denoiser(torch.nn.Module):
    """A network that chooses the weights, followed by the layer that uses them."""

    def __init__(self, layer: Layer, weight: float) -> None:
        super().__init__()
        self.layer = layer
        self.network = torch.nn.Sequential(
            torch.nn.Conv2d(1, 24, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(24, 24, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(24, 2, 3, padding=1),
        )
        # What each pair of pixels adds, whatever the image: strokes avoid the border.
        self.place = torch.nn.Parameter(torch.full((2, SIZE, SIZE), weight).log())
        with torch.no_grad():
            self.network[-1].weight.mul_(0.1)

    def weights(self, noisy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights of (pixel, right neighbour) and (pixel, lower neighbour)."""
        chosen = (self.network(noisy[:, None]) + self.place).exp()
        return chosen[:, 0, :, :-1], chosen[:, 1, :-1, :]

    def forward(self, noisy: torch.Tensor) -> torch.Tensor:
        return self.layer(noisy, *self.weights(noisy))[0]


def denoise_with_one_weight(layer: Layer, noisy: torch.Tensor, weight: float) -> torch.Tensor:
    across, down = torch.full((SIZE, SIZE - 1), weight), torch.full((SIZE - 1, SIZE), weight)
    return layer(noisy, across, down)[0]


def decibels(image: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of each image; the peak is 1."""
    return -10 * torch.log10(((image - clean) ** 2).mean((-1, -2)))


def load_images() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """Images to train on, images held out, and the digits that the latter show."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.images))
    images = torch.tensor(digits.images[order] / 16)
    return images[HELD_OUT:], images[:HELD_OUT], digits.target[order[:HELD_OUT]]


def add_noise(clean: torch.Tensor) -> torch.Tensor:
    return clean + NOISE * torch.randn(clean.shape)


def find_best_single_weight(layer: Layer, clean: torch.Tensor) -> float:
    """The single weight that is best on the images to train on."""
    noisy = add_noise(clean)
    weights = np.arange(0.02, 0.21, 0.01).tolist()
    quality = [
        decibels(denoise_with_one_weight(layer, noisy, weight), clean).mean() for weight in weights
    ]
    return weights[int(np.argmax(quality))]


def train(
    denoiser: Denoiser, images: torch.Tensor, noisy: torch.Tensor, clean: torch.Tensor, steps: int
) -> list[tuple[int, float]]:
    """Minimize the squared error on fresh noise; return (step, quality on held-out images)."""
    places = [denoiser.place]
    optimizer = torch.optim.Adam(
        [{"params": denoiser.network.parameters(), "lr": 0.008}, {"params": places, "lr": 0.05}]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    history: list[tuple[int, float]] = []
    start = time.perf_counter()
    for step in range(steps + 1):
        if step % max(steps // 25, 1) == 0:
            with torch.no_grad():
                history.append((step, decibels(denoiser(noisy), clean).mean().item()))
            if step % max(steps // 5, 1) == 0:
                seconds = time.perf_counter() - start
                print(f"  step {step:3d}   held out {history[-1][1]:.2f} dB   {seconds:4.1f} s")
        if step == steps:
            break
        batch = images[torch.randint(len(images), (BATCH,))]
        loss = ((denoiser(add_noise(batch)) - batch) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return history


INK, FAINT, BLUE, ORANGE = "#1f2937", "#9ca3af", "#2563eb", "#ea580c"


@dataclasses.dataclass(frozen=True)
class Results:
    """What the picture shows: held-out images in four states, and how training went."""

    states: dict[str, torch.Tensor]
    clean: torch.Tensor
    digits: np.ndarray
    history: list[tuple[int, float]]
    weights: tuple[torch.Tensor, torch.Tensor]

    def mean_decibels(self, state: str) -> float:
        return decibels(self.states[state], self.clean).mean().item()


def draw_digits(figure: Any, results: Results, shown: list[int]) -> None:
    """One row of images for each state, with the quality of each image above it."""
    axes = figure.subplots(len(results.states), len(shown))
    for line, (name, images) in zip(axes, results.states.items(), strict=True):
        is_clean = images is results.clean
        quality = "" if is_clean else f"\n{results.mean_decibels(name):.1f} dB"
        line[0].set_ylabel(f"{name}{quality}", rotation=0, ha="right", va="center", labelpad=8)
        for axis, image, target in zip(line, images[shown], results.clean[shown], strict=True):
            axis.imshow(image.numpy(), cmap="gray_r", vmin=0, vmax=1)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_color(FAINT)
            title = "" if is_clean else f"{decibels(image, target).item():.1f}"
            axis.set_title(title, fontsize=8, pad=2.5)
    figure.suptitle("The first held-out image of each digit (mean PSNR over all 297 on the left)")


def draw_history(axis: Any, results: Results) -> None:
    """Quality on the held-out images during training, against the best single weight."""
    steps, quality = zip(*results.history, strict=True)
    single = results.mean_decibels("best single\nweight")
    axis.plot(steps, quality, color=BLUE, linewidth=2)
    axis.axhline(single, color=ORANGE, linewidth=1.5, linestyle="--")
    axis.annotate("weights learned", (steps[-1], quality[-1]), (0, -6), color=BLUE,
                  textcoords="offset points", ha="right", va="top")  # fmt: skip
    axis.annotate("best single weight", (steps[-1], single), (0, 4), color=ORANGE,
                  textcoords="offset points", ha="right")  # fmt: skip
    axis.set(xlabel="training step", title="PSNR on held-out images, dB")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e5e7eb")


def draw_weights(axis: Any, noisy: torch.Tensor, across: torch.Tensor, down: torch.Tensor) -> None:
    """The weights the network chose for one noisy image: a thick line holds two pixels together."""
    axis.imshow(noisy.numpy(), cmap="gray_r", vmin=0, vmax=1.6)
    for weights, shift in ((across, (0, 1)), (down, (1, 0))):
        for (row, column), weight in np.ndenumerate(weights.numpy()):
            x, y = (column, column + shift[1]), (row, row + shift[0])
            axis.plot(x, y, color=BLUE, linewidth=min(10 * weight, 5))
    axis.set(xticks=[], yticks=[], title="weights chosen for the noisy 5\n(thick: held together)")
    axis.spines[:].set_color(FAINT)


def draw(path: Path, results: Results) -> None:
    """Save the picture."""
    plt.rcParams.update({"font.size": 9.5, "text.color": INK, "axes.labelcolor": INK})
    plt.rcParams.update({"axes.titlesize": 10, "figure.titlesize": 10.5})
    shown = [int(np.argmax(results.digits == digit)) for digit in range(10)]
    figure = plt.figure(figsize=(13, 4.75), dpi=120, layout="constrained", facecolor="white")
    left, right = figure.subfigures(1, 2, width_ratios=[2.9, 1], wspace=0.02)
    draw_digits(left, results, shown)
    upper, lower = right.subplots(2, 1, height_ratios=[1, 1.3])
    draw_history(upper, results)
    example = shown[5]
    across, down = results.weights
    draw_weights(lower, results.states["noisy"][example], across[example], down[example])
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def main(steps: int, output: Path) -> Results:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)  # The network is tiny; the engine has threads of its own.
    images, clean, digits = load_images()
    noisy, layer = add_noise(clean), build_layer()
    weight = find_best_single_weight(layer, images[:500])
    denoiser = Denoiser(layer, weight)
    print(f"Training on {len(images)} digits, {len(clean)} held out; batches of {BATCH}.")
    history = train(denoiser, images, noisy, clean, steps)
    with torch.no_grad():
        states = {
            "noisy": noisy,
            "best single\nweight": denoise_with_one_weight(layer, noisy, weight),
            "weights learned\nthrough the layer": denoiser(noisy),
            "clean": clean,
        }
        results = Results(states, clean, digits, history, denoiser.weights(noisy))
    print("PSNR on the held-out images:")
    for name in list(states)[:-1]:
        print(f"  {' '.join(name.split()):35s} {results.mean_decibels(name):5.2f} dB")
    draw(output, results)
    print(f"Picture: {output}")
    return results


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Learn the weights of a denoiser of digits.")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--output", type=Path, default=Path("output/denoise_digits.png"))
    arguments = parser.parse_args()
    main(arguments.steps, arguments.output)
