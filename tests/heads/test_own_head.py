"""A checkpoint's labels are a data set's classes by name, or it is said where they are not."""

import pytest

from evalkit.errors import UserError
from evalkit.heads.own_head import class_order


def test_labels_are_mapped_by_name() -> None:
    labels = ["Playing_Guitar", "air  drumming", "zumba"]
    assert class_order(labels, ["air drumming", "playing guitar", "Zumba "]) == [1, 0, 2]


def test_what_data_sets_write_around_names_is_not_part_of_them() -> None:
    templates = ["Bending [something] until it breaks", "Bending [something] so that it deforms"]
    assert class_order(templates, ["Bending something so that it deforms", "Bending something until it breaks"]) == [
        1,
        0,
    ]
    dives = ["['Inward', '35som', 'NoTwis', 'TUCK']", "['Back', '15som', '05Twis', 'FREE']"]
    assert class_order(dives, ["Back+15som+05Twis+FREE", "Inward+35som+NoTwis+TUCK"]) == [1, 0]


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (
            ["LABEL_0", "LABEL_1"],
            ["a", "b"],
            "the checkpoint does not name its 2 classes (LABEL_0, LABEL_1): give adapter.l",
        ),
        (
            ["LABEL_0", "LABEL_1", "LABEL_2"],
            ["a", "b"],
            "name its 3 classes (LABEL_0, LABEL_1, LABEL_2): give adapter.labels=FILE, a text file with their names in "
            "its order, one in each line; the data set has 2: adapter.subset=true leaves the others out",
        ),
        (["a", "LABEL_1"], ["a", "b"], "the checkpoint does not name its 2 classes (LABEL_1)"),
        (["a b", "A_B"], ["a b"], "labels 0 and 1 of the checkpoint are both 'A_B'"),
        (
            ["jogging", "swimming"],
            ["joging", "swimming"],
            "1 of its 2 labels are no class of the data set ('jogging', nearest 'joging'); 1 of the data set's 2 "
            "classes are no label of the checkpoint ('joging', nearest 'jogging'). If",
        ),
        (["a", "b", "c"], ["a", "b"], "1 of its 3 labels are no class of the data set ('c'). If"),
        (
            ["swim", "jogging"],
            ["swim", "joging", "jump"],
            "the checkpoint has 2 labels and the data set 3 classes: 2 of the classes are none of its labels "
            "('joging', nearest 'jogging'; 'jump'). adapter=probe trains",
        ),
        (
            ["LABEL_0", "LABEL_1"],
            ["a", "b", "c"],
            "the checkpoint has 2 labels and the data set 3 classes: which classes these are it does not say (LABEL_0, "
            "LABEL_1). adapter=probe trains",
        ),
        (
            ["P_q", "r", "s", "t"],
            ["p qr"],
            "4 of its 4 labels are no class of the data set ('P_q', nearest 'p qr'; 'r'; 's'; ...)",
        ),
    ],
)
def test_names_that_do_not_match_are_told(labels: list[str], classes: list[str], expected: str) -> None:
    with pytest.raises(UserError) as caught:
        class_order(labels, classes)
    assert expected in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000
