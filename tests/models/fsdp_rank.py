"""One of two gloo ranks of test_fast_sharded.py: switched and sharded, a model has the gradients of the plain one."""

import sys

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from lang1.models.build import build_model
from lang1.models.fast import compile_model, use_fast_layers


def main(compiled: bool) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    plain, fast = (build_model("tiny", 101, seed=5, context_length=64) for _ in range(2))
    use_fast_layers(fast)
    if compiled:
        compile_model(fast)
    for layer in fast.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(fast, mesh=mesh)
    tokens = torch.randint(0, 101, (2, 33), generator=torch.Generator().manual_seed(1))
    plain(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    fast(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    for (name, wanted), ours in zip(plain.named_parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(ours.grad.full_tensor(), wanted.grad, atol=1e-5, rtol=1e-5, msg=name)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1] == "compiled")
