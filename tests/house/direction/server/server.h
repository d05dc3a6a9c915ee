// A public header of the upper room.
#pragma once

namespace flexllm::server {
int upper();
}
