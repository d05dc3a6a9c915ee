#include "formats/formats.h"

namespace flexllm::formats {
int lower() { return 1; }
}  // namespace flexllm::formats
