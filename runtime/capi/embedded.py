"""What libgconet.so runs once in its interpreter: a text that it carries. gconet.c has imported everything before."""

from gconet_native import ffi  # type: ignore[import-not-found] # made by cffi, exists inside the library only

from gconet.runtime.capi.calls import bind

bind(ffi)
