// What can go wrong between the host and the card, as values. Made by host/, handled by callers.
#pragma once

#include <exception>
#include <string>

namespace flexllm::host {

struct DeviceError {
  enum class Kind {
    not_found,       // no such device, or no driver
    access_denied,   // the render node may not be opened
    bad_bitstream,   // not an xclbin, another shell's, or not of this model's contract version
    bad_model,       // the packed model is damaged, or larger than the accelerator takes
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

// What XRT threw, as an error. Errors that mean that the card is gone are `lost`, whatever `kind`.
// The message is "<doing>: <what XRT said>".
DeviceError device_error(DeviceError::Kind kind, const std::string& doing,
                         const std::exception& thrown);

// The errno in what XRT threw, or 0.
int error_number(const std::exception& thrown);

}  // namespace flexllm::host
