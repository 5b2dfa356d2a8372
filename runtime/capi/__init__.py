"""The runtime for C and C++: `libgconet.so`, whose interface is `gconet.h`."""
