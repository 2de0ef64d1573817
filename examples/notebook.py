# %% [markdown]
# # From a module to a file to ship
#
# A net of your own, its data, and what training, pruning and quantizing make of it **on this
# machine**. This file is a notebook in percent format: open it in VS Code or PyCharm, or make an
# `.ipynb` of it by `jupytext --to ipynb notebook.py`. It takes a minute or two on two cores.

# %%
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset, random_split

from compress import Budget, PruneStage, QuantizeStage, Recipe, Task, TrainStage

# %% [markdown]
# ## Your data
#
# A task is three splits and a name. A split is whatever torch reads: here samples are `(image,
# label)`. Every choice looks at the validation split; the test split is for the numbers of the
# record alone.

# %%
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
samples = TensorDataset(images, torch.tensor(digits.target))
splits = random_split(samples, [0.6, 0.2, 0.2], torch.Generator().manual_seed(0))
task = Task("digits", *splits)

# %% [markdown]
# ## Your net
#
# Any `nn.Module`. It stays as it is: a copy of it is trained.

# %%
torch.manual_seed(0)
net = nn.Sequential(
    *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
    *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
    *(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
)

# %% [markdown]
# ## The recipe
#
# Stages in any order. After each the model is lowered to ONNX, compared with its module, and
# measured here. Repeated, the cell takes what is done already; edit a stage, and the run begins
# again there.

# %%
EPOCHS = 10
prune = PruneStage(ratio=0.3, round_to=8, finetune={"epochs": EPOCHS})
stages = [TrainStage(epochs=EPOCHS), prune, QuantizeStage()]
recipe = Recipe(name="digits-notebook", stages=stages, budget=Budget(accuracy_drop="2%"))
record = recipe.run(net, task, mode="quick")
record

# %% [markdown]
# ## What to do with it
#
# Rows are named by their number, by their label, or as `"advised"`. Another budget gives another
# answer:

# %%
print(record.recommend(Budget(artifact_kib=40)).reasons)

# %%
record.plot()

# %% [markdown]
# The pruned net as a module, to go on with, the file of the row that is advised, and the folder to
# ship, which runs with numpy and onnxruntime alone:

# %%
pruned = record.module("prune")
print(f"{sum(weight.numel() for weight in pruned.parameters())} parameters")

# %%
print(record.artifact("advised"))
record.ship
