// Attention of blocks of rows over the pages of their sequence (docs/numerics.md, section 5).
//
// Pages lie on several ports, and every port has an engine of its own: score_keys, soften_scores
// and accumulate_values over its own pages only. Across ports go maxima (combine_maxima) and exact
// integer sums (gather_outputs), so neither the number of ports nor the place of a page changes a
// bit. Keys and values are read once for all query heads of their group and all rows of a block,
// and the keys of one block are scored while the values of the block before are summed.
#pragma once

#include "kernels/modules/attention_plan.h"
#include "kernels/modules/pages.h"
#include "kernels/modules/queries.h"
#include "kernels/modules/scores.h"
#include "kernels/modules/softmax.h"
#include "kernels/modules/values.h"
