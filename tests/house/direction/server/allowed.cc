#include "formats/formats.h"
#include "server/server.h"

namespace flexllm::server {
int upper() { return formats::lower() + 1; }
}  // namespace flexllm::server
