"""Pages of samples: the frames are those that the encoder got; what lies inside of a run; hostile texts."""

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from evalkit.api import Example
from evalkit.cli import main
from evalkit.errors import UserError
from evalkit.metrics import accuracy
from evalkit.results import run_folder
from evalkit.results.rows import Row
from evalkit.show.clip import clip_of, player
from evalkit.show.drawing import heat_maps, png
from evalkit.show.feature_map import main_directions, vector
from tests.browser import MISSING, available, browser
from tests.hostile import told
from tests.leaderboard.boards import put

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("decoding_here")]

HOSTILE = '</style><script>window.hostile = 1</script><img src=x onerror="window.hostile = 1">'


def page(run: Path, out: Path, *words: object) -> str:
    assert main(["show", str(run), f"out={out}", *map(str, words)]) == 0
    return out.read_text() if out.suffix == ".html" else ""


def pictures(html: str, kind: str = "") -> list[np.ndarray]:
    """The pixels of a page's frames, or of what is laid over them."""
    mark = f'<img class="{kind}" src=' if kind else "<img src="
    found = re.findall(re.escape(mark) + '"data:image/png;base64,([^"]*)"', html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in found]


def test_the_frames_of_a_page_are_those_that_the_encoder_got(probed: Path, given: list[Tensor], tmp_path: Path) -> None:
    good = [row for row in run_folder.load_rows(probed) if row.prediction is not None]
    of_test = given[-len(good) :]
    assert len({clip.numpy().tobytes() for clip in of_test}) == len(good)
    for row, clip in zip(good, of_test, strict=True):
        html = page(probed, tmp_path / "page.html", f"sample={row.id}")
        frames = np.stack(pictures(html))
        assert frames.dtype == np.uint8 and np.array_equal(frames, clip.permute(0, 2, 3, 1).numpy())
    assert "4 frames of 32 x 32 pixels, sampling uniform" in html
    assert re.findall(r"<span>(\d\.\d\d) s</span>", html)[:2] == ["0.00", "0.50"]


def test_a_query_shows_a_frame_of_each_of_the_five_nearest_videos(searched: Path, tmp_path: Path) -> None:
    row = run_folder.load_rows(searched)[0]
    html = page(searched, tmp_path / "page.html", f"sample={row.id}")
    near = html.partition('<section id="near">')[2].partition("</section>")[0]
    frames = pictures(near)
    assert len(frames) == 5 and len({frame.tobytes() for frame in frames}) == 5
    assert all(Path(name).name in near for name in (row.detail or {})["nearest"][:5]) and near.count(" right<") <= 1
    own = np.stack(pictures(html.partition('<section id="seen">')[2]))
    place = (row.detail or {})["nearest"].index(row.target[0])
    assert place >= 5 or np.array_equal(frames[place], own[2])  # of four frames the middle one


def test_a_page_of_a_failed_sample_says_why_it_has_no_frames(probed: Path, tmp_path: Path) -> None:
    html = page(probed, tmp_path / "page.html", "sample=broken.mp4")
    assert 'class="failed">failed</span>' in html and not pictures(html)
    assert "Its frames cannot be shown: " in html and '<section id="video">' in html


def test_where_videos_are_gone_the_rest_is_shown(probed: Path, labeled: Path, tmp_path: Path) -> None:
    """The annotations are here, and their videos are not; then neither are."""
    row = next(row for row in run_folder.load_rows(probed) if row.prediction is not None)
    root = tmp_path / "moved"
    shutil.copytree(labeled.parent, root)
    lines = (root / "videos.csv").read_text()
    (root / "videos.csv").write_text(lines)
    films = re.findall(r"^(/.*/)\d\d\.mp4", lines, re.MULTILINE)[0]
    hidden = Path(films).rename(Path(films).with_name("hidden_films"))
    try:
        html = page(probed, tmp_path / "page.html", f"sample={row.id}")
    finally:
        hidden.rename(films)
    assert "no such file" in html and "Answer</h2>" in html and not pictures(html) and "<video" not in html
    html = page(probed, tmp_path / "page.html", f"sample={row.id}", f"data.root={tmp_path / 'none.csv'}")
    assert "the task&#x27;s files are not here" in html and "Answer</h2>" in html


