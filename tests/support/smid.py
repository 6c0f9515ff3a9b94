"""Which multiprocessors a stream really computes on: a kernel whose blocks write where they ran.

Run as ``python -m tests.support.smid ORDER``: holds the share of an order, prints the numbers and
what was obtained as one line of JSON. Needs a GPU and cuda-bindings.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
from typing import Any

from penstock.shares.base import HeldShare, ShareOrder
from penstock.shares.held import ShareHolder

BLOCKS = 4096

# Each block stays long enough for the others to be spread over all multiprocessors there are.
PTX = b"""
.version 6.0
.target sm_60
.address_size 64
.visible .entry where(.param .u64 out)
{
    .reg .pred %p;
    .reg .b32 %r<3>;
    .reg .b64 %rd<8>;
    mov.u64 %rd5, %clock64;
again:
    mov.u64 %rd6, %clock64;
    sub.s64 %rd7, %rd6, %rd5;
    setp.lt.s64 %p, %rd7, 20000;
    @%p bra again;
    ld.param.u64 %rd1, [out];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r1, %ctaid.x;
    mov.u32 %r2, %smid;
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd2, %rd3;
    st.global.u32 [%rd4], %r2;
    ret;
}
"""


def sms_of(share: HeldShare) -> set[int]:
    """Run the kernel on a share's stream; torch's context must be current, as it is after any use.

    Returns:
        The numbers of all multiprocessors that ran a block.
    """
    import torch

    driver = importlib.import_module("cuda.bindings.driver")
    out = torch.full((BLOCKS,), -1, dtype=torch.int32, device="cuda")
    torch.cuda.synchronize()
    module = _checked(driver.cuModuleLoadData(PTX))
    kernel = _checked(driver.cuModuleGetFunction(module, b"where"))
    arguments = ((out.data_ptr(),), (ctypes.c_void_p,))
    grid, block = (BLOCKS, 1, 1), (32, 1, 1)
    _checked(driver.cuLaunchKernel(kernel, *grid, *block, 0, share.stream, arguments, 0))
    torch.cuda.synchronize()
    return set(out.tolist())


def _checked(result: Any) -> Any:
    status, *values = result
    if int(status) != 0:
        raise RuntimeError(f"CUDA says {status}")
    return values[0] if values else None


def main() -> None:
    import torch

    torch.cuda.init()  # type: ignore[no-untyped-call]
    share = ShareHolder().hold(ShareOrder.from_json(sys.argv[1]))
    sms = sorted(sms_of(share))
    sys.stdout.write(json.dumps({"sms": sms, "obtained": share.obtained.sms}) + "\n")


if __name__ == "__main__":
    main()
