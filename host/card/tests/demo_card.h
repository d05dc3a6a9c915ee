// Shared by the tests that run on emulated cards through the real XRT API.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xrt/xrt_bo.h>
#include <xrt/xrt_device.h>
#include <xrt/xrt_kernel.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "host/card/socket_address.h"

namespace flexllm::card::test {

inline std::string bitstream(const std::string& name) {
  return std::string(CARD_TEST_BITSTREAMS) + "/" + name + ".xclbin";
}

// A card with the demo bitstream.
struct DemoCard {
  explicit DemoCard(unsigned index = 0, const std::string& name = "demo")
      : device(index), uuid(device.load_xclbin(bitstream(name))) {}

  xrt::kernel kernel(const std::string& name) { return xrt::kernel(device, uuid, name); }
  xrt::bo buffer(const xrt::kernel& kernel, int argument, std::size_t bytes = 4096) {
    return xrt::bo(device, bytes, kernel.group_id(argument));
  }

  xrt::device device;
  xrt::uuid uuid;
};

// Points the control socket at a name of this process. Before XRT's first look at the card.
inline void name_control_socket() {
  ::setenv("FLEXLLM_CARD_CONTROL", ("@flexllm-card-test-" + std::to_string(::getpid())).c_str(), 1);
}

// One command over the control socket, and its answer.
inline nlohmann::json control(const std::string& line) {
  const auto address = socket_address(std::getenv("FLEXLLM_CARD_CONTROL"));
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  std::string reply;
  if (::connect(socket, address->get(), address->length) == 0 &&
      ::send(socket, (line + "\n").data(), line.size() + 1, MSG_NOSIGNAL) > 0) {
    char bytes[4096];
    ssize_t n = 0;
    while (reply.find('\n') == std::string::npos &&
           (n = ::recv(socket, bytes, sizeof bytes, 0)) > 0) {
      reply.append(bytes, static_cast<std::size_t>(n));
    }
  }
  ::close(socket);
  return nlohmann::json::parse(reply, nullptr, false);
}

inline bool control_ok(const std::string& line) { return control(line).value("ok", false); }

}  // namespace flexllm::card::test
