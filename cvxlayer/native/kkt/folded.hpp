// SPDX-License-Identifier: Apache-2.0
//
// Which cones of three rows leave the KKT matrix of the solve, and what they leave in it; the
// arithmetic is in folded_cones.hpp.
#pragma once

namespace cvxlayer {

/// A cone whose rows are eliminated by hand, with a variable that appears besides in rows of linear
/// cones at most.
struct FoldedCone {
  int start;                    // its first row
  int own_row;                  // the local row that holds nothing but the variable
  int other_rows[2];            // the local rows besides
  int own_variable, own_entry;  // and the entry of A in that row
  int entries_begin, entries_end, terms_begin, terms_end;
};

/// Any other entry of A in its rows, and those of the variable in linear rows.
struct FoldedEntry {
  int row, entry;  // local row, or 3 for the variable; index into A
  int position;    // of what is on its other side, variable or row, among the pivots
};

/// Two of these entries, and where their product with M goes; see folded_cones.hpp.
struct FoldedTerm {
  long target;
  int first, second;  // indices into A
  int place;          // in the lower triangle of M, whose rows are p, q and t
};

}  // namespace cvxlayer
