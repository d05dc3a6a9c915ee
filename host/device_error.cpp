#include "host/device_error.h"

#include <cerrno>
#include <cstdlib>
#include <new>
#include <system_error>

namespace flexllm::host {

const char* to_string(DeviceError::Kind kind) {
  using Kind = DeviceError::Kind;
  switch (kind) {
    case Kind::not_found:
      return "not found";
    case Kind::access_denied:
      return "access denied";
    case Kind::bad_bitstream:
      return "bad bitstream";
    case Kind::bad_model:
      return "bad model";
    case Kind::busy:
      return "busy";
    case Kind::out_of_memory:
      return "out of memory";
    case Kind::copy_failed:
      return "copy failed";
    case Kind::launch_failed:
      return "launch failed";
    case Kind::launch_timeout:
      return "launch timed out";
    case Kind::lost:
      return "card lost";
    case Kind::reset_failed:
      return "reset failed";
  }
  return "unknown";
}

int error_number(const std::exception& thrown) {
  const auto* system = dynamic_cast<const std::system_error*>(&thrown);
  return system == nullptr ? 0 : std::abs(system->code().value());
}

DeviceError device_error(DeviceError::Kind kind, const std::string& doing,
                         const std::exception& thrown) {
  const int number = error_number(thrown);
  if (number == ENODEV || number == ENXIO) kind = DeviceError::Kind::lost;
  if (dynamic_cast<const std::bad_alloc*>(&thrown) != nullptr) {
    return {kind, doing + ": the driver refused the allocation"};
  }
  return {kind, doing + ": " + thrown.what()};
}

}  // namespace flexllm::host
