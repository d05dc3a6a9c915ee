// The description of the API as OpenAPI 3.1, served at /openapi.json: what is taken and what comes
// back, exact enough to generate tests from. Pure functions.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "server/api/openai_request.h"

namespace flexllm::server::openapi {

// `limits.vocab` 0: the model is not loaded yet. `keys`: a key is asked for.
nlohmann::ordered_json document(const RequestLimits& limits, bool keys);

}  // namespace flexllm::server::openapi
