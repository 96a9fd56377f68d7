from stitching.stitch import Segment, Stitch


def test_a_route_is_told_in_the_anchors_names() -> None:
    stitch = Stitch(105, (Segment(0, 0, 1), Segment(1, 0, 4), Segment(2, 5, 12)), ((0, 0), (2, 3)))
    assert stitch.route(("ti", "s", "b")) == "ti[0:1]>s[0:4]>b[5:12]"


def test_only_one_segment_makes_an_anchor() -> None:
    assert Stitch(1, (Segment(1, 0, 12),)).is_anchor
    assert not Stitch(3, (Segment(0, 0, 1), Segment(1, 0, 12)), ((0, 0),)).is_anchor
