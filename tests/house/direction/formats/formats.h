// A public header of the lower room.
#pragma once

namespace flexllm::formats {
int lower();
}
