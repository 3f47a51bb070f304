import pytest

from flowerlib.errors import UserError
from flowerlib.experiment import Experiment, base_name, parse_override, read_experiments
from flowerlib.files import NOTEBOOKS


def write(tmp_path, text):
    path = tmp_path / "experiments.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_defaults_are_the_papers():
    assert dict(Experiment()) == {
        "data": "flowers",
        "split_seed": 0,
        "model": "resnet18",
        "weights": "imagenet",
        "freeze": False,
        "image_size": 224,
        "seed": 0,
        "epochs": 20,
        "batch_size": 32,
        "learning_rate": 0.001,
        "momentum": 0.9,
        "lr_step": 7,
        "lr_factor": 0.1,
        "device": "auto",
        "precision": "auto",
        "repeats": 20,
        "random_crop": True,
        "flip": 0.1,
        "rotation": 30.0,
        "brightness": 0.2,
        "contrast": 0.2,
        "saturation": 0.2,
        "hue": 0.1,
        "translation": 0.1,
        # what isn't in the paper changes nothing
        "skip_bad": False,
        "exclude": None,
        "cache": True,
        "split": "auto",
        "test": 0.0,
        "folds": None,
        "fold": None,
        "class_weights": "none",
    }


def test_the_papers_three_sessions():
    sessions = read_experiments(NOTEBOOKS / "experiments.yaml")
    assert list(sessions) == ["resnet18-bs32", "resnet18-bs64", "resnet34-bs32"]
    assert sessions["resnet18-bs32"] == Experiment()
    assert sessions["resnet18-bs64"] == Experiment(batch_size=64)
    assert sessions["resnet34-bs32"] == Experiment(model="resnet34")
    assert [each.changes() for each in sessions.values()] == [{}, {"batch_size": 64}, {"model": "resnet34"}]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"epoch": 2}, "Did you mean 'epochs'"),
        ({"epochs": 0}, "at least 1"),
        ({"epochs": 2.5}, "a whole number"),
        ({"epochs": True}, "a whole number"),
        ({"epochs": "many"}, "a whole number"),
        ({"learning_rate": 0}, "above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be"),
        ({"learning_rate": float("inf")}, "a finite number"),
        ({"hue": 0.6}, "at most 0.5"),
        ({"random_crop": 1}, "true or false"),
        ({"data": ""}, "a word or a path"),
        ({"data": "a\0b"}, "a word or a path"),
        ({"weights": "\udcff"}, "a word or a path"),
        ({"folds": 5}, "go together"),
        ({"folds": 5, "fold": 5}, "first of five"),
        ({"fold": 0}, "go together"),
        ({"folds": 5, "fold": 0, "test": 0.2}, "can't be combined"),
        ({"split": "even"}, "'auto', 'random', 'stratified' or 'grouped'"),
        ({"device": "gpu"}, "'auto', 'cpu', 'cuda' or 'mps'"),
    ],
)
def test_wrong_settings_are_refused_with_what_is_allowed(settings, said):
    with pytest.raises(UserError, match=said):
        Experiment(**settings)


def test_yaml_numbers_without_a_point(tmp_path):
    path = write(tmp_path, "a:\n  learning_rate: 1e-4\n  rotation: 0\n")
    assert read_experiments(path)["a"] == Experiment(learning_rate=0.0001, rotation=0.0)


def test_overrides_replace_every_sessions_settings(tmp_path):
    path = write(tmp_path, "a:\nb:\n  epochs: 3\n")
    assert {each.epochs for each in read_experiments(path, {"epochs": 2}).values()} == {2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n  epoch: 3\n", "session 'a': There is no setting 'epoch'"),
        ("a: 3\n", "session 'a' must list settings"),
        ("a:\n  epochs: [1\n", "not valid YAML"),
        ("a:\na:\n  epochs: 3\n", "stands there twice"),
        ("../a:\n", "is not a session name"),
        ("- a\n", "must map session names"),
        ("", "must map session names"),
        ("ablations:\n", "rename the session 'ablations'"),
        ("Seeds:\n", "rename the session 'Seeds'"),
        ("a:\nA:\n", "rename one of the two sessions 'A'"),
        ("a:\n  seeds: [1]\na-seed1:\n", "rename one of the two sessions 'a-seed1'"),
        ("a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path, text, said):
    with pytest.raises(UserError, match=said) as caught:
        read_experiments(write(tmp_path, text))
    assert "experiments.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        read_experiments(tmp_path / "nowhere.yaml")


def test_overrides_of_the_command_line_are_typed():
    assert parse_override("epochs=2") == ("epochs", 2)
    assert parse_override("random_crop=false") == ("random_crop", False)
    assert parse_override("data=/a=b") == ("data", "/a=b")
    for wrong in ("epochs", "=2", "epochs=[1"):
        with pytest.raises(UserError, match="--set"):
            parse_override(wrong)


def test_an_entry_with_seeds_stands_for_a_session_a_seed(tmp_path):
    path = write(tmp_path, "slow:\n  learning_rate: 0.0005\n  seeds: [0, 3]\nquick:\n")
    sessions = read_experiments(path)
    assert list(sessions) == ["slow-seed0", "slow-seed3", "quick"]
    assert [sessions[name].seed for name in sessions] == [0, 3, 0]
    assert sessions["slow-seed3"].learning_rate == 0.0005
    assert list(read_experiments(path, {"seed": 7})) == ["slow", "quick"]
    assert list(read_experiments(path, {"seeds": [1]})) == ["slow-seed1", "quick-seed1"]


@pytest.mark.parametrize("seeds", ["2", "[]", "[0, 0]", "[0.5]", "[a]", "{0: 1}", "[-1]", "[[0]]"])
def test_wrong_seeds_are_named(tmp_path, seeds):
    with pytest.raises(UserError, match=r"session 'slow'.*seed"):
        read_experiments(write(tmp_path, f"slow:\n  seeds: {seeds}\n"))


def test_the_ablations_leave_out_one_part_each():
    base, *others = read_experiments(NOTEBOOKS / "ablations.yaml").values()
    assert base == Experiment()
    assert len({tuple(other.changes()) for other in others}) == len(others) == 9
    assert all(other.changes() for other in others)


def test_a_notebook_that_lacks_a_setting_or_misspells_it_is_refused():
    variables = {**dict(Experiment()), "session": "a", "epochs": 3}
    assert Experiment.from_notebook(variables) == Experiment(epochs=3)
    variables["rotatoin"] = variables.pop("rotation")
    with pytest.raises(UserError, match=r"lack the setting 'rotation'\. Is it 'rotatoin'"):
        Experiment.from_notebook(variables)


def test_folds_stand_for_a_session_each(tmp_path):
    path = write(tmp_path, "own:\n  folds: 3\n  split: stratified\n")
    sessions = read_experiments(path)
    assert list(sessions) == ["own-fold0", "own-fold1", "own-fold2"]
    assert sessions["own-fold1"] == Experiment(split="stratified", folds=3, fold=1)
    assert {base_name(name, each) for name, each in sessions.items()} == {"own"}
    assert list(read_experiments(write(tmp_path, "own:\n"), {"folds": 2})) == ["own-fold0", "own-fold1"]
    for wrong in ("own: {folds: 3, seeds: [0, 1]}\n", "own: {folds: 1}\n"):
        with pytest.raises(UserError, match="session 'own'"):
            read_experiments(write(tmp_path, wrong))