def test_a_small_video_is_in_the_page_and_a_large_one_by_its_path(
    films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = films / "00.mp4"
    within = player(Example("a", film, span=(0.5, 1.25)), tmp_path / "page.html")
    kind, _, rest = within.source.partition(";base64,")
    assert kind == "data:video/mp4" and rest.endswith("#t=0.5,1.25")
    assert base64.b64decode(rest.partition("#")[0]) == film.read_bytes()
    monkeypatch.setattr("evalkit.show.clip.MOST_EMBEDDED", 10)
    odd = tmp_path / "fo lder" / 'a#"b.mp4'
    odd.parent.mkdir()
    shutil.copy(film, odd)
    by_path = player(Example("a", odd, span=(1.0, 2.0)), tmp_path / "pages" / "page.html")
    assert by_path.source == "../fo%20lder/a%23%22b.mp4#t=1,2"
    assert player(Example("a", film, span=(1.0, 1.0)), films / "page.html").source == "./00.mp4#t=1"


# --- inside ----------------------------------------------------------------------------------------------------------


def test_the_map_has_a_point_per_stored_sample_and_none_where_nothing_is_stored(
    probed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(row for row in run_folder.load_rows(probed) if row.prediction is not None)
    html = page(probed, tmp_path / "page.html", f"sample={row.id}")
    assert "6 of 7 samples" in html and html.count("<title>") == 1 + 6 and html.count('class="own"') == 2
    assert "the head that this run trained was not kept" in html and not pictures(html, "heat")
    monkeypatch.setenv("EVALKIT_CACHE", str(tmp_path / "empty"))
    html = page(probed, tmp_path / "page.html", f"sample={row.id}")
    assert "features of 0 of 7 samples stored" in html and "encode=true encodes" in html
    html = page(probed, tmp_path / "page.html", f"sample={row.id}", "encode=true")
    assert "6 of 7 samples" in html


def test_words_that_the_encoder_does_not_take_write_no_page(
    probed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for word, why in [("ckpt=demo", "has other weights here"), ("adapter.form=x", "unknown key 'adapter.form'")]:
        assert why in told(capsys, "show", str(probed), "sample=first:1", f"out={tmp_path / 'a.html'}", word)
    assert not (tmp_path / "a.html").exists()


def test_where_a_trained_probe_looks_lies_over_its_frames(probed: Path, tmp_path: Path) -> None:
    head = tmp_path / "head"
    assert main(["adapt", f"config={probed / 'config.yaml'}", f"out={head}"]) == 0
    row = next(row for row in run_folder.load_rows(probed) if row.prediction is not None)
    html = page(probed, tmp_path / "page.html", f"sample={row.id}", f"adapter.from={head}")
    over = pictures(html, "heat")
    assert len(over) == 4 and {picture.shape[2] for picture in over} == {4}
    shares = [int(share) for share in re.findall(r'class="share">(\d+)%', html)]
    assert "answers otherwise" not in html
    steps = len(shares) // 2  # two frames make a time step
    assert abs(sum(shares[::2]) - 100) <= steps and shares[::2] == shares[1::2]
    weights = load_file(head / "adapters/probe/adapter.safetensors")
    turned = {name: -value if name.startswith("classify") else value for name, value in weights.items()}
    save_file(turned, head / "adapters/probe/adapter.safetensors")
    html = page(probed, tmp_path / "page.html", f"sample={row.id}", f"adapter.from={head}")
    assert "This head answers otherwise than the run's did" in html


def test_heat_is_where_attention_is_above_an_even_share() -> None:
    weights = torch.full((1, 2, 1, 4), 0.2)
    weights[:, :, :, 3] = 0.4
    found = heat_maps(weights)
    assert found is not None and found.most == pytest.approx(1.6) and found.shares[0] == pytest.approx([1.0])
    (picture,) = pictures(f'<img class="heat" src="{found.pictures[0][0]}"', "heat")
    assert picture.shape == (2, 2, 4)
    assert picture[..., 3].tolist() == [[0, 0], [0, 204]] and picture[1, 1, :3].tolist() == [213, 94, 0]
    assert heat_maps(torch.ones(1, 1, 1, 3)) is None  # no square


def test_pixels_come_out_of_a_png_as_they_went_in() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    assert np.array_equal(pictures(f'<img src="{png(pixels)}"')[0], pixels)


def test_the_map_is_what_a_singular_value_decomposition_gives() -> None:
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(50, 2, generator=generator) * torch.tensor([3.0, 1.0])
    turned = plane @ torch.linalg.qr(torch.randn(6, 6, generator=generator))[0][:2]
    points, (first, second) = main_directions(turned + 5)
    assert first + second == pytest.approx(1) and first > second
    centered = (plane - plane.mean(0)).numpy()
    found = points - points.mean(0)
    distances = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (centered, found)]
    ratio = distances[0].max() / distances[1].max()
    assert np.allclose(distances[0], distances[1] * ratio, atol=1e-4)  # turned and scaled, and nothing else
    assert points.min() >= -1e-9 and points.max() <= 1 + 1e-9
    assert main_directions(torch.ones(3, 1))[1] == (0.0, 0.0)
    assert vector(torch.arange(12.0).view(1, 2, 3, 2)).tolist() == [5.0, 6.0]


# --- pages on disk ---------------------------------------------------------------------------------------------------


def test_several_samples_have_a_page_each_and_nothing_else_is_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row(id, "v", target=1, prediction=int(id != "a/b")) for id in ("a/b", "a b", "index", "c")]
    run = put(tmp_path / "results", rows)
    out = tmp_path / "pages"
    assert main(["show", str(run), "sample=first:20", f"out={out}"]) == 0
    assert capsys.readouterr().out.strip() == str(out / "index.html")
    files = {file.name for file in out.iterdir()}
    assert len(files) == 5 and {"index.html", "c.html"} <= files
    index = (out / "index.html").read_text()
    assert all(f'href="{name}"' in index for name in files - {"index.html"})
    assert main(["show", str(run), "sample=wrong", f"out={out}"]) == 0  # its own are replaced
    capsys.readouterr()
    assert "give a folder" in told(capsys, "show", str(run), "sample=a/b,c", f"out={tmp_path / 'one.html'}")
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    assert "nothing is overwritten" in told(capsys, "show", str(run), "sample=c", f"out={mine}")
    (tmp_path / "file").write_text("mine")
    assert "is a file, and no .html" in told(capsys, "show", str(run), "sample=c", f"out={tmp_path / 'file'}")
    assert mine.read_text() == (tmp_path / "file").read_text() == "mine"


def hostile_run(folder: Path) -> Path:
    """A run whose every text tries to be a script."""
    rows = [
        Row(
            HOSTILE,
            HOSTILE,
            HOSTILE,
            target=1,
            prediction=0,
            detail={f"{HOSTILE}\x1b[2J": [1.0, 2.0], "said": f"{HOSTILE}\x1b[2J"},
        ),
        Row("\ud800 half\x1b[2J", "v", target=1, failure=f"{HOSTILE}\x1b[2J"),
    ]

    def edit(record: dict[str, object]) -> None:
        record["encoder"]["name"] = HOSTILE  # type: ignore[index]

    return put(folder, rows, edit=edit, score=accuracy)


def test_hostile_texts_are_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = hostile_run(tmp_path / "results")
    out = tmp_path / "pages"
    page(run, out, "sample=first:2")
    pages = [file.read_text() for file in out.iterdir()]
    assert len(pages) == 3
    for html in pages:
        assert "<script" not in html and "<img src=x" not in html and "default-src 'none'" in html
    assert sum("&lt;script&gt;" in html for html in pages) == 3
    for words in (["sample=first:2"], []):
        assert main(["show", str(run), *words]) == 0
        printed = capsys.readouterr().out
        assert "\ud800" not in printed and "\x1b" not in printed and HOSTILE[:20] in printed


@pytest.mark.parametrize(
    "stated", [{"frames": 10**9}, {"size": "big"}, {"share": 0.0}, {"mean": [0.5]}, {"frames": True}]
)
def test_a_clip_that_no_encoder_has_is_refused(stated: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"encoder\.clip of result\.json is"):
        clip_of({"frames": 4, "size": 32, **stated})
    assert clip_of({"frames": 4, "size": 32, "mean": [0.5, 0.5, 0.5], "later": 1}).frames == 4


@pytest.mark.skipif(not available(), reason=MISSING)
def test_a_browser_shows_frames_heat_video_and_map_on_a_desk_and_a_phone(probed: Path, tmp_path: Path) -> None:
    row = next(row for row in run_folder.load_rows(probed) if row.prediction is not None)
    page(probed, tmp_path / "page.html", f"sample={row.id}")
    page(hostile_run(tmp_path / "results"), tmp_path / "hostile", "sample=first:2")
    with browser(tmp_path / "profile") as window:
        for width in (1400, 390):
            window.size(width)
            window.open(tmp_path / "page.html")
            seen = json.loads(
                window.run(
                    """const images = [...document.querySelectorAll(".look img")];
                    await Promise.all(images.map((image) => image.decode()));
                    const video = document.querySelector("video");
                    for (let i = 0; i < 100 && video.readyState < 1; i++) await new Promise((r) => setTimeout(r, 50));
                    return JSON.stringify([images.map((image) => image.naturalWidth), video.duration,
                      document.documentElement.scrollWidth, document.querySelectorAll("#map svg title").length]);"""
                )
            )
            assert seen[0] == [32] * 4 and seen[1] == pytest.approx(2, abs=0.2) and seen[3] == 6
            assert seen[2] <= width
        assert window.errors() == []
        for file in (tmp_path / "hostile").iterdir():
            window.open(file)
            assert window.run("return window.hostile ?? null") is None
