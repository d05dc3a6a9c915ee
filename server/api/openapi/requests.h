// The schemas of request bodies, by name. A pure function.
#pragma once

#include "server/api/openapi/schema.h"

namespace flexllm::server::openapi {

// `limits.vocab` 0: not known yet, any id is taken to be one.
Json request_schemas(const RequestLimits& limits);

}  // namespace flexllm::server::openapi
