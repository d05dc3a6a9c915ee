// Stand-in for AMD's ap_int.h: enough for the kernels to be parsed, never run.
#pragma once

struct ap_bits {
  ap_bits& operator=(unsigned long long value);
  operator unsigned long long() const;
};

template <int Bits>
struct ap_int {
  ap_int();
  template <typename T>
  ap_int(const T& value);
  ap_int& operator+=(long long value);
  ap_int& operator-=(long long value);
  operator long long() const;
};

template <int Bits>
struct ap_uint {
  ap_uint();
  template <typename T>
  ap_uint(const T& value);
  ap_uint& operator+=(unsigned long long value);
  ap_bits range(int high, int low);
  ap_bits range(int high, int low) const;
  operator unsigned long long() const;
};
