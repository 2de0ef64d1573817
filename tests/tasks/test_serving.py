"""Samples of what is served, from files of the form that a task's own are of."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from compress import Recipe, Task
from compress.errors import DataError, RecipeError
from compress.preprocessing import ImagePreprocessing
from compress.task import slice_key
from compress.tasks import TaskConfig, make_task
from compress.tasks.arrays import ArrayDataset
from compress.tasks.serving import read_serving
from compress.training.data import head, is_labeled


def picture(path, value, size=(10, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)


def read(task, path, **options):
    return read_serving(task, path, "task.serving", options)


@pytest.fixture(scope="module")
def digits():
    return make_task("digits")


def test_a_folder_for_each_class_is_labeled_by_the_tasks_own_classes(digits, tmp_path):
    picture(tmp_path / "7" / "a.png", 0)
    picture(tmp_path / "7" / "b.png", 255)
    found = read(digits, tmp_path)
    image, label = found[1]
    assert (len(found), int(label)) == (2, 7)
    form = digits.preprocessing
    assert image.shape == (1, 8, 8)
    assert image == pytest.approx((16 - form.mean[0]) / form.std[0])
    assert not is_labeled(found.without_labels())


def test_images_alone_have_no_labels(digits, tmp_path):
    picture(tmp_path / "a.png", 40)
    assert not is_labeled(read(digits, tmp_path))
    assert read(digits, tmp_path)[0].shape == (1, 8, 8)


def test_a_folder_that_is_no_class_is_named(digits, tmp_path):
    picture(tmp_path / "seven" / "a.png", 0)
    with pytest.raises(DataError, match=r"task.serving: .*seven is a folder of images and is cal"):
        read(digits, tmp_path)
    picture(tmp_path / "b.png", 0)
    with pytest.raises(DataError, match="holds both images and folders of images"):
        read(digits, tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        read(digits, tmp_path / "gone")


def test_bytes_in_npz_are_pictures_and_other_numbers_are_inputs(digits, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "bytes.npz", x=pixels, y=np.arange(5))
    np.savez(tmp_path / "inputs.npz", x=rng.standard_normal((5, 1, 8, 8), dtype=np.float32))
    np.savez(tmp_path / "large.npz", x=np.zeros((5, 9, 8), np.uint8))
    image, label = read(digits, tmp_path / "bytes.npz")[4]
    assert (image.dtype, int(label)) == (torch.float32, 4)
    assert not is_labeled(read(digits, tmp_path / "inputs.npz"))
    with pytest.raises(DataError, match=r"8 by 8 pixels with 1 channel behind; got the shape \(5,"):
        read(digits, tmp_path / "large.npz")


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        (ImagePreprocessing(4, 6, 1, "stretch"), (1, 4, 6)),
        (ImagePreprocessing(4, 4, 3, "contain"), (3, 4, 4)),
        (ImagePreprocessing(4, 4, 3, resize=6, layout="hwc"), (4, 4, 3)),
    ],
)
def test_images_are_brought_to_any_form_that_a_task_says(tmp_path, form, wanted):
    picture(tmp_path / "a.png", 255, (20, 10))
    data = ArrayDataset(torch.zeros(2, *wanted))
    found = read(Task("own", data, data, data, preprocessing=form), tmp_path)[0]
    assert tuple(found.shape) == wanted
    if form.fit == "contain":
        assert found[:, 2:] == pytest.approx(form.fill / 255)
        assert found[:, :2] == pytest.approx(1)
    else:
        assert found == pytest.approx(1)


def test_columns_have_the_classes_of_the_task_whichever_are_there(tmp_path):
    numbers = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=numbers, y=np.array(["a", "b", "c"] * 20))
    np.savez(tmp_path / "new.npz", x=numbers[:4], y=np.array(["c", "c", "b", "c"]))
    np.savez(tmp_path / "odd.npz", x=numbers[:1], y=np.array(["d"]))
    task = make_task(TaskConfig(name="npz", path=tmp_path / "data.npz"))
    assert head(read(task, tmp_path / "new.npz"), 4).labels.tolist() == [2, 2, 1, 2]
    with pytest.raises(DataError, match="the label d is none of the task's classes, a, b, c"):
        read(task, tmp_path / "odd.npz")
    (tmp_path / "new.txt").write_text("1 2 3")
    with pytest.raises(DataError, match=r"give a file .npz or .parquet with the columns"):
        read(task, tmp_path / "new.txt")


def test_features_of_parquet_are_joined_and_the_label_may_miss(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    def write(name, **columns):
        parquet.write_table(pyarrow.table(columns), tmp_path / name)

    write("data.parquet", w=[1.0] * 40, h=[2.0, 3.0] * 20, kind=["a", "b"] * 20)
    write("new.parquet", h=[5.0, 6.0], w=[1.0, 1.0])
    options = {"features": ["w", "h"], "label": "kind"}
    task = make_task(TaskConfig(name="parquet", path=tmp_path / "data.parquet", **options))
    found = read(task, tmp_path / "new.parquet", **options)
    assert found[1].tolist() == [1.0, 6.0]
    write("labeled.parquet", h=[5.0], w=[1.0], kind=["b"])
    assert int(read(task, tmp_path / "labeled.parquet", **options)[0][1]) == 1


def test_texts_become_windows_of_the_tasks_characters(tmp_path):
    (tmp_path / "texts.txt").write_text("\n\n".join(f"entry number {n}" for n in range(60)))
    (tmp_path / "new.txt").write_text("something else that is long enough\nand more of it")
    task = make_task(TaskConfig(name="language", path=tmp_path / "texts.txt", length=8))
    tokens, following = read(task, tmp_path / "new.txt")[1]
    own_tokens, _ = task.test[0]
    assert (tokens.dtype, tokens.shape) == (own_tokens.dtype, own_tokens.shape)
    assert tokens[1:].tolist() == following[:-1].tolist()


def test_masks_and_boxes_are_read_where_they_lie(tmp_path):
    picture(tmp_path / "m" / "images" / "0.png", 90, (32, 32))
    picture(tmp_path / "m" / "masks" / "0.png", 1, (32, 32))
    data = ArrayDataset(torch.zeros(2, 1, 32, 32))
    form = ImagePreprocessing(32, 32, 1, "contain")
    task = Task("own", data, data, data, classes=("ground", "road"), preprocessing=form)
    _, mask = read(task, tmp_path / "m")[0]
    assert mask.unique().tolist() == [1]
    picture(tmp_path / "b" / "0.png", 90, (32, 32))
    boxes = {"id": 1, "image_id": 1, "category_id": 2, "bbox": [4, 4, 8, 8]}
    facts = {
        "images": [{"id": 1, "file_name": "0.png", "width": 32, "height": 32}],
        "categories": [{"id": 1, "name": "ground"}, {"id": 2, "name": "road"}],
        "annotations": [boxes],
    }
    (tmp_path / "b" / "boxes.json").write_text(json.dumps(facts))
    _, labels = read(task, tmp_path / "b")[0]
    assert labels["boxes"].tolist() == [[4, 4, 12, 12]]
    facts["categories"][0]["name"] = "sky"
    (tmp_path / "b" / "boxes.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="has the categories sky, road, and the task's data have"):
        read(task, tmp_path / "b")


# -- in a recipe, and in Python ---------------------------------------------------------------


def test_a_recipe_names_samples_and_slices_beside_itself(tmp_path):
    picture(tmp_path / "seen" / "3" / "a.png", 0)
    picture(tmp_path / "night" / "b.png", 0)
    (tmp_path / "r.yaml").write_text(
        "name: r\ntask: {name: digits, serving: seen, slices: {night: night}, inputs_only: true}\n"
        "model: {arch: mlp}\nstages: [{kind: quantize}]\n"
    )
    recipe = Recipe.load(tmp_path / "r.yaml")
    task = recipe.make_task()
    assert list(task.served) == ["serving", slice_key("night")]
    assert not is_labeled(task.serving)
    assert Recipe.loads(recipe.dumps()).task.slices == {"night": tmp_path / "night"}
    assert (
        "slices" not in Recipe.loads("name: r\ntask: digits\nstages: [{kind: quantize}]\n").dumps()
    )


@pytest.mark.parametrize("name", ["../x", "", "a|b", "x" * 31])
def test_names_of_slices_are_words(name):
    task = f"task: {{name: digits, slices: {{{json.dumps(name)}: a}}}}"
    text = f"name: r\n{task}\nstages: [{{kind: quantize}}]\n"
    with pytest.raises(RecipeError, match="slices"):
        Recipe.loads(text)


def test_a_task_in_python_takes_samples_of_any_kind_and_says_what_is_none():
    data = [torch.zeros(3)] * 4
    task = Task("own", data, data, data, serving=iter(data), slices={"dark": data})
    assert len(task.serving) == 4
    with pytest.raises(DataError, match="the serving sample is empty"):
        Task("own", data, data, data, serving=[])
    with pytest.raises(DataError, match="slices are data sets by name"):
        Task("own", data, data, data, slices=[data])
    with pytest.raises(DataError, match="the name of a slice is up to 30"):
        Task("own", data, data, data, slices={"serving": data})


def test_serving_texts_are_cut_to_the_length_that_is_deployed():
    from compress.data.fields import Fields

    short, long = [{"ids": torch.arange(n)} for n in (3, 9)]
    fields = Fields(inputs=["ids"], padding=0)
    task = Task("own", [short], [short], [short], fields=fields, serving=[long, short])
    assert head(task.serving, 2).inputs["ids"].tolist() == [[0, 1, 2], [0, 1, 2]]
