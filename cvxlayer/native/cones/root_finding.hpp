// SPDX-License-Identifier: Apache-2.0
//
// Roots of functions of one variable, W at once: within a bracket, and from a good guess.
#pragma once

#include "../linalg/lanes.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr int kMaxRootSteps = 100;  // bisection alone narrows any bracket in these

/// The root of an increasing function by Newton's method, with bisection where a step would
/// leave the bracket. function(u, value, slope); lanes without a bracket stay where they are.
template <class L, class Function>
typename L::V find_root(const Function& function, typename L::V root, typename L::V low,
                        typename L::V high) {
  using O = Ops<L>;
  using V = typename L::V;
  using M = typename L::M;
  constexpr double kLastStep = 1e-9, kRounding = 1e-15;
  M is_searching = O::le(low, high);
  for (int pass = 0; pass < kMaxRootSteps && O::any(is_searching); ++pass) {
    V value, slope;
    function(root, value, slope);
    const M is_below = O::lt(value, V{});
    low = O::select(is_below, root, low);
    high = O::select(is_below, high, root);
    const V newton = root - value / slope;
    const M is_inside = O::ge(newton, low) & O::le(newton, high);
    const V following = O::select(is_inside, newton, 0.5 * (low + high));
    const V scale = O::max(O::splat(1.0), O::abs(following));
    const M is_last = (is_inside & O::le(O::abs(following - root), kLastStep * scale)) |
                      O::le(high - low, kRounding * scale);
    root = O::select(is_searching, following, root);
    is_searching = is_searching & ~is_last;
  }
  return root;
}

/// A root that was found from a guess, and in which lanes.
template <class L>
struct NearbyRoot {
  typename L::M found;
  typename L::V root, kept, last_step;  // `kept` is from where the last step began
};

/// Halley's method from a guess, without a bracket: for guesses that are good. Lanes that do not
/// settle at once, or further than `limit` from zero, are not found; they need `find_root`.
/// function(u, value, slope, curvature) returns a number to be kept.
template <class L, class Function>
NearbyRoot<L> find_root_nearby(const Function& function, typename L::V guess, double limit) {
  using O = Ops<L>;
  using V = typename L::V;
  using M = typename L::M;
  // The next step would be the cube of the last one.
  constexpr double kLastStep = 1e-5;
  constexpr int kMaxSteps = 4;
  NearbyRoot<L> at{O::none(), guess, O::splat(1.0), V{}};
  M is_searching = O::lt(O::abs(guess), O::splat(limit));
  for (int pass = 0; pass < kMaxSteps && O::any(is_searching); ++pass) {
    V value, slope, curvature;
    const V kept = function(at.root, value, slope, curvature);
    const V step = value * slope / (0.5 * value * curvature - slope * slope);
    at.root = O::select(is_searching, at.root + step, at.root);
    at.last_step = O::select(is_searching, step, at.last_step);
    at.kept = O::select(is_searching, kept, at.kept);
    is_searching = is_searching & O::lt(O::abs(at.root), O::splat(limit));
    // Newton's step, as Halley's also vanishes with the slope.
    const M is_last = is_searching & O::le(O::abs(value), kLastStep * O::abs(slope));
    at.found = at.found | is_last;
    is_searching = is_searching & ~is_last;
  }
  return at;
}

/// eˣ for the small x of a last step.
template <class V>
CVXLAYER_INLINE V exp_of_last_step(V x) {
  return 1.0 + x * (1.0 + x * (0.5 + x * (1.0 / 6.0)));
}

}  // namespace cvxlayer::CVXLAYER_ISA
