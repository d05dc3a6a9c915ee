// The schemas of replies, by name. A pure function.
#pragma once

#include "server/api/openapi/schema.h"

namespace flexllm::server::openapi {

Json response_schemas();

}  // namespace flexllm::server::openapi
