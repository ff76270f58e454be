import torch

# The networks of these tests are tiny: several threads per operation would only wait for each other on a busy machine.
torch.set_num_threads(1)
