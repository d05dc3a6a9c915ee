// A process that uses a card fully and waits to be killed: it prints "ready" when a kernel runs.
#include <unistd.h>

#include <iostream>

#include "host/card/tests/demo_card.h"

int main() {
  flexllm::card::test::DemoCard card;
  xrt::kernel spin = card.kernel("spin");
  xrt::bo out = card.buffer(spin, 1);
  xrt::bo large(card.device, 64u << 20, 5);
  large.sync(XCL_BO_SYNC_BO_TO_DEVICE);
  xrt::run run = spin(600000u, out);
  std::cout << "ready" << std::endl;
  ::pause();
}
