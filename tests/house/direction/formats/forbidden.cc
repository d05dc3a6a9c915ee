#include "server/server.h"

namespace flexllm::formats {
int lower() { return server::upper(); }
}  // namespace flexllm::formats
