// What can go wrong between the host and the card, as values. Made by host/, handled by callers.
#pragma once

#include <string>

namespace flexllm::host {

struct DeviceError {
  enum class Kind {
    not_found,       // no such device, or no driver
    access_denied,   // the render node may not be opened
    bad_bitstream,   // not an xclbin, another shell's, or not of this model's contract version
    busy,            // another process holds the card or another bitstream is loaded
    out_of_memory,   // a bank is full; the message names the bank, the size and what is left
    copy_failed,     // a DMA did not complete
    launch_failed,   // the kernel ended in an error state or refused its descriptor
    launch_timeout,  // the kernel did not end in time
    lost,            // the card does not answer any more
    reset_failed,    // the reset ladder did not bring it back
  };
  Kind kind = Kind::lost;
  std::string message;  // a sentence for an operator
};

const char* to_string(DeviceError::Kind kind);

}  // namespace flexllm::host
