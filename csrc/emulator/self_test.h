// The emulator's tests of itself, see self_test.cpp.
#pragma once
#include <string>

namespace mimo::emulator {

std::string self_test(const std::string& name);  // the result, or "error: ..." as the launch reported it

}  // namespace mimo::emulator
