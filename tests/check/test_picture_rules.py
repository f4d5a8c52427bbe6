"""Rules about what is cut off of pictures, on pictures of odd shapes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.check.test_rules import with_code
from tests.run_files import look, write_run


def write_shapes(folder: Path, *shapes: tuple[int, int]) -> Path:
    (folder / "pictures").mkdir()
    for number, shape in enumerate(shapes):
        Image.new("RGB", shape).save(folder / f"pictures/{number}.png")
        (folder / f"pictures/{number}.txt").write_text("a shape", encoding="utf-8")
    return write_run(folder)


def test_pictures_that_lose_much_are_counted_and_the_worst_is_named(tmp_path: Path) -> None:
    run_file = write_shapes(tmp_path, (256, 256), (512, 256), (1024, 256), (256, 330))
    wide = "data.resolution=256"
    (finding,) = with_code(look(run_file, wide)[2], "SF322")
    assert (finding.values["count"], finding.values["example"]) == (1, "2.png")
    assert float(finding.values["lost"]) > 45
    assert finding.changes == ()
    (finding,) = with_code(look(run_file, wide, "data.buckets=off")[2], "SF322")
    assert (finding.values["count"], finding.values["lost"]) == (3, 75.0)
    assert with_code(look(run_file, wide, "data.longest_ratio=4")[2], "SF322") == []


def test_buckets_with_less_than_a_batch_are_counted(tmp_path: Path) -> None:
    run_file = write_shapes(tmp_path, (256, 256), (256, 256), (256, 256), (512, 256))
    plan, _survey, findings = look(run_file, "data.resolution=256", "train.batch_size=3")
    (finding,) = with_code(findings, "SF323")
    values = finding.values
    assert (values["count"], values["buckets"], values["held"]) == (1, 2, 1)
    assert [item.pictures for item in plan.buckets] == [1, 3]
    assert with_code(look(run_file, "data.resolution=256")[2], "SF323") != []
    one = look(run_file, "data.resolution=256", "train.batch_size=1")[2]
    assert with_code(one, "SF323") == []
    assert with_code(look(run_file, "data.buckets=off", "train.batch_size=9")[2], "SF323") == []


def test_each_resolution_counts_in_the_plan(tmp_path: Path) -> None:
    run_file = write_shapes(tmp_path, (256, 256), (512, 256))
    once = look(run_file, "data.resolution=128")[0]
    both, survey, _findings = look(run_file, "data.resolution=[64, 128]")
    assert (once.pictures_in_epoch, both.pictures_in_epoch) == (2, 4)
    assert (both.resolution, both.pictures) == (128, 2)
    assert sum(item.pictures for item in both.buckets) == 4
    assert once.bytes.cache < both.bytes.cache < 2 * once.bytes.cache
    assert len(survey.data) == 1
    own = look(run_file, 'data.folders=[{path="pictures", resolution=[32, 64, 96]}]')[0]
    assert (own.resolution, own.pictures_in_epoch) == (96, 6)


def test_resolution_of_a_folder_is_judged_where_it_stands(tmp_path: Path) -> None:
    run_file = write_shapes(tmp_path, (256, 256))
    asked = 'data.folders=[{path="pictures"}, {path="pictures", resolution=[64, 50]}]'
    (finding,) = with_code(look(run_file, asked)[2], "SF027")
    assert (finding.path, finding.values["resolution"]) == ("data.folders.1.resolution", 50)
