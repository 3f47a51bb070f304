from made_up import make_run

from flowerlib.report import sections
from flowerlib.runs import Session


def test_the_step_of_several_seeds_is_not_that_of_their_mean_curve():
    run = make_run("resnet18-bs32", curve=[0.5, 0.5, 0.6, 0.7, 0.6, 0.7])
    mirrored = make_run("resnet18-bs32", seed=1, curve=[0.5, 0.5, 0.7, 0.6, 0.7, 0.6])
    assert "changes by 0.100 from one epoch" in sections.describe_result(Session("both", (run, mirrored)))
