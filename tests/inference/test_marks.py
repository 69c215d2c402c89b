import pytest

from trex2_lightning.errors import InputError
from trex2_lightning.inference.marks import check_kinds, to_boxes, typed_marks
from trex2_lightning.structures import Box, Point

SIZE = (100, 200)  # height, width
BOX, POINT = Box(1, 2, 3, 4), Point(1, 2)


def test_a_box_in_pixels_becomes_a_share_of_its_image():
    assert to_boxes("cell", [Box(20, 10, 60, 30), Box(0, 0, 200, 100)], SIZE).tolist() == [
        pytest.approx([0.2, 0.2, 0.2, 0.2]),
        pytest.approx([0.5, 0.5, 1.0, 1.0]),
    ]


def test_a_point_is_a_place_without_area():
    assert to_boxes("cell", [Point(50, 75)], SIZE).tolist() == [[0.25, 0.75, 0.0, 0.0]]


@pytest.mark.parametrize(
    ("exemplar", "written"),
    [
        ((20, 10, 201, 30), "20,10,201,30"),
        ((20, 10, 60, 101), "20,10,60,101"),
        ((-1, 10, 60, 30), "-1,10,60,30"),
        ((60, 10, 20, 30), "60,10,20,30"),
        ((20, 10, 20, 30), "20,10,20,30"),
        ((20, 30.5, 60, 30.5), "20,30.5,60,30.5"),
        ((20, 10, float("nan"), 30), "20,10,nan,30"),
    ],
)
def test_a_box_that_is_none(exemplar, written):
    with pytest.raises(InputError) as error:
        to_boxes("cell", [Box(0, 0, 1, 1), Box(*exemplar)], SIZE)
    assert str(error.value) == (
        f"{written} of 'cell' is no box in its image of 200 x 100 pixels: "
        "write x1,y1,x2,y2 with x1 < x2 and y1 < y2, from 0,0 to 200,100"
    )


@pytest.mark.parametrize("exemplar", [(201, 5), (5, 101), (-0.5, 5), (float("inf"), 5)])
def test_a_point_that_is_none(exemplar):
    with pytest.raises(InputError, match="is no point in its image of 200 x 100 pixels: write x,y, from 0,0 to"):
        to_boxes("cell", [Point(*exemplar)], SIZE)


def test_categories_may_differ_in_kind():
    check_kinds([{"cell": [BOX, Box(5, 6, 7, 8)], "nucleus": [POINT]}, {"cell": [BOX]}])


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([{"cell": [BOX, POINT]}], "'cell' has a box and a point: give exemplars of one kind"),
        ([{"cell": [BOX]}, {"cell": [POINT]}], "'cell' has a box and a point"),
        ([{"cell": [(1, 2, 3, 4)]}], r"the exemplar \(1, 2, 3, 4\) of 'cell' is none: make it a Box or Point of"),
        ([{"cell": []}], "'cell' has no exemplar"),
    ],
)
def test_exemplars_that_are_none(images, message):
    with pytest.raises(InputError, match=message):
        check_kinds(images)


def test_a_reference_may_begin_at_home(monkeypatch):
    """No shell replaces the `~` behind `NAME=`."""
    monkeypatch.setenv("HOME", "/somewhere")
    assert typed_marks({"reference": ["cell=~/a.jpg:1,2"]}) == {"/somewhere/a.jpg": {"cell": [POINT]}}
    assert typed_marks({"box": ["cell=1,2,3,4"]}) == {"": {"cell": [BOX]}}
